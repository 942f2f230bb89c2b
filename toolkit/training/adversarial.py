"""Standard and adversarial losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from toolkit.models.layers import input_domain
from toolkit.training.training_attack import input_gradient, pgd, uniform_start
from toolkit.training.training_options import FgsmGradAlign, Pgd, Standard
from toolkit.training.training_step import TrainingStep, robust_loss


@robust_loss.register
def _(options: Standard, step: TrainingStep) -> Tensor:
    return cross_entropy(step.model(step.images), step.labels)


@robust_loss.register
def _(options: Pgd, step: TrainingStep) -> Tensor:
    if step.epsilon == 0:
        return cross_entropy(step.model(step.images), step.labels)
    x = pgd(
        step.model,
        step.images,
        step.labels,
        step.epsilon,
        step.generator,
        steps=options.steps,
        step_size=options.step_size,
    )
    return cross_entropy(step.model(x), step.labels)


@robust_loss.register
def _(options: FgsmGradAlign, step: TrainingStep) -> Tensor:
    """Cross-entropy after one signed step, plus the misalignment of gradients at the image and at a random point.

    Only the second gradient is differentiated through, as in the released code of Andriushchenko & Flammarion.
    """
    at_image = input_gradient(step.model, step.images, step.labels)
    domain = input_domain(step.model)
    change = min(options.alpha, 1.0) * domain.radius(step.epsilon) * at_image.sign()
    loss = cross_entropy(step.model(domain.clip(step.images + change)), step.labels)
    if options.weight == 0 or step.epsilon == 0:
        return loss
    start = uniform_start(step.images, step.epsilon, step.generator, domain)
    at_start = input_gradient(step.model, start, step.labels, create_graph=True)
    return loss + options.weight * misalignment(at_image, at_start)


def misalignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean of ``1 - cos`` over the samples whose gradients are both nonzero; 0 when there is none."""
    first, second = first.flatten(1), second.flatten(1)
    usable = (first.detach().abs().amax(1) > 0) & (second.detach().abs().amax(1) > 0)
    if not bool(usable.any()):
        return torch.zeros((), device=first.device)
    # Tiny gradients are scaled up first: the cosine's own guard against division by zero would shrink them.
    scaled = [g[usable] / g[usable].detach().abs().amax(1, keepdim=True) for g in (first, second)]
    return (1 - cosine_similarity(scaled[0], scaled[1], dim=1)).mean()
