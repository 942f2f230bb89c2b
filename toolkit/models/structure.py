"""What stands where in a network of ``Sequential`` and ``Residual``: ReLUs, their batch normalisation, channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from toolkit.models.layers import GraftedReLU

PASSING = (nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
"""Layers that keep channels apart and map zero to zero."""


BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
"""Batch normalisation of features ``(B, n)`` or of channels ``(B, C, H, W)``."""


@dataclass(frozen=True)
class ReluSite:
    """A ReLU, and the batch normalisation directly before it if there is one."""

    relu: nn.ReLU
    batch_norm: BatchNorm | None
    before: nn.Module | None = None
    """The layer directly before it; None where some of its units are grafted and do not reach the ReLU."""


@dataclass(frozen=True)
class ChannelSite:
    """Output channels, or neurons, that can be pruned: a convolution or a linear layer, batch normalisation and ReLU in
    a row (module names)."""

    layer: str
    batch_norm: str
    channels: int


def sequences(model: nn.Module) -> Iterator[tuple[str, nn.Sequential]]:
    """All ``Sequential`` modules with the prefix of their children's names, outermost first."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            yield f"{name}." if name else "", module


def relu_sites(model: nn.Module) -> list[ReluSite]:
    """All ReLUs in the order of the network's definition."""
    return [
        ReluSite(module.relu, None)
        if isinstance(module, GraftedReLU)
        else ReluSite(module, before if isinstance(before, BatchNorm) else None, before)
        for _, sequence in sequences(model)
        for before, module in pairwise((None, *sequence))
        if isinstance(module, nn.ReLU | GraftedReLU)
    ]


def channel_sites(model: nn.Module) -> list[ChannelSite]:
    """All groups of channels that can be removed exactly once their batch normalisation makes them zero.

    Neurons of linear layers are such channels, too. It asks for a reader that adds channels up: of a depthwise or
    grouped convolution, a zero channel becomes a constant, which the layers after it read. Channels that a residual
    addition couples are not among them either: their sum stays alive as long as one summand does. Nor are those of
    layers that the network uses more than once, or whose weights others share.
    """
    used = _uses(model)
    return [
        ChannelSite(prefix + children[i][0], prefix + children[i + 1][0], _width(children[i + 1][1]))
        for prefix, sequence in sequences(model)
        for children in [list(sequence._modules.items())]  # with those that are there twice
        for i in range(len(children) - 3)
        if _is_prunable([module for _, module in children[i:] if module is not None], used)
    ]


def _uses(model: nn.Module) -> Counter[int]:
    """How often each module occurs in a network, and each parameter in its layers, by its identity."""
    found: Counter[int] = Counter()
    for module in model.modules():
        found.update(id(child) for child in module._modules.values())
        if isinstance(module, nn.Conv2d | nn.Linear | BatchNorm):
            found.update({id(parameter) for parameter in module.parameters()})
    return found


def _is_prunable(modules: list[nn.Module], used: Counter[int]) -> bool:
    layer, batch_norm, relu, *rest = modules
    if not (isinstance(batch_norm, BatchNorm) and isinstance(relu, nn.ReLU)):
        return False
    if not (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)):
        return False
    reader = _reader(rest, flat=isinstance(layer, nn.Linear))
    if reader is None:
        return False
    parts = [part for module in (layer, batch_norm, reader) for part in (module, *module.parameters())]
    return all(used[id(part)] == 1 for part in parts)


def _reader(modules: list[nn.Module], flat: bool) -> nn.Module | None:
    """The layer that adds up the channels of what goes into a row of layers, or None where none does.

    ``flat`` says whether that are features ``(B, n)`` and not channels.
    """
    for module in modules:
        if isinstance(module, nn.Flatten) and not flat:
            flat = (module.start_dim, module.end_dim) == (1, -1)
            if not flat:
                return None
        elif isinstance(module, nn.Linear):
            return module if flat else None
        elif isinstance(module, nn.Conv2d):
            return module if module.groups == 1 and not flat else None
        elif not isinstance(module, PASSING):
            return None
    return None


def _width(module: nn.Module) -> int:
    assert isinstance(module, BatchNorm)
    return module.num_features


def count_relus(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Number of ReLU neurons for one input of ``shape``."""
    counts: list[int] = []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    hooks = [relu.register_forward_hook(lambda _, __, out: counts.append(out[0].numel())) for relu in relus]
    device = next(model.parameters()).device
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape, device=device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return sum(counts)
