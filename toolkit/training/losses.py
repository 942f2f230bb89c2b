"""All training losses: ``robust_loss(options, step)`` dispatches on the type of the options."""

from __future__ import annotations

from toolkit.training import adversarial, certified  # noqa: F401 - importing them registers their losses
from toolkit.training.training_step import robust_loss

__all__ = ["robust_loss"]
