"""The stack machine under both readers: nested forms, token by token and without recursion.

Every open parenthesis is a frame. Closing it applies the rule of its head and hands the result to the frame around it:
a polynomial, a formula, or rows of the atom table. Comparisons leave no object behind, only rows; a run of rows between
two connectives is a block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeVar

from toolkit.formats.vnnlib import polynomial as poly
from toolkit.formats.vnnlib.atom_table import AtomTable
from toolkit.formats.vnnlib.dialect import RELATIONS, Dialect, MalformedError, rational, shown
from toolkit.formats.vnnlib.polynomial import Polynomial
from toolkit.formats.vnnlib.query import AtomBlock, Formula, conjoin, disjoin
from toolkit.registry import Registry

MAX_DEPTH = 128
"""Parentheses that may be open at once; formulas are walked recursively later on."""

TERM = r"[^\s()\[\]]+(?:\s*\[[^()\[\]]*\])?"
"""A number or a variable; the indices of a variable may contain and follow white space."""
_TOKEN = re.compile(rf"\)|{TERM}|\S", re.ASCII)
BINDERS = frozenset({"let", "forall", "exists"})
"""Heads of SMT-LIB that name variables of their own. They are told from the first, as what they bind looks like an
operator."""

T = TypeVar("T")


@dataclass(slots=True)
class Frame:
    """One open parenthesis: its head, its operands so far, and where its comparisons start in the table's rows."""

    start: int
    head: str | None = None
    operands: list[str | Polynomial] = field(default_factory=list)
    formulas: list[tuple[Formula, int, int]] = field(default_factory=list)
    """Connectives inside, each with its range of rows; the rows between them are plain comparisons."""


class FormulaMachine:
    """The open parentheses, the atoms, and the assertions that are complete."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.table = AtomTable(dialect.is_output)
        self.offset = 0
        """Where the token read last stands in the text."""
        self._stack = [Frame(0)]
        self._asserted: list[Formula] = []
        self._rows_asserted = 0

    def read(self, piece: str, offset: int) -> None:
        """What follows the opening parenthesis at an offset, up to the next one. Raises MalformedError."""
        self.offset = offset
        self.open(None)
        for match in _TOKEN.finditer(piece):
            self.offset = offset + 1 + match.start()
            if match.group() == ")":
                self.close(1)
            else:
                self._take(match.group())

    def open(self, head: str | None) -> None:
        """Open a parenthesis. Raises MalformedError."""
        if len(self._stack) > MAX_DEPTH:
            raise MalformedError(f"nested more than {MAX_DEPTH} deep")
        if len(self._stack) == 1:
            self._expect_no_stray_rows()
        self._stack.append(Frame(len(self.table.rows), head))

    def close(self, count: int) -> None:
        """Close parentheses, handing each result to the one around it. Raises MalformedError."""
        for _ in range(count):
            frame = self._stack.pop()
            if not self._stack:
                raise MalformedError("unmatched )")
            if frame.head in self.dialect.comparisons:
                self._compare(frame)
            else:
                _RULES.get(frame.head, FormulaMachine._statement)(self, frame)

    def finish(self) -> Formula:
        """The conjunction of all assertions, when everything is closed. Raises MalformedError."""
        if len(self._stack) > 1:
            raise MalformedError(f"{len(self._stack) - 1} parenthesis(es) not closed at the end of the file")
        self._expect_no_stray_rows()
        if not self._asserted:
            raise MalformedError("no assertion")
        return conjoin(self._asserted)

    def rows_in(self, frame: Frame) -> int:
        """How many comparisons stand in a frame, directly or deeper."""
        return len(self.table.rows) - frame.start

    def polynomials(self, frame: Frame) -> list[Polynomial]:
        """The operands of a frame that holds arithmetic only."""
        if self.rows_in(frame) or frame.formulas:
            raise MalformedError(f"a formula as operand of {frame.head}")
        return _some((self._polynomial(operand) for operand in frame.operands), frame)

    def formulas(self, frame: Frame, run: Callable[[int, int], Iterable[Formula]]) -> list[Formula]:
        """The operands of a connective; ``run(start, stop)`` makes formulas of the comparisons between two others."""
        if frame.operands:
            raise MalformedError(f"an operand of {frame.head or 'a parenthesis'} is not a formula")
        return _some(self._operands(frame, run), frame)

    def only_formula(self, frame: Frame) -> Formula:
        """The single operand of a frame."""
        if self.rows_in(frame) == 1 and not frame.formulas and not frame.operands:
            return AtomBlock(frame.start, frame.start + 1)
        found = self.formulas(frame, _rows)
        if len(found) != 1:
            raise MalformedError(f"{frame.head or 'a parenthesis'} takes one formula, not {len(found)}")
        return found[0]

    def give(self, result: str | Polynomial) -> None:
        """Hand an arithmetic result to the enclosing frame."""
        self._stack[-1].operands.append(result)

    def give_formula(self, frame: Frame, formula: Formula) -> None:
        """Hand the formula of a closed frame to the enclosing frame."""
        self._stack[-1].formulas.append((formula, frame.start, len(self.table.rows)))

    def add_assertion(self, formula: Formula) -> None:
        """Conjoin one assertion; only directly in the file."""
        if len(self._stack) > 1:
            raise MalformedError("assert inside another form")
        last = self._asserted[-1] if self._asserted else None
        if isinstance(formula, AtomBlock) and isinstance(last, AtomBlock):
            self._asserted[-1] = AtomBlock(last.start, formula.stop)
        else:
            self._asserted.append(formula)
        self._rows_asserted = len(self.table.rows)

    def _take(self, token: str) -> None:
        frame = self._stack[-1]
        if len(self._stack) == 1:
            raise MalformedError(f"{shown(token)} outside of parentheses")
        if frame.head is not None:
            frame.operands.append(token)
        elif self.rows_in(frame) or frame.operands or frame.formulas:
            raise MalformedError(f"unexpected {shown(token)} after a formula")
        elif token in BINDERS:
            raise MalformedError(f"{token} is not in the language of VNN-LIB: write out what its variables stand for")
        else:
            frame.head = token

    def _polynomial(self, operand: str | Polynomial) -> Polynomial:
        if not isinstance(operand, str):
            return operand
        code = self.dialect.variable(operand)
        if code is not None:
            return poly.variable(code)
        if self.dialect.number.fullmatch(operand):
            return poly.constant(rational(operand))
        raise MalformedError(f"{shown(operand)} is neither a number nor a declared variable")

    def _operands(self, frame: Frame, run: Callable[[int, int], Iterable[Formula]]) -> Iterator[Formula]:
        position = frame.start
        for formula, start, stop in (*frame.formulas, (None, len(self.table.rows), 0)):
            if position < start:
                yield from run(position, start)
            if formula is not None:
                yield formula
            position = stop

    def _compare(self, frame: Frame) -> None:
        operands = self.polynomials(frame)
        if len(operands) != 2:
            raise MalformedError(f"{frame.head} compares two operands, not {len(operands)}")
        relation, sign = RELATIONS[frame.head or ""]
        difference = poly.add(poly.scale(operands[0], sign), poly.scale(operands[1], -sign))
        try:
            self.table.rows.append(self.table.number_of(relation, difference))
        except OverflowError:
            raise MalformedError("a coefficient exceeds the largest double") from None

    def _statement(self, frame: Frame) -> None:
        if len(self._stack) > 1 and self._stack[1].head in self.dialect.ignored:
            return
        words = [operand for operand in frame.operands if isinstance(operand, str)]
        if len(self._stack) > 1 or self.rows_in(frame) or frame.formulas or len(words) < len(frame.operands):
            raise MalformedError(f"unknown operator {shown(frame.head or '')}")
        self.dialect.statement(frame.head or "", words)

    def _expect_no_stray_rows(self) -> None:
        if len(self.table.rows) > self._rows_asserted:
            raise MalformedError("a comparison outside of an assertion")


def _some(operands: Iterable[T], frame: Frame) -> list[T]:
    found = list(operands)
    if not found:
        raise MalformedError(f"{frame.head or 'a parenthesis'} without operands")
    return found


def _block(start: int, stop: int) -> Iterator[AtomBlock]:
    yield AtomBlock(start, stop)


def _rows(start: int, stop: int) -> Iterator[AtomBlock]:
    return (AtomBlock(row, row + 1) for row in range(start, stop))


_Rule = Callable[[FormulaMachine, Frame], None]
_RULES: Registry[str | None, _Rule] = Registry("rule")
_rule = _RULES.register


@_rule("assert")
def _assert(machine: FormulaMachine, frame: Frame) -> None:
    machine.add_assertion(machine.only_formula(frame))


@_rule("and")
def _and(machine: FormulaMachine, frame: Frame) -> None:
    machine.give_formula(frame, conjoin(machine.formulas(frame, _block)))


@_rule("or")
def _or(machine: FormulaMachine, frame: Frame) -> None:
    machine.give_formula(frame, disjoin(machine.formulas(frame, _rows)))


@_rule(None)
def _group(machine: FormulaMachine, frame: Frame) -> None:
    """Doubled parentheses, ``((<= Y_0 1))``; and ``()``, the empty argument list of ``declare-fun``."""
    if machine.rows_in(frame) or frame.formulas or frame.operands:
        machine.give_formula(frame, machine.only_formula(frame))
    else:
        machine.give("()")


@_rule("+")
def _plus(machine: FormulaMachine, frame: Frame) -> None:
    machine.give(poly.add(*machine.polynomials(frame)))


@_rule("-")
def _minus(machine: FormulaMachine, frame: Frame) -> None:
    first, *others = machine.polynomials(frame)
    machine.give(poly.add(first, *(poly.scale(other, -1) for other in others)) if others else poly.scale(first, -1))


@_rule("*")
def _times(machine: FormulaMachine, frame: Frame) -> None:
    machine.give(reduce(poly.multiply, machine.polynomials(frame)))
