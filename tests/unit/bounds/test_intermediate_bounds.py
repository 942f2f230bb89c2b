"""Optimised neuron bounds: sound, and never looser than what they start from."""

from __future__ import annotations

import torch
from programs import ResidualNetwork, boxes, mlp, points_in, program_of

from toolkit.bounds.bounder import NeuronQuestion
from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.intermediate_bounds import by_optimised_slopes
from toolkit.bounds.interval import Bounds
from toolkit.problem.program import Program


def _pre_activations(program: Program, points: torch.Tensor) -> torch.Tensor:
    values = {-1: points}
    found = []
    for number, layer in enumerate(program.layers):
        z = layer.affine.apply([values[source] for source in layer.affine.sources])
        values[number] = torch.relu(z)
        found.append(z)
    return torch.cat(found, 1)


def _refined(program: Program, radius: float) -> tuple[Bounds, Bounds, Bounds]:
    box = boxes(program, radius)
    bounds = crown_bounds(program, box)
    return box, bounds, by_optimised_slopes(NeuronQuestion(program, box, bounds, iterations=160))


def test_contains_sampled_values() -> None:
    torch.manual_seed(1)
    for program in (program_of(mlp(4, 16, 16, 16, 2), 4), program_of(ResidualNetwork(), 1, 6, 6)):
        box, _, refined = _refined(program, 0.2)
        z = _pre_activations(program, points_in(box, 500))
        assert bool((z >= refined.lower - 1e-9).all())
        assert bool((z <= refined.upper + 1e-9).all())


def test_tightens() -> None:
    torch.manual_seed(2)
    _, bounds, refined = _refined(program_of(mlp(4, 16, 16, 16, 16, 2), 4), 0.5)
    assert bool((refined.lower >= bounds.lower).all())
    assert bool((refined.upper <= bounds.upper).all())
    assert float((refined.upper - refined.lower).sum()) < float((bounds.upper - bounds.lower).sum())
