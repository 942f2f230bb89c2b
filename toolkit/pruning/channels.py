"""Methods that prune channels by a score: slimming, refill, instability, upper bound.

A channel is an output of a convolution or of a linear layer, with the batch normalisation and the ReLU that follow it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from toolkit.errors import InputError
from toolkit.models.structure import BatchNorm, ReluSite, channel_sites, relu_sites
from toolkit.pruning.masks import Masks, Scores, channel_masks, live_channels, select
from toolkit.pruning.pruning_options import NrsChannel, Refill, Slim, Structured, UpperBound
from toolkit.pruning.round import PruningRound, prune
from toolkit.training.differentiable_intervals import Interval, image_box, propagate
from toolkit.training.regularisers import stability_terms
from toolkit.training.training_attack import evaluation_mode
from toolkit.training.training_options import Stability
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


@prune.register
def _(options: Slim, round_: PruningRound) -> Masks:
    scores = {name: norm.weight.detach().abs() for name, norm in _batch_norms(round_.model).items()}
    return keep_channels(options, round_, scores)


@prune.register
def _(options: Refill, round_: PruningRound) -> Masks:
    """Mean ``|w|`` of each channel after a magnitude step; the mean makes layers of different fan-in comparable.

    Every weight of a kept channel is live afterwards, so the magnitude step only decides the ranking.
    """
    modules = dict(round_.model.named_modules())
    sites = channel_sites(round_.model)
    weights = {site.batch_norm: _weight(modules[site.layer]).flatten(1) for site in sites}
    channels = live_channels(round_.model, round_.masks)
    live = {name: channels[name].reshape(-1, 1).expand_as(weight) for name, weight in weights.items()}
    total = sum(mask.numel() for mask in live.values())
    remaining = sum(int(mask.sum()) for mask in live.values()) / max(1, total)
    kept = select(
        {name: weight.abs() for name, weight in weights.items()}, live, (1 - options.rate) * remaining, layerwise=False
    )
    scores = {name: (weight.abs() * kept[name]).mean(1) for name, weight in weights.items()}
    return keep_channels(options, round_, scores)


@prune.register
def _(options: NrsChannel, round_: PruningRound) -> Masks:
    """The channels with the largest NRSLoss on held-out images go first; dropped channels never come back."""
    nrs = Stability(name="nrs")
    return keep_channels(options, round_, _mean_over_bounds(round_, lambda site, x: -stability_terms(nrs, site, x)))


@prune.register
def _(options: UpperBound, round_: PruningRound) -> Masks:
    """Mean over images of the largest upper bound in the channel: small for channels that are nearly inactive."""
    return keep_channels(options, round_, _mean_over_bounds(round_, lambda _, x: _positions(x.upper).amax(2)))


def _batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    names = {site.batch_norm for site in channel_sites(model)}
    return {name: module for name, module in model.named_modules() if name in names and isinstance(module, BatchNorm)}


def _positions(values: Tensor) -> Tensor:
    """Values ``(B, C, positions)`` of channels ``(B, C, H, W)``, or of neurons ``(B, n)``, which have one each."""
    return values.reshape(*values.shape[:2], -1)


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module.weight.detach()


def _mean_over_bounds(round_: PruningRound, score: Callable[[ReluSite, Interval], Tensor]) -> Scores:
    """Mean over held-out images and positions of a score ``(B, C, ...)`` of the bounds before each ReLU.

    Raises:
        InputError: there are no held-out images.
    """
    if len(round_.validation) == 0:
        raise InputError("data.validation: this pruning method scores channels on held-out images; hold some out")
    names = {module: name for name, module in _batch_norms(round_.model).items()}
    sites = {names[site.batch_norm]: site for site in relu_sites(round_.model) if site.batch_norm in names}
    epsilon = round_.job.training.epsilon
    assert epsilon is not None
    sums = {name: torch.zeros(_width(site), device=round_.validation.labels.device) for name, site in sites.items()}
    with torch.no_grad(), evaluation_mode(round_.model):
        for images in round_.validation.images.split(tuned().training.scored_images):
            _, trace = propagate(round_.model, image_box(images, epsilon))
            for name, site in sites.items():
                sums[name] += _positions(score(site, trace[site.relu])).mean(2).sum(0)
    return {name: total / len(round_.validation) for name, total in sums.items()}


def _width(site: ReluSite) -> int:
    assert site.batch_norm is not None
    return site.batch_norm.num_features
