"""Tracing: constants are folded, results do not depend on the run, and what cannot be recorded is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.attack.gradient_attack import forward
from toolkit.errors import UnsupportedError
from toolkit.problem.program import build_program
from toolkit.problem.trace import trace


def test_graph_computes_the_function_elsewhere() -> None:
    weight = torch.randn(3, 4)
    graph = trace(lambda x: torch.relu(x @ weight.T + 1).sum(), [torch.zeros(4)])
    x = torch.randn(4)
    torch.testing.assert_close(graph(x), torch.relu(x @ weight.T + 1).sum())


def test_what_does_not_depend_on_the_input_is_a_constant() -> None:
    weight = torch.randn(4)
    graph = trace(lambda x: x * torch.exp(weight).cumsum(0), [torch.zeros(4)])
    calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert calls == [torch.ops.aten.mul.Tensor]


def test_later_changes_of_a_weight_do_not_reach_the_graph() -> None:
    weight = torch.ones(2)
    graph = trace(lambda x: x * weight, [torch.zeros(2)])
    weight.fill_(5)
    torch.testing.assert_close(graph(torch.ones(2)), torch.ones(2))


def test_unused_work_is_dropped() -> None:
    graph = trace(lambda x: (torch.exp(x), x + 1)[1], [torch.zeros(2)])
    assert len([node for node in graph.graph.nodes if node.op == "call_function"]) == 1


def strided(x: Tensor) -> Tensor:
    """ReLU keeps the strides of a transposed tensor, so that the view back is one of a contiguous tensor."""
    turned = torch.relu(x.reshape(2, 3).T)
    return turned.T.view(6) * torch.arange(6.0)


def test_a_program_does_not_depend_on_strides_of_the_trace() -> None:
    program = build_program(trace(strided, [torch.zeros(6)]))
    x = torch.randn(5, 6, dtype=torch.float64)
    expected = torch.stack([strided(row.float()).double() for row in x])
    torch.testing.assert_close(forward(program, x), expected, rtol=1e-5, atol=1e-6)


def branching(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (branching, "depends on the value"),
        (lambda x: x[torch.zeros(2)[: int(x.argmax())].long()], "depends on the value"),
        (lambda x: x.clone().add_(1), "in place"),
        (lambda x: torch.zeros(2).copy_(x), "in place"),
    ],
)
def test_what_cannot_be_recorded_is_refused(function, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnsupportedError, match=words):
        trace(function, [torch.ones(2)])


@pytest.mark.parametrize("function", [torch.cosh, torch.digamma, lambda x: torch.sort(x).values])
def test_operators_without_a_rule_are_named(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnsupportedError, match="aten"):
        build_program(trace(function, [torch.ones(2)]))
