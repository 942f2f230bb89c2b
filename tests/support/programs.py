"""Small torch networks as bounded programs, for tests of what works on programs."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from toolkit.bounds.interval import Bounds
from toolkit.problem.program import Program, build_program
from toolkit.problem.trace import trace


class ResidualNetwork(nn.Module):
    """Convolutions with batch normalisation, a residual sum and max pooling; input 1x6x6, three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.second, self.pool, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2), nn.Linear(27, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm(self.first(x)))
        return self.last(self.pool(torch.relu(self.second(h) + h)).flatten(1))


def mlp(*widths: int) -> nn.Module:
    """ReLU layers of these widths; the first is the input's, the last the output's."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def program_of(module: nn.Module, *shape: int) -> Program:
    """The program of a module that takes one input of this shape (without the batch)."""
    size = int(torch.Size(shape).numel())
    module = module.eval().requires_grad_(False)
    return build_program(trace(lambda x: module(x.reshape(1, *shape)).reshape(-1), [torch.zeros(size)]))


def boxes(program: Program, radius: float, count: int = 1) -> Bounds:
    """Random boxes of the program's inputs."""
    centre = torch.randn(count, program.num_inputs, dtype=program.dtype)
    return Bounds(centre - radius, centre + radius)


def points_in(box: Bounds, count: int) -> torch.Tensor:
    """Random points ``(count, n)`` of a box of batch 1, corners among them."""
    share = torch.rand(count, box.lower.shape[1], dtype=box.lower.dtype)
    share[: count // 4] = share[: count // 4].round()
    return box.lower + share * (box.upper - box.lower)
