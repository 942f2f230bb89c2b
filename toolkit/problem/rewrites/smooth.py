"""Smooth operators: normalisation with the statistics of its argument, and relatives of the exponential."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.errors import UnsupportedError
from toolkit.problem.rewrites.elementwise import rsqrt_from_one, softplus, square
from toolkit.problem.rewrites.rewrite_record import rewrite

aten = torch.ops.aten


@rewrite(aten.cos.default)
def cosine(x: Tensor) -> Tensor:
    """sin(x + pi / 2)."""
    return torch.sin(x + math.pi / 2)


@rewrite(aten.ceil.default)
def ceiling(x: Tensor) -> Tensor:
    """Round up to integers, as ``-floor(-x)``."""
    return -torch.floor(-x)


@rewrite(aten.elu.default)
def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """relu(x) + alpha (exp(min(x, 0)) - 1)."""
    negative = -torch.relu(-x) * input_scale
    return (torch.relu(x) + alpha * (torch.exp(negative) - 1)) * scale


@rewrite(aten.softplus.default)
def soft_plus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta x)) / beta; the threshold only approximates it."""
    return softplus(x) if beta == 1 else softplus(x * beta) / beta


@rewrite(aten.hardsigmoid.default)
def hard_sigmoid(x: Tensor) -> Tensor:
    """clip(x / 6 + 1 / 2, 0, 1)."""
    return (torch.relu(x + 3) - torch.relu(x - 3)) / 6


@rewrite(aten.hardswish.default)
def hard_swish(x: Tensor) -> Tensor:
    """The hard swish function, ``x hard_sigmoid(x)``."""
    return x * hard_sigmoid(x)


@rewrite(aten.silu.default)
def silu(x: Tensor) -> Tensor:
    """The swish function (SiLU), ``x sigmoid(x)``."""
    return x * torch.sigmoid(x)


@rewrite(aten.gelu.default)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x (1 + erf(x / sqrt 2)) / 2, or its approximation by tanh."""
    if approximate == "none":
        return x * (0.5 + 0.5 * torch.erf(x * math.sqrt(0.5)))
    return x * (0.5 + 0.5 * torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def standardise(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """``(x - mean) / sqrt(variance + eps)`` over some axes.

    The root is that of ``1 + variance / eps``, which is known to be at least one whatever its bounds say.
    """
    if eps <= 0:
        raise UnsupportedError("normalisation with epsilon zero has no bounding rule; export it with a positive one")
    centred = x - x.mean(list(dims), keepdim=True)
    variance = square(centred).mean(list(dims), keepdim=True)
    inverse, factor = rsqrt_from_one(1 + variance * (1 / eps)), 1 / math.sqrt(eps)
    # A product is only worth something where both factors are of one magnitude, and the root is at most one.
    return centred * (inverse * factor) if factor > 1 else centred * inverse * factor


@rewrite(aten.native_layer_norm.default)
def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, None, None]:
    """Standardised over the last axes, then scaled and shifted."""
    result = standardise(x, range(x.dim() - len(shape), x.dim()), eps)
    result = result if weight is None else result * weight
    return (result if bias is None else result + bias), None, None
