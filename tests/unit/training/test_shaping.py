"""Bias shaping makes the units nearest to stability stable, and no others."""

from __future__ import annotations

import torch
from torch import nn

from toolkit.data.load import load_dataset
from toolkit.recipe import Data
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.shaping import nearest_stable, shape_biases
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import train
from toolkit.training.training_options import BiasShaping, Training

EPSILON = 0.05


def test_the_smaller_shift_is_taken() -> None:
    lower, upper = torch.tensor([-1.0, -3.0, 0.5, -2.0]), torch.tensor([3.0, 1.0, 2.0, -1.0])
    assert nearest_stable(lower, upper).tolist() == [1.0, -1.0, 0.0, 0.0]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 20), nn.ReLU(),
        nn.Linear(20, 3),
    ).eval()  # fmt: skip


def _unstable(network: nn.Sequential, images: torch.Tensor) -> list[torch.Tensor]:
    """Per ReLU layer, the units that are unstable over the batch."""
    _, trace = propagate(network, image_box(images, EPSILON))
    found = []
    for relu in (network[2], network[5]):
        lower, upper = trace[relu].lower, trace[relu].upper
        axes = (0, 2, 3) if lower.ndim == 4 else (0,)
        found.append((lower.amin(axes) < -1e-6) & (upper.amax(axes) > 1e-6))
    return found


def test_only_the_chosen_part_becomes_stable() -> None:
    network, images = _network(), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    first = _unstable(network, images)[0]
    before = network[1].bias.clone()
    shifted = shape_biases(network[:4], BiasShaping(fraction=0.5), images, EPSILON, {})
    assert shifted == (int(first.sum()) + 1) // 2 > 0
    assert int((network[1].bias != before).sum()) == shifted
    assert int(_unstable(network, images)[0].sum()) == int(first.sum()) - shifted


def test_masked_biases_stay_zero() -> None:
    network, images = _network(), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([True, False] * 3)
    with torch.no_grad():
        network[1].bias.mul_(mask)
    shape_biases(network, BiasShaping(fraction=1.0), images, EPSILON, {"1.bias": mask})
    assert network[1].bias[~mask].tolist() == [0.0] * 3
    assert bool((network[1].bias[mask] != 0).any())


def test_nothing_to_shift() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    assert shape_biases(network, BiasShaping(), torch.rand(2, 1, 4, 4), EPSILON, {}) == 0


def test_training_shapes_biases_at_its_pace() -> None:
    few = load_dataset(Data(name="digits")).train.first(250)

    def trained(pace: int) -> nn.Module:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
        options = BiasShaping(pace=pace, fraction=0.1)
        return train(
            network, TrainingJob(Training(loss="standard", epsilon=0.02, epochs=2, batch=32, shaping=options), few)
        )

    first, again, never = (trained(pace) for pace in (3, 3, 1000))
    assert torch.equal(first[1].bias, again[1].bias)
    assert not torch.equal(first[1].bias, never[1].bias)
