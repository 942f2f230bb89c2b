"""Rewrites ``==`` and ``!=`` with inequalities, for whoever knows nothing else: cases, and files of version 1.0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.vnnlib.query import AtomBlock, Formula, Or, Query, Relation, conjoin, map_blocks, offsets


def only_inequalities(query: Query) -> Query:
    """Rewrite a query to LE and LT atoms only: ``==`` becomes both of two of them, ``!=`` either of two."""
    relation = query.atoms.relation
    pair = (relation == Relation.EQ) | (relation == Relation.NE)
    if not pair.any():
        return query
    position = offsets(1 + pair)
    atoms = query.atoms.take(np.repeat(np.arange(len(relation)), 1 + pair))
    second = np.zeros(len(atoms), dtype=bool)
    second[position[:-1][pair] + 1] = True
    sign = np.where(second, -1.0, 1.0)
    atoms = replace(
        atoms,
        relation=np.array([Relation.LE, Relation.LT, Relation.LE, Relation.LT], dtype=np.int8)[atoms.relation],
        constant=sign * atoms.constant + 0.0,
        coefficient=sign[atoms.row_of_term] * atoms.coefficient,
    )
    unequal = np.flatnonzero(relation == Relation.NE)
    return replace(query, atoms=atoms, formula=map_blocks(query.formula, lambda b: _split(b, unequal, position)))


def _split(block: AtomBlock, unequal: NDArray[np.int64], position: NDArray[np.int64]) -> Formula:
    """A block at its new place, with an ``Or`` for each ``!=`` in it."""
    parts: list[Formula] = []
    start = block.start
    for row in unequal[np.searchsorted(unequal, block.start) : np.searchsorted(unequal, block.stop)].tolist():
        first = int(position[row])
        parts += [AtomBlock(int(position[start]), first)] if start < row else []
        parts.append(Or((AtomBlock(first, first + 1), AtomBlock(first + 1, first + 2))))
        start = row + 1
    if start < block.stop or not parts:
        parts.append(AtomBlock(int(position[start]), int(position[block.stop])))
    return conjoin(parts)
