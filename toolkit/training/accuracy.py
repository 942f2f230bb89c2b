"""Accuracy on clean and on attacked images."""

from __future__ import annotations

import torch
from torch import nn

from toolkit.data.dataset import Split
from toolkit.models.layers import input_domain
from toolkit.training.training_attack import evaluation_mode, input_gradient, pgd
from toolkit.tuning import tuned


def accuracy(model: nn.Module, split: Split) -> float:
    """Part of the images classified correctly; the split is on the model's device."""
    with torch.no_grad(), evaluation_mode(model):
        chunks = split.batches(tuned().training.evaluated_images)
        correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in chunks)
    return correct / max(1, len(split))


def fgsm_accuracy(model: nn.Module, split: Split, epsilon: float) -> float:
    """Part of the images classified correctly after one signed step of length epsilon: "adv" of Li et al."""
    correct, domain = 0, input_domain(model)
    with evaluation_mode(model):
        for images, labels in split.batches(tuned().training.evaluated_images):
            x = domain.clip(images + domain.radius(epsilon) * input_gradient(model, images, labels).sign())
            with torch.no_grad():
                correct += int((model(x).argmax(1) == labels).sum())
    return correct / max(1, len(split))


def pgd_accuracy(
    model: nn.Module, split: Split, epsilon: float, *, steps: int = 50, restarts: int = 3, seed: int = 0
) -> float:
    """Part of the images classified correctly at every restart of an attack: an upper bound of certified accuracy."""
    generator = torch.Generator(device=split.images.device).manual_seed(seed)
    robust = 0
    for images, labels in split.batches(tuned().training.evaluated_images):
        with torch.no_grad(), evaluation_mode(model):
            safe = model(images).argmax(1) == labels
        for _ in range(restarts):
            x = pgd(model, images, labels, epsilon, generator, steps=steps, step_size=0.1)
            with torch.no_grad(), evaluation_mode(model):
                safe &= model(x).argmax(1) == labels
        robust += int(safe.sum())
    return robust / max(1, len(split))
