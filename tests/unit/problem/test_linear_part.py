"""The linear part of a map is the map's differences, with factors of channels in the weights of convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import program_of
from torch import nn

from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.problem.affine import GraphAffine, absolute_module
from toolkit.problem.trace import trace

aten = torch.ops.aten


def _norm(channels: int) -> nn.Module:
    """Batch normalisation with a factor and an offset of each channel's own."""
    norm = nn.BatchNorm2d(channels)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)  # type: ignore[arg-type]
    nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return norm


MODULES = {
    "after a convolution": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), _norm(4)),
    "after groups": lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), _norm(4)),
    "after a transposed one": lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 4, stride=2), _norm(3)),
    "before a convolution": lambda: nn.Sequential(_norm(2), nn.Conv2d(2, 4, 3, padding=1)),
    "before a transposed one": lambda: nn.Sequential(_norm(2), nn.ConvTranspose2d(2, 3, 3)),
    "between two": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), _norm(4), nn.Conv2d(4, 2, 3)),
    "beside upsampling": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 3, 3, padding=1), _norm(3)),
}
FOLDED = set(MODULES)
CHAINS = {"between two", "beside upsampling"}
"""Whose coefficients may cancel from one operator to the next, which absolute ones do not."""
MODULES |= {
    "before groups": lambda: nn.Sequential(_norm(2), nn.Conv2d(2, 4, 3, groups=2)),
    "after transposed groups": lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3, groups=2), _norm(4)),
}


@pytest.mark.parametrize("name", MODULES)
def test_linear_part_is_the_change_of_the_values(name: str, tune: Callable[..., None]) -> None:
    tune(problem={"most_dense_convolution_elements": 0})
    torch.manual_seed(5)
    module = MODULES[name]()
    found = program_of(module, 2, 6, 6).features
    module.double()
    assert isinstance(found, GraphAffine)
    x, zero = torch.randn(3, 72, dtype=torch.float64), torch.zeros(1, 72, dtype=torch.float64)
    value, bias = (module(points.reshape(-1, 2, 6, 6)).flatten(1) for points in (x, zero))
    # A factor of batch normalisation is as precise as the module was when it was traced.
    torch.testing.assert_close(found.bias, bias[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.change([x]), value - bias, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.apply([x]), value, rtol=1e-5, atol=1e-6)
    matrix = found.change([torch.eye(72, dtype=torch.float64)])
    radius, least = found.radius([x.abs()]), x.abs() @ matrix.abs()
    assert bool((radius >= least - 1e-9).all())
    if name not in CHAINS:
        torch.testing.assert_close(radius, least)
    rows = torch.randn(1, 4, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.transpose(rows)[0], rows @ matrix.T)


@pytest.mark.parametrize("name", sorted(FOLDED))
def test_nothing_is_left_of_batch_normalisation(name: str, tune: Callable[..., None]) -> None:
    tune(problem={"most_dense_convolution_elements": 0})
    found = program_of(MODULES[name](), 2, 6, 6).features
    assert isinstance(found, GraphAffine)
    for graph in (found.linear.graph, found.absolute.graph):
        targets = {node.target for node in graph.nodes}
        assert aten.convolution.default in targets
        assert not targets & {aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor}


def test_a_factor_of_two_readers_stays(tune: Callable[..., None]) -> None:
    tune(problem={"most_dense_convolution_elements": 0})

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
            self.factor = nn.Parameter(torch.tensor([2.0, -1.0]).reshape(1, 2, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            scaled = h * self.factor
            return self.second(scaled) + scaled - h

    torch.manual_seed(6)
    module = Twice()
    found = program_of(module, 2, 4, 4).features
    x = torch.randn(3, 32, dtype=torch.float64)
    torch.testing.assert_close(found.apply([x]), module.double()(x.reshape(3, 2, 4, 4)).flatten(1))


class WithConstantsBeside(nn.Module):
    """Operators that put numbers of either sign beside or in place of values, and scale and add what comes of it."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.pads = [int(torch.randint(-1, 3, (), generator=generator)) for _ in range(4)]
        self.padding, self.factor, self.summand, self.second = torch.randn(4, generator=generator).mul(3).tolist()
        self.mask = torch.rand(1, 2, 4, 4, generator=generator) < 0.5
        self.other, self.more = torch.randn(2, 1, 2, 4, 4, generator=generator)
        self.order = torch.randperm(3, generator=generator).tolist()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in self.order:
            if number == 0:
                x = nn.functional.pad(x, self.pads, value=self.padding) * self.factor + self.summand
            elif number == 1:
                x = torch.where(self.mask, x[..., :4, :4], self.other) - self.second if min(x.shape[2:]) >= 4 else x
            else:
                x = torch.cat([x, self.more.flatten()[: 2 * x.shape[3]].reshape(1, 2, 1, x.shape[3])], 2)
        return x


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_numbers_beside_values_are_no_part_of_differences(seed: int, limit: int, tune: Callable[..., None]) -> None:
    """A number below zero is as large as its magnitude: what rounding may change is no less for its sign."""
    tune(problem={"most_dense_elements": limit, "most_dense_convolution_elements": limit})
    module = WithConstantsBeside(torch.Generator().manual_seed(seed))
    program = program_of(module, 2, 4, 4)
    found, points = program.features, torch.randn(5, 32, generator=torch.Generator().manual_seed(seed))
    zero = torch.zeros(1, 32, dtype=torch.float64)
    assert not bool(found.change([zero]).any())
    assert not bool(found.radius([zero]).any())
    for dtype in (torch.float32, torch.float64):
        bounds = interval_bounds(program.to(torch.device("cpu"), dtype), Bounds(points.to(dtype), points.to(dtype)))[1]
        truth = torch.stack([module(point.double().reshape(1, 2, 4, 4)).flatten() for point in points])
        assert bool((found.uncertainty([zero]) >= 0).all())
        rounding = 1e-13 * (1 + truth.abs())  # of the truth in double precision
        assert bool((bounds.lower <= truth + rounding).all())
        assert bool((truth - rounding <= bounds.upper).all())


@pytest.mark.parametrize("seed", range(40))
def test_absolute_operators_are_no_smaller_than_the_operators(seed: int) -> None:
    module = WithConstantsBeside(torch.Generator().manual_seed(seed)).double()
    graph = trace(lambda x: module(x.reshape(1, 2, 4, 4)).reshape(-1), [torch.zeros(32)])
    zero = torch.zeros(32, dtype=torch.float64)
    assert bool((absolute_module(graph.double())(zero) >= graph.double()(zero).abs() * (1 - 1e-12)).all())
