"""The records of an optimised bound: the domain that is bounded, the multipliers that are optimised, and the bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds

SLOPE_STEPS = 254
"""Steps between the smallest slope and the largest that a byte of a certificate tells apart."""


@dataclass(frozen=True)
class Multipliers:
    """What is optimised, per domain: slopes and multipliers over all neurons, and weights over the case's atoms."""

    alpha: Tensor
    """Lower slopes in [0, 1], ``(B, num_neurons)``."""
    beta: Tensor
    """Multipliers of the split constraints, at least 0, ``(B, num_neurons)``; only split neurons' count."""
    weight: Tensor
    """Weights of the conjunction's atoms, in the simplex, ``(B, K)``."""

    def select(self, index: Tensor) -> Multipliers:
        """The multipliers of some domains, by position."""
        return self.map(lambda tensor: tensor.index_select(0, index))

    def map(self, function: Callable[..., Tensor], *others: Multipliers) -> Multipliers:
        """Apply a function to the slopes, to beta and to the weights, each beside those of the other multipliers."""
        return Multipliers(
            function(self.alpha, *(other.alpha for other in others)),
            function(self.beta, *(other.beta for other in others)),
            function(self.weight, *(other.weight for other in others)),
        )

    def stated(self) -> Multipliers:
        """The multipliers with slopes that a byte can state: the nearest multiples of 1/254."""
        return Multipliers((self.alpha * SLOPE_STEPS).round() / SLOPE_STEPS, self.beta, self.weight)

    def projected(self) -> Multipliers:
        """The multipliers moved to where bounds are sound: alpha in [0, 1], beta at least 0, weights in the simplex."""
        return Multipliers(self.alpha.clamp(0, 1), self.beta.clamp(min=0), onto_simplex(self.weight))


def adaptive_multipliers(bounds: Bounds, weight: Tensor) -> Multipliers:
    """Where an ascent starts with weights ``(B, K)``: slopes by area, 1 where a neuron's positive part is the wider.

    ``bounds`` are ``(B, num_neurons)``, or ``(1, num_neurons)`` where all have the same.
    """
    slopes = (bounds.upper > -bounds.lower).to(weight.dtype).expand(len(weight), -1)
    return Multipliers(slopes, weight.new_zeros(1, 1).expand_as(slopes), weight)


@dataclass(frozen=True)
class Domain:
    """What is bounded, per domain: box, neuron bounds, phases (+1 active, -1 inactive, 0 open) and the case's atoms."""

    box: Bounds
    """``(B, n)``, or ``(1, n)`` where all have the same."""
    bounds: Bounds
    """``(B, num_neurons)``, or ``(1, num_neurons)`` likewise."""
    phase: Tensor
    """``(B, num_neurons)`` int8."""
    atoms: Tensor
    """Coefficients of the case's atoms on the features, ``(B, K, F)``."""
    constants: Tensor
    """Constants of the atoms, ``(B, K)``."""

    def select(self, index: Tensor) -> Domain:
        """Some of the domains, by position; what all share (batch 1) stays shared."""

        def part(tensor: Tensor) -> Tensor:
            return tensor if tensor.shape[0] == 1 != len(self.atoms) else tensor.index_select(0, index)

        box = Bounds(part(self.box.lower), part(self.box.upper))
        bounds = Bounds(part(self.bounds.lower), part(self.bounds.upper))
        return Domain(box, bounds, part(self.phase), part(self.atoms), part(self.constants))


@dataclass(frozen=True)
class Bound:
    """The best bound of each domain, the multipliers that prove it, and the relaxation's minimiser there."""

    lower: Tensor
    """Lower bounds ``(B,)``: positive and finite means that no point of the domain satisfies the case."""
    multipliers: Multipliers
    point: Tensor
    """Minimising input ``(B, n)``: a candidate witness."""
    post: Tensor
    """Coefficients on activations, ``(B, num_neurons)``: how much each neuron's relaxation matters."""
    error: Tensor
    """What the bound lost to rounding, ``(B,)``: in higher precision it would be up to so much greater."""

    def select(self, index: Tensor) -> Bound:
        """The bounds of some domains, by position."""
        parts = (part.index_select(0, index) for part in (self.lower, self.point, self.post, self.error))
        lower, point, post, error = parts
        return Bound(lower, self.multipliers.select(index), point, post, error)

    def or_better(self, other: Bound) -> Bound:
        """For each domain the greater of two lower bounds, with its multipliers, minimiser, coefficients and error."""
        # A comparison with NaN is false, so a broken bound never replaces a good one.
        greater = other.lower > self.lower
        rows = greater.unsqueeze(1)

        def chosen(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(rows, new, old)

        return Bound(
            torch.where(greater, other.lower, self.lower),
            self.multipliers.map(chosen, other.multipliers),
            chosen(self.point, other.point),
            chosen(self.post, other.post),
            torch.where(greater, other.error, self.error),
        )

    def put(self, index: Tensor, other: Bound) -> Bound:
        """The bounds with those of some domains, by position, replaced by others."""

        def updated(old: Tensor, new: Tensor) -> Tensor:
            return old.index_copy(0, index, new)

        return Bound(
            updated(self.lower, other.lower),
            self.multipliers.map(updated, other.multipliers),
            updated(self.point, other.point),
            updated(self.post, other.post),
            updated(self.error, other.error),
        )


def onto_simplex(weight: Tensor) -> Tensor:
    """Non-negative weights that sum to one, ``(B, K)``: clipped and rescaled (any such weights are sound)."""
    if weight.shape[1] == 1:
        return torch.ones_like(weight)
    clipped = weight.clamp(min=0) + 1e-12
    return clipped / clipped.sum(1, keepdim=True)
