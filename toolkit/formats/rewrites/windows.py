"""Operators over windows of images: padding is written out, and interpolation becomes selection or a matrix."""

from __future__ import annotations

import numpy as np
import onnx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx_normalise import Builder, rewrite
from toolkit.formats.onnx_probe import Facts
from toolkit.formats.onnx_resize import resize_matrix
from toolkit.formats.rewrites.nodes import attribute, select_rows


@rewrite("Conv", "ConvTranspose", "MaxPool", "AveragePool")
def windowed(node: onnx.NodeProto, facts: Facts, builder: Builder) -> None:
    """Automatic padding is written out; everything else stays."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        builder.copy(node, facts.used)
        return
    if node.op_type == "ConvTranspose":
        raise UnsupportedError(f"{facts.where(node)}: auto_pad is not supported")
    explicit = onnx.NodeProto()
    explicit.CopyFrom(node)
    kept = [entry for entry in node.attribute if entry.name not in {"auto_pad", "pads"}]
    del explicit.attribute[:]
    explicit.attribute.extend([*kept, onnx.helper.make_attribute("pads", _automatic_pads(node, facts, mode))])
    builder.copy(explicit, facts.used)


def _automatic_pads(node: onnx.NodeProto, facts: Facts, mode: str) -> list[int]:
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
def resize(node: onnx.NodeProto, facts: Facts, builder: Builder) -> None:
    """Interpolation is linear and separable: for each axis a selection of rows or a matrix."""
    shape, target = facts.shape(node.input[0]), facts.shape(node.output[0])
    changed = [axis for axis in range(len(shape)) if shape[axis] != target[axis]]
    if attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise UnsupportedError(f"{facts.where(node)}: tf_crop_and_resize is not supported")
    current = node.input[0]
    for axis in changed:
        matrix = resize_matrix(node, facts, axis)
        if np.isin(matrix, (0, 1)).all() and (matrix.sum(1) == 1).all():
            current = select_rows(builder, current, axis, matrix.argmax(1))
        else:
            weights = builder.constant(matrix.astype(facts.values[node.input[0]].dtype))
            current = builder.static("AxisMatMul", [current, weights], axis=axis)
    builder.alias(node.output[0], current)
