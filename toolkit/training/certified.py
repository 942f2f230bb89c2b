"""Certified losses: IBP, CROWN-IBP with loss fusion, SABR and MTL-IBP."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from toolkit.training.differentiable_crown import upper_bound
from toolkit.training.differentiable_intervals import Interval, Trace, image_box, propagate
from toolkit.training.training_attack import pgd
from toolkit.training.training_options import CrownIbp, Ibp, MtlIbp, Sabr
from toolkit.training.training_step import TrainingStep, robust_loss


def worst_logits(logits: Interval, labels: Tensor) -> Tensor:
    """Logits ``(B, K)`` that the bounds allow and the cross-entropy likes least: label at its lower bound."""
    chosen = one_hot(labels, logits.lower.shape[1]).bool()
    return torch.where(chosen, logits.lower, logits.upper)


@robust_loss.register
def _(options: Ibp, step: TrainingStep) -> Tensor:
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    logits, _ = step.bounds("scheduled")
    return cross_entropy(worst_logits(logits, step.labels), step.labels)


@robust_loss.register
def _(options: CrownIbp, step: TrainingStep) -> Tensor:
    """Log of an upper bound of ``sum_k exp(z_k - z_y)``: by CROWN-IBP as the ramp starts, by IBP when it ends."""
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    logits, trace = step.bounds("scheduled")
    share = (step.maximum_epsilon - step.epsilon) / step.maximum_epsilon
    return fused_loss(step, logits, trace, share)


def fused_loss(step: TrainingStep, logits: Interval, trace: Trace, share: float) -> Tensor:
    """Mean of the log of the bound, ``share`` of it by CROWN-IBP and the rest by IBP."""
    chosen = one_hot(step.labels, logits.lower.shape[1]).bool()
    label_lower, label_upper = (bound[chosen][:, None] for bound in (logits.lower, logits.upper))
    # Differences v_k = z_k - z_y; that of the label itself is exactly zero.
    upper = (logits.upper - label_lower).masked_fill(chosen, 0)
    lower = (logits.lower - label_upper).masked_fill(chosen, 0)
    shift = upper.amax(1, keepdim=True).detach()
    ibp = (upper - shift).exp().sum(1)
    if share > 0:
        crown = _crown_sum(step, trace, lower - shift, upper - shift, shift, chosen)
        ibp = share * crown + (1 - share) * ibp
    return (ibp.clamp_min(1e-30).log() + shift[:, 0]).mean()


def _crown_sum(step: TrainingStep, trace: Trace, lower: Tensor, upper: Tensor, shift: Tensor, chosen: Tensor) -> Tensor:
    """Upper bound ``(B,)`` of ``sum_k exp(v_k - shift)``; each exponential is replaced by its chord."""
    width = (upper - lower).clamp_min(1e-6)
    slope = torch.where(chosen, 0, (upper.exp() - lower.exp()) / width)
    constant = (lower.exp() - slope * (lower + shift)).sum(1)
    coefficients = torch.where(chosen, -slope.sum(1, keepdim=True), slope)
    return constant + upper_bound(step.model, coefficients, trace)


@robust_loss.register
def _(options: Sabr, step: TrainingStep) -> Tensor:
    """IBP on a box of radius ``ratio * epsilon`` around an adversarial point, kept inside the epsilon ball."""
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    x = _attack(options, step, step.epsilon)
    radius = options.ratio * step.epsilon
    reach = step.epsilon - radius
    centre = torch.clamp(x, step.images - reach, step.images + reach)
    logits, _ = propagate(step.model, image_box(centre, radius, centre.clamp(0, 1)))
    return cross_entropy(worst_logits(logits, step.labels), step.labels)


@robust_loss.register
def _(options: MtlIbp, step: TrainingStep) -> Tensor:
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    adversarial = cross_entropy(step.model(_attack(options, step, options.attack_range * step.epsilon)), step.labels)
    logits, _ = step.bounds("scheduled")
    certified = cross_entropy(worst_logits(logits, step.labels), step.labels)
    return options.mix * certified + (1 - options.mix) * adversarial


def _attack(options: Sabr | MtlIbp, step: TrainingStep, epsilon: float) -> Tensor:
    return pgd(
        step.model,
        step.images,
        step.labels,
        epsilon,
        step.generator,
        steps=options.steps,
        step_size=options.step_size,
    )
