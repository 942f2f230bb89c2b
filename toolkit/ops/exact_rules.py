"""Operators of ONNX in exact arithmetic, on integers over a power of two. No torch, no onnxruntime.

Every finite floating-point number is an integer over a power of two, and so are sums and products of such: a tensor is
an array of Python's integers with one exponent. Operators that divide, or are not piecewise linear, have no rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray


class NotExact(Exception):  # noqa: N818 - not an error: others may know more
    """A node computes something that has no rule here."""


@dataclass(frozen=True)
class ExactTensor:
    """``integers / 2 ** exponent``, in any shape."""

    integers: NDArray[np.object_]
    exponent: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> ExactTensor:
        """Floating-point numbers or integers. Raises NotExact for what is not finite."""
        numbers = values.astype(np.float64) if values.dtype.kind == "f" else values
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            raise NotExact("not finite")
        ratios = [number.as_integer_ratio() for number in numbers.reshape(-1).tolist()]
        exponent = max((bottom.bit_length() - 1 for _, bottom in ratios), default=0)
        integers = np.empty(len(ratios), dtype=object)
        integers[:] = [top * ((1 << exponent) // bottom) for top, bottom in ratios]
        return cls(integers.reshape(values.shape), exponent)

    def at(self, exponent: int) -> NDArray[np.object_]:
        """The integers over a larger power of two."""
        return self.integers * (1 << (exponent - self.exponent)) if exponent > self.exponent else self.integers

    def rounded(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The nearest doubles, and how far off they may be: 0 where they are exact."""
        nearest, off = [], []
        for top in self.integers.reshape(-1).tolist():
            value = top / (1 << self.exponent)  # correctly rounded; raises where it overflows
            up, down = value.as_integer_ratio()
            nearest.append(value)
            off.append(0.0 if up << self.exponent == top * down else math.ulp(value))
        return np.array(nearest).reshape(self.integers.shape), np.array(off).reshape(self.integers.shape)


def aligned(*tensors: ExactTensor) -> tuple[list[NDArray[np.object_]], int]:
    """The integers of tensors over one power of two."""
    exponent = max(tensor.exponent for tensor in tensors)
    return [tensor.at(exponent) for tensor in tensors], exponent


@dataclass(frozen=True)
class ExactCall:
    """A node of a graph with its operands; `None` for one that is left out. Raises NotExact where one is asked for."""

    node: onnx.NodeProto
    operands: list[ExactTensor | None]
    opset: int

    def __getitem__(self, position: int) -> ExactTensor:
        value = self.operands[position] if position < len(self.operands) else None
        if value is None:
            raise NotExact(self.node.op_type)
        return value

    def has(self, position: int) -> bool:
        """Whether the operand at a position is there."""
        return position < len(self.operands) and self.operands[position] is not None

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute of the node."""
        for entry in self.node.attribute:
            if entry.name == name:
                return onnx.helper.get_attribute_value(entry)
        return default

    def integers(self, name: str, position: int) -> list[int] | None:
        """A list that is an attribute in older versions and an operand in newer ones."""
        if self.has(position):
            return [int(entry) for entry in self[position].integers.reshape(-1)]
        value = self.attribute(name)
        return None if value is None else list(value)


def _sum(x: ExactTensor, y: ExactTensor, sign: int = 1) -> ExactTensor:
    """The sum of two tensors, or with ``sign=-1`` their difference."""
    (first, second), exponent = aligned(x, y)
    return ExactTensor(np.asarray(first + sign * second, dtype=object), exponent)


def _product(x: ExactTensor, y: ExactTensor, multiply: Callable[[Any, Any], Any]) -> ExactTensor:
    """The product of two tensors, elementwise or of matrices as ``multiply`` says."""
    return ExactTensor(np.asarray(multiply(x.integers, y.integers), dtype=object), x.exponent + y.exponent)


def matmul(call: ExactCall) -> ExactTensor:
    """The product of matrices, MatMul."""
    return _product(call[0], call[1], np.matmul)


def gemm(call: ExactCall) -> ExactTensor:
    """Gemm with its factors alpha and beta."""
    first, second = (
        ExactTensor(call[position].integers.T, call[position].exponent) if call.attribute(name, 0) else call[position]
        for position, name in enumerate(("transA", "transB"))
    )
    scaled = _product(_product(first, second, np.matmul), _number(call.attribute("alpha", 1.0)), np.multiply)
    if not call.has(2):
        return scaled
    return _sum(scaled, _product(call[2], _number(call.attribute("beta", 1.0)), np.multiply))


def _number(value: float) -> ExactTensor:
    return ExactTensor.of(np.array(value))


def _extreme(pick: Callable[..., Any]) -> Callable[[ExactCall], ExactTensor]:
    """The rule of Max and Min: ``pick`` of two operands at a time."""

    def chosen(call: ExactCall) -> ExactTensor:
        arrays, exponent = aligned(*(call[position] for position in range(len(call.operands))))
        result = arrays[0]
        for other in arrays[1:]:
            result = pick(result, other)
        return ExactTensor(np.asarray(result, dtype=object), exponent)

    return chosen


def clip(call: ExactCall) -> ExactTensor:
    """Clip with limits that are operands (opset 11)."""
    if call.attribute("min") is not None or call.attribute("max") is not None:
        raise NotExact("Clip")
    result = call[0]
    for position, pick in ((1, np.maximum), (2, np.minimum)):
        if call.has(position):
            (first, second), exponent = aligned(result, call[position])
            result = ExactTensor(np.asarray(pick(first, second), dtype=object), exponent)
    return result


def leaky_relu(call: ExactCall) -> ExactTensor:
    """LeakyRelu with the slope as it is stored, in single precision."""
    x = call[0]
    (positive, negative), exponent = aligned(
        ExactTensor(np.maximum(x.integers, 0), x.exponent),
        _product(
            ExactTensor(np.minimum(x.integers, 0), x.exponent), _number(call.attribute("alpha", 0.01)), np.multiply
        ),
    )
    return ExactTensor(positive + negative, exponent)


def _moved(move: Callable[[ExactCall, NDArray[np.object_]], Any]) -> Callable[[ExactCall], ExactTensor]:
    """The rule of an operator that acts on the integers whatever their exponent: ``move`` takes the node and them."""
    return lambda call: ExactTensor(np.asarray(move(call, call[0].integers), dtype=object), call[0].exponent)


def _reshape(call: ExactCall, array: NDArray[np.object_]) -> NDArray[np.object_]:
    """Reshape, where zeros stand for the length that was there."""
    shape = call.integers("shape", 1)
    if shape is None or call.attribute("allowzero", 0):
        raise NotExact("Reshape")
    return array.reshape([array.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def _flatten(call: ExactCall, array: NDArray[np.object_]) -> NDArray[np.object_]:
    """Flatten to a matrix."""
    return array.reshape(math.prod(array.shape[: call.attribute("axis", 1)]), -1)


def _squeeze(call: ExactCall, array: NDArray[np.object_]) -> NDArray[np.object_]:
    """Squeeze along the axes named, or all of length 1."""
    axes = call.integers("axes", 1)
    return array.squeeze(None if axes is None else tuple(axes))


def concat(call: ExactCall) -> ExactTensor:
    """Concat over one power of two."""
    arrays, exponent = aligned(*(call[position] for position in range(len(call.operands))))
    return ExactTensor(np.concatenate(arrays, call.attribute("axis")), exponent)


def constant(call: ExactCall) -> ExactTensor:
    """Constant with a tensor as its value."""
    value = call.attribute("value")
    if value is None:
        raise NotExact("Constant")
    return ExactTensor.of(onnx.numpy_helper.to_array(value))


def _unsqueeze(call: ExactCall, array: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.expand_dims(array, tuple(call.integers("axes", 1) or ()))


def identity(call: ExactCall) -> ExactTensor:
    """The operand itself, Identity."""
    return call[0]


def add(call: ExactCall) -> ExactTensor:
    """The sum of two operands, Add."""
    return _sum(call[0], call[1])


def subtract(call: ExactCall) -> ExactTensor:
    """The first operand less the second one, Sub."""
    return _sum(call[0], call[1], sign=-1)


def multiply(call: ExactCall) -> ExactTensor:
    """The elementwise product, Mul."""
    return _product(call[0], call[1], np.multiply)


maximum, minimum = _extreme(np.maximum), _extreme(np.minimum)
negate = _moved(lambda _, array: -array)
absolute = _moved(lambda _, array: np.abs(array))
relu = _moved(lambda _, array: np.maximum(array, 0))
flatten, reshape, squeeze, unsqueeze = _moved(_flatten), _moved(_reshape), _moved(_squeeze), _moved(_unsqueeze)
transpose = _moved(lambda call, array: array.transpose(call.attribute("perm")))
