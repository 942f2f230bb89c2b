"""Criteria that prune single weights by a score: random, magnitude, SNIP and Taylor."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from toolkit.pruning.criterion import Unstructured, criterion

if TYPE_CHECKING:
    from toolkit.pruning.masks import Masks
    from toolkit.pruning.round import PruningRound


class Random(Unstructured):
    """A uniformly random choice among the live weights."""

    name: Literal["random"] = "random"


@criterion(Random)
def by_chance(options: Random, round_: PruningRound) -> Masks:
    """Masks by scores that are drawn."""
    import torch

    from toolkit.pruning.weight_scores import keep_best, live_weights

    generator = round_.generator("random")
    scores = {
        name: torch.rand(mask.shape, generator=generator, device=mask.device)
        for name, mask in live_weights(options, round_).items()
    }
    return keep_best(options, round_, scores)


class Magnitude(Unstructured):
    """Smallest absolute weight after training (IMP; Frankle & Carbin, ICLR 2019)."""

    name: Literal["magnitude"] = "magnitude"


@criterion(Magnitude)
def by_magnitude(options: Magnitude, round_: PruningRound) -> Masks:
    """Masks of the largest absolute weights."""
    from toolkit.pruning.weight_scores import keep_best, weights_of

    return keep_best(options, round_, {name: weight.detach().abs() for name, weight in weights_of(options, round_)})


class Sensitivity(Unstructured):
    """Smallest ``|w dL/dw|``: SNIP (Lee et al., ICLR 2019) and the first-order Taylor score are this same number."""

    name: Literal["snip", "taylor"]
    batches: PositiveInt = 1
    """Training batches that the gradient is averaged over."""


@criterion(Sensitivity)
def by_sensitivity(options: Sensitivity, round_: PruningRound) -> Masks:
    """Masks of the largest ``|w dL/dw|``, which is also ``|dL/dm|`` at the mask m = 1; L is the training loss at the
    full epsilon."""
    import torch

    from toolkit.pruning.weight_scores import keep_best, weights_of

    weights = dict(weights_of(options, round_))
    total = [torch.zeros_like(weight) for weight in weights.values()]
    for loss in islice(round_.losses(round_.model, "sensitivity"), options.batches):
        gradients = torch.autograd.grad(loss, list(weights.values()))
        total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    scores = {
        name: (weight * gradient).detach().abs()
        for (name, weight), gradient in zip(weights.items(), total, strict=True)
    }
    return keep_best(options, round_, scores)
