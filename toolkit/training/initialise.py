"""Initial weights for certified training."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import nn


def ibp_initialise(model: nn.Module, seed: int) -> None:
    """Normal weights of deviation ``sqrt(2 pi) / fan_in`` in all layers but the last (Shi et al., NeurIPS 2021).

    With them the width of interval bounds neither grows nor shrinks from layer to layer.
    """
    generator = torch.Generator().manual_seed(seed)
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in weighted[:-1]:
        fan_in = module.weight[0].numel()
        with torch.no_grad():
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * sqrt(2 * pi) / fan_in)
