"""The two layers that torch does not have: normalisation of the input, and the residual addition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """Maps [0, 1] images ``(B, C, H, W)`` to ``(x - mean) / std``.

    It is part of the network, so that neither an export nor a verifier can forget it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images of the same shape."""
        return (x - self.mean) / self.std


class Residual(nn.Module):
    """The sum of a main path and a shortcut."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """``main(x) + shortcut(x)``."""
        return self.main(x) + self.shortcut(x)
