"""Operators over windows of images: padding is written out, and interpolation becomes selection or a matrix."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.graph_builder import GraphBuilder, rewrite
from toolkit.formats.onnx.node_rewrites.nodes import attribute, select_rows
from toolkit.formats.onnx.probe import TensorFacts
from toolkit.formats.onnx.resize_matrix import resize_matrices


@rewrite("Conv")
def convolution(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Automatic padding is written out; everything else stays."""
    builder.copy(_with_explicit_pads(node, facts), facts.used)


@rewrite("ConvTranspose")
def transposed_convolution(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Padding that torch does not take (uneven, automatic, or given by the result's shape) becomes a cut of the result
    without padding: what ONNX calls padding here is what is left out at the borders."""
    axes = len(facts.shape(node.input[0])) - 2
    pads = attribute(node, "pads") or [0] * 2 * axes
    by_shape = attribute(node, "output_shape") or attribute(node, "auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    if not by_shape and pads[:axes] == pads[axes:]:
        builder.copy(_without(node, {"auto_pad"}), facts.used)
        return
    pads = _pads_for_shape(node, facts) if by_shape else pads
    whole = _without(node, {"auto_pad", "pads", "output_shape"})
    whole.output[0] = builder.fresh("whole")
    builder.copy(whole, facts.used)
    cut = [0, 0, *(-pad for pad in pads[:axes]), 0, 0, *(-pad for pad in pads[axes:])]
    builder.static("Pad", [whole.output[0]], node.output[0], pads=cut, value=0.0)


def _pads_for_shape(node: onnx.NodeProto, facts: TensorFacts) -> list[int]:
    """Padding of a transposed convolution, begins and then ends, with which its result has the shape that it has."""
    sizes, results = facts.shape(node.input[0])[2:], facts.shape(node.output[0])[2:]
    kernel = attribute(node, "kernel_shape") or facts.shape(node.input[1])[2:]
    ones, zeros = [1] * len(sizes), [0] * len(sizes)
    strides, dilations = attribute(node, "strides") or ones, attribute(node, "dilations") or ones
    extra = attribute(node, "output_padding") or zeros
    parts = zip(sizes, results, kernel, strides, dilations, extra, strict=True)
    totals = [(size - 1) * s + (k - 1) * d + 1 + more - result for size, result, k, s, d, more in parts]
    if min(totals) < 0:
        raise UnsupportedError(f"{facts.where(node)}: a result larger than its windows reach is not supported")
    smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return smaller + larger if attribute(node, "auto_pad", "NOTSET") == "SAME_UPPER" else larger + smaller


@rewrite("AveragePool")
def average_pool(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Windows that torch's pooling does not take (with uneven padding, or with gaps) become a matrix for each axis."""
    node = _with_explicit_pads(node, facts)
    kernel = attribute(node, "kernel_shape")
    ones = [1] * len(kernel)
    pads, strides = attribute(node, "pads") or [0] * 2 * len(kernel), attribute(node, "strides") or ones
    begins, ends, dilations = pads[: len(kernel)], pads[len(kernel) :], attribute(node, "dilations") or ones
    if begins == ends and dilations == ones:
        builder.copy(_without(node, {"dilations"}), facts.used)
        return
    current, everything = node.input[0], bool(attribute(node, "count_include_pad", 0))
    for axis, (begin, end, size, stride, step) in enumerate(zip(begins, ends, kernel, strides, dilations, strict=True)):
        length, windows = (facts.shape(name)[axis + 2] for name in (node.input[0], node.output[0]))
        cells = np.arange(windows)[:, None] * stride + np.arange(size) * step - begin
        real = (cells >= 0) & (cells < length)
        counted = (cells < length + end) if everything else real
        weights = np.zeros((windows, length))
        np.add.at(weights, (np.nonzero(real)[0], cells[real]), 1.0)
        matrix = builder.constant((weights / counted.sum(1)[:, None]).astype(facts.values[node.input[0]].dtype))
        current = builder.static("AxisMatMul", [current, matrix], axis=axis + 2)
    builder.alias(node.output[0], current)


@rewrite("MaxPool")
def max_pool(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Padding that torch's pooling of images does not take (uneven, or over half a window) becomes repeated edges.

    A window without gaps that holds a padded cell and a real one holds the edge between them, so its maximum is the
    same; infinite cells, which is what padding means, would leave no finite bounds.
    """
    node = _with_explicit_pads(node, facts)
    kernel = attribute(node, "kernel_shape")
    pads = attribute(node, "pads") or [0] * 2 * len(kernel)
    begins, ends = pads[: len(kernel)], pads[len(kernel) :]
    even = begins == ends and all(2 * pad <= size for pad, size in zip(begins, kernel, strict=True))
    with_gaps = any(step != 1 for step in attribute(node, "dilations") or [])
    if (even and len(kernel) > 1) or with_gaps or any(name in facts.used for name in node.output[1:]):
        builder.copy(node, facts.used)
        return
    strides = attribute(node, "strides") or [1] * len(kernel)
    current = node.input[0]
    for axis, geometry in enumerate(zip(begins, kernel, strides, strict=True), 2):
        index = _edge_padded(facts.shape(node.input[0])[axis], facts.shape(node.output[0])[axis], *geometry)
        current = current if index is None else select_rows(builder, current, axis, index)
    builder.static("MaxPool", [current], node.output[0], kernel_shape=kernel, strides=strides)


def _edge_padded(size: int, windows: int, begin: int, kernel: int, stride: int) -> NDArray[np.int64] | None:
    """The rows that the windows along one axis cover, with the edge in place of padding; None when that is all rows.

    Only what the windows reach is padded, so that rounding their number down gives the file's, however that was
    rounded. Each has a real row: onnxruntime takes no padding of a whole window and drops windows that start after the
    last row.
    """
    stop = max((windows - 1) * stride + kernel - begin, size)
    return None if (begin, stop) == (0, size) else np.arange(-begin, stop).clip(0, size - 1)


def _with_explicit_pads(node: onnx.NodeProto, facts: TensorFacts) -> onnx.NodeProto:
    """The node with ``pads`` instead of ``auto_pad``."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        return node
    explicit = _without(node, {"auto_pad", "pads"})
    explicit.attribute.append(onnx.helper.make_attribute("pads", _automatic_pads(node, facts, mode)))
    return explicit


def _without(node: onnx.NodeProto, names: Container[str]) -> onnx.NodeProto:
    """A copy of a node without some of its attributes."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    copy.attribute.extend(entry for entry in node.attribute if entry.name not in names)
    return copy


def _automatic_pads(node: onnx.NodeProto, facts: TensorFacts, mode: str) -> list[int]:
    """Begins and ends of the padding that gives the output its shape; an odd one goes to the mode's side."""
    before, after = facts.shape(node.input[0])[2:], facts.shape(node.output[0])[2:]
    kernel = attribute(node, "kernel_shape") or facts.shape(node.input[1])[2:]
    strides = attribute(node, "strides") or [1] * len(before)
    dilations = attribute(node, "dilations") or [1] * len(before)
    parts = zip(before, after, kernel, strides, dilations, strict=True)
    totals = [max((out - 1) * s + (k - 1) * d + 1 - size, 0) for size, out, k, s, d in parts]
    if mode == "VALID":
        totals = [0] * len(totals)
    smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return smaller + larger if mode == "SAME_UPPER" else larger + smaller


@rewrite("Upsample", "Resize")
def resize(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Interpolation is linear and separable: for each axis a selection of rows or a matrix."""
    current = node.input[0]
    for axis, matrix in resize_matrices(node, facts).items():
        if np.isin(matrix, (0, 1)).all() and (matrix.sum(1) == 1).all():
            current = select_rows(builder, current, axis, matrix.argmax(1))
        else:
            weights = builder.constant(matrix.astype(facts.values[node.input[0]].dtype))
            current = builder.static("AxisMatMul", [current, weights], axis=axis)
    builder.alias(node.output[0], current)
