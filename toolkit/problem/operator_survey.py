"""What the verifier makes of the operators of a network, found out by having it try.

The network is imported and traced as for a proof; nothing is bounded.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, fx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.torch_import import ImportedModel
from toolkit.ops import RELAXATIONS
from toolkit.problem.compile import Binding
from toolkit.problem.operator_table import NONLINEAR, refusal
from toolkit.problem.trace import trace


class OperatorHandling(StrEnum):
    """How the verifier treats an operator."""

    NOTHING = "nothing to do"
    AFFINE = "affine"
    PIECEWISE = "piecewise linear"
    RELAXED = "relaxation"
    REFUSED = "no bounding rule"
    UNKNOWN = ""


_STRENGTH = list(OperatorHandling)


@dataclass(frozen=True)
class OperatorRow:
    """One kind of operator in a network."""

    op_type: str
    count: int
    neurons: int
    """Elements of the results of all its nodes."""
    handling: OperatorHandling

    @property
    def supported(self) -> bool:
        """Whether nothing is known that keeps it from being bounded."""
        return self.handling != OperatorHandling.REFUSED


@dataclass(frozen=True)
class OperatorSurvey:
    """The operators of a network by kind, in the order of their first use, and why it cannot be bounded."""

    rows: Sequence[OperatorRow]
    reason: str = ""
    """What stands in the way of bounding all outputs of the network; empty where nothing does."""


def survey(binding: Binding) -> OperatorSurvey:
    """Try to write an imported network as a graph of operators that have bounding rules."""
    try:
        graph = trace(lambda x: _all_outputs(binding, x), [torch.zeros(_num_inputs(binding))])
    except UnsupportedError as error:
        refused = {source.origin for source in _model(binding).sources if str(error).startswith(source.origin)}
        return OperatorSurvey(
            _rows(binding, dict.fromkeys(refused, OperatorHandling.REFUSED), OperatorHandling.UNKNOWN), str(error)
        )
    reason = next(filter(None, map(refusal, graph.graph.nodes)), "")
    return OperatorSurvey(_rows(binding, _handlings(graph.graph), OperatorHandling.NOTHING), reason)


def _model(binding: Binding) -> ImportedModel:
    assert isinstance(binding.module, ImportedModel)
    return binding.module


def _num_inputs(binding: Binding) -> int:
    return sum(math.prod(shape) for shape in binding.input_shapes)


def _all_outputs(binding: Binding, flat: Tensor) -> Tensor:
    """All outputs, one after the other, for all inputs, one after the other."""
    pieces = flat.split([math.prod(shape) for shape in binding.input_shapes])
    inputs = [
        piece.reshape(shape).to(dtype)
        for piece, shape, dtype in zip(pieces, binding.input_shapes, binding.input_dtypes, strict=True)
    ]
    return torch.cat([output.reshape(-1).to(flat.dtype) for output in binding.module(*inputs)])


def _handlings(graph: fx.Graph) -> dict[str, OperatorHandling]:
    """The hardest thing that is done for each node of the file, by its description."""
    found: defaultdict[str, OperatorHandling] = defaultdict(lambda: OperatorHandling.NOTHING)
    for node in graph.nodes:
        if node.op == "call_function":
            where = node.meta.get("origin", "")
            found[where] = max(found[where], _handling(node), key=_STRENGTH.index)
    return found


def _handling(node: fx.Node) -> OperatorHandling:
    if refusal(node):
        return OperatorHandling.REFUSED
    if node.target in NONLINEAR:
        return (
            OperatorHandling.PIECEWISE
            if RELAXATIONS[NONLINEAR[node.target]].piecewise_linear
            else OperatorHandling.RELAXED
        )
    return OperatorHandling.AFFINE


def _rows(binding: Binding, handlings: dict[str, OperatorHandling], otherwise: OperatorHandling) -> list[OperatorRow]:
    count: Counter[str] = Counter()
    elements: Counter[str] = Counter()
    hardest: dict[str, OperatorHandling] = {}
    for source in _model(binding).sources:
        count[source.op_type] += 1
        elements[source.op_type] += source.elements
        handling = handlings.get(source.origin, otherwise)
        hardest[source.op_type] = max(hardest.get(source.op_type, handling), handling, key=_STRENGTH.index)
    return [OperatorRow(op, number, elements[op], hardest[op]) for op, number in count.items()]
