"""Input bounds that follow from linear atoms: ``X_g == X_f`` bounds a copy of an input like the original.

Queries about two networks often bound the inputs of one and tie those of the other to them. Only missing bounds are
filled in; arithmetic is rational and the result is rounded outwards, so the box contains every solution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.vnnlib.query import Atoms
from toolkit.tuning import tuned

Row = tuple[Fraction, list[tuple[int, Fraction]]]
"""Constant, and (input position, coefficient) of each term, of an atom over inputs."""


def linear_input_rows(atoms: Atoms, inputs: NDArray[np.int64], num_variables: int) -> list[Row]:
    """The atoms (LE and LT) all of whose terms are input elements."""
    position = np.full(num_variables, -1, dtype=np.int64)
    position[inputs] = np.arange(len(inputs))
    column = np.append(position, -1)[np.minimum(atoms.monomial, num_variables)]
    foreign = np.zeros(len(atoms), dtype=bool)
    foreign[atoms.row_of_term[column < 0]] = True
    rows = []
    for row in np.flatnonzero(~foreign):
        span = slice(atoms.starts[row], atoms.starts[row + 1])
        terms = zip(column[span].tolist(), map(Fraction, atoms.coefficient[span].tolist()), strict=True)
        rows.append((Fraction(float(atoms.constant[row])), list(terms)))
    return rows


def fill_missing_bounds(rows: list[Row], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
    """Replace infinite entries of ``lower`` and ``upper``, shape [n], in place by bounds that the rows imply."""
    for _ in range(tuned().problem.most_passes):
        changed = False
        for constant, terms in rows:
            for column, is_upper, bound in _implied(constant, terms, lower, upper):
                (upper if is_upper else lower)[column] = bound
                changed = True
        if not changed:
            return


def _implied(
    constant: Fraction, terms: list[tuple[int, Fraction]], lower: NDArray[np.float64], upper: NDArray[np.float64]
) -> Iterator[tuple[int, bool, float]]:
    """Bounds from ``sum a_j x_j + constant <= 0``: a term is at most minus the least value of the others."""
    least = [float(lower[column] if a > 0 else upper[column]) for column, a in terms]
    open_terms = [k for k, value in enumerate(least) if not math.isfinite(value)]
    if len(open_terms) > 1:
        return
    finite = [Fraction(value) if math.isfinite(value) else Fraction(0) for value in least]
    values = [a * value for (_, a), value in zip(terms, finite, strict=True)]
    total = constant + sum(values)
    for k in open_terms or range(len(terms)):
        column, a = terms[k]
        bound = _outward((values[k] - total) / a, a > 0)
        if not math.isfinite(upper[column] if a > 0 else lower[column]) and math.isfinite(bound):
            yield column, a > 0, bound


def _outward(value: Fraction, up: bool) -> float:
    """The nearest double that is not below (``up``) or not above the value; infinite when there is none."""
    side = math.inf if up else -math.inf
    try:
        nearest = float(value)
    except OverflowError:
        return side
    beyond = Fraction(nearest) >= value if up else Fraction(nearest) <= value
    return nearest if beyond else math.nextafter(nearest, side)
