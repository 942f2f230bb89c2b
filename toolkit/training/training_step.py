"""One batch on its way through losses and regularisers, with bounds that both may read computed once.

Import ``robust_loss`` from ``toolkit.training.losses``, which knows all losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

import torch
from torch import Tensor, nn

from toolkit.training.differentiable_intervals import Interval, Trace, image_box, propagate
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
    _bounds: dict[Bounds, tuple[Interval, Trace]] = field(default_factory=dict, repr=False)

    def bounds(self, kind: Bounds) -> tuple[Interval, Trace]:
        """Interval bounds of the logits and of every layer's input; see ``options.Bounds`` for the kinds."""
        if kind not in self._bounds:
            scheduled = kind == "scheduled"
            box = image_box(
                self.images,
                self.epsilon if scheduled else self.maximum_epsilon,
                self.images if scheduled else None,
            )
            self._bounds[kind] = propagate(self.model, box)
        return self._bounds[kind]


@singledispatch
def robust_loss(options: LossOptions, step: TrainingStep) -> Tensor:
    """The training loss of a batch, a scalar; one implementation for each type of options."""
    raise NotImplementedError(type(options).__name__)
