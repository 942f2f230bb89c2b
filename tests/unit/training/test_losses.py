"""Losses: every kind has an implementation, certified ones bound adversarial ones, and known identities hold."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from toolkit.training import certified
from toolkit.training.adversarial import misalignment
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.losses import robust_loss
from toolkit.training.training_options import (
    CcIbp,
    CrownIbp,
    ExpIbp,
    ExpressiveLoss,
    FgsmGradAlign,
    Ibp,
    LossOptions,
    MtlIbp,
    Pgd,
    Sabr,
    Standard,
)
from toolkit.training.training_step import TrainingStep

LOSSES = [Standard(), FgsmGradAlign(), Pgd(steps=2), Ibp(), CrownIbp(), Sabr(steps=2, relu_share=0.8), MtlIbp(steps=2)]
LOSSES += [CcIbp(steps=2), ExpIbp(steps=2)]


def _step(net: nn.Module, epsilon: float = 0.03, maximum: float = 0.05) -> TrainingStep:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 2, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(6) % 3
    return TrainingStep(net, images, labels, epsilon, maximum, generator)


def test_every_kind_of_options_has_a_loss() -> None:
    kinds = get_args(get_args(LossOptions)[0])
    assert {type(options) for options in LOSSES} == set(kinds)
    assert set(robust_loss.registry) >= set(kinds)


@pytest.mark.parametrize("options", LOSSES, ids=lambda options: options.name)
def test_without_a_radius_every_loss_is_the_cross_entropy(net: nn.Module, options: LossOptions) -> None:
    step = _step(net, epsilon=0.0)
    natural = cross_entropy(net(step.images), step.labels)
    assert robust_loss(options, step).item() == pytest.approx(natural.item())


@pytest.mark.parametrize("options", LOSSES, ids=lambda options: options.name)
def test_every_loss_has_a_finite_gradient_for_every_weight(net: nn.Module, options: LossOptions) -> None:
    net.train()
    loss = robust_loss(options, _step(net))
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0


def test_losses_are_ordered_from_natural_to_certified(net: nn.Module) -> None:
    losses = [robust_loss(options, _step(net)).item() for options in (Standard(), Pgd(), CrownIbp(), Ibp())]
    assert losses == sorted(losses)


def test_the_fused_loss_at_the_end_of_the_ramp_is_ibp(net: nn.Module) -> None:
    fused, ibp = (robust_loss(options, _step(net, 0.05)).item() for options in (CrownIbp(), Ibp()))
    assert fused == pytest.approx(ibp)


def test_the_fused_crown_bound_holds_for_every_sample(net: nn.Module) -> None:
    step = _step(net)
    bound = certified.fused_loss(step, step.bounds("scheduled"), share=1.0).item()
    for _ in range(20):
        noise = torch.rand(step.images.shape, generator=step.generator, dtype=torch.float64) * 2 - 1
        x = (step.images + step.epsilon * noise.sign()).clamp(0, 1)
        assert cross_entropy(net(x), step.labels).item() <= bound


def test_sabr_with_the_whole_radius_is_ibp(net: nn.Module) -> None:
    step = _step(net)
    assert robust_loss(Sabr(ratio=1.0), step).item() == pytest.approx(robust_loss(Ibp(), step).item(), rel=1e-6)


@pytest.mark.parametrize("kind", [MtlIbp, CcIbp, ExpIbp])
def test_expressive_losses_go_from_the_adversarial_to_the_ibp_loss(
    net: nn.Module, kind: type[MtlIbp | CcIbp | ExpIbp]
) -> None:
    low, *between, high = (robust_loss(kind(mix=mix), _step(net)).item() for mix in (0.0, 0.3, 0.6, 1.0))
    assert low == pytest.approx(robust_loss(Pgd(steps=8), _step(net)).item())
    assert high == pytest.approx(robust_loss(Ibp(), _step(net)).item())
    assert low < between[0] < between[1] < high


LABEL = torch.tensor([1])
ADVERSARIAL = torch.tensor([[0.3, 1.1, -0.4]], dtype=torch.float64)
WORST = torch.tensor([[2.0, 0.5, 1.5]], dtype=torch.float64)
"""Logits of an image: at an adversarial point, and the worst that bounds allow (label at its lower, others upper)."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # De Palma et al. (ICLR 2024), with z the differences of the label's logit to the others: -0.8, -1.5 and 1.5, 1.
        (MtlIbp(mix=0.2), 0.8 * math.log(1 + math.exp(-0.8) + math.exp(-1.5))
         + 0.2 * math.log(1 + math.exp(1.5) + math.exp(1.0))),
        (CcIbp(mix=0.2), math.log(1 + math.exp(0.8 * -0.8 + 0.2 * 1.5) + math.exp(0.8 * -1.5 + 0.2 * 1.0))),
        (ExpIbp(mix=0.2), math.log(1 + math.exp(-0.8) + math.exp(-1.5)) ** 0.8
         * math.log(1 + math.exp(1.5) + math.exp(1.0)) ** 0.2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_expressive_losses_by_their_formulas(options: ExpressiveLoss, expected: float) -> None:
    assert certified.between(options, ADVERSARIAL, WORST, LABEL).item() == pytest.approx(expected, rel=1e-12)


def test_exp_ibp_takes_powers_of_the_means_over_the_batch() -> None:
    """As in the code of De Palma et al. and in CTBench, whose coefficients are for that."""
    adversarial = torch.cat([ADVERSARIAL, torch.tensor([[0.0, 6.0, 0.0]], dtype=torch.float64)])
    worst = torch.cat([WORST, torch.tensor([[1.0, 0.0, 3.0]], dtype=torch.float64)])
    labels = torch.tensor([1, 1])
    means = [-logits.log_softmax(1)[:, 1].mean().item() for logits in (adversarial, worst)]
    found = certified.between(ExpIbp(mix=0.2), adversarial, worst, labels).item()
    assert found == pytest.approx(means[0] ** 0.8 * means[1] ** 0.2, rel=1e-12)


def test_an_exp_ibp_loss_that_vanishes_has_a_gradient() -> None:
    adversarial = torch.tensor([[-800.0, 800.0]], dtype=torch.float64, requires_grad=True)
    loss = certified.between(ExpIbp(mix=0.5), adversarial, adversarial + 1, LABEL)
    (gradient,) = torch.autograd.grad(loss, adversarial)
    assert bool(gradient.isfinite().all())


def test_sabr_shrinks_the_upper_ends_of_unstable_neurons_alone() -> None:
    """Of three neurons 2 x - 1, 2 x and -2 x on [0.4, 0.8]: the first is unstable, with [-0.2, 0.6] before its ReLU."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 3), nn.ReLU())
    net[1].weight.data = torch.tensor([[2.0], [2.0], [-2.0]])
    net[1].bias.data = torch.tensor([-1.0, 0.0, 0.0])
    box = image_box(torch.full((1, 1, 1, 1), 0.6), 0.2)
    out, trace = propagate(net, box, 0.5)
    assert trace[net[2]].lower[0].tolist() == pytest.approx([-0.2, 0.8, -1.6])
    assert trace[net[2]].upper[0].tolist() == pytest.approx([0.6, 1.6, -0.8])
    assert out.lower[0].tolist() == pytest.approx([0.0, 0.8, 0.0], abs=1e-6)
    assert out.upper[0].tolist() == pytest.approx([0.3, 1.6, 0.0], abs=1e-6)
    whole, _ = propagate(net, box)
    assert whole.upper[0].tolist() == pytest.approx([0.6, 1.6, 0.0], abs=1e-6)


def test_differences_of_logits_elide_the_last_layer(net: nn.Module) -> None:
    """One linear function of the last layer's input on its box, whose corners decide; and tighter than the logits'."""
    step = _step(net)
    logits, trace = step.bounds("scheduled")
    found = certified.differences(net, (logits, trace), step.labels)
    last, x = net[-1], trace[net[-1]]
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64)
    points = x.lower[:, None] + corners * (x.upper - x.lower)[:, None]  # (B, 64, 6)
    values = last(points)
    values = values - values.gather(2, step.labels[:, None, None].expand(-1, len(corners), -1))
    assert torch.allclose(found.lower, values.amin(1))
    assert torch.allclose(found.upper, values.amax(1))
    one_by_one = logits.upper - logits.lower.gather(1, step.labels[:, None])
    assert bool((found.upper <= one_by_one + 1e-12).all())
    assert bool((found.upper < one_by_one - 1e-6).any())
    headless = nn.Sequential(*net, nn.Identity())
    loose = certified.differences(headless, propagate(headless, image_box(step.images, 0.03)), step.labels)
    assert torch.allclose(loose.upper, one_by_one.scatter(1, step.labels[:, None], 0.0))


@pytest.mark.parametrize("options", [Sabr(steps=1), MtlIbp(mix=0.0, steps=1)], ids=lambda options: options.name)
def test_passes_beside_the_images_have_the_statistics_of_the_images(
    options: LossOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an attack that finds all images black, batch normalisation by their own statistics would make all zero."""
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2, bias=False)).double().train()
    images = torch.rand(8, 1, 2, 2, dtype=torch.float64)
    step = TrainingStep(net, images, torch.arange(8) % 2, 1.0, 1.0, torch.Generator().manual_seed(0))
    monkeypatch.setattr(certified, "pgd", lambda model, images, *rest, **options: torch.zeros_like(images))
    loss = robust_loss(options, step)
    mean, deviation = images.mean(), (images.var(unbiased=False) + 1e-5).sqrt()
    radius = options.ratio * image_box(images, 1.0).radius if isinstance(options, Sabr) else torch.zeros_like(images)
    assert bool((image_box(images, 1.0).radius == 0.5).all())
    x = ((radius - mean) / deviation).flatten(1)
    change = net[2].weight[1] - net[2].weight[0]
    sign = torch.where(step.labels == 0, 1.0, -1.0)
    worst = sign * (x @ change) + (radius / deviation).flatten(1) @ change.abs()
    assert loss.item() == pytest.approx(nn.functional.softplus(worst).mean().item())
    assert net[0].training
    assert not net[0]._forward_hooks


def test_misalignment_of_known_gradients() -> None:
    first = torch.tensor([[1.0, 0.0], [1e-20, 0.0], [0.0, 0.0]])
    second = torch.tensor([[0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]])
    assert misalignment(first, second).item() == pytest.approx(1.5)
    assert misalignment(first, 3 * first).item() == pytest.approx(0.0, abs=1e-6)
    assert misalignment(first[2:], second[2:]).item() == 0


def test_fgsm_attacks_at_the_image_itself() -> None:
    """On a linear two-class net one signed step is the worst case, which is known in closed form."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    images = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    step = TrainingStep(linear, images, torch.tensor([0]), 0.1, 0.1, torch.Generator().manual_seed(0))
    difference = linear[1].weight[1] - linear[1].weight[0]
    worst = 0.5 * difference.sum() + 0.1 * difference.abs().sum()
    loss = robust_loss(FgsmGradAlign(weight=0), step).item()
    assert loss == pytest.approx(math.log1p(math.exp(worst.item())))
