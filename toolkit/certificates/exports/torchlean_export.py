"""The JSON of leaf boxes that TorchLean's checker ``abcrown-leaf`` reads.

A root box, and leaves: boxes inside it with lower bounds ``lb`` of functions and thresholds, of which one is below its
bound. Here the functions are the atoms of the case, in their order, each as ``w . (inputs, outputs) + c``, and the
thresholds are 0: a counterexample has all atoms at most there. The checker does not compute the bounds again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np

from toolkit.certificates.proof_formats import proof_format
from toolkit.certificates.proof_tree import ProofTree
from toolkit.errors import InputError
from toolkit.proof.bounds import Model, double_below, fresh_bounds
from toolkit.proof.linear_maps import Array


def leaf_boxes(name: str, tree: ProofTree, case: int) -> str:
    """The proof of a case, in the format of this name: a leaf for each box that is left when no more inputs are split.

    Raises InputError where a box is not refuted by one atom alone, or the bounds hold at counterexamples alone.
    """
    if (tree.network.compared >= 0).any():
        raise InputError("the network ends in a softmax, and bounds of what it compares are none of its outputs")
    if not tree.holds_everywhere(case):
        raise InputError(
            f"case {case}: ranges of neurons hold at counterexamples alone, and a leaf box has all its points"
        )
    lower, upper = tree.boxes[case]
    anywhere = bounds_in_root(tree, case)
    leaves = [leaf(tree, case, number, box, anywhere) for number, box in boxes(tree, case)]
    document = {
        "format": name,
        "input_dim": tree.formula.inputs,
        "root": {"lo": lower.tolist(), "hi": upper.tolist()},
        "leaves": leaves,
    }
    return json.dumps(document, allow_nan=False) + "\n"


proof_format("torchlean")(partial(leaf_boxes, "abcrown_leaf_artifact_v0_1"))
proof_format("torchlean-cert")(partial(leaf_boxes, "abcrown_leaf_cert_v0_1"))

Box = tuple[Array, Array]


def boxes(tree: ProofTree, case: int) -> Iterator[tuple[int, Box]]:
    """The contexts of a case at which no more inputs are split, or neurons are, with their boxes; none without points.

    They cover the box of the case, as the two halves of a box cover it.
    """
    waiting = [(tree.roots[case], tree.boxes[case])]
    while waiting:
        number, box = waiting.pop()
        if not tree.splits_inputs(number):
            yield number, box
            continue
        for child in reversed(tree.nodes[number].children):
            half, (lower, upper) = tree.nodes[child].half, (box[0].copy(), box[1].copy())
            assert half is not None
            if half.above:
                lower[half.place] = max(lower[half.place], half.point)
            else:
                upper[half.place] = min(upper[half.place], half.point)
            if lower[half.place] <= upper[half.place]:
                waiting.append((child, (lower, upper)))


def leaf(tree: ProofTree, case: int, number: int, box: Box, anywhere: list[Fraction]) -> dict[str, object]:
    """A box, with what the atoms are at least there."""
    atom, least = proved_in(tree, case, number)
    bounds = [round_down(bound) for bound in anywhere]
    bounds[atom] = max(round_down(least), bounds[atom])
    if not bounds[atom] > 0:
        raise InputError(f"case {case}: context {number} is refuted by a bound that is not above zero as a double")
    lower, upper = box
    return {
        "lo": lower.tolist(),
        "hi": upper.tolist(),
        "lb": bounds,
        "threshold": [0.0] * len(bounds),
        "witness_idx": atom,
        "witness_margin": bounds[atom],
    }


def proved_in(tree: ProofTree, case: int, number: int) -> tuple[int, Fraction]:
    """The one atom that refutes all leaves below a context, and what it is at least in all of them.

    Leaves without a point do not count. Raises InputError where leaves use several atoms, or half-spaces.
    """
    found: dict[int, Fraction] = {}
    for proof in (tree.nodes[below].leaf for below in tree.below(number)):
        if proof is None or proof.empty:
            continue
        if proof.half_spaces or proof.least is None or len(proof.atoms) > 1:
            raise InputError(
                f"case {case}: a leaf below context {number} is refuted by several atoms or by half-spaces together, "
                "and a leaf box by one atom; verify with --clipped-neurons 0"
            )
        for atom, factor in proof.atoms.items():  # with none, a positive bound says that there is no point
            found[atom] = min(found.get(atom, proof.least / factor), proof.least / factor)
    if len(found) != 1:
        raise InputError(f"case {case}: {len(found)} atoms refute the leaves below context {number}, and not one")
    return next(iter(found.items()))


def bounds_in_root(tree: ProofTree, case: int) -> list[Fraction]:
    """What the atoms of a case are at least in its whole box, from the ranges of inputs and outputs there."""
    lower, upper = tree.boxes[case]
    ranges = fresh_bounds(Model.of(tree.network), lower[None], upper[None], [])
    output = tree.network.output
    ends = [np.concatenate([end[0][0], end[output][0]]) for end in (ranges.lower, ranges.upper)]
    if not np.isfinite(ends).all():
        raise InputError(f"case {case}: an output has no finite range")
    least, greatest = ([Fraction(end) for end in side.tolist()] for side in ends)
    return [
        sum((w * (least[v] if w > 0 else greatest[v]) for v, w in atom.coefficients), Fraction(atom.constant))
        for atom in tree.formula.case(case).atoms
    ]


def round_down(number: Fraction) -> float:
    """A double that is not greater, the nearest one or the one below it. Raises InputError where there is none."""
    rounded = double_below(number)
    if not math.isfinite(rounded):
        raise InputError("a bound is below all doubles")
    return rounded
