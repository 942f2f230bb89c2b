"""Interval bounds: centre and radius through affine maps, images through nonlinear operators (Gowal 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.relaxations import RELAXATIONS
from toolkit.problem.affine import Affine
from toolkit.problem.program import INPUT, Program


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds of the pre-activations of all neurons, ``(B, num_neurons)`` each."""

    lower: Tensor
    upper: Tensor

    def select(self, index: Tensor) -> Bounds:
        """The bounds of some batch rows."""
        return Bounds(self.lower[index], self.upper[index])


ROUNDING_STEPS = 64
"""Units in the last place, of all magnitudes summed, by which every bound is widened. Sums of n terms err by about
sqrt(n) units, at most n: the allowance covers what happens, and a checker in exact arithmetic can prove it."""


def rounding(dtype: torch.dtype) -> float:
    """Relative allowance for rounding in sums of this precision."""
    return ROUNDING_STEPS * torch.finfo(dtype).eps


def affine_interval(affine: Affine, lower: list[Tensor], upper: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Interval image, ``(B, size)`` each, of boxes of the map's sources.

    Where sources are unbounded, so is the image: no bound is NaN.
    """
    centre = affine.apply([(l + u) / 2 for l, u in zip(lower, upper, strict=True)])
    allowance = rounding(centre.dtype)
    radii = [(u - l) / 2 + allowance * torch.maximum(l.abs(), u.abs()) for l, u in zip(lower, upper, strict=True)]
    radius = affine.radius(radii) + allowance * affine.bias.abs()
    unknown = torch.isnan(centre - radius)
    return torch.where(unknown, -torch.inf, centre - radius), torch.where(unknown, torch.inf, centre + radius)


def source_interval(program: Program, source: int, box: Bounds, bounds: list[Bounds]) -> Bounds:
    """The interval of one source: the input box, or the image of a layer's pre-activation bounds."""
    if source == INPUT:
        return box
    relaxation = RELAXATIONS[program.layers[source].op]
    return Bounds(*relaxation.image(bounds[source].lower, bounds[source].upper))


def map_interval(program: Program, affine: Affine, box: Bounds, bounds: list[Bounds]) -> Bounds:
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
