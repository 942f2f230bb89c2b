"""Operators that move values or vanish: whatever version they come from, their parameters become attributes."""

from __future__ import annotations

import numpy as np
import onnx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.graph_builder import GraphBuilder, rewrite
from toolkit.formats.onnx.node_rewrites.nodes import attribute, integers, select_rows
from toolkit.formats.onnx.probe import TensorFacts

PRECISION: dict[int, tuple[int, int]] = {
    onnx.TensorProto.DOUBLE: (53, 11),
    onnx.TensorProto.FLOAT: (24, 8),
    onnx.TensorProto.FLOAT16: (11, 5),
    onnx.TensorProto.BFLOAT16: (8, 8),
}
"""Floating types by their digits and the bits of their exponent."""


def _loses(source: int, target: int) -> bool:
    """Whether some number of one floating type is none of another."""
    return any(old > new for old, new in zip(PRECISION[source], PRECISION[target], strict=True))


@rewrite("Dropout")
def dropout(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Emit nothing, at inference: the result is the operand, and the mask is all true."""
    if len(node.input) > 2 and node.input[2] and facts.constant(node.input[2], node).any():
        raise UnsupportedError(f"{facts.where(node)}: in training mode; export in evaluation mode")
    builder.alias(node.output[0], node.input[0])
    for mask in node.output[1:]:
        builder.alias(mask, builder.constant(facts.values[mask]))


@rewrite("Cast", "CastLike")
def cast(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Emit nothing when the type stays; between floating types, one operator that rounds and one that does not."""
    source, target = (
        onnx.helper.np_dtype_to_tensor_dtype(facts.values[name].dtype) for name in (node.input[0], node.output[0])
    )
    if source == target:
        builder.alias(node.output[0], node.input[0])
    elif source in PRECISION and target in PRECISION:
        op_type = "Narrow" if _loses(source, target) else "Widen"
        builder.static(op_type, [node.input[0]], node.output[0], to=target)
    else:
        builder.emit("Cast", [node.input[0]], node.output[0], to=target)


@rewrite("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def view(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Rewrite an operator that reshapes to a view of the output's shape; values stay in row-major order."""
    if len(node.input) > 1 and node.input[1]:
        facts.constant(node.input[1], node)
    builder.static("View", [node.input[0]], node.output[0], shape=list(facts.shape(node.output[0])))


@rewrite("Expand")
def expand(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Broadcasting to the shape of the output."""
    facts.constant(node.input[1], node)
    builder.static("Expand", [node.input[0]], node.output[0], shape=list(facts.shape(node.output[0])))


@rewrite("Tile")
def tile(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Repetition along each axis."""
    repeats = facts.constant(node.input[1], node)
    builder.static("Tile", [node.input[0]], node.output[0], repeats=[int(r) for r in repeats])


@rewrite("Slice")
def slice_(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """One static slice or, for a negative step, selection of rows for each axis."""
    shape = facts.shape(node.input[0])
    starts, ends = integers(node, facts, "starts", 1) or [], integers(node, facts, "ends", 2) or []
    axes = integers(node, facts, "axes", 3) or list(range(len(starts)))
    steps = integers(node, facts, "steps", 4) or [1] * len(starts)
    current = node.input[0]
    for start, end, given, step in zip(starts, ends, axes, steps, strict=True):
        axis = given % len(shape)
        rows = range(*slice(start, end, step).indices(shape[axis]))
        if rows == range(shape[axis]):
            continue
        if step > 0:
            stop = max(rows.stop, rows.start)
            current = builder.static("Slice", [current], axis=axis, start=rows.start, end=stop, step=step)
        else:
            current = select_rows(builder, current, axis, np.array(rows, dtype=np.int64))
    builder.alias(node.output[0], current)


@rewrite("Gather")
def gather(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Selection of rows by constant indices; kept as it is when the indices depend on the inputs."""
    if node.input[1] not in facts.constants:
        builder.copy(node, facts.used)
        return
    shape = facts.shape(node.input[0])
    axis = attribute(node, "axis", 0) % len(shape)
    index = facts.values[node.input[1]]
    rows = select_rows(builder, node.input[0], axis, np.where(index < 0, index + shape[axis], index).reshape(-1))
    builder.static("View", [rows], node.output[0], shape=list(facts.shape(node.output[0])))


@rewrite("Split")
def split(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """One slice for each output."""
    axis = attribute(node, "axis", 0) % len(facts.shape(node.input[0]))
    start = 0
    for name in node.output:
        end = start + facts.shape(name)[axis]
        builder.static("Slice", [node.input[0]], name, axis=axis, start=start, end=end, step=1)
        start = end
