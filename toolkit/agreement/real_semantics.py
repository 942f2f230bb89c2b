"""Whether a point is a counterexample over the real numbers, as a specification that declares `real` asks.

A small piecewise-linear network is evaluated exactly. Of any other that can be bounded, the program is evaluated in
double precision with a bound on its error, and the formula must hold for every value within it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ToolkitError
from toolkit.formats.onnx.exact_evaluation import run_exactly
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.vnncomp.witness import Witness, hidden_names, variables
from toolkit.formats.vnnlib.query import Atoms, Query
from toolkit.ops.exact_rules import NotExact

if TYPE_CHECKING:
    from toolkit.agreement.bounded_networks import BoundedNetworks

Array = NDArray[np.float64]


def holds_over_reals(
    query: Query, models: Mapping[str, OnnxModel], witness: Witness, networks: Callable[[], BoundedNetworks]
) -> bool | None:
    """Whether the query holds at the witness's inputs in real arithmetic; None where that is not known.

    ``models`` are by name of the network; ``networks`` imports them, which takes torch.
    """
    assignment = variables(query, witness.values)
    try:
        values, error = _exactly(query, models, assignment)
    except (NotExact, OverflowError):
        values, error = _by_program(query, networks, assignment)
    holds, fails = certainly(query, values, error)
    return True if holds else False if fails else None


def _exactly(query: Query, models: Mapping[str, OnnxModel], assignment: Array) -> tuple[Array, Array]:
    """All variables, and how far off the doubles may be. Raises NotExact."""
    values, error = assignment.copy(), np.zeros(len(assignment))
    for network in query.networks:
        model = models[network.name]
        inputs = [assignment[tensor.offset : tensor.offset + tensor.size] for tensor in network.inputs]
        names = [*hidden_names(network), *(info.name for info in model.outputs)]
        for tensor, found in zip((*network.hidden, *network.outputs), run_exactly(model, inputs, names), strict=True):
            part = slice(tensor.offset, tensor.offset + tensor.size)
            nearest, off = found.rounded()
            values[part], error[part] = nearest.reshape(-1), off.reshape(-1)
    return values, error


def _by_program(query: Query, networks: Callable[[], BoundedNetworks], assignment: Array) -> tuple[Array, Array]:
    """All variables that the formula uses; the error of others, and of all where nothing is known, is infinite."""
    inputs = query.inputs
    values, error = assignment.copy(), np.full(len(assignment), np.inf)
    error[inputs] = 0.0
    try:
        used, found, off = networks().evaluated(assignment[inputs])
    except ToolkitError:
        return values, error
    computed = ~np.isin(used, inputs) & (used < len(assignment))
    values[used[computed]], error[used[computed]] = found[computed], off[computed]
    return values, error


def certainly(query: Query, values: Array, error: Array) -> tuple[bool, bool]:
    """Whether the formula holds, and whether it fails, for all assignments within ``error`` of ``values``."""
    if not error.any():
        holds = query.holds(values)
        return holds, not holds
    with np.errstate(invalid="ignore", over="ignore"):
        monomials = query.monomials(values)
        spread = query.monomials(np.abs(values) + error) - np.abs(monomials)
        atoms = query.atoms
        side = atoms.values(monomials)
        sizes = Atoms(atoms.relation, np.abs(atoms.constant), atoms.starts, np.abs(atoms.coefficient), atoms.monomial)
        terms = np.diff(atoms.starts) + 4
        rounding = 2 * terms * np.finfo(np.float64).eps * sizes.values(np.abs(monomials) + spread)
        linear = Atoms(atoms.relation, np.zeros(len(atoms)), atoms.starts, np.abs(atoms.coefficient), atoms.monomial)
        off = np.nan_to_num(linear.values(spread) + rounding, nan=np.inf)
    return query.holds_with(_for_all(atoms, side, off)), not query.holds_with(~_for_none(atoms, side, off))


def _for_all(atoms: Atoms, side: Array, off: Array) -> NDArray[np.bool_]:
    """Which atoms hold whatever their value within the error is."""
    low, high = side - off, side + off
    truth = np.stack([high <= 0, high < 0, (low >= 0) & (high <= 0), (high < 0) | (low > 0)])
    return truth[atoms.relation, np.arange(len(atoms))]


def _for_none(atoms: Atoms, side: Array, off: Array) -> NDArray[np.bool_]:
    """Which atoms fail whatever their value within the error is."""
    low, high = side - off, side + off
    truth = np.stack([low > 0, low >= 0, (low > 0) | (high < 0), (low == 0) & (high == 0)])
    return truth[atoms.relation, np.arange(len(atoms))]
