"""Converters of the operators whose parameters are all attributes (``toolkit.formats.onnx.graph_builder.STATIC``).

Each is one plain torch expression, out of place, without control flow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from toolkit.formats.onnx.converters.conversion import Conversion
from toolkit.formats.onnx.converters.library import onnx2torch
from toolkit.formats.onnx.graph_builder import STATIC

_common = onnx2torch.utils.common
_registry = onnx2torch.node_converters.registry

Attributes = dict[str, Any]


class Expression(nn.Module):
    """A torch expression of the operands, with the node's attributes bound."""

    def __init__(self, function: Callable[..., Tensor], attributes: Attributes) -> None:
        super().__init__()
        self.function = function
        self.attributes = attributes

    def forward(self, *operands: Tensor) -> Tensor:
        """Value of the expression."""
        return self.function(*operands, **self.attributes)

    def extra_repr(self) -> str:
        """Name and attributes, for printing."""
        return f"{self.function.__name__}, {self.attributes}"


def _plain(value: Any) -> Any:
    """The value of an attribute; a number that is kept as a tensor, to lose no digits, as a number."""
    return value.to_torch().item() if isinstance(value, onnx2torch.onnx_tensor.OnnxTensor) else value


def static(op_type: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function of the operands and the attributes as the meaning of a static operator."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def convert(node: Any, graph: Any) -> Any:
            module = Expression(function, {name: _plain(value) for name, value in node.attributes.items()})
            return _common.OperationConverterResult(module, _common.onnx_mapping_from_node(node))

        _registry.add_converter(op_type, version=1, domain=STATIC)(convert)
        return function

    return register


@static("Output")
def output(x: Tensor) -> Tensor:
    """An output of the model."""
    return x


@static("View")
def view(x: Tensor, shape: tuple[int, ...] | list[int] = ()) -> Tensor:
    """Reshape a tensor to a shape known beforehand; values stay in row-major order."""
    return x.reshape(tuple(shape))


@static("Expand")
def expand(x: Tensor, shape: list[int] | tuple[int, ...] = ()) -> Tensor:
    """Broadcasting to a shape."""
    return x.expand(tuple(shape))


@static("Tile")
def tile(x: Tensor, repeats: list[int]) -> Tensor:
    """Repetition along each axis."""
    return x.repeat(repeats)


@static("Slice")
def slice_(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """Every ``step``-th row from ``start`` to before ``end`` of one axis."""
    index = [slice(None)] * axis + [slice(start, end, step)]
    return x[tuple(index)]


@static("Rows")
def rows(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Selected rows of one axis."""
    return torch.index_select(x, axis, index)


@static("AxisMatMul")
def axis_matmul(x: Tensor, weights: Tensor, axis: int) -> Tensor:
    """A matrix applied along one axis."""
    return torch.matmul(x.movedim(axis, -1), weights.t()).movedim(-1, axis)


@static("Pad")
def pad(x: Tensor, pads: list[int], value: float) -> Tensor:
    """Constants around all axes; ``pads`` are those of ONNX: all begins, then all ends, negative ones cut off."""
    rank = x.dim()
    amounts = [pads[k + side * rank] for k in reversed(range(rank)) for side in (0, 1)]
    return nn.functional.pad(x, amounts, value=value)


@static("MaxPool")
def max_pool(x: Tensor, kernel_shape: list[int], strides: list[int]) -> Tensor:
    """The largest element of each window; no padding, and only whole windows."""
    if x.dim() == 3:  # torch's own pooling of one axis hands out indices, which traced operators do not have
        return nn.functional.max_pool2d(x.unsqueeze(2), [1, *kernel_shape], [1, *strides]).squeeze(2)
    pool = nn.functional.max_pool2d if x.dim() == 4 else nn.functional.max_pool3d
    return pool(x, kernel_shape, strides)


@static("Maximum")
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of two."""
    return torch.maximum(x, y)


@static("Minimum")
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller of two."""
    return torch.minimum(x, y)


@static("Plus")
def plus(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two."""
    return x + y


@static("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x above zero and ``slope * x`` below, with one ReLU; ``slope`` broadcasts to ``x`` from the last axis on."""
    return slope * x + (1 - slope) * torch.relu(x)


@static("Selu")
def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """An exponential linear unit and a factor."""
    return nn.functional.elu(x, alpha) * gamma


@static("Clip")
def clip(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Values limited from below, from above or both."""
    return x if min is None and max is None else torch.clamp(x, min, max)


@static("Power")
def power(x: Tensor, exponent: float) -> Tensor:
    """A power with a constant exponent."""
    return torch.pow(x, exponent)


def _reduction(op_type: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> None:
    def reduce(x: Tensor, axes: list[int] | tuple[int, ...] = (), keepdims: int = 1) -> Tensor:
        return function(x, list(axes), bool(keepdims))

    reduce.__name__ = op_type
    static(op_type)(reduce)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_reduction("ReduceSum", torch.sum)
_reduction("ReduceMean", torch.mean)
_reduction("ReduceMax", torch.amax)
_reduction("ReduceMin", torch.amin)
_reduction("ReduceProd", _product)
_reduction("ReduceL1", lambda x, axes, keep: x.abs().sum(axes, keep))
_reduction("ReduceL2", lambda x, axes, keep: (x * x).sum(axes, keep).sqrt())
_reduction("ReduceSumSquare", lambda x, axes, keep: (x * x).sum(axes, keep))
_reduction("ReduceLogSum", lambda x, axes, keep: x.sum(axes, keep).log())
_reduction("ReduceLogSumExp", torch.logsumexp)

for _function in (torch.sinh, torch.cosh, torch.asinh, torch.acosh, torch.atanh):
    static(_function.__name__.capitalize())(_function)


FLOATING = {
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}
"""Floating types that values may be converted to."""


def _conversion(op_type: str, rounds: bool) -> None:
    def convert(node: Any, graph: Any) -> Any:
        module = Conversion(FLOATING[node.attributes["to"]], rounds)
        return _common.OperationConverterResult(module, _common.onnx_mapping_from_node(node))

    _registry.add_converter(op_type, version=1, domain=STATIC)(convert)


_conversion("Widen", rounds=False)
_conversion("Narrow", rounds=True)
