"""Operators whose results are elements of their operand, or constants: views, permutations, selections by position.

Where the places are constants, every such operator is affine. Selections are written as one of rows along an axis where
there is an axis, and of the flat tensor where the places know none.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.graph_builder import GraphBuilder, rewrite
from toolkit.formats.onnx.node_rewrites.nodes import attribute, double, integers, select_rows
from toolkit.formats.onnx.probe import TensorFacts
from toolkit.formats.onnx.resize_matrix import run_alone

Places = NDArray[np.int64]


def positions(shape: tuple[int, ...]) -> Places:
    """The position in the flat tensor of every element."""
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)


def select_places(builder: GraphBuilder, source: str, places: Places, output: str) -> None:
    """Emit the tensor whose elements are those at some positions of the flat operand."""
    flat = builder.static("View", [source], shape=[-1])
    chosen = select_rows(builder, flat, 0, places.reshape(-1))
    builder.static("View", [chosen], output, shape=list(places.shape))


def _counted_from_front(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions along an axis, of which negative ones are counted from its end."""
    return np.where(index < 0, index + size, index)


@rewrite("Pad")
def pad(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Constants around the tensor stay a padding; repeated elements are a selection of rows of each axis."""
    shape = facts.shape(node.input[0])
    pads = _all_pads(node, facts, len(shape))
    mode = attribute(node, "mode", "constant")
    if mode == "constant":
        value = attribute(node, "value", 0.0)
        if len(node.input) > 2 and node.input[2]:
            value = float(facts.constant(node.input[2], node).reshape(-1)[0])
        builder.static("Pad", [node.input[0]], node.output[0], pads=pads, value=double(float(value)))
        return
    current = node.input[0]
    for axis, size in enumerate(shape):
        begin, end = pads[axis], pads[axis + len(shape)]
        if begin or end:
            current = select_rows(builder, current, axis, _padded_rows(node, facts, mode, size, begin, end))
    builder.alias(node.output[0], current)


def _all_pads(node: onnx.NodeProto, facts: TensorFacts, rank: int) -> list[int]:
    """Begins of all axes, then ends, negative ones included."""
    given = integers(node, facts, "pads", 1) or integers(node, facts, "paddings", 1) or []
    axes = integers(node, facts, "axes", 3)
    axes = list(range(rank)) if axes is None else axes
    pads = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        pads[axis % rank] = given[position]
        pads[axis % rank + rank] = given[position + len(axes)]
    return pads


_PAD_OPSET = 19
"""First version of the operator set in which Pad knows all modes; each means the same in every version."""


def _padded_rows(node: onnx.NodeProto, facts: TensorFacts, mode: str, size: int, begin: int, end: int) -> Places:
    """Which row of an axis stands where after padding, as onnxruntime says."""
    alone = onnx.helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    rows = np.arange(size, dtype=np.float64)
    padded = run_alone(alone, _PAD_OPSET, {"x": rows, "pads": np.array([begin, end], dtype=np.int64)})
    if padded is None:
        raise UnsupportedError(f"{facts.where(node)}: padding an axis of {size} by {begin} and {end} in mode {mode} is "
                               "not supported")  # fmt: skip
    return padded.astype(np.int64)


@rewrite("DepthToSpace")
def depth_to_space(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Blocks of channels laid out in space, in either order of the channels."""
    batch, channels, height, width = facts.shape(node.input[0])
    block = attribute(node, "blocksize")
    inner = channels // block**2
    if attribute(node, "mode", "DCR") == "CRD":
        split, perm = [batch, inner, block, block, height, width], [0, 1, 4, 2, 5, 3]
    else:
        split, perm = [batch, block, block, inner, height, width], [0, 3, 4, 1, 5, 2]
    _permuted(node, facts, builder, split, perm)


@rewrite("SpaceToDepth")
def space_to_depth(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Blocks of space laid out in channels."""
    batch, channels, height, width = facts.shape(node.input[0])
    block = attribute(node, "blocksize")
    split = [batch, channels, height // block, block, width // block, block]
    _permuted(node, facts, builder, split, [0, 3, 5, 1, 2, 4])


def _permuted(
    node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder, split: list[int], perm: list[int]
) -> None:
    """Emit a permutation of axes between two views."""
    view = builder.static("View", [node.input[0]], shape=split)
    moved = builder.emit("Transpose", [view], perm=perm)
    builder.static("View", [moved], node.output[0], shape=list(facts.shape(node.output[0])))


@rewrite("GatherElements")
def gather_elements(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """For each element, one of the same row along an axis."""
    shape = facts.shape(node.input[0])
    axis = attribute(node, "axis", 0) % len(shape)
    index = _counted_from_front(facts.constant(node.input[1], node), shape[axis])
    # Along other axes the indices may be shorter than the operand.
    part = tuple(slice(None) if k == axis else slice(size) for k, size in enumerate(index.shape))
    select_places(builder, node.input[0], np.take_along_axis(positions(shape)[part], index, axis), node.output[0])


@rewrite("GatherND")
def gather_nd(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """For each row of indices, the element or the part of the tensor at it."""
    shape, index = facts.shape(node.input[0]), facts.constant(node.input[1], node)
    shared = attribute(node, "batch_dims", 0)
    batch, rest = index.shape[:shared], index.shape[shared:]
    flat = positions(shape).reshape(-1, *shape[shared:])
    rows = index.reshape(-1, *rest)
    chosen = [part[tuple(np.moveaxis(row, -1, 0))] for part, row in zip(flat, rows, strict=True)]
    places = np.stack(chosen) if chosen else np.zeros(0, dtype=np.int64)
    select_places(builder, node.input[0], places.reshape((*batch, *places.shape[1:])), node.output[0])


@rewrite("ReverseSequence")
def reverse_sequence(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """The first rows of every sample of a batch in the opposite order."""
    lengths = facts.constant(node.input[1], node).reshape(-1)
    batch, time = attribute(node, "batch_axis", 1), attribute(node, "time_axis", 0)
    places = positions(facts.shape(node.input[0]))
    view = np.moveaxis(places, (batch, time), (0, 1))
    for sample, length in zip(view, lengths, strict=True):
        sample[:length] = sample[:length][::-1].copy()
    select_places(builder, node.input[0], places, node.output[0])


@rewrite("Compress")
def compress(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """The rows of an axis, or the elements, where a constant says so."""
    chosen = np.flatnonzero(facts.constant(node.input[1], node))
    axis = attribute(node, "axis")
    if axis is None:
        select_places(builder, node.input[0], chosen, node.output[0])
    else:
        rows = select_rows(builder, node.input[0], axis % len(facts.shape(node.input[0])), chosen)
        builder.alias(node.output[0], rows)


@rewrite("CenterCropPad")
def center_crop_pad(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """The middle of longer axes, and zeros on both sides of shorter ones."""
    shape, target = facts.shape(node.input[0]), facts.shape(node.output[0])
    current, pads = node.input[0], [0] * (2 * len(shape))
    for axis, (size, wanted) in enumerate(zip(shape, target, strict=True)):
        if wanted < size:
            start = (size - wanted) // 2
            current = builder.static("Slice", [current], axis=axis, start=start, end=start + wanted, step=1)
        pads[axis] = max(wanted - size, 0) // 2
        pads[axis + len(shape)] = max(wanted - size, 0) - pads[axis]
    builder.static("Pad", [current], node.output[0], pads=pads, value=0.0)


@rewrite("ScatterND")
def scatter_nd(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Values put at constant places, which the last axis of the indices names."""
    shape, index = facts.shape(node.input[0]), facts.constant(node.input[1], node)
    _scattered(node, facts, builder, positions(shape)[tuple(np.moveaxis(index, -1, 0))])


@rewrite("Scatter", "ScatterElements")
def scatter_elements(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Values put at constant places, which are named along one axis."""
    shape = facts.shape(node.input[0])
    axis = attribute(node, "axis", 0) % len(shape)
    index = _counted_from_front(facts.constant(node.input[1], node), shape[axis])
    part = tuple(slice(None) if k == axis else slice(size) for k, size in enumerate(index.shape))
    _scattered(node, facts, builder, np.take_along_axis(positions(shape)[part], index, axis))


def _scattered(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder, places: Places) -> None:
    """Emit the choice, for every element, between the operand's and the last update of it."""
    if attribute(node, "reduction", "none") != "none":
        raise UnsupportedError(f"{facts.where(node)}: reduction is not supported")
    shape = facts.shape(node.input[0])
    chosen = positions(shape).reshape(-1)
    chosen[places.reshape(-1)] = chosen.size + np.arange(places.size)
    both = [builder.static("View", [node.input[k]], shape=[-1]) for k in (0, 2)]
    joined = builder.emit("Concat", both, axis=0)
    select_places(builder, joined, chosen.reshape(shape), node.output[0])
