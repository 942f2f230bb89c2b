"""Sequences and optional values are resolved: what is read from them is the tensor that was put in.

The positions must be constants. A sequence that depends on the inputs is, while the graph is emitted, a list of names
of tensors (``GraphBuilder.sequences``); an optional value is what it holds.
"""

from __future__ import annotations

import onnx

from toolkit.formats.onnx.graph_builder import GraphBuilder, rewrite
from toolkit.formats.onnx.node_rewrites.nodes import attribute
from toolkit.formats.onnx.probe import TensorFacts


def is_sequence(name: str, facts: TensorFacts, builder: GraphBuilder) -> bool:
    """Whether a name stands for a sequence of tensors."""
    return name in builder.sequences or isinstance(facts.values.get(name), list)


def elements(name: str, facts: TensorFacts, builder: GraphBuilder) -> list[str]:
    """Names of the tensors in a sequence; those of a constant one become constants."""
    if name not in builder.sequences:
        builder.sequences[name] = [builder.constant(value) for value in facts.values[name]]
    return builder.sequences[name]


def _position(node: onnx.NodeProto, facts: TensorFacts, operand: int, count: int, default: int) -> int:
    """A constant position among ``count`` ones, counted from the front."""
    if len(node.input) <= operand or not node.input[operand]:
        return default
    position = int(facts.constant(node.input[operand], node).reshape(-1)[0])
    return position + count if position < 0 else position


@rewrite("SequenceConstruct")
def construct(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Make a sequence of the operands, in order."""
    builder.sequences[node.output[0]] = list(node.input)


@rewrite("SequenceInsert")
def insert(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Make a sequence with one more tensor, at a position or at the end."""
    parts = list(elements(node.input[0], facts, builder))
    # Counted from the back, a position is that among the tensors before the insertion.
    parts.insert(_position(node, facts, 2, len(parts), len(parts)), node.input[1])
    builder.sequences[node.output[0]] = parts


@rewrite("SequenceErase")
def erase(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Make a sequence without the tensor at a position, or without the last."""
    parts = list(elements(node.input[0], facts, builder))
    del parts[_position(node, facts, 1, len(parts), len(parts) - 1)]
    builder.sequences[node.output[0]] = parts


@rewrite("SequenceAt")
def at(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Give the tensor at a position of a sequence its new name."""
    parts = elements(node.input[0], facts, builder)
    builder.alias(node.output[0], parts[_position(node, facts, 1, len(parts), 0)])


@rewrite("SplitToSequence")
def split_to_sequence(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Slices of one axis, as many as there were when the model ran."""
    source = node.input[0]
    rank = len(facts.shape(source))
    axis, parts, start = attribute(node, "axis", 0) % rank, list[str](), 0
    dropped = not (len(node.input) > 1 and node.input[1]) and not attribute(node, "keepdims", 1)
    for value in facts.values[node.output[0]]:
        size = 1 if dropped else value.shape[axis]
        piece = builder.static("Slice", [source], axis=axis, start=start, end=start + size, step=1)
        parts.append(builder.static("View", [piece], shape=list(value.shape)) if dropped else piece)
        start += size
    builder.sequences[node.output[0]] = parts


@rewrite("ConcatFromSequence")
def concat_from_sequence(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """The tensors side by side, along an axis that they have or along a new one."""
    parts, rank = elements(node.input[0], facts, builder), len(facts.shape(node.output[0]))
    axis = attribute(node, "axis") % rank
    if attribute(node, "new_axis", 0):
        shape = list(facts.shape(node.output[0]))
        shape[axis] = 1
        parts = [builder.static("View", [part], shape=shape) for part in parts]
    builder.emit("Concat", parts, node.output[0], axis=axis)


@rewrite("Identity", "Optional", "OptionalGetElement")
def identity(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Emit nothing: the result is a second name of the operand, be that a tensor or a sequence."""
    if is_sequence(node.input[0], facts, builder):
        builder.sequences[node.output[0]] = elements(node.input[0], facts, builder)
    else:
        builder.alias(node.output[0], node.input[0])
