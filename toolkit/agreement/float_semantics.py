"""What floating-point networks may compute beside their function over the reals, anywhere in a box.

A specification that declares floating-point types speaks of what the networks compute, rounding included, in whatever
order sums are added up. A proof over the reals is one for them where it leaves room for that: bounds of atoms have to
exceed the largest error of the networks on the box. It is found operator by operator, on a trace of the networks, from
intervals of all values: ``n u / (1 - n u)`` times the magnitudes of the n terms of a sum (Higham 2002, section 3.1),
and what earlier errors become.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from toolkit.agreement.bounded_networks import BoundedNetworks
from toolkit.agreement.query_samples import OnnxReference
from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import record
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.vnnlib.query import reduce_rows
from toolkit.ops import ELEMENTWISE
from toolkit.problem.compile import Problem
from toolkit.problem.evaluate_graph import AFFINE, INPUT, OperatorCall, calls
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, gamma_at
from toolkit.proof.network import UnreadableError
from toolkit.quick_proof import TooLarge, read_cases, with_room_in_constants
from toolkit.run.clock import Clock
from toolkit.tuning import tuned

CONSTANT_ROUNDINGS = 2.0
"""Roundings of an atom's constants to the element types."""
LEAST_NORMAL_FLOAT32 = 2.0**-126
"""Smallest normal number of single precision: what a result below it may be rounded to zero from."""


@dataclass(frozen=True)
class ValueSpread:
    """Bounds of values ``(1, N)`` over a box, and of how far computed ones may be from exact ones at any point."""

    lower: Tensor
    upper: Tensor
    error: Tensor

    @property
    def reach(self) -> Tensor:
        """Largest magnitude of each value."""
        return torch.maximum(self.lower.abs(), self.upper.abs())


def check_plain(models: Iterable[OnnxModel]) -> None:
    """Raise UnsupportedError for the first operator whose rounding is not known."""
    for model in models:
        for node in model.proto.graph.node:
            if not record(node).plain:
                raise UnsupportedError(f"how operator {node.op_type} (node {node.name!r}) rounds is not known")


def rounding_error(graph: fx.GraphModule, lower: Tensor, upper: Tensor, unit: float) -> Tensor:
    """Bounds ``(F,)`` on the error of a graph's output anywhere in a box ``(n,)``, where operations round to ``unit``.

    Infinite where nothing is known. Raises UnsupportedError for operators that cannot be bounded.
    """
    zero = torch.zeros(1, len(lower), dtype=torch.float64)
    start = ValueSpread(lower.double().unsqueeze(0), upper.double().unsqueeze(0), zero)
    found: dict[str, ValueSpread] = {}
    for call in calls(graph):
        if call.kind == INPUT:
            found[call.name] = start
        elif call.kind == AFFINE:
            found[call.name] = _affine(call, [found[source] for source in call.sources], unit)
        else:
            found[call.name] = _operator(call.kind, found[call.sources[0]], unit)
    return found[""].error[0].nan_to_num(nan=math.inf, posinf=math.inf)


def with_room(
    networks: BoundedNetworks, original: OnnxReference, problem: Problem, proved: Tensor | None = None
) -> tuple[Problem, float]:
    """The problem with atoms less what rounding can change, and with boxes that hold what their bounds are rounded to.

    Where these exceed zero over the reals, the atoms exceed it for what the networks compute. Also the largest change
    of an atom. ``proved`` is the room of the atoms where it is known, ``(atoms,)``, for points of the boxes as they are
    and what these are rounded to. Raises UnsupportedError where rounding has no known bound.
    """
    if proved is None:
        check_plain(networks.models.values())
        lower, upper = (torch.as_tensor(side) for side in original.rounded_boxes)
        problem = replace(problem, lower=lower, upper=upper)
        graph = networks.graph(networks.cases.lower[0])
        error = rounding_error(graph, lower.amin(0), upper.amax(0), original.unit)
        room = problem.weights.abs() @ error
    else:
        room = torch.cat([proved, proved.new_zeros(1)])
    if networks.query.over_floats:
        room = room + CONSTANT_ROUNDINGS * original.unit * problem.offsets.abs()
    room[-1] = 0.0  # the atom that is always true
    if not bool(room.isfinite().all()):
        raise UnsupportedError("the network's own rounding has no bound on the input set")
    _check_room(networks, original, room[:-1].numpy())
    return replace(problem, offsets=problem.offsets - room), float(room.max())


def proved_room(networks: BoundedNetworks, clock: Clock) -> Tensor:
    """What rounding can change in each atom, ``(atoms,)``, as the checker of certificates computes it.

    Raises UnsupportedError for networks of which it knows nothing, and OutOfTime.
    """
    try:
        if len(networks.models) != 1:
            raise TooLarge("several networks")
        [model] = networks.models.values()
        network, cases = read_cases(networks.query, networks.cases, model)
        return torch.as_tensor(cases.constant - with_room_in_constants(network, cases, clock).constant)
    except (TooLarge, UnreadableError) as error:
        raise UnsupportedError(f"how the network rounds is not known: {error}") from None


def _check_room(networks: BoundedNetworks, original: OnnxReference, room: NDArray[np.float64]) -> None:
    """Raise UnsupportedError where a point is so near to a counterexample that no proof can leave the room."""
    cases = networks.cases
    samples = original.sample(np.arange(len(cases.lower)), tuned().agreement.tried_points)
    values = cases.atoms.values(networks.query.monomials(samples.variables)) - room / 2
    losses = reduce_rows(np.maximum, values[:, cases.rows], cases.starts, -np.inf)
    if bool(((losses <= 0) & (cases.region == samples.region[:, None])).any()):
        raise UnsupportedError(
            f"some inputs are nearer to a counterexample than rounding in the network can change, up to "
            f"{room.max():.3g} (--real-semantics asks for a proof in real arithmetic)"
        )


def _affine(call: OperatorCall, sources: list[ValueSpread], unit: float) -> ValueSpread:
    """An affine operator: intervals by centre and radius, widened by what double precision rounds."""
    count = call.terms + ROUNDINGS_BESIDE_SUM
    factor, own = gamma_at(count, unit), gamma_at(count, 2.0**-53)
    centre = call.plain([(source.lower + source.upper) / 2 for source in sources])
    reach = call.sizes([source.reach for source in sources])
    radius = call.sizes([(source.upper - source.lower) / 2 for source in sources]) + 4 * own * reach
    error = factor * call.sizes([source.reach + source.error / factor for source in sources])
    return ValueSpread(centre - radius, centre + radius, (1 + own) * error + count * LEAST_NORMAL_FLOAT32)


def _operator(op: str, z: ValueSpread, unit: float) -> ValueSpread:
    operator = ELEMENTWISE[op]
    if operator.lipschitz is None:
        raise UnsupportedError(f"how the operator {op} rounds is not known")
    lower, upper = operator.relaxation.image(z.lower, z.upper)
    kinked = operator.relaxation.piecewise_linear
    rounded = 0.0 if kinked else gamma_at(ROUNDINGS_BESIDE_SUM, unit)  # of values that are at most 1
    error = operator.lipschitz * z.error
    if kinked:
        error = torch.where(z.upper + error <= 0, 0.0, error)  # inactive, whatever rounding does
    return ValueSpread(lower, upper, error + rounded)
