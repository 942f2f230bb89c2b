"""Tensors whose elements are affine functions of input and activation vectors, as numpy arrays with one more axis.

Any operator that only moves elements acts on the leading axes, whatever it is; so reshapes, slices and concatenations
need no rules of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TERMS = 1 << 20
"""Terms of a sum with those of all sums that it is made of, at most: a graph with more is not read."""
ROUNDING = TERMS * float(np.finfo(np.float64).eps)
"""Relative error of such sums, in any order, by the total magnitude of their terms."""


class NotRead(Exception):  # noqa: N818 - not an error: others may know more
    """The graph has something that is not read here."""


@dataclass(frozen=True)
class AffineExpression:
    """``constant[...] + sum of coefficients[source][..., :] @ value of the source``."""

    coefficients: Mapping[int, Array]
    """By number of the source, ``(*shape, size of the source)``."""
    constant: Array
    """``(*shape)``."""
    magnitude: Array
    """Total magnitude of all terms of each element, ``(*shape)``: what the rounding of its numbers is relative to.

    That of a source's value counts where it is known.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        return self.constant.shape

    @property
    def numbers(self) -> int:
        """How many are held."""
        return self.constant.size + sum(part.size for part in self.coefficients.values())


def affine(coefficients: Mapping[int, Array], constant: Array) -> AffineExpression:
    """An expression whose constants are no sums."""
    return AffineExpression(coefficients, constant, np.abs(constant))


def variable(source: int, shape: Sequence[int]) -> AffineExpression:
    """The value of a source as it is, in some shape."""
    size = math.prod(shape)
    return affine({source: np.eye(size).reshape(*shape, size)}, np.zeros(shape))


def placed(places: NDArray[np.int64], size: int) -> Array:
    """The matrix that puts the elements of a vector into places of a larger one."""
    matrix = np.zeros((size, len(places)))
    matrix[places, np.arange(len(places))] = 1.0
    return matrix


def evaluated(x: AffineExpression, sources: Sequence[Array]) -> Array:
    """Values ``(B, *shape)`` for values ``(B, size)`` of the sources."""
    parts = [np.tensordot(sources[source], part, (1, -1)) for source, part in x.coefficients.items()]
    return sum(parts, np.broadcast_to(x.constant, (len(sources[0]), *x.shape)))


def mapped(
    x: AffineExpression, linear: Callable[[Array], Array], absolute: Callable[[Array], Array]
) -> AffineExpression:
    """A linear map that acts on leading axes and keeps the last one, given with the map of its absolute entries."""
    parts = {source: linear(part) for source, part in x.coefficients.items()}
    return AffineExpression(parts, linear(x.constant[..., None])[..., 0], absolute(x.magnitude[..., None])[..., 0])


def moved(x: AffineExpression, move: Callable[[Array], Array]) -> AffineExpression:
    """Elements moved by an operator that acts on leading axes and keeps the last one."""
    return mapped(x, move, move)


def reshaped(x: AffineExpression, shape: Sequence[int]) -> AffineExpression:
    """Reshape a vector's elements, in row-major order."""
    return moved(x, lambda array: array.reshape(*shape, array.shape[-1]))


def piece(x: AffineExpression, start: int, size: int) -> AffineExpression:
    """Some elements of a vector."""
    return moved(x, lambda array: array[start : start + size])


def joined(xs: Sequence[AffineExpression], axis: int) -> AffineExpression:
    """Concatenation along an axis."""
    axis %= xs[0].constant.ndim
    sizes = {source: part.shape[-1] for x in xs for source, part in x.coefficients.items()}

    def column(source: int, size: int) -> Array:
        nothing = [np.zeros((*x.shape, size)) for x in xs]
        return np.concatenate([x.coefficients.get(source, none) for x, none in zip(xs, nothing, strict=True)], axis)

    parts = {source: column(source, size) for source, size in sizes.items()}
    constant = np.concatenate([x.constant for x in xs], axis)
    return AffineExpression(parts, constant, np.concatenate([x.magnitude for x in xs], axis))


def total(x: AffineExpression, y: AffineExpression) -> AffineExpression:
    """The sum, with broadcasting."""
    constant = x.constant + y.constant
    wide_x, wide_y = (_broadcast(e, constant.shape) for e in (x, y))
    parts = dict(wide_x)
    for source, part in wide_y.items():
        parts[source] = parts[source] + part if source in parts else part
    return AffineExpression(parts, constant, x.magnitude + y.magnitude)


def _broadcast(x: AffineExpression, shape: tuple[int, ...]) -> dict[int, Array]:
    missing = len(shape) - x.constant.ndim
    return {
        source: np.broadcast_to(part[(None,) * missing], (*shape, part.shape[-1]))
        for source, part in x.coefficients.items()
    }


def scaled(x: AffineExpression, factor: Array | float) -> AffineExpression:
    """The product with constants, elementwise and with broadcasting."""
    constant = x.constant * factor
    wide = np.broadcast_to(factor, constant.shape)[..., None]
    parts = {source: part * wide for source, part in _broadcast(x, constant.shape).items()}
    return AffineExpression(parts, constant, x.magnitude * np.abs(factor))


def times_matrix(x: AffineExpression, matrix: Array) -> AffineExpression:
    """``x @ matrix``, for a matrix of two dimensions and ``x`` of one or more."""
    return mapped(x, lambda array: matrix.T @ array, lambda array: np.abs(matrix).T @ array)


def matrix_times(matrix: Array, x: AffineExpression) -> AffineExpression:
    """``matrix @ x``, for a matrix of two dimensions and ``x`` of one or more."""
    axis = max(0, x.constant.ndim - 2)

    def times(factor: Array, array: Array) -> Array:
        return np.moveaxis(np.tensordot(factor, array, (1, axis)), 0, axis)

    return mapped(x, partial(times, matrix), partial(times, np.abs(matrix)))
