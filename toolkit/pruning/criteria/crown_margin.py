"""A criterion made of what verification feels: the part of the margin that CROWN's bounds leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from toolkit.errors import FieldError
from toolkit.pruning.criterion import Unstructured, criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolkit.pruning.masks import Masks
    from toolkit.pruning.round import PruningRound


class CrownMargin(Unstructured):
    """Smallest change of the certified part of the margin, to first order, on held-out images."""

    name: Literal["crown_margin"] = "crown_margin"
    change: Literal["loss", "size"] = "loss"
    """What makes a weight worth keeping: what the certified part loses without it, so that weights go first which stand
    in its way; or how much it changes in either direction."""


@criterion(CrownMargin)
def by_certified_margin(options: CrownMargin, round_: PruningRound) -> Masks:
    """Masks of the largest ``w dP/dw``, or of their sizes; P is the mean of `certified_part` over held-out images.

    Without the weight w, P is less by ``w dP/dw`` to first order. One backward pass for each batch of images.

    Raises:
        InputError: there are no held-out images.
        UnsupportedError: a layer of the network has no bounds in training.
    """
    import torch

    from toolkit.pruning.weight_scores import keep_best, weights_of
    from toolkit.training.training_attack import evaluation_mode
    from toolkit.tuning import tuned

    if len(round_.validation) == 0:
        raise FieldError("data.validation", "this pruning method scores weights on held-out images; hold some out")
    epsilon = round_.job.training.epsilon
    assert epsilon is not None
    weights = dict(weights_of(options, round_))
    total = [torch.zeros_like(weight) for weight in weights.values()]
    with evaluation_mode(round_.model):
        for images, labels in round_.validation.batches(tuned().training.bounded_images):
            part = certified_part(round_.model, images, labels, epsilon)
            gradients = torch.autograd.grad(part.sum(), list(weights.values()))
            total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    losses = {
        name: (weight * gradient).detach() for (name, weight), gradient in zip(weights.items(), total, strict=True)
    }
    return keep_best(
        options, round_, losses if options.change == "loss" else {name: loss.abs() for name, loss in losses.items()}
    )


def certified_part(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """For images ``(B, C, H, W)`` the part ``m / (m + gap)`` of the margin m that bounds leave; ``(B,)`` in [0, 1].

    The gap is the margin less CROWN's lower bound of it over the ball of radius epsilon, with interval bounds at the
    ReLUs: above a half, the image is certified. It is the same for a network whose outputs are all scaled, so that
    shrinking weights is no gain, and 0 for images that are misclassified. The margin is that to the class which
    interval bounds leave the most room.
    """
    from torch.nn.functional import one_hot

    from toolkit.training.differentiable_crown import upper_bound
    from toolkit.training.differentiable_intervals import ball, propagate

    bounds, trace = propagate(model, ball(model, images, epsilon))
    classes = bounds.lower.shape[1]
    own = one_hot(labels, classes).bool()
    rival = bounds.upper.detach().masked_fill(own, -float("inf")).argmax(1)
    difference = one_hot(rival, classes).to(images.dtype) - own.to(images.dtype)
    logits = model(images)
    margin = -(difference * logits).sum(1)
    gap = margin + upper_bound(model, difference, trace)
    # A gap of 0 is one of a network that is linear around the image and has no radius; rounding can make it less.
    part = margin.clamp(min=0) / (margin.clamp(min=0) + gap.clamp(min=1e-12))
    return part * (logits.argmax(1) == labels)
