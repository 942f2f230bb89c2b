"""What distinguishes the generations of VNN-LIB from each other: variables, numbers, comparison signs, statements."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import Protocol

from toolkit.formats.vnnlib.query import Relation

MAX_DIGITS = 1200
"""Longest constant that is read; the smallest double written out has 1,077 characters."""
LEAST_EXPONENT = -9999
"""Exponent below which a constant is not written out as a fraction."""
NAMING_DIGITS = 17
"""Significant digits that tell every double from all others: a decimal with no more of them is the name of one."""

RELATIONS: Mapping[str, tuple[int, int]] = {
    "<=": (int(Relation.LE), 1),
    "<": (int(Relation.LT), 1),
    ">=": (int(Relation.LE), -1),
    ">": (int(Relation.LT), -1),
    "==": (int(Relation.EQ), 1),
    "=": (int(Relation.EQ), 1),
    "!=": (int(Relation.NE), 1),
}
"""The relation to zero of ``left - right`` after multiplication with the factor. (Hashing an enum member is slow.)"""


class MalformedError(Exception):
    """What is wrong with the text; whoever knows the place turns it into an InputError."""


class Dialect(Protocol):
    """One version of the language."""

    comparisons: frozenset[str]
    """Comparison signs."""
    number: re.Pattern[str]
    """A constant."""
    ignored: frozenset[str]
    """Commands that say nothing about the problem; whatever stands in them is skipped."""

    def variable(self, token: str) -> int | None:
        """The code of a variable, or None when the token does not look like one. Raises MalformedError."""

    def is_output(self, code: int) -> bool:
        """Whether a variable's code is that of an element of an output."""

    def statement(self, head: str, words: Sequence[str]) -> None:
        """A top-level statement other than an assertion. Raises MalformedError."""


def double(token: str) -> float:
    """A constant as the nearest double. Raises MalformedError when it has none that is finite."""
    if len(token) > MAX_DIGITS or not math.isfinite(value := float(token)):
        raise MalformedError(f"constant {shown(token)} is out of the range of a double")
    return value


def rational(token: str) -> Fraction:
    """A constant exactly as written. Raises MalformedError where no finite double is near, or its exponent is less than
    `LEAST_EXPONENT`."""
    double(token)
    digits, _, exponent = token.lower().partition("e")
    if is_zero(digits):
        return Fraction(0)
    if exponent and int(exponent) < LEAST_EXPONENT:
        raise MalformedError(f"constant {shown(token)} is nearer to zero than can be read")
    return Fraction(token)


def is_zero(digits: str) -> bool:
    """Whether a decimal without an exponent has no other digits than zero."""
    return not digits.strip("+-.0")


def may_lie_between_doubles(token: str, nearest: float) -> bool:
    """Whether a constant is not simply the name of its nearest double, by its length and size alone, which takes no
    rational arithmetic; `lies_between_doubles` decides."""
    if abs(nearest) < sys.float_info.min:
        return not is_zero(token.lower().partition("e")[0])
    return len(token) > NAMING_DIGITS


def lies_between_doubles(value: Fraction) -> bool:
    """Whether a finite value is no double, and is none's name either: it has more digits than these, or is below the
    smallest normal one."""
    if Fraction(float(value)) == value:
        return False
    context = Context(prec=NAMING_DIGITS, traps=[])
    context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return abs(value) < sys.float_info.min or bool(context.flags[Inexact])


def shown(token: str) -> str:
    """A token for a message: quoted and not too long."""
    return repr(token if len(token) <= 40 else token[:37] + "...")
