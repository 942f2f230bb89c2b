"""Input boxes: which atoms bound one input element, and what boxes the conjunctions of a query make of them.

Bounds that are missing may follow from linear atoms: ``X_g == X_f`` bounds a copy of an input like the original.
Queries about two networks often bound the inputs of one and tie those of the other to them. Arithmetic is rational
there and the result is rounded outwards, so the box contains every solution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.names import listed, namer
from toolkit.formats.vnnlib.query import (
    And,
    AtomBlock,
    Atoms,
    Formula,
    Or,
    Query,
    Relation,
    count_blocks,
    ranges,
    walk_blocks,
)
from toolkit.tuning import tuned


@dataclass(frozen=True)
class BoxAtoms:
    """What each atom of a query says about one input element; all arrays have one entry for each atom."""

    single: NDArray[np.bool_]
    """The atom bounds one input element and nothing else."""
    exact: NDArray[np.bool_]
    """The closed bound says all that the atom says."""
    strict: NDArray[np.bool_]
    is_upper: NDArray[np.bool_]
    column: NDArray[np.int64]
    """Position among the inputs."""
    bound: NDArray[np.float64]


def box_atoms(atoms: Atoms, inputs: NDArray[np.int64], num_variables: int) -> BoxAtoms:
    """Find the atoms (LE and LT only) of the form ``coefficient * x + constant <= 0`` for an input element x.

    The bound ``-constant / coefficient`` is exact for a coefficient of one. Otherwise the division rounds: then the
    bound is moved outwards by one double, and the atom is not ``exact``.
    """
    position = np.full(num_variables + 1, -1, dtype=np.int64)
    position[inputs] = np.arange(len(inputs))
    first = np.minimum(atoms.starts[:-1], max(len(atoms.monomial) - 1, 0))
    one_term = np.diff(atoms.starts) == 1
    monomial = np.append(atoms.monomial, num_variables)[first]
    coefficient = np.append(atoms.coefficient, 1.0)[first]
    column = np.where(one_term, position[np.minimum(monomial, num_variables)], -1)
    unit, is_upper = np.abs(coefficient) == 1, coefficient > 0
    with np.errstate(over="ignore"):
        bound = 0.0 - atoms.constant / coefficient
    bound = np.where(unit, bound, np.nextafter(bound, np.where(is_upper, np.inf, -np.inf)))
    strict = atoms.relation == Relation.LT
    return BoxAtoms(column >= 0, unit & ~strict, unit & strict, is_upper, column, bound)


@dataclass(frozen=True)
class RegionBoxes:
    """Closed boxes, shape [R, n] each, and whether any point is left in them, shape [R]."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    alive: NDArray[np.bool_]


def intersect_boxes(found: BoxAtoms, regions: Sequence[tuple[AtomBlock, ...]], size: int) -> RegionBoxes:
    """One box of ``size`` dimensions for each tuple of blocks, infinite where nothing bounds it."""
    _check_bounds(len(regions), size)
    starts = np.array([block.start for blocks in regions for block in blocks], dtype=np.int64)
    stops = np.array([block.stop for blocks in regions for block in blocks], dtype=np.int64)
    of_block = np.repeat(np.arange(len(regions)), [len(blocks) for blocks in regions])
    atom, region = ranges(starts, stops), np.repeat(of_block, stops - starts)
    kept = found.single[atom]
    atom, region = atom[kept], region[kept]
    lower, upper = np.full((len(regions), size), -np.inf), np.full((len(regions), size), np.inf)
    entry, bound, is_upper = region * size + found.column[atom], found.bound[atom], found.is_upper[atom]
    np.minimum.at(upper.reshape(-1), entry[is_upper], bound[is_upper])
    np.maximum.at(lower.reshape(-1), entry[~is_upper], bound[~is_upper])
    alive: NDArray[np.bool_] = np.all(lower <= upper, axis=1)
    # A strict bound excludes its own value: nothing in [1, 2] is below 1.
    opposite = np.where(is_upper, lower.reshape(-1)[entry], upper.reshape(-1)[entry])
    alive[region[found.strict[atom] & (bound == opposite)]] = False
    return RegionBoxes(lower, upper, alive)


def check_size(formula: Formula, found: BoxAtoms, size: int) -> None:
    """Raise UnsupportedError for a formula whose cases would not fit, before any is written out.

    A few disjunctions conjoined are a few lines, and millions of cases with a box of ``size`` dimensions each.
    """
    blocks = count_blocks(formula)
    most = tuned().problem.most_blocks
    if blocks > most:
        raise UnsupportedError(f"the formula's cases have {blocks} parts, more than the limit of {most}; "
                               "split the query")  # fmt: skip
    bounds_before = np.concatenate([[0], np.cumsum(found.single)])
    _check_bounds(_count_boxes(formula, bounds_before), size)


def _check_bounds(boxes: int, size: int) -> None:
    most = tuned().problem.most_bounds
    if boxes * size > most:
        raise UnsupportedError(f"the formula has {boxes} input boxes of {size} dimensions, more than the limit of "
                               f"{most} bounds; split the query")  # fmt: skip


def _count_boxes(formula: Formula, bounds_before: NDArray[np.int64]) -> int:
    """How many different sets of blocks with input bounds the conjunctions of the normal form have, at most."""
    match formula:
        case AtomBlock():
            return 1
        case And(parts):
            return math.prod(_count_boxes(part, bounds_before) for part in parts)
        case Or(parts):
            bounding = [any(bounds_before[b.start] < bounds_before[b.stop] for b in walk_blocks(p)) for p in parts]
            counts = [_count_boxes(part, bounds_before) for part, some in zip(parts, bounding, strict=True) if some]
            return sum(counts) + (not all(bounding))


def check_bounded(query: Query, inputs: NDArray[np.int64], boxes: RegionBoxes) -> None:
    """Raises InputError naming the inputs that lack a bound in some box that is not empty."""
    for side, bound in (("lower", boxes.lower), ("upper", boxes.upper)):
        missing = inputs[~np.isfinite(bound[boxes.alive]).all(axis=0)]
        if len(missing):
            names = listed(map(namer(query), missing.tolist()), len(missing))
            raise InputError(f"no {side} bound for {names}: every input must be bounded on both sides in every case")


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
