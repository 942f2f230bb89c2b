"""Criteria that prune channels by a score: slimming, refill, instability, upper bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from toolkit.pruning.criterion import Density, Structured, criterion
from toolkit.training.training_options import Stability

if TYPE_CHECKING:
    from toolkit.pruning.masks import Masks
    from toolkit.pruning.round import PruningRound


class Slim(Structured):
    """Smallest ``|gamma|`` of the batch normalisation (network slimming; Liu et al., ICCV 2017)."""

    name: Literal["slim"] = "slim"


@criterion(Slim)
def by_scale(options: Slim, round_: PruningRound) -> Masks:
    """Masks of the channels with the largest scale of their batch normalisation."""
    from toolkit.pruning.channel_scores import batch_norms, keep_channels

    scores = {name: norm.weight.detach().abs() for name, norm in batch_norms(round_.model).items()}
    return keep_channels(options, round_, scores)


class Refill(Structured):
    """IMP decides, whole channels go, kept channels are refilled (Chen et al., 2022, "IMP-Refill")."""

    name: Literal["refill"] = "refill"
    rate: Density = 0.2
    """Part of the live convolution weights that the magnitude step ignores in the ranking."""


@criterion(Refill)
def by_weights_kept(options: Refill, round_: PruningRound) -> Masks:
    """Masks by the mean ``|w|`` of each channel after a magnitude step; the mean makes layers of different fan-in
    comparable.

    Every weight of a kept channel is live afterwards, so the magnitude step only decides the ranking.
    """
    from toolkit.models.structure import channel_sites
    from toolkit.pruning.channel_scores import keep_channels, weight_of
    from toolkit.pruning.masks import live_channels, select

    modules = dict(round_.model.named_modules())
    sites = channel_sites(round_.model)
    weights = {site.batch_norm: weight_of(modules[site.layer]).flatten(1) for site in sites}
    channels = live_channels(round_.model, round_.masks)
    live = {name: channels[name].reshape(-1, 1).expand_as(weight) for name, weight in weights.items()}
    total = sum(mask.numel() for mask in live.values())
    remaining = sum(int(mask.sum()) for mask in live.values()) / max(1, total)
    kept = select(
        {name: weight.abs() for name, weight in weights.items()}, live, (1 - options.rate) * remaining, layerwise=False
    )
    scores = {name: (weight.abs() * kept[name]).mean(1) for name, weight in weights.items()}
    return keep_channels(options, round_, scores)


class NrsChannel(Structured):
    """Most unstable channels first: largest NRSLoss on held-out images."""

    name: Literal["nrs_channel"] = "nrs_channel"


@criterion(NrsChannel)
def by_instability(options: NrsChannel, round_: PruningRound) -> Masks:
    """Masks without the channels of the largest NRSLoss on held-out images; dropped channels never come back."""
    from toolkit.pruning.channel_scores import keep_channels, mean_over_bounds
    from toolkit.training.regularisers import stability_terms

    nrs = Stability(name="nrs")
    return keep_channels(options, round_, mean_over_bounds(round_, lambda site, x: -stability_terms(nrs, site, x)))


class UpperBound(Structured):
    """Channels with the smallest upper bound first, as they are nearly inactive (Xu et al., TACAS 2024)."""

    name: Literal["upper_bound"] = "upper_bound"


@criterion(UpperBound)
def by_upper_bound(options: UpperBound, round_: PruningRound) -> Masks:
    """Masks by the mean over images of the largest upper bound in the channel: small for channels that are nearly
    inactive."""
    from toolkit.pruning.channel_scores import keep_channels, mean_over_bounds, positions

    return keep_channels(options, round_, mean_over_bounds(round_, lambda _, x: positions(x.upper).amax(2)))
