"""Interval bounds: centre and radius through affine maps, images through nonlinear operators (Gowal 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.ops import RELAXATIONS
from toolkit.problem.affine import Affine, sum_of
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, gamma, outward


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bounds ``(B, size)`` of the elements of vectors: input boxes, or neurons' pre-activations."""

    lower: Tensor
    upper: Tensor

    @property
    def centre(self) -> Tensor:
        """The middle of every interval, ``(B, size)``."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of every interval, ``(B, size)``."""
        return (self.upper - self.lower) / 2

    @property
    def magnitude(self) -> Tensor:
        """Largest magnitude in every interval, ``(B, size)``."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def select(self, index: Tensor) -> Bounds:
        """The bounds of some batch rows."""
        return Bounds(self.lower[index], self.upper[index])

    def of(self, elements: slice | Tensor) -> Bounds:
        """The bounds of some elements of every vector: of a layer's neurons, for instance."""
        return Bounds(self.lower[:, elements], self.upper[:, elements])

    def around(self) -> Bounds:
        """The hull over the batch, ``(1, size)``: the least bounds that hold wherever those of one row do."""
        return Bounds(self.lower.amin(0, keepdim=True), self.upper.amax(0, keepdim=True))

    def meet(self, other: Bounds) -> Bounds:
        """The intersection, even where it is empty (lower above upper); of NaN and a number, the number is taken."""
        return Bounds(torch.fmax(self.lower, other.lower), torch.fmin(self.upper, other.upper))

    def intersect(self, other: Bounds) -> Bounds:
        """The intersection; where it is empty, by rounding, these bounds are kept, not the other ones."""
        both = self.meet(other)
        crossed = both.lower > both.upper
        return Bounds(torch.where(crossed, self.lower, both.lower), torch.where(crossed, self.upper, both.upper))

    def to(self, dtype: torch.dtype) -> Bounds:
        """The bounds in another precision, rounded outward."""
        return Bounds(*outward(self.lower, self.upper, dtype))

    @staticmethod
    def of_rows(parts: Sequence[Bounds]) -> Bounds:
        """The bounds of several batches as one batch."""
        return Bounds(torch.cat([part.lower for part in parts]), torch.cat([part.upper for part in parts]))


def affine_interval(affine: Affine, sources: Sequence[Bounds]) -> Bounds:
    """Interval image ``(B, size)`` of the intervals of a map's sources, rounded outward.

    Where sources are unbounded, so is the image, as is that of a constant beyond the precision: no bound is NaN.
    """
    centre = affine.apply([source.centre for source in sources])
    # Of the sums of the centres, and of those of the radii.
    allowance = 2 * gamma(affine.terms + ROUNDINGS_BESIDE_SUM, centre.dtype)
    reach = [source.magnitude for source in sources]
    radii = [source.radius + allowance * r for source, r in zip(sources, reach, strict=True)]
    lost = affine.uncertainty(reach) + allowance * affine.bias.abs() + _underflow(reach, affine.terms)
    radius = affine.radius(radii) + lost
    unknown = torch.isnan(centre - radius) | torch.isnan(centre + radius)
    low, high = without_overflow(centre - radius), -without_overflow(-centre - radius)
    return Bounds(torch.where(unknown, -torch.inf, low), torch.where(unknown, torch.inf, high))


def without_overflow(lower: Tensor) -> Tensor:
    """Lower bounds with minus infinity in place of infinity: what is taken off a sum that overflowed has no effect."""
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


def source_intervals(program: Program, affine: Affine, box: Bounds, bounds: Sequence[Bounds]) -> list[Bounds]:
    """The intervals of all sources of a map."""
    return [source_interval(program, source, box, bounds) for source in affine.sources]


def map_interval(program: Program, affine: Affine, box: Bounds, bounds: Sequence[Bounds]) -> Bounds:
    """Interval image of one affine map, given the box and the bounds of the earlier layers."""
    return affine_interval(affine, source_intervals(program, affine, box, bounds))


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
        inexact(layer, bounds.of(layer.neurons)) & RELAXATIONS[layer.op].piecewise_linear for layer in program.layers
    ]
    return torch.cat(masks, 1) if masks else torch.zeros_like(bounds.lower, dtype=torch.bool)


def inexact(layer: Layer, bounds: Bounds) -> Tensor:
    """Which of a layer's neurons, with bounds ``(B, size)``, its operator's lines are not exact for."""
    return RELAXATIONS[layer.op].inexact(bounds.lower, bounds.upper)
