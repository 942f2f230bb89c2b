"""How an ascent moves: step rules for slopes, multipliers and weights from their supergradient.

A rule starts a state from multipliers, and a state advances by one step. Whatever the rule does, every place it visits
is projected to where all bounds are sound, so rules differ in speed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from toolkit.bounds.optimised_bound import Bound, Multipliers


class AscentState(Protocol):
    """Where an ascent is, with what its rule remembers."""

    @property
    def current(self) -> Multipliers:
        """The multipliers to evaluate next."""

    def advance(self, bound: Bound, gradient: Multipliers, step: int) -> Self:
        """The state after step number ``step``, from 1; bound and gradient are those at ``current``."""

    def select(self, index: Tensor) -> Self:
        """The state of some domains."""


class StepRule(Protocol):
    """A way to step."""

    def start(self, multipliers: Multipliers) -> AscentState:
        """The state before the first step."""


@dataclass(frozen=True)
class Adam:
    """Steps of a set length (Kingma and Ba, ICLR 2015): where it is unknown how far a bound can rise."""

    rate_alpha: float = 0.1
    rate_beta: float = 0.1
    rate_weight: float = 0.1
    decay: float = 0.98

    def start(self, multipliers: Multipliers) -> AdamState:
        """Nothing is known of the gradient."""
        zero = multipliers.map(torch.zeros_like)
        return AdamState(self, multipliers, zero, zero)


@dataclass(frozen=True)
class AdamState:
    """Adam's running means of the gradient and of its square."""

    rule: Adam
    current: Multipliers
    mean: Multipliers
    square: Multipliers

    def advance(self, bound: Bound, gradient: Multipliers, step: int) -> AdamState:
        """A step along the mean, in units of the root of the mean square."""
        rule, old = self.rule, self.current
        mean = gradient.map(lambda new, before: torch.lerp(new, before, 0.9), self.mean)
        square = gradient.map(lambda new, before: torch.lerp(new.square(), before, 0.999), self.square)
        scale = rule.decay ** (step - 1) * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        direction = mean.map(lambda first, second: scale * first / (second.sqrt() + 1e-8), square)
        moved = Multipliers(
            old.alpha + rule.rate_alpha * direction.alpha,
            old.beta + rule.rate_beta * direction.beta,
            old.weight + rule.rate_weight * direction.weight,
        )
        return AdamState(rule, moved.projected(), mean, square)

    def select(self, index: Tensor) -> AdamState:
        """The state of some domains."""
        return AdamState(self.rule, self.current.select(index), self.mean.select(index), self.square.select(index))


@dataclass(frozen=True)
class Polyak:
    """Steps as long as a bound must rise to be a proof: ``length * -bound / |gradient|^2`` (Polyak 1969).

    A domain is done once its bound is positive, so zero is the value to step to. Slopes and weights are numbers
    between 0 and 1; split multipliers are measured by the coefficients that they compete with.
    """

    length: float = 1.4
    unit_beta: float = 0.3
    """Unit of the split multipliers, in terms of the largest coefficient on an activation."""

    def start(self, multipliers: Multipliers) -> PolyakState:
        """There is nothing to remember."""
        return PolyakState(self, multipliers)


@dataclass(frozen=True)
class PolyakState:
    """Multipliers alone."""

    rule: Polyak
    current: Multipliers

    def advance(self, bound: Bound, gradient: Multipliers, step: int) -> PolyakState:
        """A step to where the gradient promises ``length`` times what is missing."""
        rule, old, free = self.rule, self.current, _inward(self.current, gradient)
        unit = (rule.unit_beta * bound.post.abs().amax(1, keepdim=True)).square() if bound.post.shape[1] else 1.0
        size = (free.alpha.square() + unit * free.beta.square()).sum(1) + free.weight.square().sum(1)
        reach = (rule.length * (-bound.lower).clamp(min=0) / size.clamp(min=LEAST_SQUARED_GRADIENT)).unsqueeze(1)
        moved = Multipliers(
            old.alpha + reach * free.alpha, old.beta + reach * unit * free.beta, old.weight + reach * free.weight
        )
        return PolyakState(rule, moved.projected())

    def select(self, index: Tensor) -> PolyakState:
        """The state of some domains."""
        return PolyakState(self.rule, self.current.select(index))


LEAST_SQUARED_GRADIENT = 1e-20
"""Least squared length of a gradient that is divided by."""


def _inward(at: Multipliers, gradient: Multipliers) -> Multipliers:
    """The gradient without what the projection would take back."""
    alpha, beta = gradient.alpha, gradient.beta
    stuck = ((at.alpha <= 0) & (alpha < 0)) | ((at.alpha >= 1) & (alpha > 0))
    return Multipliers(
        alpha.masked_fill(stuck, 0.0),
        beta.masked_fill((at.beta <= 0) & (beta < 0), 0.0),
        gradient.weight - gradient.weight.mean(1, keepdim=True),
    )
