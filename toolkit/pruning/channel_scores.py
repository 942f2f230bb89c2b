"""Channels that may be pruned, scores of them by bounds, and masks of those with the largest scores.

A channel is an output of a convolution or of a linear layer, with the batch normalisation and the ReLU that follow it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from toolkit.errors import FieldError, InputError
from toolkit.models.structure import BatchNorm, ReluSite, channel_sites, relu_sites
from toolkit.pruning.criterion import Structured
from toolkit.pruning.masks import Masks, Scores, channel_masks, live_channels, select
from toolkit.pruning.round import PruningRound
from toolkit.training.differentiable_intervals import Interval, ball, propagate
from toolkit.training.training_attack import evaluation_mode
from toolkit.tuning import tuned


def keep_channels(options: Structured, round_: PruningRound, scores: Scores) -> Masks:
    """Masks of the channels with the largest scores; of each layer the best channel always stays, and the floor.

    Raises:
        InputError: the network has no prunable channels.
    """
    live = live_channels(round_.model, round_.masks)
    if not live:
        raise InputError(
            "chains.method: channels need a convolution or linear layer, batch normalisation and ReLU in a row; "
            "there is none"
        )
    floor = min(options.floor, round_.density)
    kept = {name: _protect_best(scores[name], live[name], int(floor * len(live[name]))) for name in live}
    return channel_masks(round_.model, select(kept, live, round_.density, layerwise=options.layerwise))


def _protect_best(scores: Tensor, live: Tensor, count: int) -> Tensor:
    """The scores with so many of the best live ones above all others, and the very best above these."""
    alive = scores.double().masked_fill(~live, -torch.inf)
    best = alive.argsort(descending=True, stable=True)[: max(1, min(count, int(live.sum())))]
    return alive.index_fill(0, best, torch.finfo(alive.dtype).max).index_fill(0, best[:1], torch.inf)


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The batch normalisations of prunable channels, by name."""
    names = {site.batch_norm for site in channel_sites(model)}
    return {name: module for name, module in model.named_modules() if name in names and isinstance(module, BatchNorm)}


def positions(values: Tensor) -> Tensor:
    """Values ``(B, C, positions)`` of channels ``(B, C, H, W)``, or of neurons ``(B, n)``, which have one each."""
    return values.reshape(*values.shape[:2], -1)


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a convolution or linear layer."""
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module.weight.detach()


def mean_over_bounds(round_: PruningRound, score: Callable[[ReluSite, Interval], Tensor]) -> Scores:
    """Mean over held-out images and positions of a score ``(B, C, ...)`` of the bounds before each ReLU.

    Raises:
        InputError: there are no held-out images.
    """
    if len(round_.validation) == 0:
        raise FieldError("data.validation", "this pruning method scores channels on held-out images; hold some out")
    names = {module: name for name, module in batch_norms(round_.model).items()}
    sites = {names[site.batch_norm]: site for site in relu_sites(round_.model) if site.batch_norm in names}
    epsilon = round_.job.training.epsilon
    assert epsilon is not None
    sums = {name: torch.zeros(_width(site), device=round_.validation.labels.device) for name, site in sites.items()}
    with torch.no_grad(), evaluation_mode(round_.model):
        for images in round_.validation.images.split(tuned().training.bounded_images):
            _, trace = propagate(round_.model, ball(round_.model, images, epsilon))
            for name, site in sites.items():
                sums[name] += positions(score(site, trace[site.relu])).mean(2).sum(0)
    return {name: total / len(round_.validation) for name, total in sums.items()}


def _width(site: ReluSite) -> int:
    assert site.batch_norm is not None
    return site.batch_norm.num_features
