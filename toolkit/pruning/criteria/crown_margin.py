"""A pruning criterion by certification: weights count by the part of the margin that CROWN's bounds prove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from toolkit.errors import FieldError
from toolkit.pruning.criterion import Unstructured, criterion
from toolkit.tuning import tuned

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolkit.pruning.masks import Masks, Scores
    from toolkit.pruning.round import PruningRound


class CrownMargin(Unstructured):
    """Smallest change of the certified part of the margin, to first order, on held-out images of each class.

    The part is the same when the last layer is scaled, and changes little when another one is, so that for each class
    the changes by all weights of a layer nearly cancel: half of them are negative, and what is negative for one class
    holds another one up. A weight is therefore scored by the classes that need it, and compared within its layer alone.
    """

    name: Literal["crown_margin"] = "crown_margin"
    change: Literal["loss", "size"] = "loss"
    """What makes a weight worth keeping: what the certified part of classes loses without it, so that weights go first
    which stand in the way of all classes; or how much it changes in either direction."""
    steps: PositiveInt = 20
    """Steps that a round's pruning is taken in, the density falling by the same factor in each; every step has scores
    of the network that the one before left (de Jorge et al., ICLR 2021), as all weights together change what each does.
    """
    layerwise: bool = True
    """Prune every layer to the same density; by one threshold over all of them, whole layers may go."""


@criterion(CrownMargin)
def by_certified_margin(options: CrownMargin, round_: PruningRound) -> Masks:
    """Masks of the largest scores, reached in steps.

    Raises:
        InputError: there are no held-out images, or no radius that could leave a part of the margin.
        UnsupportedError: a layer of the network has no bounds in training.
    """
    from toolkit.pruning.masks import density, select
    from toolkit.pruning.weight_scores import live_weights
    from toolkit.training.training_loop import apply_masks

    if len(round_.validation) == 0:
        raise FieldError("data.validation", "this pruning method scores weights on held-out images; hold some out")
    if not round_.job.training.epsilon:
        raise FieldError("specification.epsilon", "this pruning method scores weights by bounds: a radius is needed")
    live = live_weights(options, round_)
    start = density(live)
    for step in range(1, options.steps + 1):
        target = start * (round_.density / start) ** (step / options.steps)
        live = select(scores_by_class(options, round_), live, target, layerwise=options.layerwise)
        apply_masks(round_.model, live)
    return live


def scores_by_class(options: CrownMargin, round_: PruningRound) -> Scores:
    """For each weight w the sum over classes of the loss ``max(0, w dP/dw)``, or of the size ``|w dP/dw|``.

    P is the sum of `certified_part` over the held-out images of a class; without the weight it is less by ``w dP/dw``
    to first order. Where no class loses anything, the score is what all of them gain, as a negative number.
    """
    import torch

    from toolkit.pruning.weight_scores import weights_of

    weights = dict(weights_of(options, round_))
    kept, lost = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2))
    for label in round_.validation.labels.unique():
        for name, loss in losses_of_class(round_, int(label), weights).items():
            kept[name] += loss.relu() if options.change == "loss" else loss.abs()
            lost[name] += loss
    return {name: torch.where(score > 0, score, lost[name]) for name, score in kept.items()}


def losses_of_class(round_: PruningRound, label: int, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the certified part of all held-out images of a class loses without each weight, to first order, by one
    backward pass for each batch of images."""
    import torch

    from toolkit.training.training_attack import evaluation_mode

    epsilon = round_.job.training.epsilon
    assert epsilon is not None
    total = [torch.zeros_like(weight) for weight in weights.values()]
    with evaluation_mode(round_.model):
        for images, labels in round_.validation.of_class(label).batches(tuned().training.bounded_images):
            part = certified_part(round_.model, images, labels, epsilon)
            gradients = torch.autograd.grad(part.sum(), list(weights.values()))
            total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
    return {name: (weight * gradient).detach() for (name, weight), gradient in zip(weights.items(), total, strict=True)}


def certified_part(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """For images ``(B, C, H, W)`` the part ``m / (|m| + gap)`` of the margin m that bounds leave; ``(B,)`` in [-1, 1].

    The gap is the margin less CROWN's lower bound of it over the ball of radius epsilon, with interval bounds at the
    ReLUs: above a half, the image is certified. It is the same for a network whose outputs are all scaled, so that
    shrinking weights is no gain. The margin is that to the class which interval bounds leave the most room, or to the
    one that a misclassified image is taken for: its part is negative, so that weights which would mend it count.
    """
    from torch.nn.functional import one_hot

    from toolkit.training.differentiable_crown import upper_bound
    from toolkit.training.differentiable_intervals import ball, propagate

    bounds, trace = propagate(model, ball(model, images, epsilon))
    classes = bounds.lower.shape[1]
    own = one_hot(labels, classes).bool()
    logits = model(images)
    answer = logits.argmax(1)
    rival = bounds.upper.detach().masked_fill(own, -float("inf")).argmax(1)
    rival = rival.where(answer == labels, answer)
    difference = one_hot(rival, classes).to(images.dtype) - own.to(images.dtype)
    margin = -(difference * logits).sum(1)
    gap = margin + upper_bound(model, difference, trace)
    # A gap of 0 is one of a network that is linear around the image and has no radius; rounding can make it less.
    return margin / (margin.abs() + gap.clamp(min=1e-12))
