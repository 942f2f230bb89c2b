"""Certified accuracy of a live network by cheap bounds, to watch and choose epochs by; verdicts come from elsewhere."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from toolkit.data.dataset import Split
from toolkit.errors import UnsupportedError
from toolkit.training.certified import differences
from toolkit.training.differentiable_crown import upper_bound
from toolkit.training.differentiable_intervals import ball, propagate
from toolkit.training.training_attack import evaluation_mode
from toolkit.tuning import tuned


def certified_accuracy(model: nn.Module, split: Split, epsilon: float) -> float | None:
    """Part of the images on whose epsilon balls intervals, or CROWN with the intervals of hidden layers (CROWN-IBP),
    prove the class.

    In single precision, with running batch statistics: an estimate from below of what a verifier finds. None where
    layers have no interval rules; intervals alone where they have no backward rules. The split is on the model's
    device.
    """
    if not len(split):
        return None
    proved = 0
    try:
        with torch.no_grad(), evaluation_mode(model):
            for images, labels in split.batches(tuned().training.bounded_images):
                proved += int(certified(model, images, labels, epsilon).sum())
    except UnsupportedError:
        return None
    return proved / len(split)


def certified(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Which of the images ``(B, C, H, W)`` are proved to keep their class, boolean ``(B,)``."""
    proved = _refuted(differences(model, propagate(model, ball(model, images, epsilon)), labels).upper, labels)
    left = (~proved & (model(images).argmax(1) == labels)).nonzero().flatten()
    if len(left):
        with contextlib.suppress(UnsupportedError):
            proved[left] = _by_crown(model, images[left], labels[left], epsilon)
    return proved


def _by_crown(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Which of the images ``(B, C, H, W)`` CROWN proves to keep their class, boolean ``(B,)``.

    One backward pass for each class; it ends as soon as no image is left.
    """
    bounds = propagate(model, ball(model, images, epsilon))
    upper = differences(model, bounds, labels).upper
    classes = upper.shape[1]
    own = one_hot(labels, classes).to(images.dtype)
    for number in range(classes):
        other = torch.full_like(labels, number)
        found = upper_bound(model, one_hot(other, classes).to(images.dtype) - own, bounds[1])
        upper[:, number] = torch.minimum(upper[:, number], found)
        if not bool(_refuted(upper[:, : number + 1], labels).any()):
            break
    return _refuted(upper, labels)


def _refuted(upper: Tensor, labels: Tensor) -> Tensor:
    """Whether all differences ``(B, K)``, of the first K classes, to the label's logit are negative but its own."""
    other = labels[:, None] != torch.arange(upper.shape[1], device=labels.device)
    return ((upper < 0) | ~other).all(1)
