"""Rows of numbers are attacked and bounded in their own range, by a radius for each feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from toolkit.data.dataset import Split
from toolkit.data.input_space import OPEN, InputSpace
from toolkit.data.load import load_dataset
from toolkit.formats.onnx.export import export_model
from toolkit.models import layers
from toolkit.models.layers import InputDomain, input_domain
from toolkit.pruning import build_chains
from toolkit.recipe import Data, parse_recipe
from toolkit.training.accuracy import fgsm_accuracy, pgd_accuracy
from toolkit.training.certified_accuracy import certified_accuracy
from toolkit.training.differentiable_intervals import ball
from toolkit.training.losses import robust_loss
from toolkit.training.training_attack import pgd, uniform_start
from toolkit.training.training_options import (
    CcIbp,
    CrownIbp,
    ExpIbp,
    FgsmGradAlign,
    Ibp,
    LossOptions,
    MtlIbp,
    Pgd,
    Sabr,
)
from toolkit.training.training_step import TrainingStep

RADII = (1.0, 0.0, 0.25)
EPSILON = 4.0
LOW, HIGH = -50.0, 250.0


def _rows(count: int = 16) -> torch.Tensor:
    rows = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    return rows * torch.tensor([300.0, 1e3, 4.0]) + torch.tensor([-50.0, -750.0, 240.0])


def _network(space: InputSpace) -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(InputDomain(space), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        network[1].weight /= 100
    return network


SPACE = InputSpace(-1000.0, HIGH, RADII)
LOSSES = (Pgd(), FgsmGradAlign(), FgsmGradAlign(alpha=0.5), Ibp(), CrownIbp(), Sabr(), MtlIbp(), CcIbp(), ExpIbp())


def _inside(x: torch.Tensor, rows: torch.Tensor, epsilon: float = EPSILON) -> bool:
    radius = epsilon * torch.tensor(RADII) + 1e-4
    return bool(((x - rows).abs() <= radius).all()) and bool((x <= HIGH).all())


@pytest.mark.parametrize("options", LOSSES, ids=lambda options: options.name)
def test_every_loss_stays_in_the_ball_of_each_row(monkeypatch: pytest.MonkeyPatch, options: LossOptions) -> None:
    network, rows = _network(SPACE), _rows()
    rows[:, 2] = rows[:, 2].clamp(max=HIGH)
    rows[:, :2] = rows[:, :2].clamp(max=HIGH)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(InputDomain, "forward", lambda self, x: seen.append(x.detach()) or x)
    generator = torch.Generator().manual_seed(1)
    step = TrainingStep(network, rows, torch.arange(16) % 3, EPSILON, EPSILON, generator)
    robust_loss(options, step).backward()
    assert seen
    assert all(_inside(x, rows) for x in seen)
    moved = torch.stack([(x - rows).abs() for x in seen]).amax((0, 1))
    assert moved[1] == 0
    assert moved[0] > 0.25 * EPSILON * getattr(options, "ratio", 1)  # more than the radius of the last feature
    assert moved[2] > 0


def test_attacks_reach_the_corners_of_each_features_own_radius() -> None:
    network, rows = _network(InputSpace(-OPEN, OPEN, RADII)), _rows()
    generator = torch.Generator().manual_seed(1)
    found = pgd(network, rows, torch.zeros(16, dtype=torch.int64), EPSILON, generator, steps=20, step_size=0.5)
    radius = EPSILON * torch.tensor(RADII)
    assert torch.allclose((found - rows).abs(), radius.expand(16, 3), atol=1e-3)
    box = ball(network, rows, EPSILON)
    assert torch.equal(box.lower, rows - radius)
    assert torch.equal(box.upper, rows + radius)
    start = uniform_start(rows, EPSILON, generator, input_domain(network))
    assert bool(((start - rows).abs() <= radius + 1e-4).all())
    assert (start - rows).abs().amax(0)[0] > 0.5 * radius[0]


def test_the_range_cuts_the_ball() -> None:
    box = ball(_network(InputSpace(LOW, HIGH)), torch.tensor([[LOW, HIGH, 0.0]]), EPSILON)
    assert box.lower.tolist() == [[LOW, HIGH - EPSILON, -EPSILON]]
    assert box.upper.tolist() == [[LOW + EPSILON, HIGH, EPSILON]]


def test_measured_accuracies_are_those_of_the_same_rows_in_other_units() -> None:
    """A network of pixels, and the same one of rows that are those pixels times 200 and less 100."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.rand(64, 3, generator=generator)
    inner = _network(InputSpace())[1:]
    inner[0].weight.data *= 300
    labels = inner(pixels).argmax(1)
    moved = nn.Sequential(InputDomain(InputSpace(-100.0, 100.0)), layers.Normalise((-100.0,), (200.0,), 0), *inner)
    rows = pixels * 200 - 100
    for measure in (fgsm_accuracy, pgd_accuracy, certified_accuracy):
        expected = measure(inner, Split(pixels, labels), 0.06)
        assert 0 < expected < 1
        assert measure(moved, Split(rows, labels), 12.0) == pytest.approx(expected, abs=1 / 64)


WEIGHTS = ("magnitude", "random", "snip", "taylor", "wanda", "hydra", "crown_margin")
CHANNELS = ("slim", "refill", "nrs_channel", "upper_bound", "hydra_filter")


@pytest.mark.parametrize("method", [*WEIGHTS, *CHANNELS])
def test_no_method_takes_rows_for_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The range of pixels is what is left where nothing says another one: nobody asks it here."""
    y = np.arange(96) % 3
    x = np.random.default_rng(0).normal(size=(96, 3)) * 5 + 100 * y[:, None]
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    inner = _network(InputSpace())[1:]
    export_model(inner, torch.zeros(1, 3), tmp_path / "net.onnx")

    def asked(*_: object) -> None:
        raise AssertionError("the range of pixels was asked")

    monkeypatch.setattr(layers.UNIT_DOMAIN, "clip", asked)
    monkeypatch.setattr(layers.UNIT_DOMAIN, "radius", asked)
    options = {"name": method, "layers": ("linear",)} if method in WEIGHTS else method
    values = {
        "name": "rows",
        "data": {"name": "npz:x.npz", "radii": RADII},
        "models": {"given": {"architecture": "onnx", "file": "net.onnx", "batch_norm": method in CHANNELS}},
        "training": {"loss": "sabr", "epochs": 1, "batch": 32, "optimizer": "adam", "learning_rate": 1e-3},
        "chains": [{"name": method, "model": "given", "method": options, "densities": [0.6], "rewind": "finetune"}],
        "specification": {"epsilon": EPSILON, "images": 4},
    }
    recipe = parse_recipe(values, "rows", tmp_path)
    dataset = load_dataset(Data(name="npz:x.npz", radii=RADII, base=tmp_path))
    dense, pruned = build_chains(recipe, dataset)
    assert pruned.parameters < dense.parameters
    assert dense.stability.unstable_ratio <= 1
    assert dense.fgsm_accuracy <= dense.standard_accuracy
    assert dense.pgd_accuracy(dataset.test, EPSILON, steps=2) <= dense.standard_accuracy
