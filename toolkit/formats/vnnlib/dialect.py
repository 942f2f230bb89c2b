"""What distinguishes the generations of VNN-LIB from each other: variables, numbers, comparison signs, statements."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol

from toolkit.formats.vnnlib.query import Relation

MAX_DIGITS = 1200
"""Longest constant that is read; the smallest double written out has 1,077 characters."""

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

    def statement(self, head: str, words: Sequence[str]) -> None:
        """A top-level statement other than an assertion. Raises MalformedError."""


def double(token: str) -> float:
    """A constant as the nearest double. Raises MalformedError when it has none that is finite."""
    if len(token) > MAX_DIGITS or not math.isfinite(value := float(token)):
        raise MalformedError(f"constant {shown(token)} is out of the range of a double")
    return value


def rational(token: str) -> Fraction:
    """A constant exactly as written, under the same limits as :func:`double`."""
    if double(token) == 0.0:
        # Also keeps 1e-999999999 from being written out in full.
        return Fraction(0)
    return Fraction(token)


def shown(token: str) -> str:
    """A token for a message: quoted and not too long."""
    return repr(token if len(token) <= 40 else token[:37] + "...")
