"""Evaluating a query as VNN-COMP's scorer does: comparisons in the models' element types, with a tolerance on inputs.

A decimal bound such as 0.1 is no float32; compared with a float32 it stands for the nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.vnnlib.query import Query, TensorKind


def holds_in_types(
    query: Query, assignment: NDArray[np.float64], values: Sequence[NDArray[Any]], input_tolerance: float = 0.0
) -> bool:
    """Whether ``query`` holds when bounds are rounded to the element types.

    ``assignment`` are all variables, shape ``(num_variables,)``; ``values`` are the same numbers tensor by tensor, with
    their element types. Atoms over inputs alone may be violated by ``input_tolerance`` (absolute).

    Only comparisons of one variable with a constant are done in the element type (under VNN-LIB 1.0 only for inputs,
    as its scorer does); others are evaluated in float64.
    """
    return query.holds_with(_truth(query, assignment, values, input_tolerance))


def _truth(
    query: Query, assignment: NDArray[np.float64], values: Sequence[NDArray[Any]], input_tolerance: float
) -> NDArray[np.bool_]:
    """Which atoms hold."""
    atoms = query.atoms
    tolerance = np.where(_over_inputs_only(query), input_tolerance, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        side = atoms.values(query.monomials(assignment))
        low, high = side - tolerance, side + tolerance
        rows, variable, factor = _bounds(query)
        for sides, signs in ((low, -1.0), (high, 1.0)):
            constant = atoms.constant[rows] + signs * tolerance[rows]
            limit = _in_types(query, -constant / factor, variable, values)
            sides[rows] = factor * (assignment[variable] - limit)
    truth = np.stack([low <= 0, low < 0, (low <= 0) & (high >= 0), (high < 0) | (low > 0)])
    return truth[atoms.relation, np.arange(len(atoms))]


def _bounds(query: Query) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Atoms that compare one variable with a constant: their rows, variables and coefficients."""
    atoms = query.atoms
    single = np.flatnonzero(np.diff(atoms.starts) == 1)
    first = atoms.starts[single]
    wanted = _typed_variables(query)[atoms.monomial[first]] & (atoms.coefficient[first] != 0)
    return single[wanted], atoms.monomial[first][wanted], atoms.coefficient[first][wanted]


def _typed_variables(query: Query) -> NDArray[np.bool_]:
    """Monomials whose bounds are rounded: variables, but no outputs under 1.0, and no products."""
    typed = np.zeros(query.num_variables + len(query.products), dtype=bool)
    for tensor in query.tensors:
        if tensor.kind == TensorKind.INPUT or not query.version.startswith("1"):
            typed[tensor.offset : tensor.offset + tensor.size] = True
    return typed


def _in_types(
    query: Query, limits: NDArray[np.float64], variable: NDArray[np.int64], values: Sequence[NDArray[Any]]
) -> NDArray[np.float64]:
    """Limits rounded to the element types of their variables."""
    result = limits.copy()
    for tensor, value in zip(query.tensors, values, strict=True):
        mine = (variable >= tensor.offset) & (variable < tensor.offset + tensor.size)
        if value.dtype.kind == "f":
            result[mine] = limits[mine].astype(value.dtype)
    return result


def _over_inputs_only(query: Query) -> NDArray[np.bool_]:
    """Atoms without hidden and output variables; an atom without variables is not among them."""
    is_input = np.zeros(query.num_variables, dtype=bool)
    for tensor in query.tensors:
        is_input[tensor.offset : tensor.offset + tensor.size] = tensor.kind == TensorKind.INPUT
    products = [bool(is_input[list(product)].all()) for product in query.products]
    mine = np.concatenate([is_input, np.asarray(products, dtype=bool)])[query.atoms.monomial]
    others = np.concatenate([[0], np.cumsum(~mine)])
    starts = query.atoms.starts
    return np.asarray((others[starts[1:]] == others[starts[:-1]]) & (np.diff(starts) > 0))
