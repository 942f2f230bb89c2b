"""Cases that no input of their box satisfies, by interval arithmetic over the query's own atoms: no network is needed.

An atom whose terms are all polynomials of inputs has a least value over a box, and one below which it cannot fall when
each of its monomials is bounded by itself. Bounds are rounded outward; where rounding could decide, they are rational.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.vnnlib.query import Atoms, Relation, ranges, reduce_rows
from toolkit.tuning import tuned

Side = NDArray[np.float64]


@dataclass(frozen=True)
class InputBounds:
    """The boxes of the inputs, ``(R, n)`` each, the variables that these are, and the products of variables."""

    variables: NDArray[np.int64]
    lower: Side
    upper: Side
    num_variables: int
    products: Sequence[tuple[int, ...]]

    def factors(self, monomial: int) -> tuple[int, ...]:
        """The variables of a monomial, ascending and as often as they occur."""
        beyond = monomial - self.num_variables
        return (monomial,) if beyond < 0 else self.products[beyond]

    def only(self, monomials: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which monomials are of inputs alone."""
        is_input = np.zeros(self.num_variables, dtype=bool)
        is_input[self.variables] = True
        return np.array([bool(is_input[list(self.factors(int(m)))].all()) for m in monomials], dtype=bool)

    def bounds(self, monomial: int) -> tuple[Side, Side]:
        """Bounds ``(R,)`` of a monomial in all boxes, rounded outward."""
        low, high = np.ones(1), np.ones(1)
        for variable, again in groupby(self.factors(monomial)):
            column = int(np.searchsorted(self.variables, variable))
            power = _power(self.lower[:, column], self.upper[:, column], len(list(again)))
            low, high = _product((low, high), power)
        return np.broadcast_to(low, len(self.lower)), np.broadcast_to(high, len(self.lower))

    def exact_bounds(self, monomial: int, region: int) -> tuple[Fraction, Fraction]:
        """Bounds of a monomial in one box in rational arithmetic."""
        low = high = Fraction(1)
        for variable, again in groupby(self.factors(monomial)):
            column, count = int(np.searchsorted(self.variables, variable)), len(list(again))
            ends = [Fraction(float(side[region, column])) ** count for side in (self.lower, self.upper)]
            if self.lower[region, column] < 0 < self.upper[region, column] and count % 2 == 0:
                ends.append(Fraction(0))
            corners = [a * b for a in (low, high) for b in (min(ends), max(ends))]
            low, high = min(corners), max(corners)
        return low, high


def _power(lower: Side, upper: Side, exponent: int) -> tuple[Side, Side]:
    """Bounds of a power, rounded outward; an even one is not negative."""
    if exponent == 1:
        return lower, upper
    low, high = lower, upper
    for _ in range(exponent - 1):
        low, high = _product((low, high), (lower, upper))
    return (np.maximum(low, 0.0) if exponent % 2 == 0 else low), high


def _product(first: tuple[Side, Side], second: tuple[Side, Side]) -> tuple[Side, Side]:
    with np.errstate(over="ignore", invalid="ignore"):
        corners = np.stack([a * b for a in first for b in second])
    corners = np.where(np.isnan(corners), 0.0, corners)  # zero times an overflow
    low, high = np.nextafter(corners.min(0), -np.inf), np.nextafter(corners.max(0), np.inf)
    return low, high


def possible(
    atoms: Atoms, inputs: InputBounds, region: NDArray[np.int64], starts: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which cases are not refuted by some atom of theirs alone, ``(C,)``.

    Case c has box ``region[c]`` and the atoms ``rows[starts[c] : starts[c + 1]]``.
    """
    monomials = np.unique(atoms.monomial)
    known = inputs.only(monomials)
    foreign = np.zeros(len(atoms), dtype=bool)
    foreign[atoms.row_of_term[~known[np.searchsorted(monomials, atoms.monomial)]]] = True
    case = np.repeat(np.arange(len(region)), np.diff(starts))
    judged = np.flatnonzero(~foreign[rows])
    alive = np.ones(len(region), dtype=bool)
    if not len(judged) or len(inputs.lower) * int(known.sum()) > tuned().problem.most_monomials:
        return alive
    row, box = rows[judged], region[case[judged]]
    least, error = _least(atoms, inputs, monomials[known], row, box)
    strict = atoms.relation[row] == Relation.LT
    refuted = least > error
    doubtful = np.flatnonzero((np.abs(least) <= error) & ~refuted)
    for number in doubtful[: tuned().problem.most_exact_atoms].tolist():
        exact = _exactly_least(atoms, inputs, int(row[number]), int(box[number]))
        refuted[number] = exact > 0 or (exact == 0 and bool(strict[number]))
    alive[case[judged[refuted]]] = False
    return alive


def _least(
    atoms: Atoms, inputs: InputBounds, monomials: NDArray[np.int64], row: NDArray[np.int64], box: NDArray[np.int64]
) -> tuple[Side, Side]:
    """What atoms come down to in boxes, pair by pair, ``(P,)``, and how far rounding may be off."""
    sides = [inputs.bounds(int(monomial)) for monomial in monomials]
    low, high = np.zeros((2, len(monomials), len(inputs.lower)))
    for number, side in enumerate(sides):
        low[number], high[number] = side
    first, last = atoms.starts[:-1][row], atoms.starts[1:][row]
    term, place = ranges(first, last), np.repeat(box, last - first)
    position, factor = np.searchsorted(monomials, atoms.monomial[term]), atoms.coefficient[term]
    with np.errstate(over="ignore", invalid="ignore"):
        terms = factor * np.where(factor > 0, low[position, place], high[position, place])
        begin = np.concatenate([[0], np.cumsum(last - first)])
        least = reduce_rows(np.add, terms, begin, 0.0) + atoms.constant[row]
        scale = reduce_rows(np.add, np.abs(terms), begin, 0.0) + np.abs(atoms.constant[row])
        error = 4 * (last - first + 2) * np.finfo(np.float64).eps * scale + np.finfo(np.float64).tiny
    unknown = ~np.isfinite(least) | ~np.isfinite(error)
    return np.where(unknown, -np.inf, least), np.where(unknown, 0.0, error)


def _exactly_least(atoms: Atoms, inputs: InputBounds, row: int, region: int) -> Fraction:
    total = Fraction(float(atoms.constant[row]))
    for term in range(atoms.starts[row], atoms.starts[row + 1]):
        factor = Fraction(float(atoms.coefficient[term]))
        low, high = inputs.exact_bounds(int(atoms.monomial[term]), region)
        total += factor * (low if factor > 0 else high)
    return total
