"""What a model would take, found out before anything of it is run: a file of 300 bytes can ask for all memory there is.

Functions are counted before they are expanded. The shapes of all tensors are inferred, on a copy without the weights,
and their sizes added up: whoever runs the model holds them all. What inference cannot see (shapes that depend on
values, loops) is left to limits on time and memory of the process (`toolkit.run`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.shape_inference
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from toolkit.errors import InputError, UnsupportedError
from toolkit.tuning import tuned

Key = tuple[str, str, str]
"""Domain, name and overload of a function."""


def check_size(path: Path, proto: ModelProto) -> None:
    """Refuse a model that would take more than any machine has.

    Raises :class:`UnsupportedError` naming the node, and :class:`InputError` for inputs and outputs that are declared
    too large and for functions that call themselves.
    """
    _check_declared(path, proto)
    _check_functions(path, proto)
    _check_sparse(path, proto)
    _check_divisions(path, proto)
    _check_tensors(path, proto)


def too_large(bits: int, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of so many bits an element takes more than one tensor may."""
    return math.prod(shape) * bits > 8 * tuned().networks.most_tensor_bytes


def _check_functions(path: Path, proto: ModelProto) -> None:
    limits = tuned().networks
    bodies = {(entry.domain, entry.name, _overload(entry)): entry.node for entry in proto.functions}
    known: dict[Key, int] = {}

    def expanded(nodes: Iterable[NodeProto], above: tuple[Key, ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type, _overload(node))
            if key in bodies and key not in known:
                if key in above:
                    raise InputError(f"{path}: function {node.op_type!r} calls itself")
                if len(above) == limits.deepest_functions:
                    deepest = limits.deepest_functions
                    raise UnsupportedError(f"{path}: functions nested in each other more than {deepest} deep")
                known[key] = expanded(_with_subgraphs(bodies[key]), (*above, key))
            total += 1 + known.get(key, 0)
            if total > limits.most_function_nodes:
                where = f"function {above[-1][1]!r}" if above else "the graph"
                raise UnsupportedError(f"{path}: {where} expands to more than {limits.most_function_nodes} nodes")
        return total

    if bodies:
        expanded(_with_subgraphs(proto.graph.node), ())


def _overload(entry: NodeProto | onnx.FunctionProto) -> str:
    return str(getattr(entry, "overload", ""))  # of new versions of the format


def _with_subgraphs(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _with_subgraphs(graph.node)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _check_sparse(path: Path, proto: ModelProto) -> None:
    for tensor in proto.graph.sparse_initializer:
        if too_large(_bits(tensor.values.data_type), tuple(tensor.dims)):
            name = tensor.values.name
            raise UnsupportedError(f"{path}: the sparse tensor {name!r} is too large: {_size(tuple(tensor.dims))}")


def _check_divisions(path: Path, proto: ModelProto) -> None:
    """Refuse divisions of constant integers that have no result, which end the process that tries them."""
    constants = _small_constants(proto.graph)
    for node in proto.graph.node:
        if node.op_type not in {"Div", "Mod"} or len(node.input) != 2:
            continue
        dividend, divisor = (constants.get(name) for name in node.input)
        if divisor is None or divisor.dtype.kind not in "iu" or not divisor.size:
            continue
        if not divisor.all():
            raise UnsupportedError(f"{path}: {_name(node)} divides integers by zero")
        if node.op_type == "Div" and dividend is not None and _least_by_minus_one(dividend, divisor):
            raise UnsupportedError(
                f"{path}: {_name(node)} divides the least {dividend.dtype} by -1, which has no result"
            )


def _least_by_minus_one(dividend: np.ndarray, divisor: np.ndarray) -> bool:
    if dividend.dtype.kind != "i":
        return False
    try:
        return bool(((dividend == np.iinfo(dividend.dtype).min) & (divisor == -1)).any())
    except ValueError:  # shapes that do not broadcast
        return False


def _small_constants(graph: GraphProto) -> dict[str, np.ndarray]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    constants = [node for node in graph.node if node.op_type == "Constant" and node.output]
    tensors |= {node.output[0]: entry.t for node in constants for entry in node.attribute if entry.name == "value"}
    found = {}
    for name, tensor in tensors.items():
        if tensor.data_type != TensorProto.STRING and math.prod(tensor.dims) <= tuned().networks.most_followed_constant:
            try:
                found[name] = onnx.numpy_helper.to_array(tensor)
            except (ValueError, TypeError, KeyError):  # content that does not fit the shape: others say so
                continue
    return found


def _check_declared(path: Path, proto: ModelProto) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        shape = _shape(value)
        if too_large(_bits(value.type.tensor_type.elem_type), shape):
            raise InputError(f"{path}: {value.name!r} is declared too large: {_size(shape)}")


def _check_tensors(path: Path, proto: ModelProto) -> None:
    """Add up the sizes of all tensors: where shapes follow from values, with these, once all of them are short."""
    skeleton = _skeleton(proto)
    for with_values in (False, True):
        try:
            inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=with_values)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
            return  # whoever needs the shapes says what is wrong
        infos = list(_infos(inferred.graph))
        _check_infos(path, proto, infos)
        if _all_known(inferred.graph) or any(map(_is_long_list, infos)):
            return


def _check_infos(path: Path, proto: ModelProto, infos: list[ValueInfoProto]) -> None:
    total = 0
    for info in infos:
        shape, bits = _shape(info), _bits(info.type.tensor_type.elem_type)
        if too_large(bits, shape):
            raise UnsupportedError(f"{path}: {_origin(proto, info.name)} is too large: {_size(shape)}")
        total += math.prod(shape) * bits // 8
    if total > tuned().networks.most_bytes_together:
        raise UnsupportedError(f"{path}: its tensors take {total >> 30} GiB for one sample: too large")


def _shape(info: ValueInfoProto) -> tuple[int, ...]:
    """The shape with 1 in place of open dimensions."""
    return tuple(max(dim.dim_value, 1) for dim in info.type.tensor_type.shape.dim)


def _all_known(graph: GraphProto) -> bool:
    """Whether all tensors that nodes make have shapes, and these have no open dimension."""
    known = {info.name for info in (*graph.value_info, *graph.output) if _is_known(info)}
    return all(name in known for node in graph.node for name in node.output if name)


def _is_known(info: ValueInfoProto) -> bool:
    tensor = info.type.tensor_type
    return tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)


def _is_long_list(info: ValueInfoProto) -> bool:
    """Whether these may be integers so many that to follow their values would take long."""
    most = tuned().networks.most_followed_integers
    return len(info.type.tensor_type.shape.dim) <= 1 and math.prod(_shape(info)) > most


def _infos(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.value_info
    yield from graph.output
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from _infos(inner)


def _skeleton(proto: ModelProto) -> ModelProto:
    """The model at concrete input shapes (1 for open dimensions), its larger weights as inputs of their shapes."""
    graph = GraphProto(name="skeleton", node=proto.graph.node)
    listed = {value.name for value in proto.graph.input}
    for value in proto.graph.input:
        copy = graph.input.add()
        copy.CopyFrom(value)
        for dim in copy.type.tensor_type.shape.dim:
            if dim.dim_value <= 0:
                dim.Clear()
                dim.dim_value = 1
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= tuned().networks.most_followed_constant:
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph.output.extend(ValueInfoProto(name=value.name) for value in proto.graph.output)
    return ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions, graph=graph
    )


def _origin(proto: ModelProto, name: str) -> str:
    maker = next((node for node in proto.graph.node if name in node.output), None)
    return f"the output {name!r} of {_name(maker)}" if maker is not None else f"the tensor {name!r}"


def _name(node: NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"operator {node.op_type} (node {name!r})"


def _size(shape: tuple[int, ...]) -> str:
    return f"shape {list(shape)}, at most {tuned().networks.most_tensor_bytes >> 30} GiB"


def _bits(data_type: int) -> int:
    """Bits of an element, 8 where that is not known."""
    try:
        return 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except KeyError:
        return 8
