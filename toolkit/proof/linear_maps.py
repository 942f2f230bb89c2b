"""Linear maps over flat vectors: what every affine operator of a network becomes.

A map has a product with vectors, one with row vectors from the other side (its adjoint), and the map of its absolute
values. A computed sum of n products is off by at most ``n u / (1 - n u)`` times the sum of the products' magnitudes, in
whatever order it is added up (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), so a map says
how many products meet in one sum, each way. Coefficients that are themselves rounded (a quotient, a square root) have a
relative error, ``slack``; all others are the numbers of the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def quantum(numbers: Array) -> Array:
    """The largest power of two of which all numbers along the last axis are multiples; infinite for zeros."""
    mantissa, exponent = np.frexp(numbers)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    return np.where(whole, np.ldexp((whole & -whole).astype(float), exponent - 53), np.inf).min(-1, initial=np.inf)


@dataclass(frozen=True)
class LinearMap:
    """Base of the maps from vectors of ``inputs`` to vectors of ``outputs`` elements; batches have shape ``(R, n)``."""

    inputs: int
    outputs: int
    slack: float = field(default=0, kw_only=True)
    """Relative error of the coefficients; an integer where there is none, which rational arithmetic keeps exact."""
    table: ClassVar[str] = ""
    """The attribute that has the coefficients, where there are others than 0 and 1."""

    @property
    def coefficients(self) -> Array:
        """All numbers that the coefficients are taken from, in any shape."""
        return getattr(self, self.table) if self.table else np.ones(1)

    @property
    def terms(self) -> tuple[int, int]:
        """Most products that meet in one element of `forward`, and of `adjoint`, with the roundings of each."""
        return 0, 0

    def forward(self, x: Array) -> Array:
        """``A x`` for every row x."""
        return x

    def adjoint(self, y: Array) -> Array:
        """``y A`` for every row y."""
        return y

    @cached_property
    def extent(self) -> tuple[Array, Array]:
        """The largest power of two of which all coefficients are multiples, and the largest magnitude of these."""
        return quantum(numbers := self.coefficients[self.coefficients != 0]), abs(numbers).max(initial=0)

    @cached_property
    def magnitude(self) -> LinearMap:
        """The map with the absolute values of the coefficients."""
        changed: Any = {self.table: np.abs(self.coefficients)} if self.table else {}
        return replace(self, **changed)


@dataclass(frozen=True)
class Pick(LinearMap):
    """Output i is input ``source[i]`` times a factor, zero where that is -1: scaling, slicing, padding, repeating."""

    source: Array
    factors: Array = field(default_factory=lambda: np.ones(1))
    """One for each output, or for all of them, known up to the relative error ``slack``."""
    table = "factors"

    @cached_property
    def _order(self) -> tuple[Array, Array, Array]:
        """Outputs that read something, sorted by what they read; where each group starts; what the groups read."""
        reading = np.flatnonzero(self.source >= 0)
        order = reading[np.argsort(self.source[reading], kind="stable")]
        read, start = np.unique(self.source[order], return_index=True)
        return order, start, read

    @cached_property
    def terms(self) -> tuple[int, int]:
        """One product where factors are other than 1 and -1; how often one input is read, less one."""
        (order, start, _), products = self._order, int((abs(self.factors) != 1).any())
        return products, int(np.diff(start, append=len(order)).max(initial=1)) - 1 + products

    def forward(self, x: Array) -> Array:
        """The elements of x that are picked, zero where there is none."""
        return np.append(x, np.zeros((len(x), 1), x.dtype), 1)[:, self.source] * self.factors

    def adjoint(self, y: Array) -> Array:
        """Sums of the elements of y that read the same input."""
        result = np.zeros((len(y), self.inputs), y.dtype)
        order, start, read = self._order
        parts = (y * self.factors)[:, order]
        result[:, read] = np.add.reduceat(parts, start, axis=1) if len(read) < len(order) else parts
        return result


def most_nonzero(table: Array) -> int:
    """The most numbers other than zero in one row of a table, of any number of axes: what is zero rounds nothing."""
    return int((table != 0).sum(tuple(range(1, table.ndim))).max(initial=0))


@dataclass(frozen=True)
class BlockMatrix(LinearMap):
    """A matrix ``(k, m)`` for each of ``blocks`` blocks of k elements that lie one after the other."""

    matrix: Array
    blocks: int = 1
    table = "matrix"

    @cached_property
    def terms(self) -> tuple[int, int]:
        """Most numbers other than zero in a column, and in a row of the matrix."""
        return most_nonzero(self.matrix.T), most_nonzero(self.matrix)

    @cached_property
    def _few(self) -> tuple[Array, ...] | None:
        """Where fewer than one number in 64 is other than zero: their rows and columns."""
        places = np.nonzero(self.matrix)
        return places if self.blocks == 1 and 64 * len(places[0]) < self.matrix.size else None

    def forward(self, x: Array) -> Array:
        """Blocks of x times the matrix."""
        return (x.reshape(-1, self.matrix.shape[0]) @ self.matrix).reshape(len(x), self.outputs)

    def adjoint(self, y: Array) -> Array:
        """Blocks of y times the transposed matrix."""
        if self._few:
            rows, columns = (part[np.any(y, 0)[self._few[1]]] for part in self._few)
            return Pick(self.inputs, len(rows), rows, self.matrix[rows, columns]).adjoint(y[:, columns])
        if self.blocks == 1 and np.count_nonzero(y, axis=1).max(initial=0) == 1:
            return y.sum(1, keepdims=True) * self.matrix.T[(y != 0).argmax(1)]
        return (y.reshape(-1, self.matrix.shape[1]) @ self.matrix.T).reshape(len(y), self.inputs)


@dataclass(frozen=True)
class Window:
    """The sizes of sliding windows, as in ONNX: ``pads`` before and after each axis, any number of axes."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]

    @cached_property
    def padded(self) -> tuple[int, ...]:
        """Sizes of the axes with their pads."""
        return tuple(size + before + after for size, (before, after) in zip(self.shape, self.pads, strict=True))

    @cached_property
    def out(self) -> tuple[int, ...]:
        """Positions along each axis."""
        sizes = zip(self.padded, self.kernel, self.strides, self.dilations, strict=True)
        return tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in sizes)

    def taps(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Each offset in the kernel, with the elements of the padded axes that it reads at all positions."""
        for offset in product(*map(range, self.kernel)):
            axes = zip(offset, self.dilations, self.strides, self.out, strict=True)
            yield offset, tuple(slice(o * d, o * d + (count - 1) * s + 1, s) for o, d, s, count in axes)

    def inside(self) -> tuple[slice, ...]:
        """Where the axes without their pads lie in the padded ones."""
        return tuple(slice(before, before + size) for size, (before, _) in zip(self.shape, self.pads, strict=True))


@dataclass(frozen=True)
class Convolution(LinearMap):
    """Convolution of ``images`` images of ``(C, *shape)`` with weights ``(O, C / groups, *kernel)``."""

    weight: Array
    window: Window
    groups: int
    images: int
    turned: bool = False
    """Whether it is the transposed map."""
    table = "weight"

    @cached_property
    def terms(self) -> tuple[int, int]:
        """Weights of one output channel, and those that one input element meets; only the first ones without zeros."""
        found = most_nonzero(self.weight), self.weight.shape[0] // self.groups * math.prod(self.window.kernel)
        return found[::-1] if self.turned else found

    def forward(self, x: Array) -> Array:
        """The convolution of images, or of what it leads to."""
        return self.spread(x) if self.turned else self.slide(x)

    def adjoint(self, y: Array) -> Array:
        """The other one of the two."""
        return self.slide(y) if self.turned else self.spread(y)

    def _tap(self, offset: tuple[int, ...]) -> Array:
        """Weights at one offset, ``(groups, O / groups, C / groups)``."""
        out, inner = self.weight.shape[:2]
        place: Any = (slice(None), slice(None), *offset)
        return self.weight[place].reshape(self.groups, out // self.groups, inner)

    def slide(self, x: Array) -> Array:
        """The convolution, offset by offset."""
        w, channels = self.window, self.groups * self.weight.shape[1]
        padded = np.pad(x.reshape(-1, channels, *w.shape), [(0, 0), (0, 0), *w.pads])
        total = np.zeros((len(padded), self.groups, self.weight.shape[0] // self.groups, math.prod(w.out)), x.dtype)
        for offset, place in w.taps():
            part = padded[(slice(None), slice(None), *place)]
            total += self._tap(offset) @ part.reshape(len(padded), self.groups, self.weight.shape[1], -1)
        return total.reshape(len(x), -1)

    def spread(self, y: Array) -> Array:
        """The transposed convolution, offset by offset, of the part of the positions that has all but zeros."""
        w, channels = self.window, self.groups * self.weight.shape[1]
        ends = zip(np.nonzero(y.any(0).reshape(-1, *w.out).any(0)), w.out, strict=True)
        inner: Any = (..., *(slice(at.min(initial=size - 1), at.max(initial=0) + 1) for at, size in ends))
        rows = y.reshape(len(y) * self.images, self.groups, self.weight.shape[0] // self.groups, *w.out)[inner]
        rows = rows.reshape(*rows.shape[:3], -1)
        padded: Any = np.zeros((len(rows), channels, *w.padded), y.dtype)
        for offset, place in w.taps():
            part, target = np.swapaxes(self._tap(offset), 1, 2) @ rows, padded[(..., *place)][inner]
            target += part.reshape(target.shape)
        return padded[(..., *w.inside())].reshape(len(y), -1)


def exact_copy(linear: LinearMap, rational: Any) -> LinearMap:
    """A linear map as a matrix of rationals, read off its products with unit vectors.

    Such a product has one term for each element, so that nothing is rounded.

    Raises ValueError where coefficients are themselves rounded.
    """
    if linear.slack:
        raise ValueError("a quotient or a square root of constants")
    return BlockMatrix(linear.inputs, linear.outputs, rational(linear.forward(np.eye(linear.inputs))))
