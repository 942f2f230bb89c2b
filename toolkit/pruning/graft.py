"""Linearity grafting: unstable ReLUs that matter little become learned affine maps (Chen et al., ICML 2022).

A grafted neuron is linear, so it needs no relaxation and no branching. Neurons are ranked by how often they are
unstable (here by interval bounds) and by how strongly the loss depends on them (mean absolute gradient).
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from toolkit.data.dataset import Split
from toolkit.errors import FieldError
from toolkit.models.layers import GraftedReLU
from toolkit.models.structure import sequences
from toolkit.pruning.pruning_options import Graft
from toolkit.training.differentiable_intervals import ball, propagate
from toolkit.training.stats import unstable
from toolkit.training.training_attack import evaluation_mode
from toolkit.training.training_job import TrainingJob
from toolkit.tuning import tuned

WEIGHTS = (2.0, 1.5, 1.0, 0.0)
"""Weight of instability against significance in each of four equal portions, as in the authors' code."""


def graft(model: nn.Module, options: Graft, data: Split, epsilon: float) -> nn.Module:
    """A copy in which the ``share`` of the neurons with the largest scores are affine maps, to be trained.

    Raises:
        InputError: the network has no ReLU that can be grafted.
    """
    images = data.first(options.images)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not relus:
        raise FieldError("chains.graft", "the network has no ReLU to graft")
    with evaluation_mode(model):
        instability = _instability(model, relus, images, epsilon)
        significance = _significance(model, relus, images)
    chosen = choose(instability, significance, options.share)
    shapes = _shapes(model, relus, images.images[:1])
    parts = chosen.split([shape.numel() for shape in shapes])
    masks = {relu: part.reshape(shape) for relu, part, shape in zip(relus, parts, shapes, strict=True)}
    return _replaced(model, masks, options.slope)


def choose(instability: Tensor, significance: Tensor, share: float) -> Tensor:
    """The neurons ``(n,)`` to graft: in each portion the largest ``weight * rank(instability) - rank(importance)``."""
    chosen = torch.zeros_like(instability, dtype=torch.bool)
    unstable_rank, significant_rank = rank(instability), rank(significance)
    total = round(share * len(chosen))
    for index, weight in enumerate(WEIGHTS):
        score = (weight * unstable_rank - significant_rank).masked_fill(chosen, -torch.inf)
        count = total * (index + 1) // len(WEIGHTS) - total * index // len(WEIGHTS)
        chosen[score.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def rank(values: Tensor) -> Tensor:
    """Ranks in [0, 1]; equal values have equal ranks."""
    _, position = values.unique(return_inverse=True)
    return position.double() / max(1, int(position.max()))


def grafted_job(job: TrainingJob, options: Graft, seed: int) -> TrainingJob:
    """The training after grafting, at the full radius."""
    changes = {"epochs": options.epochs, "learning_rate": options.learning_rate, "milestones": (), "ramp": None}
    return replace(job, training=job.training.model_copy(update=changes), seed=seed)


@torch.no_grad()
def _instability(model: nn.Module, relus: list[nn.ReLU], data: Split, epsilon: float) -> Tensor:
    """How many correctly classified images leave each neuron unstable, all layers joined."""
    counts = []
    for images, labels in data.batches(tuned().training.bounded_images):
        correct = model(images).argmax(1) == labels
        _, trace = propagate(model, ball(model, images[correct], epsilon))
        counts.append(torch.cat([unstable(trace[relu]).flatten(1).sum(0) for relu in relus]))
    return torch.stack(counts).sum(0)


def _significance(model: nn.Module, relus: list[nn.ReLU], data: Split) -> Tensor:
    """Mean of the loss's absolute derivative with respect to each activation, all layers joined."""
    seen: dict[nn.Module, Tensor] = {}
    hooks = [relu.register_forward_hook(lambda module, _, out: seen.__setitem__(module, out)) for relu in relus]
    sums = []
    for images, labels in data.batches(tuned().training.bounded_images):
        loss = cross_entropy(model(images), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, [seen[relu] for relu in relus])
        sums.append(torch.cat([gradient.abs().flatten(1).sum(0) for gradient in gradients]))
    for hook in hooks:
        hook.remove()
    return torch.stack(sums).sum(0) / len(data)


@torch.no_grad()
def _shapes(model: nn.Module, relus: list[nn.ReLU], image: Tensor) -> list[torch.Size]:
    with evaluation_mode(model):
        _, trace = propagate(model, ball(model, image, 0.0))
    return [trace[relu].lower.shape[1:] for relu in relus]


def _replaced(model: nn.Module, masks: dict[nn.ReLU, Tensor], slope: float) -> nn.Module:
    """A copy of the model with grafted layers in place of the ReLUs that have something to graft."""
    new: nn.Module = copy.deepcopy(model)
    for (_, old_row), (_, new_row) in zip(sequences(model), list(sequences(new)), strict=True):
        for index, layer in enumerate(old_row):
            if isinstance(layer, nn.ReLU) and bool(masks[layer].any()):
                new_row[index] = GraftedReLU(masks[layer], slope)
    return new
