"""HYDRA: scores learned by gradient descent with the weights frozen (Sehwag et al., NeurIPS 2020).

The forward pass uses a weight only while the magnitude of its score is among the best of its layer; the backward pass
pretends that the choice were the magnitude itself (straight-through). So the magnitudes of weights that would help grow
until they are chosen, whichever sign their scores have.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from toolkit.models.structure import channel_sites
from toolkit.pruning.channel_scores import keep_channels
from toolkit.pruning.criterion import Structured
from toolkit.pruning.masks import Masks, live_channels, prunable_weights, select
from toolkit.pruning.round import PruningRound
from toolkit.training.tensor_files import PeriodicSaver, load


class StraightThrough(torch.autograd.Function):
    """The mask of the greatest magnitudes going forward, the identity going backward."""

    @staticmethod
    def forward(ctx: Any, magnitudes: Tensor, live: Tensor, target: float) -> Tensor:
        """Mask of the shape and type of the scores' magnitudes."""
        return select({"": magnitudes}, {"": live}, target, layerwise=True)[""].to(magnitudes.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient as it comes."""
        return gradients[0], None, None


class Gate(nn.Module):
    """Multiplies a parameter by the mask of learned scores, one score for each entry of the first axes."""

    def __init__(self, scores: nn.Parameter, live: Tensor, target: float) -> None:
        super().__init__()
        self.scores = scores
        self.live = live
        self.target = target

    def forward(self, parameter: Tensor) -> Tensor:
        """The parameter with unchosen entries zero."""
        mask = StraightThrough.apply(self.scores.abs(), self.live, self.target)
        return parameter * mask.reshape(*mask.shape, *[1] * (parameter.ndim - mask.ndim))


def learned_weights(
    round_: PruningRound, layers: Sequence[Literal["conv", "linear"]], epochs: int, learning_rate: float
) -> Masks:
    """Masks of the weights of these kinds of layers with the largest learned scores."""
    live = prunable_weights(round_.model, layers) | round_.masks
    modules = dict(round_.model.named_modules())
    scores: dict[str, nn.Parameter] = {}
    for name, mask in live.items():
        module = modules[name.removesuffix(".weight")]
        weight = module.weight
        assert isinstance(weight, Tensor)
        scores[name] = nn.Parameter(initial_scores(weight.detach() * mask))
        parametrize.register_parametrization(module, "weight", Gate(scores[name], mask, round_.density))
    learn(round_, list(scores.values()), epochs, learning_rate)
    return select({name: s.detach().abs() for name, s in scores.items()}, live, round_.density, layerwise=True)


def learned_channels(options: Structured, round_: PruningRound, epochs: int, learning_rate: float) -> Masks:
    """Masks of the channels with the largest learned scores, each of which scales both parameters of its batch
    normalisation."""
    live = live_channels(round_.model, round_.masks)
    modules = dict(round_.model.named_modules())
    scores: dict[str, nn.Parameter] = {}
    for site in channel_sites(round_.model):
        kept, norm, weight = live[site.batch_norm], modules[site.batch_norm], modules[site.layer].weight
        assert isinstance(weight, Tensor)
        size = weight.detach().flatten(1).norm(dim=1) * kept
        scores[site.batch_norm] = nn.Parameter(size / size.max().clamp_min(1e-12))
        for name in ("weight", "bias"):
            gate = Gate(scores[site.batch_norm], kept, round_.density)
            parametrize.register_parametrization(norm, name, gate)
    learn(round_, list(scores.values()), epochs, learning_rate)
    for site in channel_sites(round_.model):
        for name in ("weight", "bias"):
            parametrize.remove_parametrizations(modules[site.batch_norm], name, leave_parametrized=False)
    return keep_channels(options, round_, {name: s.detach().abs() for name, s in scores.items()})


def initial_scores(weight: Tensor) -> Tensor:
    """Signed and scaled weights: ``sqrt(6 / fan_in) w / max|w|``; pruned weights get 0 and stay there."""
    fan_in = weight[0].numel()
    return sqrt(6 / fan_in) * weight / weight.abs().max().clamp_min(1e-12)


def learn(round_: PruningRound, scores: list[nn.Parameter], epochs: int, learning_rate: float) -> None:
    """Adam on the training loss at the full epsilon, rate divided by ten after half and three quarters of the epochs.

    Batch statistics keep updating; everything but the scores is frozen. The round's checkpoint is gone on from.
    """
    optimizer = torch.optim.Adam(scores, learning_rate)
    steps = epochs * round_.job.batches
    saver = PeriodicSaver(round_.checkpoint, round_.job.training.checkpoint_seconds)
    for epoch in range(_resume(round_, optimizer), epochs):
        for batch, loss in enumerate(round_.epoch_losses(round_.model, "hydra", epoch)):
            passed = sum(epoch * round_.job.batches + batch >= steps * part for part in (0.5, 0.75))
            optimizer.param_groups[0]["lr"] = learning_rate * 0.1**passed
            for parameter, gradient in zip(scores, torch.autograd.grad(loss, scores), strict=True):
                parameter.grad = gradient
            optimizer.step()
        if saver.due():
            saver.save({"epoch": epoch + 1, "model": round_.model.state_dict(), "optimizer": optimizer.state_dict()})


def _resume(round_: PruningRound, optimizer: torch.optim.Optimizer) -> int:
    """The epoch, counted from 0, to go on with; the scores are among what the model holds."""
    record = None if round_.checkpoint is None else load(round_.checkpoint, round_.job.data.labels.device)
    if record is None:
        return 0
    round_.model.load_state_dict(record["model"])
    optimizer.load_state_dict(record["optimizer"])
    return int(record["epoch"])
