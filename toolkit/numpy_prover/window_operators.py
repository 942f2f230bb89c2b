"""Operators over windows of images, as linear maps; batch normalisation with them.

A map acts on arrays ``(batch, channels, *places, columns)``, a column for each element of a source.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from toolkit.numpy_prover.expressions import AffineExpression, Array, NotRead, affine, mapped, scaled, total
from toolkit.numpy_prover.node_calls import NodeCall, Value, rule
from toolkit.tuning import tuned


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows along each axis are, and what is around the image."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int = 1

    def places(self, size: Sequence[int]) -> tuple[int, ...]:
        """How many windows there are along each axis."""
        axes = zip(size, self.pads, self.kernel, self.strides, self.dilations, strict=True)
        return tuple((n + sum(pads) - (k - 1) * d - 1) // s + 1 for n, pads, k, s, d in axes)

    def patches(self, array: Array) -> Array:
        """The windows' elements, ``(batch, groups, elements of a window, places and columns)``."""
        axes = range(2, 2 + len(self.kernel))
        padded = np.pad(array, [(0, 0), (0, 0), *self.pads, (0, 0)])
        extents = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        every = sliding_window_view(padded, extents, tuple(axes))  # (batch, channels, *places, columns, *extents)
        steps = [slice(None, None, step) for step in self.strides]
        chosen = every[(slice(None), slice(None), *steps, slice(None), *(slice(None, None, d) for d in self.dilations))]
        inside = range(chosen.ndim - len(axes), chosen.ndim)
        ordered = chosen.transpose(0, 1, *inside, *axes, chosen.ndim - len(axes) - 1)
        return ordered.reshape(len(array), self.groups, array.shape[1] // self.groups * math.prod(self.kernel), -1)

    def convolved(self, weights: Array, array: Array) -> Array:
        """The convolution with weights ``(outputs, channels of a group, *kernel)``."""
        batch, _, *size, columns = array.shape
        product = weights.reshape(self.groups, len(weights) // self.groups, -1) @ self.patches(array)
        return product.reshape(batch, len(weights), *self.places(size), columns)


def convolution(x: AffineExpression, weights: Array, windows: WindowGrid) -> AffineExpression:
    """The convolution of an expression, unless its arrays would be large."""
    batch, channels, *size = x.shape
    places = windows.places(size)
    if min(places) < 1 or channels != weights.shape[1] * windows.groups or len(weights) % windows.groups:
        raise NotRead("shapes of a convolution")
    padded = channels * math.prod(n + sum(pads) for n, pads in zip(size, windows.pads, strict=True))
    largest = max(padded, max(channels * math.prod(windows.kernel), len(weights)) * math.prod(places))
    if (
        batch * largest * (1 + sum(part.shape[-1] for part in x.coefficients.values()))
        > tuned().numpy_prover.most_numbers
    ):
        raise NotRead("a large convolution")
    return mapped(x, partial(windows.convolved, weights), partial(windows.convolved, np.abs(weights)))


def _windows(call: NodeCall, kernel: Sequence[int], groups: int) -> WindowGrid:
    """The windows that a node's attributes describe."""
    ones = [1] * len(kernel)
    pads = call.attribute("pads", [0] * 2 * len(kernel))
    if call.attribute("auto_pad", b"NOTSET") != b"NOTSET" or min(pads) < 0 or len(pads) != 2 * len(kernel):
        raise NotRead("padding")
    strides, dilations = call.attribute("strides", ones), call.attribute("dilations", ones)
    around = tuple(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    return WindowGrid(tuple(kernel), tuple(strides), tuple(dilations), around, groups)


@rule("Conv")
def _conv(call: NodeCall) -> Value:
    weights = call.constant(1).astype(np.float64)
    windows = _windows(call, weights.shape[2:], call.attribute("group", 1))
    product = convolution(call.expression(0), weights, windows)
    return total(product, _by_channel(call, 2, product)) if call.has(2) else product


@rule("AveragePool")
def _average_pool(call: NodeCall) -> Value:
    x, kernel = call.expression(0), call.attribute("kernel_shape")
    windows = _windows(call, kernel, x.shape[1])
    uneven = any(pad for pads in windows.pads for pad in pads) and not call.attribute("count_include_pad", 0)
    if uneven or call.attribute("ceil_mode", 0):
        raise NotRead("AveragePool")
    return convolution(x, np.full((x.shape[1], 1, *kernel), 1 / math.prod(kernel)), windows)


@rule("BatchNormalization")
def _batch_normalization(call: NodeCall) -> Value:
    x = call.expression(0)
    scale, shift, mean, variance = (_by_channel(call, position, x) for position in range(1, 5))
    if call.attribute("training_mode", 0) or call.attribute("spatial", 1) != 1:
        raise NotRead("BatchNormalization")
    factor = scale.constant / np.sqrt(variance.constant + call.attribute("epsilon", 1e-5))
    return total(scaled(total(x, scaled(mean, -1.0)), factor), shift)


def _by_channel(call: NodeCall, position: int, image: AffineExpression) -> AffineExpression:
    """A constant vector, one entry for each channel of an image."""
    vector = call.constant(position).astype(np.float64)
    return affine({}, vector.reshape(image.shape[1], *[1] * (len(image.shape) - 2)))
