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
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

from toolkit.proof.network import UnreadableError, unpacked

MOST_CASES = 1 << 20
MOST_NESTED = 200
TOKEN = re.compile(
    r'\s+|;[^\n]*|("[^"]*"|[A-Za-z_][\w.-]*\s*\[[^\]()]*\]|\[[^\]()]*\]|[()]|<\s*2\.\d\s*>|[^\s()\[\];"]+)'
)
NUMBER = re.compile(r"[+-]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][+-]?\d{1,3})?", re.ASCII)
SIGNS = {"<=", "<", ">=", ">", "=", "==", "!="}
SILENT = {"set-logic", "set-info", "set-option", "check-sat", "get-model", "exit"}


@dataclass(frozen=True)
class FormulaAtom:
    """``sum of coefficients * variables + constant <= 0``, or ``< 0`` where it is strict."""

    coefficients: tuple[tuple[int, Fraction], ...]
    constant: Fraction
    strict: bool


@dataclass(frozen=True)
class FormulaCase:
    """One disjunct: a box, and the atoms in the order of the text. ``lower > upper`` somewhere: it has no points."""

    lower: list[Fraction]
    upper: list[Fraction]
    atoms: list[FormulaAtom]

    @property
    def empty(self) -> bool:
        """Whether the box has no points."""
        return any(low > high for low, high in zip(self.lower, self.upper, strict=True))


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

    def case(self, number: int) -> FormulaCase:
        """A case with its box. Raises UnreadableError where an input has no bound."""
        lower: list[Any] = [-math.inf] * self.inputs
        upper: list[Any] = [math.inf] * self.inputs
        atoms = []
        for index in (*self.common, *self.cases[number]):
            atom = self.atoms[index]
            if len(atom.coefficients) == 1 and atom.coefficients[0][0] < self.inputs:
                variable, weight = atom.coefficients[0]
                end = -atom.constant / weight
                if weight > 0:
                    upper[variable] = min(upper[variable], end)
                else:
                    lower[variable] = max(lower[variable], end)
            else:
                atoms.append(atom)
        for variable, (low, high) in enumerate(zip(lower, upper, strict=True)):
            if math.inf in (-low, high):
                raise UnreadableError(f"{self.name}: case {number}: input {variable} has no bound")
        return FormulaCase(lower, upper, atoms)


def load_formula(path: Path) -> CaseFormula:
    """Read a specification. Raises UnreadableError."""
    data = unpacked(path)
    try:
        reader = SpecificationReader(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path}: {error}") from None
    common, cases = reader.cases()
    sizes, digest = [math.prod(shape) for _, shape in reader.tensors.values()], hashlib.sha256(data).digest()
    return CaseFormula(reader.inputs, reader.outputs, reader.atoms, common, cases, sizes, digest, str(path))


@dataclass(frozen=True)
class Word:
    """A word of the text and its line."""

    text: str
    line: int


Tree = Any
"""A `Word`, or a list of trees."""
Linear = tuple[dict[int, Fraction], Fraction]


class SpecificationReader:
    """Declarations, then assertions."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.atoms: list[FormulaAtom] = []
        self.variables: dict[str, int] = {}
        self.tensors: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.inputs = self.outputs = 0
        self.asserted: list[Tree] = []
        statements = self._trees(text)
        first = self._words(statements[0]) if statements else []
        self.version = 2 if first[:1] == ["vnnlib-version"] else 1
        for statement in statements[self.version - 1 :]:
            self._statement(statement)
        if self.version == 1:
            self._number_variables()

    def fail(self, tree: Tree, reason: str) -> UnreadableError:
        """The error that names the line."""
        while isinstance(tree, list) and tree:
            tree = tree[0]
        return UnreadableError(f"{self.name}:{tree.line if isinstance(tree, Word) else '?'}: {reason}")

    def _words(self, tree: Tree) -> list[str]:
        """The words of a list, "()" for empty lists, other lists left out."""
        parts = tree if isinstance(tree, list) else [tree]
        return [part.text if isinstance(part, Word) else "()" for part in parts if isinstance(part, Word) or not part]

    def _tokens(self, text: str) -> Iterator[Word]:
        place, line = 0, 1
        while place < len(text):
            match = TOKEN.match(text, place)
            if match is None:
                raise UnreadableError(f"{self.name}:{line}: cannot be read")
            if match[1] is not None:
                yield Word(re.sub(r"\s", "", match[1]), line)
            line += text.count("\n", place, match.end())
            place = match.end()

    def _trees(self, text: str) -> list[Tree]:
        """The statements of the text."""
        stack: list[list[Tree]] = [[]]
        for word in self._tokens(text):
            if word.text == "(":
                stack.append([])
                if len(stack) > MOST_NESTED:
                    raise self.fail(word, "nested too deep")
            elif word.text == ")":
                if len(stack) == 1:
                    raise self.fail(word, "a parenthesis too many")
                finished = stack.pop()
                stack[-1].append(finished)
            else:
                stack[-1].append(word)
        if len(stack) > 1:
            raise UnreadableError(f"{self.name}: a parenthesis is missing at the end")
        return stack[0]

    # Declarations

    def _statement(self, tree: Tree) -> None:
        words = self._words(tree)
        head = words[0] if words else ""
        if head == "assert" and isinstance(tree, list) and len(tree) == 2:
            self.asserted.append(tree[1])
        elif self.version == 1 and head in {"declare-const", "declare-fun"} and words[-1] == "Real":
            if words[1] in self.variables or not re.fullmatch(r"[XY]_(0|[1-9]\d{0,8})", words[1], re.ASCII):
                raise self.fail(tree, f"cannot declare {words[1]}")
            self.variables[words[1]] = -1
        elif self.version == 2 and head == "declare-network" and not self.tensors:
            for part in tree[2:]:
                self._declare(part)
        elif self.version == 2 or head not in SILENT:
            raise self.fail(tree, f"the statement {head!r} is not read")

    def _declare(self, tree: Tree) -> None:
        """One tensor of version 2; inputs come first."""
        words = self._words(tree)
        kind = words[0] if words else ""
        sizes = re.fullmatch(r"\w+\[([\d,]*)\]", "".join(words[2:])) if len(words) == len(tree) in {3, 4} else None
        known = kind == "declare-output" or (kind == "declare-input" and not self.outputs)
        if sizes is None or not known:
            raise self.fail(tree, "only inputs, then outputs (declare-input NAME TYPE [sizes]) are read")
        shape = tuple(int(size) for size in sizes[1].split(",") if size)
        if words[1] in self.tensors:
            raise self.fail(tree, f"{words[1]} is declared twice")
        self.tensors[words[1]] = (self.inputs + self.outputs, shape)
        if kind == "declare-input":
            self.inputs += math.prod(shape)
        else:
            self.outputs += math.prod(shape)

    def _number_variables(self) -> None:
        """Inputs and outputs of version 1 by their numbers, none left out."""
        self.inputs = sum(name[0] == "X" for name in self.variables)
        self.outputs = len(self.variables) - self.inputs
        wanted = [f"X_{i}" for i in range(self.inputs)] + [f"Y_{i}" for i in range(self.outputs)]
        if set(wanted) != set(self.variables):
            raise UnreadableError(f"{self.name}: the numbers of the variables have gaps")
        self.variables = {name: number for number, name in enumerate(wanted)}

    def _variable(self, word: Word) -> int:
        if self.version == 1:
            if word.text not in self.variables:
                raise self.fail(word, f"{word.text} is not declared, or no number")
            return self.variables[word.text]
        match = re.fullmatch(r"([A-Za-z_][\w.-]*)(?:\[(\d+(?:,\d+)*)\])?", word.text, re.ASCII)
        tensor = self.tensors.get(match[1]) if match else None
        if match is None or tensor is None:
            raise self.fail(word, f"{word.text} is not declared, or no number")
        first, shape = tensor
        indices = [int(index) for index in match[2].split(",")] if match[2] else []
        if len(indices) != len(shape) or any(i >= size for i, size in zip(indices, shape, strict=True)):
            raise self.fail(word, f"{word.text} is no element of a tensor of shape {list(shape)}")
        flat = 0
        for index, size in zip(indices, shape, strict=True):
            flat = flat * size + index
        return first + flat

    # Assertions

    def _linear(self, tree: Tree) -> Linear:
        """An expression as coefficients and a constant."""
        if isinstance(tree, Word):
            if NUMBER.fullmatch(tree.text):
                return {}, Fraction(tree.text)
            return {self._variable(tree): Fraction(1)}, Fraction(0)
        words = self._words(tree[:1])
        parts = [self._linear(part) for part in tree[1:]]
        if len(tree) == 1 and not words:
            return self._linear(tree[0])
        if not words or words[0] not in {"+", "-", "*"} or not parts:
            raise self.fail(tree, "this expression is not read")
        if words[0] == "*":
            return self._product(tree, parts)
        total: dict[int, Fraction] = {}
        constant = Fraction(0)
        for number, (coefficients, part) in enumerate(parts):
            sign = -1 if words[0] == "-" and (number > 0 or len(parts) == 1) else 1
            constant += sign * part
            for variable, weight in coefficients.items():
                total[variable] = total.get(variable, Fraction(0)) + sign * weight
        return total, constant

    def _product(self, tree: Tree, parts: list[Linear]) -> Linear:
        factor, variable = Fraction(1), None
        for part in parts:
            if not part[0]:
                factor *= part[1]
            elif variable is None:
                variable = part
            else:
                raise self.fail(tree, "products of variables are not read")
        if variable is None:
            return {}, factor
        return {number: weight * factor for number, weight in variable[0].items()}, variable[1] * factor

    def _atom(self, coefficients: dict[int, Fraction], constant: Fraction, strict: bool) -> int:
        kept = tuple((variable, weight) for variable, weight in sorted(coefficients.items()) if weight)
        self.atoms.append(FormulaAtom(kept, constant, strict))
        return len(self.atoms) - 1

    def _comparison(self, tree: Tree) -> list[tuple[int, ...]]:
        """The cases of one comparison."""
        if len(tree) != 3:
            raise self.fail(tree, "a comparison has two sides")
        (left, a), (right, b) = self._linear(tree[1]), self._linear(tree[2])
        below = {
            variable: left.get(variable, Fraction(0)) - right.get(variable, Fraction(0))
            for variable in {**left, **right}
        }
        above = {variable: -weight for variable, weight in below.items()}
        sign = tree[0].text
        strict = sign in {"<", ">", "!="}
        atoms = []
        if sign not in {">=", ">"}:
            atoms.append(self._atom(below, a - b, strict))
        if sign not in {"<=", "<"}:
            atoms.append(self._atom(above, b - a, strict))
        return [(atom,) for atom in atoms] if sign == "!=" else [tuple(atoms)]

    def _cases(self, tree: Tree) -> list[tuple[int, ...]]:
        """The cases of a formula, as atoms."""
        if not isinstance(tree, list) or not tree:
            raise self.fail(tree, "this formula is not read")
        if isinstance(tree[0], list) and len(tree) == 1:
            return self._cases(tree[0])
        head = tree[0].text if isinstance(tree[0], Word) else ""
        if head in SIGNS:
            return self._comparison(tree)
        if head not in {"and", "or"} or len(tree) == 1:
            raise self.fail(tree, "this formula is not read")
        parts = [self._cases(part) for part in tree[1:]]
        if (sum if head == "or" else math.prod)(map(len, parts)) > MOST_CASES:
            raise self.fail(tree, "there are too many cases")
        if head == "or":
            return [case for part in parts for case in part]
        return [tuple(atom for atoms in chosen for atom in atoms) for chosen in product(*parts)]

    def cases(self) -> tuple[list[int], list[tuple[int, ...]]]:
        """The atoms of all cases, and the others of each."""
        parts = [self._cases(tree) for tree in self.asserted]
        common = [atom for part in parts if len(part) == 1 for atom in part[0]]
        several = [part for part in parts if len(part) > 1]
        if math.prod(map(len, several)) > MOST_CASES:
            raise UnreadableError(f"{self.name}: there are too many cases")
        return common, [tuple(atom for atoms in chosen for atom in atoms) for chosen in product(*several)]
