"""Small networks that have every layer, with batch statistics that are not those of fresh layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toolkit.models.layers import Normalise, Residual


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, in float64, with random scales (some negative) and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data = torch.randn(module.num_features, generator=generator)
            module.bias.data = torch.randn(module.num_features, generator=generator)
            module.running_mean = torch.randn(module.num_features, generator=generator)
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    return model.double().eval()


def residual_net() -> nn.Sequential:
    """Normalisation, convolutions, a residual block with a projection, average pooling, a hidden
    layer with batch normalisation; input (2, 6, 6), 3 classes."""
    torch.manual_seed(0)
    main = nn.Sequential(nn.Conv2d(4, 5, 3, 2, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 5, 3, 1, 1))
    return nn.Sequential(
        Normalise((0.5, 0.4), (0.2, 0.3)),
        nn.Conv2d(2, 4, 3, 1, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Residual(main, nn.Sequential(nn.Conv2d(4, 5, 1, 2), nn.BatchNorm2d(5))),
        nn.ReLU(),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )


@pytest.fixture
def net() -> nn.Module:
    """A residual net for images (2, 6, 6) and three classes, float64, evaluation mode."""
    return randomised(residual_net())
