"""The linear part of a map is the map's differences, with factors of channels in the weights of convolutions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import program_of
from torch import nn

from toolkit.problem.affine import GraphAffine

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
