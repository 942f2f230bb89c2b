"""Methods that prune single weights by a score: random, magnitude, SNIP and Taylor."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor, nn

from toolkit.pruning.masks import Masks, Scores, prunable_weights, select
from toolkit.pruning.pruning_options import Magnitude, Random, Sensitivity, Unstructured
from toolkit.pruning.round import PruningRound, prune


def _live(options: Unstructured, round_: PruningRound) -> Masks:
    """Masks of all prunable weights, full where nothing was pruned yet."""
    return prunable_weights(round_.model, options.layers) | round_.masks


def _weights(model: nn.Module, names: Masks) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in names}


def _keep_best(options: Unstructured, round_: PruningRound, scores: Scores) -> Masks:
    return select(scores, _live(options, round_), round_.density, layerwise=options.layerwise)


@prune.register
def _(options: Random, round_: PruningRound) -> Masks:
    generator = round_.generator("random")
    scores = {
        name: torch.rand(mask.shape, generator=generator, device=mask.device)
        for name, mask in _live(options, round_).items()
    }
    return _keep_best(options, round_, scores)


@prune.register
def _(options: Magnitude, round_: PruningRound) -> Masks:
    weights = _weights(round_.model, _live(options, round_))
    return _keep_best(options, round_, {name: weight.detach().abs() for name, weight in weights.items()})


@prune.register
def _(options: Sensitivity, round_: PruningRound) -> Masks:
    """``|w dL/dw|``, which is also ``|dL/dm|`` at the mask m = 1; L is the training loss at the full epsilon."""
    weights = _weights(round_.model, _live(options, round_))
    total = [torch.zeros_like(weight) for weight in weights.values()]
    for loss in islice(round_.losses(round_.model, "sensitivity"), options.batches):
        gradients = torch.autograd.grad(loss, list(weights.values()))
        total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    scores = {
        name: (weight * gradient).detach().abs()
        for (name, weight), gradient in zip(weights.items(), total, strict=True)
    }
    return _keep_best(options, round_, scores)
