"""Conversions between floating types."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conversion(nn.Module):
    """A conversion to a floating type, which rounds where that is the narrower one."""

    def __init__(self, target: torch.dtype, rounds: bool) -> None:
        super().__init__()
        self.target, self.rounds = target, rounds
        self.working: torch.dtype | None = None
        """Type that all values have, where that is not for the network to say: its conversions only round then."""

    def forward(self, x: Tensor) -> Tensor:
        """The values in the target type, or rounded to it in the working type."""
        if self.working is None:
            return x.to(self.target)
        return x.to(self.target).to(self.working) if self.rounds else x

    def extra_repr(self) -> str:
        """The type, for printing."""
        return f"{self.target}{', rounds' if self.rounds else ''}"


def rounds(module: nn.Module) -> bool:
    """Whether a module rounds some of its values to a narrower type."""
    return any(isinstance(part, Conversion) and part.rounds for part in module.modules())
