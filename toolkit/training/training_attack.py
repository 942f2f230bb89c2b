"""Gradient attacks on the cross-entropy, for training and for the adversarial accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from toolkit.models.layers import UNIT_DOMAIN, InputDomain, input_domain
from toolkit.training.differentiable_intervals import ball


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Running batch statistics inside, whatever mode the model comes in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor, *, create_graph: bool = False) -> Tensor:
    """Gradient of the summed cross-entropy at images ``x``, same shape."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        loss = cross_entropy(model(x), labels, reduction="sum")
        return torch.autograd.grad(loss, x, create_graph=create_graph)[0]


def uniform_start(
    images: Tensor, epsilon: float, generator: torch.Generator, domain: InputDomain = UNIT_DOMAIN
) -> Tensor:
    """A uniformly random point of each image's ball, clipped to the domain."""
    noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return domain.clip(images + domain.radius(epsilon) * (2 * noise - 1))


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    generator: torch.Generator,
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Adversarial images ``(B, C, H, W)`` by signed gradient ascent from a random start, with running statistics.

    ``step_size`` is in multiples of epsilon (Madry et al., ICLR 2018).
    """
    domain, box = input_domain(model), ball(model, images, epsilon)
    x = uniform_start(images, epsilon, generator, domain)
    with evaluation_mode(model):
        for _ in range(steps):
            gradient = input_gradient(model, x, labels)
            x = torch.clamp(x + step_size * domain.radius(epsilon) * gradient.sign(), box.lower, box.upper)
    return x.detach()
