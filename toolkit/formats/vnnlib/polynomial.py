"""Exact polynomial arithmetic for the terms of a specification.

Constants are rationals, as written, and are rounded once, when an atom is finished; so ``(+ 0.1 0.2)`` is ``0.3``.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from toolkit.tuning import tuned

Monomial = tuple[int, ...]
"""Sorted variable codes; the empty tuple is the constant."""
Polynomial = Mapping[Monomial, Fraction]
"""Coefficients that are not zero."""


class TooLargeError(Exception):
    """A product grew beyond the limits of `toolkit.tuning.SpecificationTuning`."""


def constant(value: Fraction) -> Polynomial:
    """The polynomial of degree zero with this value."""
    return {(): value} if value else {}


def variable(code: int) -> Polynomial:
    """The polynomial of one variable."""
    return {(code,): Fraction(1)}


def scale(polynomial: Polynomial, factor: int) -> Polynomial:
    """``factor * polynomial`` for a factor that is not zero."""
    return {monomial: factor * coefficient for monomial, coefficient in polynomial.items()}


def add(*summands: Polynomial) -> Polynomial:
    """The sum; terms that cancel are gone."""
    total: dict[Monomial, Fraction] = {}
    for summand in summands:
        for monomial, coefficient in summand.items():
            total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return _checked(total)


def multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    """The expanded product. Raises TooLargeError."""
    if min(len(left), len(right)) > 1 and len(left) * len(right) > tuned().specifications.most_terms:
        raise TooLargeError
    total: dict[Monomial, Fraction] = {}
    for a, x in left.items():
        for b, y in right.items():
            monomial = tuple(sorted(a + b))
            total[monomial] = total.get(monomial, Fraction(0)) + x * y
    return _checked(total)


def _checked(total: Mapping[Monomial, Fraction]) -> Polynomial:
    polynomial = {monomial: coefficient for monomial, coefficient in total.items() if coefficient}
    bits = max((c.numerator.bit_length() + c.denominator.bit_length() for c in polynomial.values()), default=0)
    limits = tuned().specifications
    if bits > limits.most_bits or max(map(len, polynomial), default=0) > limits.most_degree:
        raise TooLargeError
    return polynomial
