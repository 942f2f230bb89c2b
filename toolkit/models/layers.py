"""Layers that torch does not have: range and normalisation of inputs, reshaping, residual addition, grafted ReLUs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toolkit.data.input_space import PIXELS, InputSpace


class Normalise(nn.Module):
    """Maps images ``(B, C, H, W)``, or without ``axes`` after the channels rows ``(B, n)``, to ``(x - mean) / std``.

    It is part of the network, so that neither an export nor a verifier can forget it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], axes: int = 2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, *[1] * axes))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images of the same shape."""
        return (x - self.mean) / self.std


class InputDomain(nn.Identity):
    """Passes inputs on unchanged, and holds the range that attacks and bounds of training are clipped to, and each
    feature's radius. A network without this layer takes pixels in [0, 1]."""

    radii: Tensor

    def __init__(self, space: InputSpace = PIXELS) -> None:
        super().__init__()
        self.low, self.high = space.low, space.high
        self.register_buffer("radii", torch.tensor(space.radii or (1.0,)), persistent=False)
        self.even = not space.radii

    def radius(self, epsilon: float) -> float | Tensor:
        """Radius of the ball around an input: ``epsilon``, times each feature's radius ``(n,)`` where it has one."""
        return epsilon if self.even else epsilon * self.radii

    def clip(self, x: Tensor) -> Tensor:
        """The nearest inputs within the range."""
        return x.clamp(self.low, self.high)


UNIT_DOMAIN = InputDomain()
"""Pixels in [0, 1], all with one radius: the domain of a network without a layer of its own for it."""


def input_domain(network: nn.Module) -> InputDomain:
    """The domain that a layer of the network holds, wherever it is; pixels in [0, 1] where none does."""
    return next((module for module in network.modules() if isinstance(module, InputDomain)), UNIT_DOMAIN)


class BatchReshape(nn.Module):
    """A layer that reshapes each sample of a batch and keeps the batch dimension, in an exported file, too."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Reshape a batch to ``(B, *shape)``."""
        return x.reshape(-1, *self.shape)


class Residual(nn.Module):
    """The sum of a main path and a shortcut."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches, ``main(x) + shortcut(x)``."""
        return self.main(x) + self.shortcut(x)


class GraftedReLU(nn.Module):
    """A ReLU in which some neurons are affine maps ``slope * x + shift`` of their own (Chen et al., ICML 2022)."""

    kept: Tensor
    grafted: Tensor
    order: Tensor

    def __init__(self, mask: Tensor, slope: float = 0.4) -> None:
        """``mask`` ``(C, H, W)`` or ``(n,)`` says which neurons are grafted."""
        super().__init__()
        flat = mask.flatten()
        self.shape = tuple(mask.shape)
        self.relu = nn.ReLU()
        self.register_buffer("kept", (~flat).nonzero().flatten())
        self.register_buffer("grafted", flat.nonzero().flatten())
        self.register_buffer("order", torch.cat([self.kept, self.grafted]).argsort())
        count = len(self.grafted)
        self.slope = nn.Parameter(torch.full((count,), slope, device=mask.device))
        self.shift = nn.Parameter(torch.zeros(count, device=mask.device))

    def forward(self, x: Tensor) -> Tensor:
        """Activations of the same shape. Only the neurons that are not grafted pass through a ReLU."""
        flat = x.flatten(1)
        if not len(self.kept):  # few readers of ONNX files are ready for tensors without elements
            return (self.slope * flat + self.shift).reshape(-1, *self.shape)
        return self.join(self.relu(flat[:, self.kept]), self.slope * flat[:, self.grafted] + self.shift)

    def join(self, kept: Tensor, grafted: Tensor) -> Tensor:
        """Values of both kinds of neurons ``(B, .)`` in their places."""
        return torch.cat([kept, grafted], 1)[:, self.order].reshape(-1, *self.shape)
