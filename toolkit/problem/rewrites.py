"""Operators that are written with others before anything is bounded: one entry per operator.

Piecewise-linear operators become affine ones and ReLU, exactly: ``max(a, b) = b + relu(a - b)``. Batch normalisation in
evaluation mode becomes one multiplication and one addition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch

from toolkit.errors import UnsupportedError

aten = torch.ops.aten
REWRITES: dict[Any, Callable[..., Any]] = {}


def rewrite(*operators: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of the operator's own arguments that computes the same with other operators."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for operator in operators:
            if operator in REWRITES:
                raise ValueError(f"{operator} has a rewrite already")
            REWRITES[operator] = function
        return function

    return register


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


@rewrite(aten.abs.default)
def absolute(x: torch.Tensor) -> torch.Tensor:
    """|x| = 2 relu(x) - x."""
    return 2 * torch.relu(x) - x


@rewrite(aten.leaky_relu.default)
def leaky_relu(x: torch.Tensor, negative_slope: float = 0.01) -> torch.Tensor:
    """leaky(x) = s x + (1 - s) relu(x)."""
    return negative_slope * x + (1 - negative_slope) * torch.relu(x)


@rewrite(aten.prelu.default, aten._prelu_kernel.default)
def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """As leaky ReLU, with one slope a channel."""
    shape = [1, -1, *[1] * (x.dim() - 2)] if x.dim() > 1 and slope.numel() > 1 and slope.dim() == 1 else slope.shape
    slope = slope.reshape(shape)
    return slope * x + (1 - slope) * torch.relu(x)


@rewrite(aten.clamp.default, aten.hardtanh.default, aten.clamp_min.default)
def clamp(x: torch.Tensor, low: float | None = None, high: float | None = None) -> torch.Tensor:
    """clip(x, a, b) = a + relu(x - a) - relu(x - b)."""
    if low is not None and high is not None:
        return low + torch.relu(x - low) - torch.relu(x - high)
    if low is not None:
        return low + torch.relu(x - low)
    return high - torch.relu(high - x) if high is not None else x


@rewrite(aten.clamp.Tensor)
def clamp_tensor(x: torch.Tensor, low: torch.Tensor | None = None, high: torch.Tensor | None = None) -> torch.Tensor:
    """As ``clamp``, with bounds that are (constant) tensors."""
    return clamp(x, low, high)


@rewrite(aten.native_batch_norm.default)
def batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Evaluation mode: one scale and one shift a channel."""
    if training:
        raise UnsupportedError("batch normalisation in training mode depends on the batch; export in evaluation mode")
    scale = torch.rsqrt(variance.double() + eps) * (1.0 if weight is None else weight.double())
    shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
    shape = [1, -1, *[1] * (x.dim() - 2)]
    result = x * scale.to(x.dtype).reshape(shape) + shift.to(x.dtype).reshape(shape)
    return result, mean, variance


@rewrite(aten._native_batch_norm_legit_no_training.default)
def batch_norm_inference(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As ``batch_norm``; the operator of inference-only graphs."""
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
    """A tournament of ``max(a, b)`` over the offsets of the window."""
    (kh, kw), (sh, sw) = (_pair(kernel), _pair(stride or kernel))
    (ph, pw), (dh, dw) = (_pair(padding), _pair(dilation))
    if (dh, dw) != (1, 1):
        raise UnsupportedError("max pooling with dilation is not supported")
    height, width = torch.nn.functional.max_pool2d(
        torch.zeros(1, 1, *x.shape[-2:]), (kh, kw), (sh, sw), (ph, pw), 1, ceil_mode
    ).shape[-2:]
    rows = [_window(x, -2, i - ph, sh, height) for i in range(kh)]
    offsets = [_window(row, -1, j - pw, sw, width) for row in rows for j in range(kw)]
    return _tournament(offsets), None


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
