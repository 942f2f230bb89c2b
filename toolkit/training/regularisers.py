"""Terms added to the training loss: stability of ReLUs, sparsity, and the warm-up terms of FastIBP."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from toolkit.models.layers import Normalise
from toolkit.models.structure import BatchNorm, ReluSite, relu_sites
from toolkit.training.differentiable_intervals import Interval, Trace, per_channel
from toolkit.training.training_options import L1, FastIbp, RegulariserOptions, Slimming, Stability, Volume
from toolkit.training.training_step import TrainingStep

SMALLEST_SQUARE = 1e-8
"""Divisor of NRSLoss at least; a channel whose gamma vanishes must not make the ratio explode."""
LEAST_EPSILON = 1e-6
"""Radius of the boxes that the warm-up terms read before epsilon grows (the code of Shi et al.)."""


@singledispatch
def regulariser(options: RegulariserOptions, step: TrainingStep) -> Tensor:
    """A weighted term of the loss, a scalar; one implementation for each type of options."""
    raise NotImplementedError(type(options).__name__)


@regulariser.register
def _(options: Stability, step: TrainingStep) -> Tensor:
    if options.bounds == "scheduled" and step.epsilon == 0:
        return torch.zeros((), device=step.images.device)
    _, trace = step.bounds(options.bounds)
    sites = [site for site in relu_sites(step.model) if site.batch_norm or options.without_batch_norm == "rs"]
    terms = [stability_terms(options, site, trace[site.relu]) for site in sites]
    return options.weight * _reduce(terms, options.reduction)


def stability_terms(options: Stability, site: ReluSite, bounds: Interval) -> Tensor:
    """``-tanh(1 + l u / gamma^p)`` of every neuron of a ReLU, shape ``(B, ...)``; p is 2 for NRS and 0 for RS."""
    lower, upper = bounds.lower, bounds.upper
    if options.name == "nrs" and site.batch_norm is not None:
        if options.detach == "gamma":
            lower, upper = (_stop_gamma(site.batch_norm, bound) for bound in (lower, upper))
        square = site.batch_norm.weight.detach().square().clamp_min(SMALLEST_SQUARE)
        return -torch.tanh(1 + lower * upper / per_channel(square, lower))
    return -torch.tanh(1 + lower * upper)


def _stop_gamma(batch_norm: BatchNorm, bound: Tensor) -> Tensor:
    """The bound ``gamma * h + beta`` without a gradient to gamma; h is cut off from gamma."""
    gamma, beta = (per_channel(p, bound) for p in (batch_norm.weight, batch_norm.bias))
    # d(bound)/d(gamma) = (bound - beta) / gamma; subtracting gamma times it (a constant) removes just this gradient.
    slope = ((bound - beta) / torch.where(gamma == 0, 1, gamma)).detach()
    return bound - slope * (gamma - gamma.detach())


def _reduce(terms: list[Tensor], reduction: str) -> Tensor:
    if reduction == "channels":
        return torch.cat([term.flatten(2).mean((0, 2)) if term.ndim > 2 else term.mean(0) for term in terms]).mean()
    return torch.cat([term.flatten() for term in terms]).mean()


@regulariser.register
def _(options: Volume, step: TrainingStep) -> Tensor:
    _, trace = step.bounds(options.bounds)
    bounds = [trace[site.relu] for site in relu_sites(step.model)]
    return options.weight * torch.cat([((-x.lower).relu() * x.upper.relu()).flatten() for x in bounds]).mean()


@regulariser.register
def _(options: Slimming, step: TrainingStep) -> Tensor:
    scales = [site.batch_norm.weight.abs() for site in relu_sites(step.model) if site.batch_norm is not None]
    if not scales:
        return torch.zeros((), device=step.images.device)
    joined = torch.cat(scales)
    return options.weight * (joined.sum() if options.reduction == "sum" else joined.mean())


@regulariser.register
def _(options: L1, step: TrainingStep) -> Tensor:
    weights = [m.weight.abs().sum() for m in step.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return options.weight * torch.stack(weights).sum()


@regulariser.register
def _(options: FastIbp, step: TrainingStep) -> Tensor:
    """Tightness and ReLU balance over the ramp, fading out as epsilon grows (Shi et al., Eqs. 10-13).

    Of the intervals that the loss is made of; before epsilon grows, of a tiny box.
    """
    fading = 1 - step.epsilon / step.maximum_epsilon if step.maximum_epsilon else 0.0
    if fading <= 0:
        return torch.zeros((), device=step.images.device)
    _, trace = step.bounds_of_loss() if step.epsilon > LEAST_EPSILON else step.least_bounds(LEAST_EPSILON)
    first = input_radius(step.model, trace)
    terms = [_warm_up(trace[site.relu], first, options.tolerance) for site in relu_sites(step.model)]
    return options.weight * fading * torch.stack(terms).mean()


def input_radius(model: nn.Module, trace: Trace) -> Tensor:
    """Mean radius of the network's input, after its normalisation where it begins with one, a scalar."""
    layers = list(model) if isinstance(model, nn.Sequential) else []
    first = next((layer for layer in layers if not isinstance(layer, Normalise)), model)
    return trace[first].radius.mean()


def _warm_up(bounds: Interval, first_radius: Tensor, tolerance: float) -> Tensor:
    tightness = (tolerance - first_radius / bounds.radius.mean().clamp_min(1e-12)).relu()
    active, inactive = (bounds.lower > 0).float(), (bounds.upper < 0).float()
    centre = bounds.centre
    spread = (centre - centre.mean()).square()
    means = _balance((centre * active).mean(), -(centre * inactive).mean(), tolerance)
    spreads = _balance((spread * active).sum(), (spread * inactive).sum(), tolerance)
    return (tightness + means + spreads) / tolerance


def _balance(active: Tensor, inactive: Tensor, tolerance: float) -> Tensor:
    """Zero when both sides are of the same order; terms of an empty side are skipped."""
    if not bool((active > 0) & (inactive > 0)):
        return torch.zeros((), device=active.device)
    ratio = active / inactive
    return (tolerance - torch.minimum(ratio, 1 / ratio)).relu()
