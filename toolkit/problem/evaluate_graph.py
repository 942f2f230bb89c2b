"""Values of a traced graph with their errors, operator by operator.

`toolkit.problem.evaluate_program` sees one map, whose coefficients may have cancelled; here the errors of all the
operators that the map was made of count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from toolkit.problem.affine import absolute_module
from toolkit.problem.evaluate_program import Arithmetic, PointValues
from toolkit.problem.operator_table import NONLINEAR, check_supported, is_part
from toolkit.problem.sum_lengths import value_terms
from toolkit.problem.sum_rounding import unit_roundoff

Function = Callable[[Sequence[Tensor]], Tensor]
INPUT, AFFINE = "input", "affine"


@dataclass(frozen=True)
class OperatorCall:
    """One operator of a graph, on batches of samples."""

    name: str
    kind: str
    """`INPUT`, `AFFINE`, or the name of a nonlinear operator's relaxation."""
    sources: tuple[str, ...] = ()
    """Names of the operands that depend on the input."""
    plain: Function = lambda values: values[0]
    """The operator as a function of batches of its sources."""
    sizes: Function = lambda values: values[0]
    """The operator with absolute coefficients and constants."""
    terms: int = 1
    """At most how many terms are added for one value."""


def calls(graph: fx.GraphModule) -> Iterator[OperatorCall]:
    """The operators of a graph (one flat input, one flat output) in float64, up to the one that is the output.

    Raises UnsupportedError for an operator that cannot be bounded.
    """
    check_supported(graph.graph)
    graph = graph.to(dtype=torch.float64)
    absolute = absolute_module(graph)
    known: set[str] = set()
    for node, twin in zip(graph.graph.nodes, absolute.graph.nodes, strict=True):
        if node.op == "placeholder":
            yield OperatorCall(node.name, INPUT)
        elif node.op == "call_function" and node.target in NONLINEAR:
            yield OperatorCall(node.name, NONLINEAR[node.target], (node.args[0].name,))
        elif node.op == "call_function" and not _is_list(node):
            pairs = [(own, other) for own, other in zip(_sources(node), _sources(twin), strict=True) if own in known]
            own, other = [first for first, _ in pairs], [second for _, second in pairs]
            plain, sizes = _function_of(graph, node, own), _function_of(absolute, twin, other)
            yield OperatorCall(node.name, AFFINE, tuple(own), plain, sizes, value_terms(node))
        elif node.op == "output":
            yield _output(graph, node.args[0], next(iter(known)))
        if node.op == "placeholder" or (node.op == "call_function" and not _is_list(node)):
            known.add(node.name)


def _output(graph: fx.GraphModule, last: fx.Node, start: str) -> OperatorCall:
    """The value that a graph returns; where no input reaches it, the same one for every sample of ``start``."""
    if last.op != "get_attr":
        return OperatorCall("", AFFINE, (last.name,))
    value = dict(graph.named_buffers())[str(last.target)]

    def plain(sources: Sequence[Tensor]) -> Tensor:
        return value.expand(len(sources[0]), *value.shape)

    return OperatorCall("", AFFINE, (start,), plain, lambda sources: plain(sources).abs())


def evaluate_graph(graph: fx.GraphModule, points: Tensor, error: Tensor, unit: float) -> PointValues:
    """The output of a graph, as `evaluate_operators` does it."""
    return evaluate_operators(graph, points, error, unit)[""]


def evaluate_operators(
    graph: fx.GraphModule, points: Tensor, error: Tensor, unit: float, copies: int | None = None
) -> dict[str, PointValues]:
    """All operators of a graph (one flat input and output) at points ``(B, n)``, given up to an error, in float64.

    By the operators' names; the output's is empty.

    The errors are those of an evaluation that rounds to ``unit``. Raises UnsupportedError for an operator that cannot
    be bounded.
    """
    arithmetic = Arithmetic.of(unit + unit_roundoff(torch.float64), copies)
    found: dict[str, PointValues] = {}
    for call in calls(graph):
        if call.kind == INPUT:
            found[call.name] = arithmetic.start(points.double(), error.double())
        elif call.kind == AFFINE:
            values = [found[name] for name in call.sources]
            found[call.name] = arithmetic.affine(call.plain, call.sizes, call.terms, values)
        else:
            found[call.name] = arithmetic.apply_operator(call.kind, found[call.sources[0]])
    return found


def _is_list(node: fx.Node) -> bool:
    """Whether an operator has several results, of which others take one: these then stand for it."""
    return bool(node.users) and all(map(is_part, node.users))


def _sources(node: fx.Node) -> list[str]:
    """Names of the operands, through operators with several results."""
    return [
        name
        for operand in node.all_input_nodes
        for name in (_sources(operand) if operand.op == "call_function" and _is_list(operand) else [operand.name])
    ]


def _function_of(module: fx.GraphModule, node: fx.Node, sources: Sequence[str]) -> Function:
    """An operator of one sample, as a function of batches of those of its operands that depend on the input."""
    constants: Mapping[str, Tensor] = dict(module.named_buffers())

    def result_of(node: fx.Node, values: Mapping[str, Tensor]) -> Any:
        def value(operand: fx.Node) -> Any:
            if operand.op == "get_attr":
                return constants[str(operand.target)]
            return values[operand.name] if operand.name in values else result_of(operand, values)

        args, kwargs = fx.map_arg((node.args, node.kwargs), value)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def one(*rows: Tensor) -> Any:
        result = result_of(node, dict(zip(sources, rows, strict=True)))
        # A graph may still name the type that it was traced in.
        return result.double() if isinstance(result, Tensor) else result

    return lambda values: torch.func.vmap(one)(*values)
