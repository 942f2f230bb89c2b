"""APTP: trees of activation patterns (Duong et al., Generating and Checking DNN Verification Proofs, NeurIPS 2025).

A file declares inputs ``X_i``, outputs ``Y_j`` and the neurons ``N_k`` of all ReLUs, numbered from 1 in the order of
the layers; it bounds the inputs, asserts what a counterexample has, and lists the leaves, each a conjunction of phases.
The checker sees that the leaves cover all patterns, and solves a mixed-integer program about each. So a leaf needs no
more than to be without a counterexample, and neurons that it does not name are the program's to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from toolkit.certificates.proof_formats import proof_format
from toolkit.certificates.proof_tree import ProofTree
from toolkit.certificates.relu_layers import relu_layers
from toolkit.errors import InputError
from toolkit.proof.formula import FormulaAtom

Pattern = tuple[int, ...]
"""Numbers of neurons in the order of the splits, negative ones where they are inactive."""


@proof_format("aptp", suffix=".aptp")
def aptp(tree: ProofTree, case: int) -> str:
    """The proof of a case. Raises InputError for what is no chain of ReLU layers, for splits of inputs, and for a case
    that is no comparison of an output with a number or with another output."""
    layers = relu_layers(tree.network)
    if any(map(tree.splits_inputs, tree.below(tree.roots[case]))):
        raise InputError(f"case {case}: inputs are split, and APTP has splits of neurons alone; use --strategy relu")
    leaves = covering_patterns(tree, tree.roots[case], layers)
    neurons = sum(tree.network.sizes[value] for value in layers)
    lines = ["; Input variables", *(f"(declare-const X_{i} Real)" for i in range(tree.formula.inputs))]
    lines += ["", "; Output variables", *(f"(declare-const Y_{j} Real)" for j in range(tree.formula.outputs))]
    lines += ["", "; Hidden variables", *(f"(declare-pwl N_{k} ReLU)" for k in range(1, neurons + 1))]
    lines += ["", "; Input constraints", *input_constraints(tree, case)]
    lines += ["", "; Hidden constraints", "(assert (or", *map(_conjunction, leaves), "))"]
    lines += ["", "; Output constraints", f"(assert {output_constraint(tree, case)})"]
    return "\n".join(lines) + "\n"


def covering_patterns(tree: ProofTree, root: int, layers: dict[int, int]) -> list[Pattern]:
    """Leaves that cover all points of a context, none with a counterexample where the context has none.

    A split that is not between the phases of a neuron is left out: the tree of the half with more leaves, in which
    every point has a pattern, stands for the whole. Where no split is left, there is one of the first neuron.
    """
    leaves = _leaf_counts(tree, root, layers)
    found, waiting = list[Pattern](), [(root, Pattern())]
    while waiting:
        number, pattern = waiting.pop()
        children, neuron = tree.nodes[number].children, _neuron(tree, number, layers)
        if not children:
            found.append(pattern)
        elif neuron is None:
            waiting.append((max(children, key=leaves.__getitem__), pattern))
        elif neuron in pattern or -neuron in pattern:
            waiting.append((children[neuron in pattern], pattern))
        else:
            inactive, active = children
            waiting += [(active, (*pattern, neuron)), (inactive, (*pattern, -neuron))]
    return found if found != [()] else [(-1,), (1,)]


def _leaf_counts(tree: ProofTree, root: int, layers: dict[int, int]) -> dict[int, int]:
    """Leaves below each context that splits between phases alone would leave."""
    counts: dict[int, int] = {}
    for number in reversed(list(tree.below(root))):
        below = [counts[child] for child in tree.nodes[number].children]
        counts[number] = (sum(below) if _neuron(tree, number, layers) else max(below)) if below else 1
    return counts


def _neuron(tree: ProofTree, number: int, layers: dict[int, int]) -> int | None:
    """The neuron, numbered from 1, whose phases the halves of a context are."""
    half = tree.halved_at(number)
    if half is None or half.point != 0 or half.value not in layers:
        return None
    return layers[half.value] + half.place + 1


def _conjunction(pattern: Pattern) -> str:
    phases = (f"({'>=' if neuron > 0 else '<'} N_{abs(neuron)} 0)" for neuron in pattern)
    return f"    (and {' '.join(phases)})"


def input_constraints(tree: ProofTree, case: int) -> Iterator[str]:
    """The box of a case: its own ends where they are decimal numbers, else the doubles next to them outside."""
    stated, (lower, upper) = tree.formula.case(case), tree.boxes[case]
    for i in range(tree.formula.inputs):
        for sign, own, outer in ((">=", stated.lower[i], lower[i]), ("<=", stated.upper[i], upper[i])):
            yield f"(assert ({sign} X_{i} {decimal(Fraction(own)) or decimal(Fraction(float(outer)))}))"


def output_constraint(tree: ProofTree, case: int) -> str:
    """What a counterexample has: one atom, as it is all that the format takes for one claim.

    Where a case has several, it is the one that the proof uses, if no other one is used.
    """
    atoms = tree.formula.case(case).atoms
    used = sorted(tree.used_atoms(case))
    chosen = used if len(used) == 1 else range(len(atoms))
    if len(chosen) != 1:
        raise InputError(f"case {case}: its proof uses {len(chosen)} comparisons, and APTP has one in a file")
    text = _comparison(atoms[chosen[0]], tree.formula.inputs)
    if text is None:
        raise InputError(
            f"case {case}: APTP compares an output with a decimal number or with one other output, by <= or >= alone"
        )
    return text


def _comparison(atom: FormulaAtom, inputs: int) -> str | None:
    """An atom as the format has it; None for what it has not: strict signs, inputs, sums, weights, fractions."""
    if atom.strict or any(variable < inputs for variable, _ in atom.coefficients):
        return None
    outputs = [(f"Y_{variable - inputs}", Fraction(weight)) for variable, weight in atom.coefficients]
    if len(outputs) == 2 and outputs[0][1] == -outputs[1][1] and atom.constant == 0:
        (first, weight), (second, _) = outputs
        return f"(<= {first} {second})" if weight > 0 else f"(<= {second} {first})"
    if len(outputs) != 1:
        return None
    [(name, weight)] = outputs
    end = decimal(-Fraction(atom.constant) / weight)
    return None if end is None else f"({'<=' if weight > 0 else '>='} {name} {end})"


def decimal(number: Fraction) -> str | None:
    """A rational number with all its decimal places, without an exponent; None where there is no end to them."""
    rest, places = number.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1:
        return None
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else f"{digits}.0"
    return f"-{text}" if number < 0 else text
