"""What small piecewise-linear networks compute in exact arithmetic. No torch, no onnxruntime.

Every finite floating-point number is an integer over a power of two, and so are sums and products of such: a tensor is
an array of Python's integers with one exponent. Operators that divide, or are not piecewise linear, are not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.tuning import tuned


class NotExact(Exception):  # noqa: N818 - not an error: others may know more
    """The network has something that is not computed exactly here."""


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
class _Call:
    node: onnx.NodeProto
    operands: list[ExactTensor | None]
    opset: int

    def __getitem__(self, position: int) -> ExactTensor:
        value = self.operands[position] if position < len(self.operands) else None
        if value is None:
            raise NotExact(self.node.op_type)
        return value

    def has(self, position: int) -> bool:
        return position < len(self.operands) and self.operands[position] is not None

    def attribute(self, name: str, default: Any = None) -> Any:
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
    (first, second), exponent = aligned(x, y)
    return ExactTensor(np.asarray(first + sign * second, dtype=object), exponent)


def _product(x: ExactTensor, y: ExactTensor, multiply: Callable[[Any, Any], Any]) -> ExactTensor:
    return ExactTensor(np.asarray(multiply(x.integers, y.integers), dtype=object), x.exponent + y.exponent)


def _matmul(call: _Call) -> ExactTensor:
    return _product(call[0], call[1], np.matmul)


def _gemm(call: _Call) -> ExactTensor:
    first, second = (
        ExactTensor(call[position].integers.T, call[position].exponent) if call.attribute(name, 0) else call[position]
        for position, name in enumerate(("transA", "transB"))
    )
    product = _product(_product(first, second, np.matmul), _number(call.attribute("alpha", 1.0)), np.multiply)
    if not call.has(2):
        return product
    return _sum(product, _product(call[2], _number(call.attribute("beta", 1.0)), np.multiply))


def _number(value: float) -> ExactTensor:
    return ExactTensor.of(np.array(value))


def _extreme(pick: Callable[..., Any]) -> Callable[[_Call], ExactTensor]:
    def chosen(call: _Call) -> ExactTensor:
        arrays, exponent = aligned(*(call[position] for position in range(len(call.operands))))
        result = arrays[0]
        for other in arrays[1:]:
            result = pick(result, other)
        return ExactTensor(np.asarray(result, dtype=object), exponent)

    return chosen


def _clip(call: _Call) -> ExactTensor:
    if call.attribute("min") is not None or call.attribute("max") is not None:
        raise NotExact("Clip")
    result = call[0]
    for position, pick in ((1, np.maximum), (2, np.minimum)):
        if call.has(position):
            (first, second), exponent = aligned(result, call[position])
            result = ExactTensor(np.asarray(pick(first, second), dtype=object), exponent)
    return result


def _leaky(call: _Call) -> ExactTensor:
    x = call[0]
    (positive, negative), exponent = aligned(
        ExactTensor(np.maximum(x.integers, 0), x.exponent),
        _product(
            ExactTensor(np.minimum(x.integers, 0), x.exponent), _number(call.attribute("alpha", 0.01)), np.multiply
        ),
    )
    return ExactTensor(positive + negative, exponent)


def _moved(move: Callable[[_Call, NDArray[np.object_]], Any]) -> Callable[[_Call], ExactTensor]:
    return lambda call: ExactTensor(np.asarray(move(call, call[0].integers), dtype=object), call[0].exponent)


def _reshape(call: _Call, array: NDArray[np.object_]) -> NDArray[np.object_]:
    shape = call.integers("shape", 1)
    if shape is None or call.attribute("allowzero", 0):
        raise NotExact("Reshape")
    return array.reshape([array.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def _flatten(call: _Call, array: NDArray[np.object_]) -> NDArray[np.object_]:
    return array.reshape(math.prod(array.shape[: call.attribute("axis", 1)]), -1)


def _squeeze(call: _Call, array: NDArray[np.object_]) -> NDArray[np.object_]:
    axes = call.integers("axes", 1)
    return array.squeeze(None if axes is None else tuple(axes))


def _concat(call: _Call) -> ExactTensor:
    arrays, exponent = aligned(*(call[position] for position in range(len(call.operands))))
    return ExactTensor(np.concatenate(arrays, call.attribute("axis")), exponent)


def _constant(call: _Call) -> ExactTensor:
    value = call.attribute("value")
    if value is None:
        raise NotExact("Constant")
    return ExactTensor.of(onnx.numpy_helper.to_array(value))


RULES: dict[str, Callable[[_Call], ExactTensor]] = {
    "Constant": _constant,
    "Identity": lambda call: call[0],
    "Add": lambda call: _sum(call[0], call[1]),
    "Sub": lambda call: _sum(call[0], call[1], -1),
    "Mul": lambda call: _product(call[0], call[1], np.multiply),
    "Neg": _moved(lambda call, array: -array),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Relu": _moved(lambda call, array: np.maximum(array, 0)),
    "Abs": _moved(lambda call, array: np.abs(array)),
    "LeakyRelu": _leaky,
    "Max": _extreme(np.maximum),
    "Min": _extreme(np.minimum),
    "Clip": _clip,
    "Flatten": _moved(_flatten),
    "Reshape": _moved(_reshape),
    "Squeeze": _moved(_squeeze),
    "Unsqueeze": _moved(lambda call, array: np.expand_dims(array, tuple(call.integers("axes", 1) or ()))),
    "Transpose": _moved(lambda call, array: array.transpose(call.attribute("perm"))),
    "Concat": _concat,
}
"""By the name of the ONNX operator."""


def run_exactly(model: OnnxModel, inputs: Sequence[NDArray[np.float64]], names: Sequence[str]) -> list[ExactTensor]:
    """The tensors with these names for flat inputs in the model's order. Raises NotExact."""
    graph = model.proto.graph
    if sum(math.prod(tensor.dims) for tensor in graph.initializer) > tuned().networks.most_exact_elements:
        raise NotExact("many weights")
    values = {tensor.name: ExactTensor.of(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    for info, array in zip(model.inputs, inputs, strict=True):
        values[info.name] = ExactTensor.of(array.reshape(info.shape))
    work = 0
    for node in graph.node:
        if node.op_type not in RULES or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            raise NotExact(node.op_type)
        work += _work(node, values)
        if work > tuned().networks.most_exact_products:
            raise NotExact("many operations")
        values[node.output[0]] = _called(node, values, model.opset)
    return [values[name] for name in names]


def _called(node: onnx.NodeProto, values: Mapping[str, ExactTensor], opset: int) -> ExactTensor:
    try:
        return RULES[node.op_type](_Call(node, [values[name] if name else None for name in node.input], opset))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotExact(f"{node.op_type}: {error}") from None


def _work(node: onnx.NodeProto, values: Mapping[str, ExactTensor]) -> int:
    sizes = [values[name].integers.size for name in node.input if name in values]
    matrices = [values[name].integers.shape[-1:] for name in node.input[:1] if name in values]
    if node.op_type in ("MatMul", "Gemm") and len(sizes) > 1:
        return sizes[1] * max(1, sizes[0] // max(1, *(matrices[0] or (1,))))
    return sum(sizes)
