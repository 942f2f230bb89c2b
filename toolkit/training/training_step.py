"""One batch on its way through losses and regularisers, with bounds that both may read computed once.

Import ``robust_loss`` from ``toolkit.training.losses``, which knows all losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

import torch
from torch import Tensor, nn

from toolkit.training.differentiable_intervals import Interval, Trace, ball, propagate
from toolkit.training.training_options import Bounds, LossOptions


@dataclass(frozen=True)
class TrainingStep:
    """A batch of images ``(B, C, H, W)`` with labels ``(B,)``, the network, and the radius at this time."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    epsilon: float
    maximum_epsilon: float
    generator: torch.Generator
    _bounds: dict[str, tuple[Interval, Trace]] = field(default_factory=dict, repr=False)

    def bounds(self, kind: Bounds) -> tuple[Interval, Trace]:
        """Interval bounds of the logits and of every layer's input.

        The kinds are those of `toolkit.training.training_options.Bounds`.
        """
        scheduled = kind == "scheduled"
        epsilon = self.epsilon if scheduled else self.maximum_epsilon
        return self._propagated(kind, epsilon, self.images if scheduled else None)

    def least_bounds(self, epsilon: float) -> tuple[Interval, Trace]:
        """Intervals around the images with a radius of their own, by the statistics of the batch."""
        return self._propagated("least", epsilon, self.images)

    def _propagated(self, kind: str, epsilon: float, point: Tensor | None) -> tuple[Interval, Trace]:
        if kind not in self._bounds:
            self._bounds[kind] = propagate(self.model, ball(self.model, self.images, epsilon, point))
        return self._bounds[kind]

    def train_with(self, logits: Interval, trace: Trace) -> None:
        """Say that the loss is made of these intervals, where they are not those of the scheduled box."""
        self._bounds["loss"] = logits, trace

    def bounds_of_loss(self) -> tuple[Interval, Trace]:
        """The intervals that the loss is made of: those of the scheduled box unless the loss said otherwise."""
        return self._bounds.get("loss") or self.bounds("scheduled")

    def clean_logits(self) -> Tensor:
        """Logits ``(B, K)`` at the images, from bounds that carried them along where there are any."""
        points = (self._bounds[kind][0].point for kind in ("loss", "scheduled") if kind in self._bounds)
        known = next(points, None)
        return self.model(self.images) if known is None else known


@singledispatch
def robust_loss(options: LossOptions, step: TrainingStep) -> Tensor:
    """The training loss of a batch, a scalar; one implementation for each type of options."""
    raise NotImplementedError(type(options).__name__)
