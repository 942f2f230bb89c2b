"""What depends on what in an ONNX graph, told from the graph alone: no torch, nothing is run.

A tensor is *constant* when it does not depend on the values of the inputs. Shapes are concrete, so what depends on the
shape or the element type of a tensor alone is constant too.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

import onnx

from toolkit.ops import ONNX, OnnxOperator, OperatorKind

STANDARD = frozenset({"", "ai.onnx"})
"""Names of the domain of the ONNX standard's own operators."""


def record(node: onnx.NodeProto) -> OnnxOperator:
    """What is known about a node's operator."""
    found = ONNX.get(node.op_type) if node.domain in STANDARD else None
    return OnnxOperator(node.op_type, OperatorKind.REFUSED) if found is None else found


def operands(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads: its operands, and what its subgraphs read of the graph around them."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        inside |= {tensor.values.name for tensor in graph.sparse_initializer}
        inside |= {name for inner in graph.node for name in inner.output}
        read = [name for inner in graph.node for name in operands(inner)] + [value.name for value in graph.output]
        yield from (name for name in read if name not in inside)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Graphs among the attributes of a node: branches and bodies."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def is_random(node: onnx.NodeProto) -> bool:
    """Whether a node, or one in its subgraphs, computes something else each time."""
    inside = (inner for graph in subgraphs(node) for inner in graph.node)
    return record(node).random or any(is_random(inner) for inner in inside)


def live_nodes(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> tuple[onnx.NodeProto, ...]:
    """The nodes that some tensors depend on, in order."""
    needed = set(outputs)
    live = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(operands(node))
    return tuple(live[::-1])


def constant_names(nodes: Iterable[onnx.NodeProto], initializers: Iterable[str]) -> frozenset[str]:
    """Tensors of a sorted graph that do not depend on the inputs, initializers included."""
    constants = set(initializers)
    for node in nodes:
        if not is_random(node) and all(name in constants for name in _read_by_value(node)):
            constants.update(name for name in node.output if name)
    return frozenset(constants)


def reached_results(graph: onnx.GraphProto) -> list[str]:
    """Results of nodes that some input reaches, if by its shape alone: constants are no values of the network."""
    weights = {tensor.name for tensor in graph.initializer}
    reached, names = {value.name for value in graph.input} - weights, list[str]()
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            names += [name for name in node.output if name]
    return names


def _read_by_value(node: onnx.NodeProto) -> Iterable[str]:
    positions = record(node).by_value
    return operands(node) if positions is None else [node.input[k] for k in positions if k < len(node.input)]


def describe(path: Path, opset: int, node: onnx.NodeProto) -> str:
    """File, operator, version and node, for messages."""
    domain = node.domain + "." if node.domain not in STANDARD else ""
    name = node.name or next(iter(node.output), "")
    kind = " ".join(f"{domain}{node.op_type}".split())
    return f"{path}: operator {kind} (opset {opset}, node {name!r})"


def refusal(node: onnx.NodeProto, constants: Container[str]) -> str:
    """Why the network that a node belongs to is none with fixed shapes; empty where the node is no obstacle."""
    if node.op_type == "If" and node.domain in STANDARD and node.input[0] in constants:
        return ""  # its branch stands for it
    if is_random(node):
        return "the network is random"
    if all(name in constants for name in node.output if name):
        return ""
    if any(True for _ in subgraphs(node)):
        return "control flow that depends on the input is not supported; export without it"
    shaped_by = [node.input[k] for k in record(node).shaped_by if k < len(node.input) and node.input[k]]
    varying = next((name for name in shaped_by if name not in constants), None)
    if varying is None:
        return ""
    return f"the shape of its result depends on the value of {varying!r}, which depends on the input of the network"
