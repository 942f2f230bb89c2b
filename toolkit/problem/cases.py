"""From a formula to *cases*: a disjunction of (input box, conjunction of atoms), as a few arrays.

``sat`` iff some case has a point of its box that makes all its atoms true. Comparisons of one input element with a
constant become the boxes; what is left are rows of one sparse matrix, each stored once and referred to by the cases.
A box of one disjunct never reaches another: each case intersects only the blocks of its own conjunction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.vnnlib.inequalities import only_inequalities
from toolkit.formats.vnnlib.query import (
    And,
    AtomBlock,
    Atoms,
    Query,
    Relation,
    Tensor,
    TensorKind,
    count_disjuncts,
    disjuncts,
    offsets,
    ranges,
)
from toolkit.problem.emptiness import InputBounds, possible
from toolkit.problem.regions import (
    BoxAtoms,
    RegionBoxes,
    box_atoms,
    check_bounded,
    check_size,
    fill_missing_bounds,
    intersect_boxes,
    linear_input_rows,
)
from toolkit.tuning import tuned

Conjunction = tuple[AtomBlock, ...]


@dataclass(frozen=True)
class Cases:
    """``C`` cases over ``R`` distinct boxes of ``n`` inputs. ``C == 0``: no input satisfies the formula."""

    inputs: NDArray[np.int64]
    """Variables of all input elements of all networks, in variable order, shape [n]."""
    lower: NDArray[np.float64]
    """Closed boxes, shape [R, n]."""
    upper: NDArray[np.float64]
    region: NDArray[np.int64]
    """Box of each case, shape [C]."""
    starts: NDArray[np.int64]
    """Case c is the conjunction of the atoms ``rows[starts[c] : starts[c + 1]]``, shape [C + 1]."""
    rows: NDArray[np.int64]
    atoms: Atoms
    """Distinct atoms that the boxes do not express, LE and LT only."""
    products: tuple[tuple[int, ...], ...]
    """Monomials beyond the variables, as in :class:`Query`."""
    used: NDArray[np.int64]
    """What has to be known about a point to judge the atoms, ascending: the monomials that they mention, and all of a
    small output of which they mention some, so that queries about other elements of it are about the same function."""

    def __len__(self) -> int:
        return len(self.region)

    def rows_of(self, case: int) -> NDArray[np.int64]:
        """Numbers of the atoms of one case."""
        return self.rows[self.starts[case] : self.starts[case + 1]]

    def mentions(self, tensor: Tensor) -> bool:
        """Whether some case may depend on an element of a tensor, alone or in a product."""
        used = np.append(self.used, [variable for product in self.products for variable in product])
        return bool(((used >= tensor.offset) & (used < tensor.offset + tensor.size)).any())

    def only_compares(self, tensor: Tensor) -> bool:
        """Whether every atom that mentions a tensor compares two of its elements, and does nothing else."""
        atoms = self.atoms
        mine = (atoms.monomial >= tensor.offset) & (atoms.monomial < tensor.offset + tensor.size)
        rows = np.unique(atoms.row_of_term[mine])
        inside = np.bincount(atoms.row_of_term[mine], minlength=len(atoms))[rows]
        total = np.bincount(atoms.row_of_term, atoms.coefficient, len(atoms))[rows]
        pairs = (np.diff(atoms.starts)[rows] == 2) & (inside == 2)
        return not self.products and bool((pairs & (total == 0) & (atoms.constant[rows] == 0)).all())

    def dense(self, variables: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All atoms as ``matrix @ x[variables] + constant``: shapes ``[m, len(variables)]`` and ``[m]``.

        Raises UnsupportedError when an atom has a product or any other variable. Dense: for outputs, not for images.
        """
        column = np.full(int(self.atoms.monomial.max(initial=-1)) + 1, -1, dtype=np.int64)
        inside = variables < len(column)
        column[variables[inside]] = np.flatnonzero(inside)
        columns = column[self.atoms.monomial]
        if (columns < 0).any():
            raise UnsupportedError("an atom is not linear in the given variables alone")
        matrix = np.zeros((len(self.atoms), len(variables)))
        np.add.at(matrix, (self.atoms.row_of_term, columns), self.atoms.coefficient)
        return matrix, self.atoms.constant


def compile_cases(query: Query, limit: int = 1_000_000) -> Cases:
    """Disjunctive normal form of a query with its input boxes.

    Raises UnsupportedError when there are more than ``limit`` cases, InputError when an input has no bound on a side.
    Strict bounds on inputs widen to the closed box and stay as atoms; ``==`` becomes two atoms, ``!=`` two cases.
    Cases that no input satisfies, whatever the networks are, are left out as far as they are recognised.
    """
    if np.isin(query.atoms.relation, (Relation.EQ, Relation.NE)).any():
        query = only_inequalities(query)
    count = count_disjuncts(query.formula)
    if count > limit:
        raise UnsupportedError(f"the formula has {count} cases, more than the limit of {limit}; split the query")
    inputs = query.inputs
    found = box_atoms(query.atoms, inputs, query.num_variables)
    check_size(query.formula, found, len(inputs))
    conjunctions = disjuncts(query.formula)
    boxes, box_of_case = _boxes(query, conjunctions, found, inputs)
    kept = ~(found.single & found.exact)
    alive = np.flatnonzero(boxes.alive[box_of_case])
    atoms, starts, rows = _rows(query.atoms, [conjunctions[case] for case in alive], kept)
    lower, upper, region = _distinct_boxes(boxes, box_of_case[alive])
    some = possible(atoms, InputBounds(inputs, lower, upper, query.num_variables, query.products), region, starts, rows)
    if not some.all():
        alive = alive[some]
        atoms, starts, rows = _rows(query.atoms, [conjunctions[case] for case in alive], kept)
        lower, upper, region = _distinct_boxes(boxes, box_of_case[alive])
    return Cases(inputs, lower, upper, region, starts, rows, atoms, query.products, _used(query, atoms))


def _used(query: Query, atoms: Atoms) -> NDArray[np.int64]:
    mentioned = np.unique(atoms.monomial)
    whole = [
        np.arange(tensor.offset, tensor.offset + tensor.size)
        for tensor in query.tensors
        if tensor.kind is TensorKind.OUTPUT and tensor.size <= tuned().problem.small_output
    ]
    return np.unique(np.concatenate([mentioned, *(part for part in whole if np.isin(mentioned, part).any())]))


def _boxes(
    query: Query, conjunctions: list[Conjunction], found: BoxAtoms, inputs: NDArray[np.int64]
) -> tuple[RegionBoxes, NDArray[np.int64]]:
    """Boxes of the distinct sets of blocks that bound inputs, and the box of each conjunction."""
    bounds_before = np.concatenate([[0], np.cumsum(found.single)]).tolist()
    numbers: dict[Conjunction, int] = {}
    of_case = [
        numbers.setdefault(tuple(b for b in case if bounds_before[b.start] < bounds_before[b.stop]), len(numbers))
        for case in conjunctions
    ]
    boxes = intersect_boxes(found, list(numbers), len(inputs))
    _imply(query, boxes, inputs)
    check_bounded(query, inputs, boxes)
    return boxes, np.array(of_case, dtype=np.int64)


def _imply(query: Query, boxes: RegionBoxes, inputs: NDArray[np.int64]) -> None:
    """Fill in bounds that follow from the atoms that stand in every case; a box that they contradict has no points."""
    missing = ~(np.isfinite(boxes.lower) & np.isfinite(boxes.upper)).all(axis=1) & boxes.alive
    if not missing.any():
        return
    formula = query.formula
    parts = formula.parts if isinstance(formula, And) else (formula,)
    common = [np.arange(part.start, part.stop) for part in parts if isinstance(part, AtomBlock)]
    if common:
        rows = linear_input_rows(query.atoms.take(np.concatenate(common)), inputs, query.num_variables)
        for box in np.flatnonzero(missing):
            fill_missing_bounds(rows, boxes.lower[box], boxes.upper[box])
            boxes.alive[box] = bool((boxes.lower[box] <= boxes.upper[box]).all())


def _rows(
    atoms: Atoms, conjunctions: list[Conjunction], kept: NDArray[np.bool_]
) -> tuple[Atoms, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct kept atoms, and the rows of each conjunction in compressed form."""
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    starts = kept_before[[block.start for case in conjunctions for block in case]].astype(np.int64)
    stops = kept_before[[block.stop for case in conjunctions for block in case]].astype(np.int64)
    number, distinct = _distinct_atoms(atoms.take(np.flatnonzero(kept)))
    # Atoms of dropped cases are left out, hence the renumbering.
    used, rows = np.unique(number[ranges(starts, stops)], return_inverse=True)
    block_starts = offsets(np.array([len(case) for case in conjunctions], dtype=np.int64))
    return distinct.take(used), offsets(stops - starts)[block_starts], rows.astype(np.int64)


def _distinct_atoms(atoms: Atoms) -> tuple[NDArray[np.int64], Atoms]:
    """The number of each atom among the distinct ones, in the order of first occurrence."""
    seen: dict[tuple[int, float, bytes, bytes], int] = {}
    starts = atoms.starts.tolist()
    keys = zip(atoms.relation.tolist(), atoms.constant.tolist(), starts[:-1], starts[1:], strict=True)
    number = [
        seen.setdefault((kind, constant, atoms.coefficient[a:b].tobytes(), atoms.monomial[a:b].tobytes()), len(seen))
        for kind, constant, a, b in keys
    ]
    numbers = np.array(number, dtype=np.int64)
    return numbers, atoms.take(np.unique(numbers, return_index=True)[1])


def _distinct_boxes(
    boxes: RegionBoxes, of_case: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Equal boxes once, in the order of first use."""
    used, local = np.unique(of_case, return_inverse=True)
    seen: dict[tuple[bytes, bytes], int] = {}
    number = [seen.setdefault((boxes.lower[box].tobytes(), boxes.upper[box].tobytes()), len(seen)) for box in used]
    numbers = np.array(number, dtype=np.int64)
    first = used[np.unique(numbers, return_index=True)[1]] if len(used) else used
    return boxes.lower[first], boxes.upper[first], numbers[local]
