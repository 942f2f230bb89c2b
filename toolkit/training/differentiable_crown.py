"""One differentiable backward linear pass (CROWN) through a live torch module: one linear function per sample.

Enough for the fused loss of CROWN-IBP training (Xu et al., NeurIPS 2020): the bounds at the ReLUs come from interval
propagation, and the objective is a single number per sample, so coefficients have the shape of the activations.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor, nn

from toolkit.errors import UnsupportedError
from toolkit.models.layers import BatchReshape, Normalise, Residual
from toolkit.models.structure import BatchNorm
from toolkit.training.differentiable_intervals import Trace, batch_norm_affine
from toolkit.training.precision import single

Backward = tuple[Tensor, Tensor]
"""Coefficients at the input of a layer ``(B, ...)``, and the constant collected so far ``(B,)``."""


def upper_bound(model: nn.Module, coefficients: Tensor, trace: Trace) -> Tensor:
    """Upper bound ``(B,)`` of ``sum(coefficients * model(x))`` over each sample's box, which the trace holds.

    Raises:
        UnsupportedError: a layer has no rule here.
    """
    box = trace[model]
    with single(coefficients.device):
        linear, constant = backward(model, coefficients, trace)
    return constant + _sum(linear * box.centre) + _sum(linear.abs() * box.radius)


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


@singledispatch
def backward(module: nn.Module, a: Tensor, trace: Trace) -> Backward:
    """Coefficients over the layer's input, and a constant, of an upper bound of ``sum(a * module(x))``."""
    raise UnsupportedError(f"backward bounds have no rule for layer {type(module).__name__}")


@backward.register(nn.Linear)
@backward.register(nn.Conv2d)
@backward.register(nn.Flatten)
@backward.register(nn.Identity)
@backward.register(nn.AvgPool2d)
@backward.register(nn.AdaptiveAvgPool2d)
@backward.register(Normalise)
@backward.register(BatchReshape)
def _affine(module: nn.Module, a: Tensor, trace: Trace) -> Backward:
    """An affine layer needs no rule of its own: its coefficients are a vector-Jacobian product."""
    with torch.enable_grad():
        zero = torch.zeros_like(trace[module].lower, requires_grad=True)
        value = module(zero)
        (product,) = torch.autograd.grad(value, zero, a, create_graph=True)
    return product, _sum(a * value)


@backward.register(nn.BatchNorm1d)
@backward.register(nn.BatchNorm2d)
def _batch_norm(module: BatchNorm, a: Tensor, trace: Trace) -> Backward:
    scale, shift = batch_norm_affine(module, trace[module])
    return a * scale, _sum(a * shift)


@backward.register
def _(module: nn.ReLU, a: Tensor, trace: Trace) -> Backward:
    """Positive coefficients take the chord, negative ones the line 0 or x, whichever cuts off less area."""
    lower, upper = trace[module].lower.clamp(max=0), trace[module].upper.clamp(min=0)
    slope = upper / (upper - lower).clamp_min(1e-12)
    adaptive = (upper > -lower).to(a.dtype)
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    return positive * slope + negative * adaptive, _sum(positive * -slope * lower)


@backward.register
def _(module: nn.Sequential, a: Tensor, trace: Trace) -> Backward:
    constant = a.new_zeros(len(a))
    for layer in reversed(module):
        a, extra = backward(layer, a, trace)
        constant = constant + extra
    return a, constant


@backward.register
def _(module: Residual, a: Tensor, trace: Trace) -> Backward:
    main, main_constant = backward(module.main, a, trace)
    shortcut, shortcut_constant = backward(module.shortcut, a, trace)
    return main + shortcut, main_constant + shortcut_constant
