"""A model without the conditional nodes whose condition is known: the branch that is taken stands in their place.

Exporters write ``If`` where a shape decides (a squeeze of an axis that might not be 1); at concrete shapes the
condition is a constant. Its value is learnt by running the model with onnxruntime; no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import STANDARD, constant_names, live_nodes, subgraphs
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.probe import sample_inputs
from toolkit.formats.onnx.runtime import Session
from toolkit.tuning import tuned


def with_known_branches(model: OnnxModel) -> OnnxModel:
    """The model with the taken branch of every ``If`` whose condition does not depend on the inputs.

    Branches inside branches are taken as well. The same object where there is nothing to do. Raises UnsupportedError
    for graphs that grow without bound.
    """
    number = 0
    while known := _known_conditions(model):
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        del proto.graph.node[:]
        for node in model.proto.graph.node:
            if _is_conditional(node) and node.input[0] in known:
                number += 1
                _take(node, known[node.input[0]], f"branch_{number}/", proto.graph)
            else:
                proto.graph.node.append(node)
        if len(proto.graph.node) > tuned().networks.most_branch_nodes:
            raise UnsupportedError(f"{model.path}: its branches have over {tuned().networks.most_branch_nodes:,} nodes")
        model = replace(model, proto=proto, data=proto.SerializeToString())
    return model


def _is_conditional(node: onnx.NodeProto) -> bool:
    return node.op_type == "If" and node.domain in STANDARD


def _known_conditions(model: OnnxModel) -> dict[str, bool]:
    """Values of the conditions that do not depend on the inputs, by name."""
    graph = model.proto.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    live = live_nodes(graph.node, [info.name for info in model.outputs])
    constants = constant_names(live, initializers)
    names = {node.input[0] for node in live if _is_conditional(node)} & constants
    values = {name: onnx.numpy_helper.to_array(initializers[name]) for name in names & set(initializers)}
    computed = sorted(names - set(values))
    if computed:
        results = Session(model, hidden=computed, optimise=False).run_undeclared(sample_inputs(model))
        values.update(zip(computed, results[len(model.outputs) :], strict=True))
    return {name: bool(value.reshape(-1)[0]) for name, value in values.items()}


def _take(node: onnx.NodeProto, condition: bool, prefix: str, graph: onnx.GraphProto) -> None:
    """Append the nodes and weights of a branch to a graph, under names of their own."""
    [branch] = [a.g for a in node.attribute if a.name == ("then_branch" if condition else "else_branch")]
    inside = [name for inner in branch.node for name in inner.output if name]
    inside += [tensor.name for tensor in branch.initializer]
    inside += [tensor.values.name for tensor in branch.sparse_initializer]
    names = {name: prefix + name for name in inside}
    for tensor in branch.initializer:
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = names[tensor.name]
    for sparse in branch.sparse_initializer:
        graph.sparse_initializer.add().CopyFrom(sparse)
        graph.sparse_initializer[-1].values.name = names[sparse.values.name]
    for inner in branch.node:
        graph.node.append(_renamed(inner, names))
        graph.node[-1].name = prefix + inner.name if inner.name else ""
    for result, value in zip(node.output, branch.output, strict=False):
        if result:
            graph.node.append(onnx.helper.make_node("Identity", [names.get(value.name, value.name)], [result]))


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy of a node under other names of tensors, in its subgraphs as well as far as they mean those around them."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for graph in subgraphs(copy):
        own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {name for inner in graph.node for name in inner.output}
        outer = {name: new for name, new in names.items() if name not in own}
        nodes = [_renamed(inner, outer) for inner in graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)
    return copy
