"""Interval bounds: centre and radius through affine maps, images through nonlinear operators (Gowal 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.relaxations import RELAXATIONS
from toolkit.problem.affine import Affine, sum_of
from toolkit.problem.program import INPUT, Program
from toolkit.problem.sum_rounding import gamma


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds of the pre-activations of all neurons, ``(B, num_neurons)`` each."""

    lower: Tensor
    upper: Tensor

    def select(self, index: Tensor) -> Bounds:
        """The bounds of some batch rows."""
        return Bounds(self.lower[index], self.upper[index])


ROUNDINGS_BESIDE_SUM = 8
"""Operations on a value beside its sum: its centre and radius, the difference of these, the stored element."""


def affine_interval(affine: Affine, lower: list[Tensor], upper: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Interval image, ``(B, size)`` each, of boxes of the map's sources, rounded outward.

    Where sources are unbounded, so is the image: no bound is NaN.
    """
    centre = affine.apply([(l + u) / 2 for l, u in zip(lower, upper, strict=True)])
    # Of the sums of the centres, and of those of the radii.
    allowance = 2 * gamma(affine.terms + ROUNDINGS_BESIDE_SUM, centre.dtype)
    reach = [torch.maximum(l.abs(), u.abs()) for l, u in zip(lower, upper, strict=True)]
    radii = [(u - l) / 2 + allowance * r for l, u, r in zip(lower, upper, reach, strict=True)]
    lost = affine.uncertainty(reach) + allowance * affine.bias.abs() + _underflow(reach, affine.terms)
    radius = affine.radius(radii) + lost
    unknown = torch.isnan(centre - radius)
    low, high = without_overflow(centre - radius), -without_overflow(-centre - radius)
    return torch.where(unknown, -torch.inf, low), torch.where(unknown, torch.inf, high)


def without_overflow(lower: Tensor) -> Tensor:
    """Lower bounds of which those that overflowed say nothing: what was taken off them later is not known."""
    return lower.masked_fill(torch.isposinf(lower), -torch.inf)


def _underflow(reach: Sequence[Tensor], terms: int) -> Tensor:
    """What products that underflow may add up to in one value, ``(B, 1)``; zero where all sources are.

    Each of the terms loses less than the smallest normal number, however small the sources are.
    """
    total = sum_of([part.sum(1, keepdim=True) for part in reach])
    return torch.where(total > 0, 2 * torch.finfo(total.dtype).tiny * (total + terms), 0.0)


def source_interval(program: Program, source: int, box: Bounds, bounds: Sequence[Bounds]) -> Bounds:
    """The interval of one source: the input box, or the image of a layer's pre-activation bounds."""
    if source == INPUT:
        return box
    relaxation = RELAXATIONS[program.layers[source].op]
    return Bounds(*relaxation.image(bounds[source].lower, bounds[source].upper))


def map_interval(program: Program, affine: Affine, box: Bounds, bounds: Sequence[Bounds]) -> Bounds:
    """Interval image of one affine map, given the box and the bounds of the earlier layers."""
    parts = [source_interval(program, source, box, bounds) for source in affine.sources]
    return Bounds(*affine_interval(affine, [part.lower for part in parts], [part.upper for part in parts]))


def interval_bounds(program: Program, box: Bounds) -> tuple[Bounds, Bounds]:
    """Bounds of all neurons, and of the features, for boxes ``(B, n)``."""
    layers: list[Bounds] = []
    for layer in program.layers:
        layers.append(map_interval(program, layer.affine, box, layers))
    features = map_interval(program, program.features, box, layers)
    return concatenate(layers, box), features


def concatenate(layers: list[Bounds], box: Bounds) -> Bounds:
    """Layer bounds as one record over all neurons."""
    if not layers:
        empty = box.lower[:, :0]
        return Bounds(empty, empty)
    return Bounds(torch.cat([b.lower for b in layers], 1), torch.cat([b.upper for b in layers], 1))


def unstable_neurons(program: Program, bounds: Bounds) -> Tensor:
    """Which neurons a split at zero would make linear, ``(B, num_neurons)``: those whose lower line is free, too."""
    masks = [
        RELAXATIONS[layer.op].inexact(bounds.lower[:, layer.neurons], bounds.upper[:, layer.neurons])
        & RELAXATIONS[layer.op].piecewise_linear
        for layer in program.layers
    ]
    return torch.cat(masks, 1) if masks else torch.zeros_like(bounds.lower, dtype=torch.bool)
