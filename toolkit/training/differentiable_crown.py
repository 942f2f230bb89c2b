"""One differentiable backward linear pass (CROWN) through a live torch module: one linear function per sample.

Enough for the fused loss of CROWN-IBP training (Xu et al., NeurIPS 2020): the bounds at the ReLUs come from interval
propagation, and the objective is a single number per sample, so coefficients have the shape of the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from toolkit.errors import UnsupportedError
from toolkit.models.layers import BatchReshape, Normalise, Residual
from toolkit.models.structure import BatchNorm
from toolkit.training.differentiable_intervals import Trace
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
    raise UnsupportedError(
        f"backward bounds have no rule for layer {type(module).__name__}: use a loss without them, such as ibp, and "
        "another method than crown_margin"
    )


@backward.register
def _(module: nn.Linear, a: Tensor, trace: Trace) -> Backward:
    return a @ module.weight, _bias(module.bias, a)


@backward.register
def _(module: nn.Conv2d, a: Tensor, trace: Trace) -> Backward:
    return transposed(module, a, trace[module].lower.shape[2:]), _bias(module.bias, a)


def transposed(module: nn.Conv2d, a: Tensor, size: Sequence[int]) -> Tensor:
    """Coefficients ``(B, C, H, W)`` over the input, of spatial ``size``, for coefficients ``a`` over the output."""
    assert not isinstance(module.padding, str)
    reached = [
        (outputs - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
        for outputs, stride, padding, dilation, kernel in zip(
            a.shape[2:], module.stride, module.padding, module.dilation, module.kernel_size, strict=True
        )
    ]
    left_over = [whole - part for whole, part in zip(size, reached, strict=True)]
    return conv_transpose2d(
        a, module.weight, None, module.stride, module.padding, left_over, module.groups, module.dilation
    )


def _bias(bias: Tensor | None, a: Tensor) -> Tensor:
    """Part ``(B,)`` of the constant that a bias ``(C,)`` brings, by coefficients ``(B, C, ...)`` over the output."""
    return a.new_zeros(len(a)) if bias is None else a.flatten(2).sum(2) @ bias if a.ndim > 2 else a @ bias


@backward.register(nn.Flatten)
@backward.register(nn.Identity)
@backward.register(nn.AvgPool2d)
@backward.register(nn.AdaptiveAvgPool2d)
@backward.register(Normalise)
@backward.register(BatchReshape)
def _affine(module: nn.Module, a: Tensor, trace: Trace) -> Backward:
    """An affine layer needs no rule of its own: its coefficients are a vector-Jacobian product.

    Convolutions and linear layers have one all the same, which saves them a pass forward.
    """
    with torch.enable_grad():
        zero = torch.zeros_like(trace[module].lower, requires_grad=True)
        value = module(zero)
        (product,) = torch.autograd.grad(value, zero, a, create_graph=True)
    return product, _sum(a * value)


@backward.register(nn.BatchNorm1d)
@backward.register(nn.BatchNorm2d)
def _batch_norm(module: BatchNorm, a: Tensor, trace: Trace) -> Backward:
    scale, shift = trace.batch_norm(module)
    return a * scale, _sum(a * shift)


@backward.register
def _(module: nn.ReLU, a: Tensor, trace: Trace) -> Backward:
    """Positive coefficients take the chord, negative ones the line 0 or x, whichever cuts off less area."""
    # relu(x) and x - relu(x) in place of clamp: on a CPU the derivative of clamp costs several times theirs.
    lower, upper = trace[module].lower, trace[module].upper.relu()
    lower = lower - lower.relu()
    slope = upper / (upper - lower).clamp_min(1e-12)
    adaptive = (upper > -lower).to(a.dtype)
    positive = a.relu()
    chord = positive * slope
    return chord + (a - positive) * adaptive, -_sum(chord * lower)


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
