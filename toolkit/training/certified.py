"""Certified losses: IBP, CROWN-IBP with loss fusion, SABR, and the expressive losses MTL-IBP, CC-IBP and EXP-IBP."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from toolkit.training.differentiable_crown import upper_bound
from toolkit.training.differentiable_intervals import Interval, Trace, image_box, propagate
from toolkit.training.training_attack import pgd
from toolkit.training.training_options import CcIbp, CrownIbp, ExpIbp, ExpressiveLoss, Ibp, MtlIbp, Sabr
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
    logits, _ = propagate(step.model, image_box(centre, radius, centre.clamp(0, 1)), options.relu_share)
    return cross_entropy(worst_logits(logits, step.labels), step.labels)


@robust_loss.register(MtlIbp)
@robust_loss.register(CcIbp)
@robust_loss.register(ExpIbp)
def _expressive(options: ExpressiveLoss, step: TrainingStep) -> Tensor:
    """A loss between the adversarial and the IBP loss; bounds come first, so that batch statistics are the images'."""
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    bounds, _ = step.bounds("scheduled")
    adversarial = step.model(_attack(options, step, options.attack_range * step.epsilon))
    return between(options, adversarial, worst_logits(bounds, step.labels), step.labels)


@singledispatch
def between(options: ExpressiveLoss, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    """The loss of logits ``(B, K)`` at adversarial points and at the worst that bounds allow, a scalar.

    From the adversarial loss, where ``mix`` is 0, to the IBP loss, where it is 1.
    """
    raise NotImplementedError(type(options).__name__)


@between.register
def _(options: MtlIbp, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    losses = cross_entropy(adversarial, labels), cross_entropy(worst, labels)
    return (1 - options.mix) * losses[0] + options.mix * losses[1]


@between.register
def _(options: CcIbp, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    """Of differences to the label's logit: the cross-entropy of logits and of their differences is the same."""
    differences = [logits - logits.gather(1, labels[:, None]) for logits in (adversarial, worst)]
    return cross_entropy((1 - options.mix) * differences[0] + options.mix * differences[1], labels)


@between.register
def _(options: ExpIbp, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    """Of each image; losses are kept from zero, where powers have no derivative."""
    least = torch.finfo(adversarial.dtype).tiny
    losses = [cross_entropy(logits, labels, reduction="none").clamp_min(least) for logits in (adversarial, worst)]
    return (losses[0] ** (1 - options.mix) * losses[1] ** options.mix).mean()


def _attack(options: Sabr | ExpressiveLoss, step: TrainingStep, epsilon: float) -> Tensor:
    return pgd(
        step.model,
        step.images,
        step.labels,
        epsilon,
        step.generator,
        steps=options.steps,
        step_size=options.step_size,
    )
