"""A reader of VNN-LIB of its own, versions 1.0 and 2.x: the specification as cases with exact rational numbers.

A specification asserts that inputs and outputs exist with certain properties. It is rewritten as a disjunction of
*cases*. A case is a box of the inputs and atoms ``w . (inputs, outputs) + c <= 0`` or ``< 0``, all of which hold at a
point that is sought. The order of cases is that of the text: all assertions are one conjunction; an atom is a case of
its own (``!=`` is two, ``<`` before ``>``); a disjunction has its parts' cases one after the other; of a conjunction
the cases are all combinations, the last part changing fastest. Atoms with one input and nothing else bound the box,
strict ones as if they were not.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.proof.network import UnreadableError, readable, unpacked

MOST_CASES = 1 << 20
MOST_NESTED = 200
MOST_VARIABLES = 1 << 24
TOKEN = re.compile(
    r"""(?:\s+|;[^\n]*)*(?:("[^"]*"|[A-Za-z_][\w.-]*\s*\[[^\]()]*\]|\[[^\]()]*\]|[()]|<\s*2\.\d\s*>|[^\s()\[\];"]+)|(.)|$)"""
)
NUMBER = re.compile(r"[+-]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][+-]?\d{1,3})?", re.ASCII)
SIGNS = {"<=", "<", ">=", ">", "=", "==", "!="}
SILENT = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"}
FIRST_OUTPUT = 1 << 30
"""The number of Y_0 until it is known how many inputs version 1 has."""
CONSTANT = -1
"""In place of a variable's number, in a linear expression."""


class FormulaAtom(NamedTuple):
    """``sum of coefficients * variables + constant <= 0``, or ``< 0`` where it is strict."""

    coefficients: tuple[tuple[int, Any], ...]
    """Variables in ascending order with their rational weights, none of them zero."""
    constant: Any
    strict: bool


@dataclass(frozen=True)
class FormulaCase:
    """One disjunct: a box, and the atoms in the order of the text."""

    lower: list[Any]
    upper: list[Any]
    """Rational ends; infinite where an input has no bound."""
    atoms: list[FormulaAtom]
    empty: bool
    """Whether there is no point: none in the box, or an atom without variables that is false."""


@dataclass(frozen=True)
class CaseFormula:
    """A specification. Variables 0 to ``inputs - 1`` are inputs, those after them outputs."""

    inputs: int
    outputs: int
    atoms: list[FormulaAtom]
    common: list[int]
    """Atoms of all cases."""
    cases: list[tuple[int, ...]]
    """The other atoms of each case."""
    tensors: list[int]
    """Sizes of the declared tensors, inputs first; none in version 1.0."""
    digest: bytes
    name: str

    @cached_property
    def common_part(self) -> FormulaCase:
        """The box and the atoms that all cases have."""
        return self._within(FormulaCase([-math.inf] * self.inputs, [math.inf] * self.inputs, [], False), self.common)

    def case(self, number: int) -> FormulaCase:
        """A case with its box; for the number after the last, what all have in common.

        Raises UnreadableError where an input has no bound, but for a case without points.
        """
        found = self._within(self.common_part, self.cases[number] if number < len(self.cases) else ())
        unbounded = [place for place, end in enumerate(found.lower + found.upper) if isinstance(end, float)]
        if unbounded and not (found.empty and number < len(self.cases)):
            raise UnreadableError(f"{self.name}: case {number}: input {unbounded[0] % self.inputs} has no bound")
        return found

    def _within(self, outer: FormulaCase, indices: Sequence[int]) -> FormulaCase:
        """A case with more atoms; the ends are the same lists where none of these bounds an input."""
        atoms, bounding, empty = list(outer.atoms), list[FormulaAtom](), outer.empty
        for atom in map(self.atoms.__getitem__, indices):
            alone = len(atom.coefficients) == 1 and atom.coefficients[0][0] < self.inputs
            (bounding if alone else atoms).append(atom)
            empty = empty or (not atom.coefficients and (atom.constant, atom.strict) > (0, False))
        if not bounding:
            return replace(outer, atoms=atoms, empty=empty)
        lower, upper = list(outer.lower), list(outer.upper)
        for ((variable, weight),), constant, strict in bounding * 2:  # a strict one meets ends that come after it
            end = Fraction(-constant) / weight
            ends, tighter = (upper, min) if weight > 0 else (lower, max)
            ends[variable] = tighter(ends[variable], end)
            empty = empty or lower[variable] > upper[variable] or (strict and lower[variable] == end == upper[variable])
        return FormulaCase(lower, upper, atoms, empty)


def load_formula(path: Path) -> CaseFormula:
    """Read a specification. Raises UnreadableError."""
    data = unpacked(path)
    with readable(path):
        reader = SpecificationReader(data.decode(), str(path))
    digest = hashlib.sha256(data).digest()
    return CaseFormula(reader.inputs, reader.outputs, reader.atoms, *reader.cases(), reader.tensors, digest, str(path))


Tree = Any
"""A word, or a list of trees."""
Linear = dict[int, Any]
"""Rational weights of variables, and of `CONSTANT`."""


class SpecificationReader:
    """Declarations, then assertions. Numbers are rational: integers where they are 1 or -1 times a variable."""

    def __init__(self, text: str, name: str) -> None:
        self.name, self.text, self.place = name, text, 0
        self.atoms: list[FormulaAtom] = []
        self.variables: dict[str, int] = {}
        self.tensors: list[int] = []
        self.version, self.inputs, self.outputs = 1, 0, 0
        self.asserted: list[list[tuple[int, ...]]] = []
        for number, statement in enumerate(self._trees()):
            if number == 0 and self._words(statement)[:1] == ["vnnlib-version"]:
                self.version = 2
            else:
                self._statement(statement)
        if self.version == 1:
            self._number_outputs()

    def fail(self, reason: str) -> UnreadableError:
        """The error, with the line at which the reader is."""
        return UnreadableError(f"{self.name}:{self.text[: self.place].count(chr(10)) + 1}: {reason}")

    def require(self, true: bool, reason: str) -> None:
        """Refuse the text unless a condition holds."""
        if not true:
            raise self.fail(reason)

    def _words(self, tree: Tree) -> list[str]:
        """The words of a list, "()" for empty lists, other lists left out."""
        return [one or "()" for one in ([tree] if isinstance(tree, str) else tree) if isinstance(one, str) or not one]

    def _trees(self) -> Iterator[Tree]:
        """The statements of the text, one after the other: all together take much memory."""
        stack: list[list[Tree]] = [[]]
        for match in TOKEN.finditer(self.text):
            text, self.place = match[1], match.end()
            if text == "(":
                stack.append([])
            elif text == ")":
                self.require(len(stack) > 1, "a parenthesis too many")
                stack[-2].append(stack.pop())
            elif text:
                stack[-1].append("".join(text.split()))
            self.require(not match[2] and len(stack) <= MOST_NESTED, "cannot be read, or nested too deep")
            if len(stack) == 1 and stack[0]:
                yield stack[0].pop()
        self.require(len(stack) == 1, "a parenthesis is missing at the end")

    # Declarations: both versions end in names of variables, X_3 or X[0,3]

    def _statement(self, tree: Tree) -> None:
        words = self._words(tree)
        head = words[0] if words else ""
        if head == "assert" and isinstance(tree, list) and len(tree) == 2:
            self.asserted.append(self._cases(tree[1]))
        elif self.version == 1 and head in {"declare-const", "declare-fun"} and words[-1] == "Real":
            known = words[1] in self.variables or not re.fullmatch(r"[XY]_(0|[1-9]\d{0,8})", words[1], re.ASCII)
            self.require(not known, f"cannot declare {words[1]}")
            self.variables[words[1]] = int(words[1][2:]) + (FIRST_OUTPUT if words[1][0] == "Y" else 0)
        elif self.version == 2 and head == "declare-network" and not self.tensors:
            for part in tree[2:]:
                self._declare(part)
        elif self.version == 2 or head not in SILENT:
            raise self.fail(f"the statement {head!r} is not read")

    def _declare(self, tree: Tree) -> None:
        """One tensor of version 2; inputs come first."""
        words = self._words(tree)
        kind = words[0] if words else ""
        sizes = re.fullmatch(r"\w+\[([\d,]*)\]", "".join(words[2:])) if len(words) == len(tree) in {3, 4} else None
        known = kind == "declare-output" or (kind == "declare-input" and not self.outputs)
        if sizes is None or not known:
            raise self.fail("only inputs, then outputs (declare-input NAME TYPE [sizes]) are read")
        shape = [int(size) for size in sizes[1].split(",") if size]
        count, first = math.prod(shape), self.inputs + self.outputs
        places = product(*map(range, shape)) if shape and count <= MOST_VARIABLES else []
        elements = [f"{words[1]}[{','.join(map(str, place))}]" for place in places] or [words[1]]
        new = count <= MOST_VARIABLES and self.variables.keys().isdisjoint(elements)
        self.require(new, f"{words[1]} is declared twice, or too large")
        self.variables.update(zip(elements, range(first, first + count), strict=True))
        self.tensors.append(count)
        more = (count, 0) if kind == "declare-input" else (0, count)
        self.inputs, self.outputs = self.inputs + more[0], self.outputs + more[1]

    def _number_outputs(self) -> None:
        """Number the outputs of version 1, whose numbers and those of the inputs have no gaps, after the inputs."""
        self.inputs = sum(name[0] == "X" for name in self.variables)
        self.outputs = len(self.variables) - self.inputs
        wanted = [f"X_{i}" for i in range(self.inputs)] + [f"Y_{i}" for i in range(self.outputs)]
        self.require(set(wanted) == set(self.variables), "the numbers of the variables have gaps")
        for place, (terms, constant, strict) in enumerate(self.atoms):
            if terms and terms[-1][0] >= FIRST_OUTPUT:
                moved = ((v - FIRST_OUTPUT + self.inputs if v >= FIRST_OUTPUT else v, weight) for v, weight in terms)
                self.atoms[place] = FormulaAtom(tuple(moved), constant, strict)

    # Assertions

    def _linear(self, tree: Tree) -> Linear:
        """An expression as coefficients and a constant."""
        if isinstance(tree, str):
            if tree in self.variables:
                return {self.variables[tree]: 1}
            self.require(bool(NUMBER.fullmatch(tree)), f"{tree} is not declared, or no number")
            return {CONSTANT: Fraction(tree)}
        words, parts = self._words(tree[:1]), [self._linear(part) for part in tree[1:]]
        if len(tree) == 1 and not words:
            return self._linear(tree[0])
        self.require(words[:1] in (["+"], ["-"], ["*"]) and bool(parts), "this expression is not read")
        if words[0] == "*":
            return self._product(tree, parts)
        total, *others = parts if words[0] == "+" or len(parts) > 1 else [{}, *parts]
        for part in others:
            total = difference(total, part if words[0] == "-" else difference({}, part))
        return total

    def _product(self, tree: Tree, parts: list[Linear]) -> Linear:
        """The product of numbers and at most one other expression."""
        numbers = [part[CONSTANT] for part in parts if part.keys() == {CONSTANT}]
        others = [part for part in parts if part.keys() != {CONSTANT}]
        self.require(len(others) <= 1, "products of variables are not read")
        return {number: weight * math.prod(numbers) for number, weight in (others or [{CONSTANT: 1}])[0].items()}

    def _atom(self, below: Linear, strict: bool) -> int:
        kept = tuple(sorted((variable, weight) for variable, weight in below.items() if weight and variable >= 0))
        self.atoms.append(FormulaAtom(kept, below.get(CONSTANT, 0), strict))
        return len(self.atoms) - 1

    def _comparison(self, tree: Tree) -> list[tuple[int, ...]]:
        """The cases of one comparison."""
        self.require(len(tree) == 3, "a comparison has two sides")
        sign, left, right = tree[0], self._linear(tree[1]), self._linear(tree[2])
        below, above = sign not in {">=", ">"}, sign not in {"<=", "<"}
        sides = [(left, right)] * below + [(right, left)] * above
        atoms = [self._atom(difference(*side), sign in {"<", ">", "!="}) for side in sides]
        return [(atom,) for atom in atoms] if sign == "!=" else [tuple(atoms)]

    def _cases(self, tree: Tree) -> list[tuple[int, ...]]:
        """The cases of a formula, as atoms."""
        self.require(not isinstance(tree, str) and len(tree) > 0, "this formula is not read")
        if not isinstance(tree[0], str) and len(tree) == 1:
            return self._cases(tree[0])
        head = tree[0] if isinstance(tree[0], str) else ""
        if head in SIGNS:
            return self._comparison(tree)
        self.require(head in {"and", "or"} and len(tree) > 1, "this formula is not read")
        parts = [self._cases(part) for part in tree[1:]]
        count: Callable[..., int] = sum if head == "or" else math.prod
        self.require(count(map(len, parts)) <= MOST_CASES, "there are too many cases")
        return [case for part in parts for case in part] if head == "or" else combinations(parts)

    def cases(self) -> tuple[list[int], list[tuple[int, ...]]]:
        """The atoms of all cases, and the others of each."""
        several = [part for part in self.asserted if len(part) > 1]
        self.require(math.prod(map(len, several)) <= MOST_CASES, "there are too many cases")
        return [atom for part in self.asserted if len(part) == 1 for atom in part[0]], combinations(several)


def difference(left: Linear, right: Linear) -> Linear:
    """One linear expression less another."""
    result = dict(left)
    for variable, weight in right.items():
        result[variable] = result[variable] - weight if variable in result else -weight
    return result


def combinations(parts: Sequence[list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """The cases of a conjunction: one case of each part, the last part changing fastest."""
    return [tuple(atom for atoms in chosen for atom in atoms) for chosen in product(*parts)]
