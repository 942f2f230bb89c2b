"""Certified losses: IBP, CROWN-IBP with loss fusion, SABR, and the expressive losses MTL-IBP, CC-IBP and EXP-IBP."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from toolkit.training.batch_statistics import statistics_of
from toolkit.training.differentiable_crown import upper_bound
from toolkit.training.differentiable_intervals import Interval, Trace, ball, propagate
from toolkit.training.precision import single
from toolkit.training.training_attack import pgd
from toolkit.training.training_options import CcIbp, CrownIbp, ExpIbp, ExpressiveLoss, Ibp, MtlIbp, Sabr
from toolkit.training.training_step import TrainingStep, robust_loss


def differences(model: nn.Module, bounds: tuple[Interval, Trace], labels: Tensor) -> Interval:
    """Bounds ``(B, K)`` of the differences of all logits to the label's, whose own is zero.

    Where the network ends with a linear layer, a difference is bounded as one linear function of that layer's input
    (elision of the last layer; Gowal et al., ICCV 2019, section 3), which is tighter than the logits one by one.
    """
    logits, trace = bounds
    last = model[-1] if isinstance(model, nn.Sequential) else model
    if isinstance(last, nn.Linear):
        centre = logits.centre - logits.centre.gather(1, labels[:, None])
        with single(labels.device):
            slopes = (last.weight - last.weight[labels][:, None]).abs()
            radius = (slopes @ trace[last].radius[:, :, None])[:, :, 0]
        return Interval(centre - radius, centre + radius)
    chosen = one_hot(labels, logits.lower.shape[1]).bool()
    label = Interval(logits.lower.gather(1, labels[:, None]), logits.upper.gather(1, labels[:, None]))
    lower, upper = logits.lower - label.upper, logits.upper - label.lower
    return Interval(lower.masked_fill(chosen, 0), upper.masked_fill(chosen, 0))


def bounded_loss(model: nn.Module, bounds: tuple[Interval, Trace], labels: Tensor) -> Tensor:
    """The largest cross-entropy that intervals allow, mean over the batch: the IBP loss."""
    return cross_entropy(differences(model, bounds, labels).upper, labels)


@robust_loss.register
def _(options: Ibp, step: TrainingStep) -> Tensor:
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    return bounded_loss(step.model, step.bounds("scheduled"), step.labels)


@robust_loss.register
def _(options: CrownIbp, step: TrainingStep) -> Tensor:
    """Log of an upper bound of ``sum_k exp(z_k - z_y)``: by CROWN-IBP as the ramp starts, by IBP when it ends."""
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    share = (step.maximum_epsilon - step.epsilon) / step.maximum_epsilon
    return fused_loss(step, step.bounds("scheduled"), share)


def fused_loss(step: TrainingStep, bounds: tuple[Interval, Trace], share: float) -> Tensor:
    """Mean of the log of the bound, ``share`` of it by CROWN-IBP and the rest by IBP."""
    found = differences(step.model, bounds, step.labels)
    shift = found.upper.amax(1, keepdim=True).detach()
    ibp = (found.upper - shift).exp().sum(1)
    if share > 0:
        crown = _crown_sum(step, bounds[1], found, shift)
        ibp = share * crown + (1 - share) * ibp
    return (ibp.clamp_min(1e-30).log() + shift[:, 0]).mean()


def _crown_sum(step: TrainingStep, trace: Trace, found: Interval, shift: Tensor) -> Tensor:
    """Upper bound ``(B,)`` of ``sum_k exp(v_k - shift)``; each exponential is replaced by its chord."""
    chosen = one_hot(step.labels, found.lower.shape[1]).bool()
    lower, upper = found.lower - shift, found.upper - shift
    width = (upper - lower).clamp_min(1e-6)
    slope = torch.where(chosen, 0, (upper.exp() - lower.exp()) / width)
    constant = (lower.exp() - slope * found.lower).sum(1)
    coefficients = torch.where(chosen, -slope.sum(1, keepdim=True), slope)
    return constant + upper_bound(step.model, coefficients, trace)


@robust_loss.register
def _(options: Sabr, step: TrainingStep) -> Tensor:
    """IBP on a box of ``ratio`` of the epsilon ball around an adversarial point, moved to lie inside the ball.

    Batch statistics are those of the images, and the regularisers of the warm-up read this box (the authors' code).
    """
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    whole = ball(step.model, step.images, step.epsilon)
    radius = options.ratio * whole.radius
    centre = torch.clamp(_attack(options, step, step.epsilon), whole.lower + radius, whole.upper - radius)
    box = Interval(centre - radius, centre + radius, step.images)
    step.train_with(*propagate(step.model, box, options.relu_share))
    return bounded_loss(step.model, step.bounds_of_loss(), step.labels)


@robust_loss.register(MtlIbp)
@robust_loss.register(CcIbp)
@robust_loss.register(ExpIbp)
def _expressive(options: ExpressiveLoss, step: TrainingStep) -> Tensor:
    """A loss between the adversarial and the IBP loss, both by the batch statistics of the images (CTBench)."""
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    bounds = step.bounds("scheduled")
    x = _attack(options, step, options.attack_range * step.epsilon)
    with statistics_of(bounds[1]):
        adversarial = step.model(x)
    return between(options, adversarial, differences(step.model, bounds, step.labels).upper, step.labels)


@singledispatch
def between(options: ExpressiveLoss, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    """The loss of logits ``(B, K)`` at adversarial points and of the worst that bounds allow, a scalar.

    From the adversarial loss, where ``mix`` is 0, to the IBP loss, where it is 1.
    """
    raise NotImplementedError(type(options).__name__)


@between.register
def _(options: MtlIbp, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    losses = cross_entropy(adversarial, labels), cross_entropy(worst, labels)
    return (1 - options.mix) * losses[0] + options.mix * losses[1]


@between.register
def _(options: CcIbp, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of convex combinations of differences to the label's logit, by which it is that of the logits."""
    differences = [logits - logits.gather(1, labels[:, None]) for logits in (adversarial, worst)]
    return cross_entropy((1 - options.mix) * differences[0] + options.mix * differences[1], labels)


@between.register
def _(options: ExpIbp, adversarial: Tensor, worst: Tensor, labels: Tensor) -> Tensor:
    """Product of powers of both losses' means over the batch.

    The paper writes it for one image; its code and CTBench's, which their values of ``mix`` are for, take powers of
    means. Losses are kept from zero, where powers have no derivative.
    """
    least = torch.finfo(adversarial.dtype).tiny
    losses = [cross_entropy(logits, labels).clamp_min(least) for logits in (adversarial, worst)]
    return losses[0] ** (1 - options.mix) * losses[1] ** options.mix


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
