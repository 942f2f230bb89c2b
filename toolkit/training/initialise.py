"""Initial weights for certified training."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import nn

from toolkit.models.layers import Residual


def ibp_initialise(model: nn.Module, seed: int) -> None:
    """Normal weights of deviation ``sqrt(2 pi) / fan_in`` in all layers but the last (Shi et al., NeurIPS 2021).

    With them the width of interval bounds neither grows nor shrinks from layer to layer. A residual addition doubles
    it, so the layers that read a sum get half the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    sums = set[nn.Module]()
    _find_readers(model, False, sums)
    for module in weighted[:-1]:
        deviation = sqrt(2 * pi) / module.weight[0].numel() / (2 if module in sums else 1)
        with torch.no_grad():
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * deviation)


def _find_readers(module: nn.Module, summed: bool, found: set[nn.Module]) -> bool:
    """Collects the weighted layers that read a residual sum; whether the module's output still is one."""
    if isinstance(module, nn.Sequential):
        for layer in module:
            summed = _find_readers(layer, summed, found)
        return summed
    if isinstance(module, Residual):
        _find_readers(module.main, summed, found)
        _find_readers(module.shortcut, summed, found)
        return True
    if isinstance(module, nn.Conv2d | nn.Linear):
        found.update({module} if summed else ())
        return False
    return summed
