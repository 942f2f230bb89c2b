"""Piecewise-linear operators, written with ReLU: ``max(a, b) = b + relu(a - b)``; and batch normalisation.

Batch normalisation in evaluation mode becomes one multiplication and one addition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch

from toolkit.errors import UnsupportedError
from toolkit.problem.rewrites.rewrite_record import rewrite
from toolkit.problem.rewrites.smooth import standardise
from toolkit.tuning import tuned

aten = torch.ops.aten


def _maximum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return b + torch.relu(a - b)


@rewrite(aten.maximum.default)
def maximum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """max(a, b) = b + relu(a - b)."""
    return _maximum(a, b)


@rewrite(aten.minimum.default)
def minimum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """min(a, b) = b - relu(b - a)."""
    return b - torch.relu(b - a)


@rewrite(aten.rsub.Tensor, aten.rsub.Scalar)
def reversed_subtraction(x: torch.Tensor, other: Any, alpha: float = 1) -> torch.Tensor:
    """other - alpha x, with the coefficient on ``x``: affine operators scale their second operand only."""
    return x * -alpha + other


@rewrite(aten.abs.default)
def absolute(x: torch.Tensor) -> torch.Tensor:
    """|x| = 2 relu(x) - x."""
    return 2 * torch.relu(x) - x


def _values(constant: torch.Tensor | float) -> torch.Tensor:
    return constant if isinstance(constant, torch.Tensor) else torch.tensor(constant, dtype=torch.float64)


def _is_moderate(constant: torch.Tensor | float) -> bool:
    return bool((_values(constant).abs() <= tuned().networks.moderate_constant).all())


@rewrite(aten.leaky_relu.default)
def leaky_relu(x: torch.Tensor, negative_slope: float = 0.01) -> torch.Tensor:
    """leaky(x) = s x + (1 - s) relu(x), or relu(x) - s relu(-x) where ``s x`` would hide x."""
    return _two_slopes(x, negative_slope)


@rewrite(aten.prelu.default, aten._prelu_kernel.default)
def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU with one slope a channel, or one for all."""
    shape = [1, -1, *[1] * (x.dim() - 2)] if x.dim() > 1 and slope.numel() > 1 and slope.dim() == 1 else slope.shape
    return _two_slopes(x, slope.reshape(shape))


def _two_slopes(x: torch.Tensor, slope: torch.Tensor | float) -> torch.Tensor:
    """x above zero, ``slope * x`` below."""
    if not bool(torch.isfinite(_values(slope)).all()):
        raise UnsupportedError("a slope of a leaky ReLU is not finite")
    if _is_moderate(slope):
        return slope * x + (1 - slope) * torch.relu(x)
    return torch.relu(x) - slope * torch.relu(-x)


Limit = torch.Tensor | float | None


@rewrite(aten.clamp.default, aten.hardtanh.default, aten.clamp_min.default)
def clamp(x: torch.Tensor, low: Limit = None, high: Limit = None) -> torch.Tensor:
    """clip(x, a, b) with ReLUs of ``x - a`` and ``x - b``, written so that no large limit is added to x.

    All values become b where a is above b. An infinite limit limits nothing, or everything, which is refused.
    """
    low, high = _finite_limit(low, -math.inf), _finite_limit(high, math.inf)
    if low is not None and high is not None:
        low = _least(low, high)
    if low is not None and _is_moderate(low):
        above = low + torch.relu(x - low)
        return above if high is None else above - torch.relu(x - high)
    if high is not None and _is_moderate(high):
        below = high - torch.relu(high - x)
        return below if low is None else below + torch.relu(low - x)
    result = x if low is None else x + torch.relu(low - x)
    return result if high is None else result - torch.relu(x - high)


def _finite_limit(limit: Limit, nothing: float) -> Limit:
    """A limit of `clamp`; None for the infinite one that limits nothing."""
    if limit is None or bool((_values(limit) == nothing).all()):
        return None
    if not bool(torch.isfinite(_values(limit)).all()):
        raise UnsupportedError("values are limited by what is not a finite number")
    return limit


def _least(a: torch.Tensor | float, b: torch.Tensor | float) -> torch.Tensor | float:
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return torch.minimum(_values(a), _values(b))
    return min(a, b)


@rewrite(aten.clamp.Tensor, when=lambda varies: not any(varies[1:]))
def clamp_tensor(x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None) -> torch.Tensor:
    """Limit values from below and above by constant tensors."""
    return clamp(x, low, high)


@rewrite(aten.native_batch_norm.default)
def batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Evaluation mode: one scale and one shift a channel. Without statistics, those of the one sample are meant."""
    if mean is None or variance is None:
        return _with_own_statistics(x, weight, bias, eps), None, None
    if training:
        raise UnsupportedError("batch normalisation in training mode depends on the batch; export in evaluation mode")
    scale = torch.rsqrt(variance.double() + eps) * (1.0 if weight is None else weight.double())
    shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
    shape = [1, -1, *[1] * (x.dim() - 2)]
    result = x * scale.to(x.dtype).reshape(shape) + shift.to(x.dtype).reshape(shape)
    return result, mean, variance


def _with_own_statistics(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Every channel standardised: what instance normalisation comes down to."""
    shape = [1, -1, *[1] * (x.dim() - 2)]
    result = standardise(x, [0, *range(2, x.dim())], eps)
    result = result if weight is None else result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)


@rewrite(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Batch normalisation in evaluation mode, by the operator of graphs that are for inference only."""
    return batch_norm(x, weight, bias, mean, variance, False, momentum, eps)


def _window(x: torch.Tensor, dim: int, start: int, stride: int, count: int) -> torch.Tensor:
    """Rows start, start + stride, ... of one axis; rows outside repeat the edge, which lies in the same window."""
    index = (torch.arange(count, device=x.device) * stride + start).clamp(0, x.shape[dim] - 1)
    return torch.index_select(x, dim, index)


@rewrite(aten.max_pool2d_with_indices.default)
def max_pool2d(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[torch.Tensor, None]:
    """Tournaments of ``max(a, b)`` over the rows of the window, then over its columns."""
    (kh, kw), (sh, sw) = (_pair(kernel), _pair(stride or kernel))
    (ph, pw), (dh, dw) = (_pair(padding), _pair(dilation))
    if (dh, dw) != (1, 1):
        raise UnsupportedError("max pooling with dilation is not supported")
    height, width = torch.nn.functional.max_pool2d(
        torch.zeros(1, 1, *x.shape[-2:]), (kh, kw), (sh, sw), (ph, pw), 1, ceil_mode
    ).shape[-2:]
    # Axis by axis: windows share their columns, and a repeated edge meets itself, where a - a is exactly zero.
    columns = _tournament([_window(x, -2, i - ph, sh, height) for i in range(kh)])
    return _tournament([_window(columns, -1, j - pw, sw, width) for j in range(kw)]), None


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _tournament(players: list[torch.Tensor]) -> torch.Tensor:
    """The maximum in logarithmic depth: shallow graphs have tighter bounds."""
    while len(players) > 1:
        pairs = zip(players[0::2], players[1::2], strict=False)
        rest = players[-1:] if len(players) % 2 else []
        players = [_maximum(a, b) for a, b in pairs] + rest
    return players[0]


@rewrite(aten.amax.default)
def amax(x: torch.Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> torch.Tensor:
    """The maximum along axes, as a tournament."""
    axes = sorted({d % x.dim() for d in dim} or set(range(x.dim())), reverse=True)
    for axis in axes:
        x = _tournament(list(x.split(1, axis)))
    return x if keepdim else reduce(lambda t, axis: t.squeeze(axis), axes, x)


@rewrite(aten.amin.default)
def amin(x: torch.Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> torch.Tensor:
    """Smallest values along axes, as ``-amax(-x)``."""
    return -amax(-x, dim, keepdim)
