"""Certified accuracy by cheap bounds: what is proved holds, CROWN adds to intervals, layers without rules are said."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toolkit.data.dataset import Dataset, Split
from toolkit.data.load import load_dataset
from toolkit.models.architecture_options import PresetNet
from toolkit.models.build import build_model
from toolkit.recipe import Data
from toolkit.training.accuracy import accuracy, pgd_accuracy
from toolkit.training.certified import differences
from toolkit.training.certified_accuracy import certified, certified_accuracy
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import train
from toolkit.training.training_options import Pgd, Training

EPSILON = 0.03


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    training = Training(
        loss=Pgd(steps=2, step_size=0.6), epsilon=EPSILON, epochs=8, optimizer="adam", learning_rate=0.005
    )
    model = build_model(PresetNet(architecture="digits_conv", channels=(4, 8)), digits, 0)
    return train(model, TrainingJob(training, digits.train))


def _by_intervals(model: nn.Module, held: Split) -> torch.Tensor:
    found = differences(model, propagate(model, image_box(held.images, EPSILON)), held.labels).upper
    return (found.scatter(1, held.labels[:, None], -1.0) < 0).all(1)


def test_what_is_certified_withstands_attacks(digits: Dataset, trained: nn.Module) -> None:
    held = digits.validation
    proved = certified(trained, held.images, held.labels, EPSILON)
    assert certified_accuracy(trained, held, EPSILON) == pytest.approx(proved.float().mean().item())
    assert 0.3 < proved.float().mean() < accuracy(trained, held)
    kept = Split(held.images[proved], held.labels[proved])
    assert pgd_accuracy(trained, kept, EPSILON, steps=20, restarts=2) == 1


def test_crown_adds_to_what_intervals_prove(digits: Dataset, trained: nn.Module) -> None:
    held = digits.validation
    alone, proved = _by_intervals(trained, held), certified(trained, held.images, held.labels, EPSILON)
    assert bool((alone <= proved).all())
    assert int(alone.sum()) < int(proved.sum())


def test_a_linear_network_is_certified_exactly() -> None:
    """Of two classes, an image keeps its own if the margin is larger than epsilon times the 1-norm of the slope."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images, labels = torch.rand(200, 1, 2, 2) * 0.6 + 0.2, torch.arange(200) % 2
    slope, shift = model[1].weight[1] - model[1].weight[0], model[1].bias[1] - model[1].bias[0]
    margin = (images.flatten(1) @ slope + shift) * (2 * labels - 1)
    expected = margin > 0.1 * slope.abs().sum()
    assert 0 < int(expected.sum()) < 200
    assert torch.equal(certified(model, images, labels, 0.1), expected)


def test_layers_without_rules_are_left_to_intervals_or_not_measured(digits: Dataset, trained: nn.Module) -> None:
    held = digits.validation
    pooled = nn.Sequential(nn.MaxPool2d(1), *trained)  # intervals have a rule for it, backward bounds have none
    alone = _by_intervals(trained, held).float().mean().item()
    assert certified_accuracy(pooled, held, EPSILON) == pytest.approx(alone)
    assert certified_accuracy(nn.Sequential(*trained, nn.Softmax(1)), held, EPSILON) is None
    assert certified_accuracy(trained, held.first(0), EPSILON) is None
