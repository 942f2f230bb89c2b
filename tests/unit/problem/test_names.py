"""Names are never identities: neither those of the compiler's constants nor those in a user's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_programs import evaluate, program_of_model
from programs import program_of
from torch import Tensor, nn

from toolkit.attack.gradient_attack import forward
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.problem.linear_part import GraphRewriting
from toolkit.problem.trace import trace

SIZE = 4


class Constants(nn.Module):
    """Random affine operators with constants of their own between two linear layers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.steps = torch.randint(0, 6, (8,), generator=generator).tolist()
        self.values = [torch.randn(SIZE, generator=generator) for _ in self.steps]
        self.first, self.last = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for step, value in zip(self.steps, self.values, strict=True):
            x = [
                lambda x, c: torch.where(c > 0, x, c),
                lambda x, c: torch.where(c > 0, c, x),
                lambda x, c: x + c,
                lambda x, c: c * x,
                lambda x, c: torch.cat([x[:, 1:], c[:1].unsqueeze(0)], 1),
                lambda x, c: nn.functional.pad(x[:, :-2], (1, 1), value=float(c[0])),
            ][step](x, value)
        return self.last(torch.relu(x))


@pytest.mark.parametrize("seed", range(12))
def test_programs_with_many_constants_compute_their_networks(seed: int) -> None:
    module = Constants(seed)
    program = program_of(module, SIZE)
    points = torch.randn(20, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = torch.cat([module.double()(point.unsqueeze(0)) for point in points.float().double()])
    torch.testing.assert_close(forward(program, points.float().double()), expected, rtol=1e-5, atol=1e-5)


def test_a_new_constant_overwrites_none_that_an_earlier_rewriting_left() -> None:
    rewriting = GraphRewriting(trace(lambda x: x + 1.5 * torch.ones(2), [torch.zeros(2)]))
    node = next(iter(rewriting.graph.nodes))
    for number in range(4):
        rewriting.buffers[f"linear{len(rewriting.buffers) + 1}"] = torch.full((1,), float(number))
        kept = dict(rewriting.buffers)
        rewriting.constant(torch.zeros(1), node)
        assert all(rewriting.buffers[name] is value for name, value in kept.items())


def _changing(x: Tensor) -> Tensor:
    constant = torch.tensor([1.0, 2.0])
    first = x + constant
    view = constant.view(2)
    view.add_(1)
    return first * constant


def test_a_constant_that_is_changed_in_place_is_another_constant() -> None:
    graph = trace(_changing, [torch.zeros(2)])
    x = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(graph(x), _changing(x))


@pytest.mark.parametrize("function", [lambda x: x, lambda x: x.view(2), lambda x: torch.ones(2), lambda x: x + 0 * x])
def test_outputs_that_are_inputs_or_constants(function) -> None:  # type: ignore[no-untyped-def]
    x = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(trace(function, [torch.zeros(2)])(x), function(x))


NAMES = [
    *(f"linear{n}" for n in range(6)), *(f"c{n}" for n in range(4)), *(f"s{n}" for n in range(4)), "x0", "output",
    *(f"__constant_{n}" for n in range(1, 6)), *(f"__View_{n}" for n in range(1, 6)), "__Plus_1", "__MatMul_1",
    "__Mul_2", "self", "/a/b.c", "a b", "\u00e9\u4e2d", "constant_0", "Exponent__1", "X_RM__1",
    "E_Xsquared__1", "x__1", "class", "Output_0", "__Output_1", "0", "readable_0",
]  # fmt: skip
"""Names that the stages of the compiler invent, or that are no identifiers."""
STEPS = [
    "Mean",
    "Max",
    "Softmax",
    "Gemm",
    "Where",
    "MeanVarianceNormalization",
    "Identity",
    "Sum",
    "Add",
    "Mul",
    "Relu",
]


def _random_model(seed: int) -> onnx.ModelProto:
    """Random operators whose tensors, nodes and weights have adversarial names."""
    rng = np.random.default_rng(seed)
    names = iter(rng.permutation(NAMES).tolist())
    source, current = [next(names)] * 2
    nodes, weights = [], []

    def weight(*shape: int) -> str:
        weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), next(names)))
        return str(weights[-1].name)

    for step, label in zip(rng.choice(STEPS, 7).tolist(), rng.permutation(NAMES).tolist(), strict=False):
        attributes: dict[str, object] = {"axis": 1} if step == "Softmax" else {}
        operands = [current]
        if step in ("Mean", "Max", "Sum", "Add", "Mul"):
            operands += [weight(SIZE)]
        if step == "Gemm":
            operands += [weight(SIZE, SIZE), weight(2, SIZE)]
            attributes = {"alpha": 0.5, "beta": 0.25}
        if step == "Where":
            mask = numpy_helper.from_array(rng.random(SIZE) > 0.5, next(names))
            weights.append(mask)
            operands = [mask.name, current, weight(SIZE)]
        if step == "MeanVarianceNormalization":
            attributes = {"axes": [1]}
        current = next(names)
        nodes.append(helper.make_node(step, operands, [current], name=label, **attributes))
    shape = [2, SIZE]
    graph = helper.make_graph(
        nodes, "main", [helper.make_tensor_value_info(source, 1, shape)],
        [helper.make_tensor_value_info(current, 1, shape)], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8)


@pytest.mark.parametrize("seed", range(16))
def test_networks_with_names_that_the_compiler_invents(tmp_path: Path, seed: int) -> None:
    (tmp_path / "net.onnx").write_bytes(_random_model(seed).SerializeToString())
    model = load_model(tmp_path / "net.onnx")
    program, session = program_of_model(model), Session(model)
    points = np.random.default_rng(seed).normal(size=(6, 2 * SIZE)).astype(np.float32).astype(np.float64)
    expected = np.array([session.run([point])[0].reshape(-1) for point in points])
    np.testing.assert_allclose(evaluate(program, points), expected, rtol=1e-3, atol=1e-4)
