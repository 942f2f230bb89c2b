"""Single weights that may be pruned, and masks of those with the largest scores."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from toolkit.pruning.criterion import Unstructured
from toolkit.pruning.masks import Masks, Scores, prunable_weights, select
from toolkit.pruning.round import PruningRound


def live_weights(options: Unstructured, round_: PruningRound) -> Masks:
    """Masks of all prunable weights, full where nothing was pruned yet."""
    return prunable_weights(round_.model, options.layers) | round_.masks


def weights_of(options: Unstructured, round_: PruningRound) -> Iterator[tuple[str, Tensor]]:
    """The prunable weights with their names."""
    parameters = dict(round_.model.named_parameters())
    return ((name, parameters[name]) for name in live_weights(options, round_))


def keep_best(options: Unstructured, round_: PruningRound, scores: Scores) -> Masks:
    """Masks of the live weights with the largest scores, to the density of the round."""
    return select(scores, live_weights(options, round_), round_.density, layerwise=options.layerwise)
