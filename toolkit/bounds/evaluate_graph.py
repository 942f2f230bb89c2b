"""Values of a traced graph with their errors, operator by operator: where `toolkit.bounds.evaluate` sees one map, whose
coefficients may have cancelled, the errors of all the operators that it was made of count here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from toolkit.bounds.evaluate import Arithmetic, Values, unit_of
from toolkit.problem.affine import absolute_module
from toolkit.problem.ops import NONLINEAR
from toolkit.problem.terms import node_terms


def evaluate_graph(graph: fx.GraphModule, points: Tensor, error: Tensor, unit: float) -> Values:
    """The output of a graph (one flat input, one flat output) at points ``(B, n)``, given up to an error, in float64.

    The errors are those of an evaluation that rounds to ``unit``.
    """
    graph = graph.to(dtype=torch.float64)
    absolute = absolute_module(graph)
    arithmetic = Arithmetic.of(unit + unit_of(torch.float64), points.device)
    found: dict[str, Values] = {}
    for node, twin in zip(graph.graph.nodes, absolute.graph.nodes, strict=True):
        if node.op == "placeholder":
            found[node.name] = arithmetic.start(points.double(), error.double())
        elif node.op == "call_function" and node.target in NONLINEAR:
            found[node.name] = arithmetic.apply_operator(NONLINEAR[node.target], found[node.args[0].name])
        elif node.op == "call_function" and not _is_list(node):
            pairs = [(own, other) for own, other in zip(_sources(node), _sources(twin), strict=True) if own in found]
            plain = _Call(graph, node, [own for own, _ in pairs]).of
            sizes = _Call(absolute, twin, [other for _, other in pairs]).of
            found[node.name] = arithmetic.affine(plain, sizes, node_terms(node), [found[own] for own, _ in pairs])
        elif node.op == "output":
            return found[node.args[0].name]
    raise AssertionError("a graph ends in its output")


def _is_list(node: fx.Node) -> bool:
    """Whether an operator has several results, of which others take one: these then stand for it."""
    return bool(node.users) and all(getattr(user.target, "__name__", "") == "_getitem" for user in node.users)


def _sources(node: fx.Node) -> list[str]:
    """Names of the operands, through operators with several results."""
    return [
        name
        for operand in node.all_input_nodes
        for name in (_sources(operand) if operand.op == "call_function" and _is_list(operand) else [operand.name])
    ]


class _Call:
    """An operator of one sample, as a function of batches of those of its operands that depend on the input."""

    def __init__(self, module: fx.GraphModule, node: fx.Node, sources: Sequence[str]) -> None:
        self.node, self.sources = node, sources
        self.constants: Mapping[str, Tensor] = dict(module.named_buffers())

    def of(self, values: Sequence[Tensor]) -> Tensor:
        one: Callable[..., Tensor] = lambda *rows: self._result(self.node, dict(zip(self.sources, rows, strict=True)))  # noqa: E731
        return torch.func.vmap(one)(*values)

    def _result(self, node: fx.Node, values: Mapping[str, Tensor]) -> Any:
        def value(operand: fx.Node) -> Any:
            if operand.op == "get_attr":
                return self.constants[str(operand.target)]
            return values[operand.name] if operand.name in values else self._result(operand, values)

        args, kwargs = fx.map_arg((node.args, node.kwargs), value)
        return node.target(*args, **kwargs)  # type: ignore[operator]
