"""Masks over parameters: which entries can be pruned, choosing the survivors, densities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from typing import Literal

import torch
from torch import Tensor, nn

from toolkit.errors import FieldError
from toolkit.models.structure import ChannelSite, channel_sites

Masks = dict[str, Tensor]
"""Boolean masks by parameter name, of the parameters' shapes. A parameter without a mask is not pruned."""
Scores = Mapping[str, Tensor]
"""One score for each prunable entry, by name; the smallest are pruned first."""

LAYER_TYPES: dict[str, type[nn.Module]] = {"conv": nn.Conv2d, "linear": nn.Linear}


def weight_masks(model: nn.Module, layers: Sequence[Literal["conv", "linear"]]) -> Masks:
    """Full masks of the weights of all layers of the given kinds."""
    kinds = tuple(LAYER_TYPES[layer] for layer in layers)
    names = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)}
    return {
        name: torch.ones_like(parameter, dtype=torch.bool)
        for name, parameter in model.named_parameters()
        if name in names
    }


def prunable_weights(model: nn.Module, layers: Sequence[Literal["conv", "linear"]]) -> Masks:
    """Full masks of the weights of all layers of the given kinds, of which there is at least one.

    Raises:
        InputError: the network has no layer of these kinds.
    """
    masks = weight_masks(model, layers)
    if not masks:
        raise FieldError("chains.method.layers", f"the network has no layer of these kinds: {', '.join(layers)}")
    return masks


def channel_masks(model: nn.Module, keep: Mapping[str, Tensor]) -> Masks:
    """Masks of all parameters of channels, from the channels to keep by the name of their batch normalisation.

    Scale and shift are masked together, so the output of a pruned channel's ReLU is exactly zero.
    """
    parameters = dict(model.named_parameters())
    return {
        name: kept.reshape(-1, *[1] * (parameters[name].ndim - 1)).expand_as(parameters[name]).contiguous()
        for site in channel_sites(model)
        for kept in [keep[site.batch_norm]]
        for name in _parameter_names(site)
        if name in parameters
    }


def _parameter_names(site: ChannelSite) -> tuple[str, ...]:
    names = ((site.layer, "weight"), (site.layer, "bias"), (site.batch_norm, "weight"), (site.batch_norm, "bias"))
    return tuple(f"{module}.{parameter}" for module, parameter in names)


def live_channels(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Channels that the masks keep, by the name of their batch normalisation; all of them without masks."""
    sites = channel_sites(model)
    device = next(model.parameters()).device
    full = {site.batch_norm: torch.ones(site.channels, dtype=torch.bool, device=device) for site in sites}
    return {name: masks.get(f"{name}.weight", kept) for name, kept in full.items()}


def density(masks: Mapping[str, Tensor]) -> float:
    """Kept entries over all prunable entries."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / max(1, total)


def select(scores: Scores, live: Mapping[str, Tensor], target: float, *, layerwise: bool) -> Masks:
    """The ``target`` part of all entries with the largest scores, out of those still alive.

    Exactly ``n - floor((1 - target) n)`` of n entries are kept (of each layer if ``layerwise``); equal scores are
    decided by position, so the density is met even when many scores are zero.
    """
    if layerwise:
        return {name: _largest(scores[name], live[name], target) for name in scores}
    names = list(scores)
    joined = _largest(
        torch.cat([scores[name].flatten() for name in names]),
        torch.cat([live[name].flatten() for name in names]),
        target,
    )
    parts = joined.split([scores[name].numel() for name in names])
    return {name: part.reshape(scores[name].shape) for name, part in zip(names, parts, strict=True)}


def _largest(scores: Tensor, live: Tensor, target: float) -> Tensor:
    count = scores.numel() - floor((1 - target) * scores.numel() + 1e-9)
    flat = scores.flatten().double().nan_to_num(nan=-torch.inf).masked_fill(~live.flatten(), -torch.inf)
    order = flat.argsort(descending=True, stable=True)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order[:count]] = True
    return (kept & live.flatten()).reshape(scores.shape)
