"""Rewrites compute exactly what the operators they replace do, with supported operators only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from toolkit.attack.gradient_attack import forward
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.errors import UnsupportedError
from toolkit.problem.operator_table import check_supported
from toolkit.problem.program import build_program
from toolkit.problem.rewrites import REWRITES
from toolkit.problem.rewrites.rewrite_record import rewrite
from toolkit.problem.trace import trace

aten = torch.ops.aten
Function = Callable[[Tensor], Tensor]
OTHER = torch.tensor([[0.3, -1.0, 0.5, 2.0]])


def pool(**options: object) -> Function:
    return lambda x: F.max_pool2d(x, **options)  # type: ignore[arg-type]


def batch_norm(dims: int) -> nn.Module:
    """Batch normalisation with statistics that are not those of a fresh layer, in evaluation mode."""
    module = (nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d)(4, affine=dims == 2)
    assert module.running_mean is not None and module.running_var is not None
    module.running_mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
    module.running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 0.1]))
    if module.affine:
        module.weight.data, module.bias.data = torch.tensor([1.0, -2.0, 0.5, 0.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    return module.eval()


FLAT: dict[str, Function] = {
    "maximum": lambda x: torch.maximum(x, OTHER),
    "maximum of two variables": lambda x: torch.maximum(x, x.flip(1)),
    "minimum": lambda x: torch.minimum(x, OTHER),
    "abs": torch.abs,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "leaky relu with a slope above one": lambda x: F.leaky_relu(x, 1.5),
    "prelu with one slope": lambda x: F.prelu(x, torch.tensor([0.25])),
    "prelu with a slope for each channel": lambda x: F.prelu(x, torch.tensor([0.25, -0.5, 0.0, 1.5])),
    "clamp on both sides": lambda x: torch.clamp(x, -0.5, 0.75),
    "clamp below": lambda x: torch.clamp(x, min=-0.5),
    "clamp above": lambda x: torch.clamp(x, max=0.25),
    "clamp below by operator": lambda x: aten.clamp_min.default(x, 0.5),
    "clamp with tensors": lambda x: torch.clamp(x, OTHER - 1, OTHER),
    "hardtanh": lambda x: F.hardtanh(x, -0.2, 0.4),
    "relu6": lambda x: F.relu6(6 * x),
    "number minus": lambda x: 1.5 - x,
    "reversed subtraction with a factor": lambda x: torch.rsub(x, OTHER, alpha=2),
    "amin along an axis": lambda x: torch.amin(x, 1, keepdim=True),
    "amax along an axis": lambda x: torch.amax(x, 1),
    "amax that keeps the axis": lambda x: torch.amax(x.reshape(-1, 2, 2), (-1,), keepdim=True),
    "amax along two axes": lambda x: torch.amax(x.reshape(-1, 2, 2), (1, 2)),
    "batch norm of vectors": batch_norm(1),
}
SMOOTH: dict[str, Function] = {
    "product": lambda x: x * x.flip(1),
    "product with itself": lambda x: x * x,
    "product with a constant": lambda x: x * OTHER,
    "quotient": lambda x: x / (x.flip(1) + 10),
    "quotient of a constant": lambda x: OTHER / (x + 10),
    "matrix product": lambda x: x.mT @ x,
    "batched matrix product": lambda x: x.reshape(-1, 2, 2) @ x.flip(1).reshape(-1, 2, 2),
    "matrix and vector": lambda x: x.reshape(2, 2) @ x.reshape(4)[:2],
    "dot product": lambda x: x.reshape(4) @ x.reshape(4).flip(0),
    "biased matrix product": lambda x: torch.addmm(OTHER, x[:, :1], x, alpha=2, beta=0.5),
    "biased batched matrix product": lambda x: torch.baddbmm(x.reshape(1, 2, 2), *[x.reshape(1, 2, 2)] * 2, alpha=3),
    "product along an axis": lambda x: x.prod(1),
    "product along an axis that is kept": lambda x: x.reshape(-1, 2, 2).prod(2, keepdim=True),
    **{f"power {n}": lambda x, n=n: (x / 2) ** n for n in (0, 1, 2, 3, 4, 5, 6, 7)},  # type: ignore[misc]
    **{f"power {n}": lambda x, n=n: (x + 10) ** n for n in (0.5, -0.5, -1, -2)},  # type: ignore[misc]
    "softmax": lambda x: torch.softmax(x, 1),
    "softmax along an inner axis": lambda x: torch.softmax(x.reshape(-1, 2, 2), 1),
    "log softmax": lambda x: torch.log_softmax(x, 1),
    "log sum exp": lambda x: torch.logsumexp(x, 1),
    "cosine": torch.cos,
    "ceiling": torch.ceil,
    "elu": lambda x: F.elu(x, 1.5),
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, 2.0),
    "hard sigmoid": F.hardsigmoid,
    "hard swish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "layer norm": lambda x: F.layer_norm(x, [4], OTHER[0], OTHER[0] + 1, 1e-3),
    "layer norm without weights": lambda x: F.layer_norm(x, [4]),
}
IMAGE: dict[str, Function] = {
    "instance norm": lambda x: F.instance_norm(x, weight=torch.arange(4.0), bias=torch.ones(4)),
    "max pool": pool(kernel_size=2),
    "max pool with overlap": pool(kernel_size=3, stride=1),
    "max pool with padding": pool(kernel_size=3, stride=2, padding=1),
    "max pool with uneven steps": pool(kernel_size=(2, 3), stride=(1, 2), padding=(1, 0)),
    "max pool that rounds up": pool(kernel_size=2, stride=2, ceil_mode=True),
    "max pool that rounds up with padding": pool(kernel_size=3, stride=2, padding=1, ceil_mode=True),
    "batch norm of images": batch_norm(2),
    "amax over an image": lambda x: torch.amax(x, (2, 3)),
}


def assert_same(function: Function, shape: tuple[int, ...]) -> None:
    """The trace holds supported operators only, and computes the function at many points."""
    graph = trace(function, [torch.zeros(shape)])
    check_supported(graph.graph)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(shape, generator=generator)
        torch.testing.assert_close(graph(x), function(x))


@pytest.mark.parametrize("name", FLAT)
def test_rewrite_of_vectors(name: str) -> None:
    assert_same(FLAT[name], (1, 4))


@pytest.mark.parametrize("name", SMOOTH)
def test_rewrite_of_smooth_operators(name: str) -> None:
    assert_same(SMOOTH[name], (1, 4))


@pytest.mark.parametrize("name", IMAGE)
def test_rewrite_of_images(name: str) -> None:
    assert_same(IMAGE[name], (1, 4, 5, 4))


def test_every_rewrite_is_exercised() -> None:
    """Each registered rewrite is called by at least one of the functions above, or is called by name below."""
    called = set()

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            called.add(func)
            return func(*args, **(kwargs or {}))

    with Spy():
        for shape, functions in (((1, 4), FLAT | SMOOTH), ((1, 4, 5, 4), IMAGE)):
            for function in functions.values():
                function(torch.randn(shape))
    assert set(REWRITES) - called <= BY_NAME, [str(operator) for operator in set(REWRITES) - called - BY_NAME]


BY_NAME = {aten.prelu.default, aten._native_batch_norm_legit_no_training.default, aten.native_batch_norm.default}
"""Operators that torch reaches in some of its versions or exporters only."""


def test_rewrites_called_by_name() -> None:
    x, weight, shift = torch.randn(1, 4, 2, 2), torch.randn(4), torch.randn(4)
    mean, variance = torch.randn(4), torch.rand(4) + 0.5
    expected = F.batch_norm(x, mean, variance, weight, shift, training=False, eps=1e-3)
    by_training_flag = REWRITES[aten.native_batch_norm.default].function(
        x, weight, shift, mean, variance, False, 0.1, 1e-3
    )
    inference = REWRITES[aten._native_batch_norm_legit_no_training.default].function(
        x, weight, shift, mean, variance, 0.1, 1e-3
    )
    torch.testing.assert_close(by_training_flag[0], expected)
    torch.testing.assert_close(inference[0], expected)
    torch.testing.assert_close(REWRITES[aten.prelu.default].function(x, weight), F.prelu(x, weight))


def test_a_second_rewrite_of_an_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="already"):
        rewrite(aten.abs.default)(torch.abs)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 2, dilation=2),
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
        lambda x: x**1.5,
        lambda x: F.layer_norm(x, (5, 4), eps=0.0),
    ],
)
def test_what_cannot_be_rewritten_is_said(function: Function) -> None:
    with pytest.raises(UnsupportedError):
        check_supported(trace(function, [torch.randn(1, 4, 5, 4)]).graph)


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e5])
def test_a_quotient_of_numbers_of_any_size_is_accurate_and_tightly_bounded(size: float) -> None:
    """A share of a sum of cubes: dividend and reciprocal differ by the sixth power of that."""

    def shares(x: Tensor) -> Tensor:
        cubes = (x * size) ** 3
        return cubes / cubes.sum()

    example = torch.tensor([1.0, 2.0, 3.0])
    program = build_program(trace(shares, [example]))
    point = example.double().unsqueeze(0) * 1.01
    torch.testing.assert_close(forward(program, point), shares(point[0]).unsqueeze(0), rtol=1e-9, atol=0)
    _, features = interval_bounds(program, Bounds(point * 0.999, point * 1.001))
    assert float((features.upper - features.lower).max()) < 0.05


def test_a_quotient_with_an_example_of_zeros_is_right_elsewhere() -> None:
    program = build_program(trace(lambda x: x[:1] / (x[1:] + 2), [torch.zeros(2)]))
    point = torch.tensor([[3.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(forward(program, point), torch.tensor([[1.2]], dtype=torch.float64))
