"""Regularisers: published values, gradients where they belong, guards."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import nn

from toolkit.models.layers import Normalise
from toolkit.models.structure import ReluSite, relu_sites
from toolkit.training.differentiable_intervals import Interval
from toolkit.training.losses import robust_loss
from toolkit.training.regularisers import regulariser, stability_terms
from toolkit.training.training_options import L1, FastIbp, RegulariserOptions, Sabr, Slimming, Stability, Volume
from toolkit.training.training_step import TrainingStep

NRS = Stability(name="nrs")
RS = Stability(name="rs")


def _site(gamma: float) -> ReluSite:
    norm = nn.BatchNorm2d(1)
    norm.weight.data.fill_(gamma)
    return ReluSite(nn.ReLU(), norm)


def _bounds(lower: float, upper: float) -> Interval:
    return Interval(torch.full((1, 1, 1, 1), lower), torch.full((1, 1, 1, 1), upper))


def _step(net: nn.Module, epsilon: float = 0.03) -> TrainingStep:
    images = torch.rand(6, 2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return TrainingStep(net, images, torch.arange(6) % 3, epsilon, 0.05, torch.Generator().manual_seed(2))


@pytest.mark.parametrize("gamma", [0.5, 1.0, -3.0])
def test_nrs_values(gamma: float) -> None:
    site = _site(gamma)
    assert stability_terms(NRS, site, _bounds(0.0, 2.0)).item() == pytest.approx(-math.tanh(1))
    assert stability_terms(NRS, site, _bounds(-abs(gamma), abs(gamma))).item() == pytest.approx(0, abs=1e-6)
    assert stability_terms(NRS, site, _bounds(20.0, 30.0)).item() == pytest.approx(-1)
    assert stability_terms(NRS, site, _bounds(-90.0, 90.0)).item() == pytest.approx(1)


def test_nrs_is_rs_at_scale_one_and_without_normalisation() -> None:
    bounds = _bounds(-0.7, 0.4)
    wanted = -math.tanh(1 - 0.28)
    for options, site in ((RS, _site(5.0)), (NRS, _site(1.0)), (NRS, ReluSite(nn.ReLU(), None))):
        assert stability_terms(options, site, bounds).item() == pytest.approx(wanted)


def test_a_dead_channel_has_a_finite_term() -> None:
    assert stability_terms(NRS, _site(0.0), _bounds(0.0, 0.0)).item() == pytest.approx(-math.tanh(1))


@pytest.mark.parametrize("detach", ["denominator", "gamma"])
def test_where_the_gradient_to_gamma_stops(detach: str) -> None:
    site = _site(2.0)
    assert site.batch_norm is not None
    lower, upper = (site.batch_norm.weight.reshape(1, 1, 1, 1) * h + 0.1 for h in (-0.4, 0.3))
    term = stability_terms(Stability(name="nrs", detach=detach), site, Interval(lower, upper)).sum()
    (gradient,) = torch.autograd.grad(term, site.batch_norm.weight)
    assert term.item() == pytest.approx(-math.tanh(1 + (-0.7 * 0.7) / 4), rel=1e-5)
    assert (abs(gradient.item()) < 1e-6) == (detach == "gamma")


def test_every_kind_of_options_has_a_term_with_finite_gradients(net: nn.Module) -> None:
    options = [NRS, RS, Stability(name="nrs", bounds="scheduled", reduction="channels", without_batch_norm="skip")]
    options += [Volume(), Slimming(), L1(), FastIbp()]
    assert {type(entry) for entry in options} == set(get_args(get_args(RegulariserOptions)[0]))
    for entry in options:
        gradients = torch.autograd.grad(regulariser(entry, _step(net)), list(net.parameters()), allow_unused=True)
        used = [gradient for gradient in gradients if gradient is not None]
        assert used
        assert all(bool(gradient.isfinite().all()) for gradient in used)


def test_reductions(net: nn.Module) -> None:
    scales = torch.cat([s.batch_norm.weight.abs() for s in relu_sites(net) if s.batch_norm is not None])
    step = _step(net)
    assert regulariser(Slimming(weight=1, reduction="sum"), step).item() == pytest.approx(scales.sum().item())
    assert regulariser(Slimming(weight=1, reduction="mean"), step).item() == pytest.approx(scales.mean().item())
    _, trace = step.bounds("maximum")
    terms = [stability_terms(NRS, site, trace[site.relu]) for site in relu_sites(net)]
    by_neuron = sum(term.sum().item() for term in terms) / sum(term.numel() for term in terms)
    assert regulariser(NRS, step).item() == pytest.approx(0.01 * by_neuron)


def test_scheduled_stability_waits_for_the_ramp(net: nn.Module) -> None:
    options = Stability(name="nrs", bounds="scheduled")
    assert regulariser(options, _step(net, 0.0)).item() == 0
    assert regulariser(options, _step(net, 0.01)).item() != 0


def test_fastibp_fades_out(net: nn.Module) -> None:
    early, late, end = (regulariser(FastIbp(), _step(net, epsilon)).item() for epsilon in (1e-3, 0.04, 0.05))
    assert early > late > 0
    assert end == 0


def test_fastibp_measures_the_input_after_its_normalisation() -> None:
    """Shi et al. (2021), section 3.2: D0 is the half-width of what the first layer reads."""
    net = nn.Sequential(Normalise([0.5], [0.25]), nn.Flatten(), nn.Linear(1, 1, bias=False), nn.ReLU())
    net[2].weight.data.fill_(3.0)
    step = TrainingStep(net, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), 0.05, 0.1, torch.Generator())
    # D0 = 0.05 / 0.25 = 0.2 and D1 = 0.6, half of the ramp is over, no neuron is stable.
    expected = 0.5 * (1 - 0.5) * (0.5 - 0.2 / 0.6) / 0.5
    assert regulariser(FastIbp(), step).item() == pytest.approx(expected, rel=1e-5)


def test_fastibp_reads_a_tiny_box_before_epsilon_grows() -> None:
    """Widths at both ends of a linear layer have the same ratio in a box of any size, and nothing has faded yet."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), nn.ReLU()).double()
    net[1].weight.data.fill_(3.0)
    net[1].bias = nn.Parameter(torch.full((1,), -1.5, dtype=torch.float64))
    images = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    step = TrainingStep(net, images, torch.tensor([0]), 0.0, 0.1, torch.Generator())
    expected = 0.5 * (0.5 - 1 / 3) / 0.5
    assert regulariser(FastIbp(), step).item() == pytest.approx(expected, rel=1e-5)


def test_fastibp_reads_the_box_that_the_loss_is_made_of(net: nn.Module) -> None:
    step = _step(net, 0.03)
    whole = regulariser(FastIbp(), _step(net, 0.03)).item()
    robust_loss(Sabr(ratio=0.1, steps=1), step)
    assert regulariser(FastIbp(), step).item() != pytest.approx(whole, rel=1e-3)
    step.train_with(*step.bounds("scheduled"))
    assert regulariser(FastIbp(), step).item() == pytest.approx(whole)


def test_volume_of_one_relu() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), nn.ReLU())
    net[1].weight.data.fill_(1.0)
    net = nn.Sequential(nn.BatchNorm2d(1).eval(), *net)
    net[0].running_mean.fill_(0.5)
    step = TrainingStep(net, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), 0.2, 0.2, torch.Generator())
    assert regulariser(Volume(weight=1), step).item() == pytest.approx(0.04, rel=1e-3)
