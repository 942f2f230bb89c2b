"""Bias shaping: units that are almost stable are made stable by a shift of their bias (Xu et al., TACAS 2024).

A unit is a channel or a feature before a ReLU. Bounds are those of intervals over a batch, so a shift makes the unit
stable on all of the batch; training goes on and repairs what the shift broke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil

import torch
from torch import Tensor, nn

from toolkit.models.structure import relu_sites
from toolkit.training.differentiable_intervals import ball, propagate
from toolkit.training.training_attack import evaluation_mode
from toolkit.training.training_options import BiasShaping


@torch.no_grad()
def shape_biases(
    model: nn.Module, options: BiasShaping, images: Tensor, epsilon: float, masks: Mapping[str, Tensor]
) -> int:
    """Shifts the biases of the unstable units nearest to stability, over all layers; returns how many.

    Masked biases stay zero. Layers whose units have no bias of their own are left alone.
    """
    with evaluation_mode(model):
        _, trace = propagate(model, ball(model, images, epsilon))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    biases, shifts = [], []
    for bias, relu in _biased(model):
        lower, upper = (_units(bound) for bound in (trace[relu].lower, trace[relu].upper))
        shift = nearest_stable(lower.amin(0), upper.amax(0))
        mask = masks.get(names[id(bias)])
        biases.append(bias)
        shifts.append(shift if mask is None else shift * mask)
    return _apply_smallest(biases, shifts, options.fraction)


def nearest_stable(lower: Tensor, upper: Tensor) -> Tensor:
    """The smallest shift that takes zero out of ``(lower, upper)``, either way; 0 where it is not inside."""
    up, down = -lower, -upper
    shift = torch.where(up <= -down, up, down)
    return torch.where((lower < 0) & (upper > 0), shift, 0)


def _apply_smallest(biases: list[nn.Parameter], shifts: list[Tensor], fraction: float) -> int:
    sizes = torch.cat(shifts).abs() if shifts else torch.zeros(0)
    unstable = sizes[sizes > 0]
    if not len(unstable):
        return 0
    limit = unstable.sort().values[ceil(fraction * len(unstable)) - 1]
    for bias, shift in zip(biases, shifts, strict=True):
        bias.add_(torch.where(shift.abs() <= limit, shift, 0))
    return int((unstable <= limit).sum())


def _biased(model: nn.Module) -> Iterator[tuple[nn.Parameter, nn.ReLU]]:
    """Each ReLU whose layer before it has a bias, with that bias."""
    for site in relu_sites(model):
        bias = getattr(site.before, "bias", None)
        if isinstance(bias, nn.Parameter):
            yield bias, site.relu


def _units(bound: Tensor) -> Tensor:
    """Values ``(N, units)`` of bounds ``(B, units, ...)``: images and positions together."""
    return bound.transpose(0, 1).flatten(1).transpose(0, 1)
