"""Random programs with everything that bounding them takes, for the tests of bounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Domain, Multipliers, onto_simplex
from toolkit.ops import RELAXATIONS
from toolkit.problem.program import INPUT, Program, build_program
from toolkit.problem.trace import trace

OPERATORS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
INPUTS, WIDTH, FEATURES = 3, 5, 2


class Net(nn.Module):
    """Three layers with a skip connection; the second operator may be smooth."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(n, WIDTH) for n in (INPUTS, WIDTH, WIDTH))
        self.last = nn.Linear(WIDTH + INPUTS, FEATURES)
        self.operator = OPERATORS[operator]()

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(2 * self.first(x))
        b = self.operator(2 * self.second(a)) + a
        c = torch.relu(2 * self.third(b)) - b
        return self.last(torch.cat([c, x]))


def random_program(seed: int, operator: str = "relu") -> Program:
    """A program with 3 inputs, 15 neurons in 3 layers and 2 features, in double precision."""
    torch.manual_seed(seed)
    return build_program(trace(Net(operator), [torch.zeros(INPUTS)]))


def random_boxes(seed: int, count: int = 4) -> Bounds:
    """Boxes ``(count, 3)``; the last is a point."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, INPUTS, generator=generator, dtype=torch.float64)
    radius = torch.rand(count, INPUTS, generator=generator, dtype=torch.float64)
    radius[-1] = 0
    return Bounds(centre - radius, centre + radius)


def random_points(box: Bounds, count: int, seed: int = 0) -> Tensor:
    """Points ``(count, B, n)`` in each box, some of them corners."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, *box.lower.shape, generator=generator, dtype=box.lower.dtype)
    share[::3] = share[::3].round()
    return torch.minimum(box.lower + share * (box.upper - box.lower), box.upper)


def run(program: Program, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations of all neurons ``(B, N)`` and features ``(B, F)`` at points ``(B, n)``."""
    values: dict[int, Tensor] = {INPUT: points}
    pre = []
    for number, layer in enumerate(program.layers):
        pre.append(layer.affine.apply([values[source] for source in layer.affine.sources]))
        values[number] = RELAXATIONS[layer.op].function(pre[-1])
    return torch.cat(pre, 1), program.features.apply([values[source] for source in program.features.sources])


def split_domain(program: Program, box: Bounds, seed: int, atoms: int = 2) -> Domain:
    """Random phases of some unstable neurons, those of a real point of the first box, and random atoms."""
    generator = torch.Generator().manual_seed(seed)
    bounds = crown_bounds(program, box)
    pre, _ = run(program, random_points(box, 2, seed)[1])
    unstable = (bounds.lower < 0) & (bounds.upper > 0)
    chosen = unstable & (torch.rand(pre.shape, generator=generator) < 0.3) & splittable(program)
    phase = torch.where(chosen, torch.where(pre >= 0, 1, -1), 0).to(torch.int8)
    lower = torch.where(phase > 0, bounds.lower.clamp(min=0), bounds.lower)
    upper = torch.where(phase < 0, bounds.upper.clamp(max=0), bounds.upper)
    weights = torch.randn(len(pre), atoms, FEATURES, generator=generator, dtype=torch.float64)
    constants = torch.randn(len(pre), atoms, generator=generator, dtype=torch.float64)
    return Domain(box, Bounds(lower, upper), phase, weights, constants)


def splittable(program: Program) -> Tensor:
    """Which neurons a split makes linear, ``(num_neurons,)``: those of ReLUs."""
    return torch.cat([torch.full((layer.affine.size,), layer.op == "relu") for layer in program.layers])


def random_multipliers(domain: Domain, seed: int) -> Multipliers:
    """Slopes in [0, 1], multipliers of any non-negative size, weights in the simplex."""
    generator = torch.Generator().manual_seed(seed)
    shape = domain.phase.shape
    alpha = torch.rand(shape, generator=generator, dtype=torch.float64)
    beta = torch.rand(shape, generator=generator, dtype=torch.float64) ** 4 * 10
    weight = onto_simplex(torch.rand(domain.constants.shape, generator=generator, dtype=torch.float64))
    return Multipliers(alpha, beta, weight)
