"""Quantised networks in QDQ form: the integers between QuantizeLinear and DequantizeLinear, as floating-point numbers.

Weights and biases behind a DequantizeLinear are constants, and nothing is left of them. On activations the pair is a
step function, ``scale * clip(round(x / scale))``. Rounding comes first, so that an input that is quantised is seen to
be only read rounded (`toolkit.problem.input_cells`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.graph_builder import GraphBuilder, rewrite
from toolkit.formats.onnx.node_rewrites.nodes import attribute, double
from toolkit.formats.onnx.probe import TensorFacts


@rewrite("QuantizeLinear")
def quantize_linear(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """``clip(round(x / scale), least - zero point, most - zero point) + zero point`` with the limits of the type."""
    _check_form(node, facts, node.input[0])
    scale, zero = _parameters(node, facts)
    limits = np.iinfo(facts.values[node.output[0]].dtype)
    steps = builder.emit("Round", [builder.emit("Div", [node.input[0], builder.constant(scale)])])
    clipped = "" if zero.any() else node.output[0]
    if zero.ndim:
        above = builder.static("Maximum", [steps, builder.constant(limits.min - zero)])
        clipped = builder.static("Minimum", [above, builder.constant(limits.max - zero)], clipped)
    else:
        least, most = (double(float(limit - zero)) for limit in (limits.min, limits.max))
        clipped = builder.static("Clip", [steps], clipped, min=least, max=most)
    if zero.any():
        builder.emit("Add", [clipped, builder.constant(zero)], node.output[0])


@rewrite("DequantizeLinear")
def dequantize_linear(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """``(x - zero point) * scale``."""
    _check_form(node, facts, node.output[0])
    scale, zero = _parameters(node, facts)
    shifted = builder.emit("Sub", [node.input[0], builder.constant(zero)]) if zero.any() else node.input[0]
    builder.emit("Mul", [shifted, builder.constant(scale)], node.output[0])


def _check_form(node: onnx.NodeProto, facts: TensorFacts, floats: str) -> None:
    """Raise UnsupportedError unless the tensor that is quantised, or comes of it, is one of float32, without blocks."""
    if facts.values[floats].dtype != np.float32:
        raise UnsupportedError(f"{facts.where(node)}: quantisation of {facts.values[floats].dtype} is not supported; "
                               "quantise the network in float32")  # fmt: skip
    precision = attribute(node, "precision", 0)
    if precision not in (0, onnx.TensorProto.FLOAT):
        raise UnsupportedError(f"{facts.where(node)}: its attribute 'precision' is not that of float32")
    if attribute(node, "block_size", 0):
        raise UnsupportedError(f"{facts.where(node)}: quantisation in blocks is supported for constants only; quantise "
                               "activations per tensor or per axis")  # fmt: skip


def _parameters(node: onnx.NodeProto, facts: TensorFacts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and zero point, which broadcast to the tensor: one number, or one for each row of an axis."""
    scale = facts.constant(node.input[1], node)
    if scale.dtype != np.float32:
        raise UnsupportedError(f"{facts.where(node)}: a scale of {scale.dtype} is not supported; export it in float32")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise UnsupportedError(f"{facts.where(node)}: its scale is not positive and finite")
    given = facts.constant(node.input[2], node) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    shape = facts.shape(node.input[0])
    return _along_axis(node, scale, shape), _along_axis(node, given.astype(np.float32), shape)


def _along_axis(node: onnx.NodeProto, value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A parameter with the axis that it belongs to; a number that is the same everywhere belongs to none."""
    if (value == value.reshape(-1)[0]).all():
        return value.reshape(-1)[0].reshape(())
    broadcast = [1] * len(shape)
    broadcast[attribute(node, "axis", 1)] = value.size
    return value.reshape(broadcast)
