"""``prunecert inspect``: what a network and a specification contain, and what the verifier would do with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import onnx
from cyclopts import Parameter
from cyclopts.validators import Number

from toolkit.commands.arguments import Flag, MemoryLimit, memory_of, network_paths, print_json
from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, TensorInfo
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import Cases
from toolkit.run.forked_query import ProcessLimits, ProcessOverdue, run_forked, seconds_passed

if TYPE_CHECKING:
    from toolkit.problem.operator_survey import OperatorSurvey
    from toolkit.verify import LoadedNetwork, LoadedQuery


def inspect(
    net: str,
    spec: Path | None = None,
    /,
    *,
    network: Annotated[list[str], Parameter(negative=())] = [],  # noqa: B006
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    memory_limit: MemoryLimit = None,
    json: Flag = False,
) -> int:
    """Show what a network and a specification contain and what would be tried.

    The networks are imported as they would be for a proof, so that what is said to have bounds has them.

    Parameters
    ----------
    net
        The network, .onnx or .onnx.gz, or NAME=PATH.
    spec
        The specification, plain or .gz.
    network
        NAME=PATH of further networks of the specification.
    timeout
        Time limit in seconds.
    memory_limit
        Memory that may be taken, in GiB; by default what the machine has left.
    json
        Print one JSON object instead.
    """
    limits = ProcessLimits(timeout - seconds_passed(), memory_of(memory_limit))
    try:
        found = run_forked(partial(_inspected, net, spec, network), limits)
    except ProcessOverdue:
        raise InputError(f"{net}: not read and run once within {timeout:g} s; --timeout sets another limit") from None
    if json:
        print_json(found)
    else:
        print("\n".join(_lines(found)))
    return 0


def _inspected(net: str, spec: Path | None, network: Sequence[str]) -> dict[str, Any]:
    """Everything that is told, of JSON's types."""
    from toolkit.verify import load_networks, load_query

    networks = load_networks(network_paths([net, *network]))
    surveys = [(opened.model, _surveyed(opened)) for opened in networks.values()]
    reason = next((found.reason for _, found in surveys if found.reason), "")
    query = None
    if spec is not None:
        loaded = load_query(networks, read_query(spec))
        reason, query = _reason(loaded), _query_values(loaded.query, loaded.cases, spec)
    models = [_model_values(model, found) for model, found in surveys]
    return {"networks": models, "specification": query, "bounded": not reason, "plan": _plan(reason)}


def _surveyed(network: LoadedNetwork) -> OperatorSurvey:
    """The operators of a network, and why it cannot be bounded, if it cannot."""
    from toolkit.problem.operator_survey import OperatorSurvey, survey

    try:
        return survey(network.binding)
    except UnsupportedError as error:
        return OperatorSurvey([], str(error))


def _reason(loaded: LoadedQuery) -> str:
    """Why the networks, as far as the query needs them, cannot be bounded; empty where they can."""
    from toolkit.problem.compile import compile_question, traced_features
    from toolkit.problem.operator_table import check_supported

    try:
        loaded.check_operators()
        compile_question(loaded.cases)
        bindings = {name: network.binding for name, network in loaded.needed.items()}
        check_supported(traced_features(loaded.query, bindings, loaded.cases).graph)
    except UnsupportedError as error:
        return str(error)
    return ""


def _plan(reason: str) -> str:
    if reason:
        return f"random points only, as something cannot be bounded: {reason}"
    return "random points, root bounds, gradient attack, branch and bound"


def _parameters(graph: onnx.GraphProto) -> int:
    """Numbers that the network was trained to: floats, and integers that are dequantised, without their scales."""
    dequantising = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    quantised = {node.input[0] for node in dequantising}
    scales = {name for node in graph.node if node.op_type == "QuantizeLinear" for name in node.input[1:]}
    scales.update(name for node in dequantising for name in node.input[1:])
    return sum(
        math.prod(tensor.dims)
        for tensor in graph.initializer
        if tensor.name not in scales and (tensor.data_type in _FLOATS or tensor.name in quantised)
    )


def _model_values(model: OnnxModel, found: OperatorSurvey) -> dict[str, Any]:
    return {
        "path": str(model.path),
        "sha256": model.sha256,
        "operator_set": model.opset,
        "producer": f"{model.proto.producer_name or 'unknown'} {model.proto.producer_version}",
        "metadata": {entry.key: entry.value for entry in model.proto.metadata_props},
        "inputs": [_tensor_values(info) for info in model.inputs],
        "outputs": [_tensor_values(info) for info in model.outputs],
        "parameters": _parameters(model.proto.graph),
        "relu_neurons": sum(row.neurons for row in found.rows if row.op_type == "Relu"),
        "operators": [
            {"name": row.op_type, "count": row.count, "handling": row.handling, "supported": row.supported}
            for row in found.rows
        ],
        "reason": found.reason,
    }


_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def _tensor_values(info: TensorInfo) -> dict[str, Any]:
    shape = [str(dim or "?") for dim in info.declared_shape or ()]
    return {"name": info.name, "type": str(info.dtype), "shape": shape, "elements": info.size}


def _query_values(query: Query, cases: Cases, path: Path) -> dict[str, Any]:
    widths = cases.upper - cases.lower
    return {
        "path": str(path),
        "version": query.version,
        "networks": {one.name: {tensor.name: tensor.size for tensor in one.tensors} for one in query.networks},
        "boxes": len(cases.lower),
        "inputs": len(cases.inputs),
        "mean_width": float(widths.mean()) if widths.size else None,
        "largest_width": float(widths.max()) if widths.size else None,
        "fixed_inputs": int((widths == 0).all(axis=0).sum()) if widths.size else 0,
        "cases": len(cases),
        "atoms": len(cases.atoms),
        "products": len(query.products),
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """What was found, for people."""
    for model in found["networks"]:
        yield from _model_lines(model)
    if found["specification"]:
        yield from _query_lines(found["specification"])
    yield f"plan            {found['plan']}"


def _model_lines(model: dict[str, Any]) -> Iterator[str]:
    yield f"network         {model['path']}"
    yield f"  sha256        {model['sha256']}"
    yield f"  operator set  {model['operator_set']}, by {model['producer']}"
    for name, value in model["metadata"].items():
        yield f"  {name:<13} {value}"
    for kind in ("input", "output"):
        for one in model[f"{kind}s"]:
            yield f"  {kind:<13} {one['name']} {one['type']} [{', '.join(one['shape'])}], {one['elements']} elements"
    yield f"  parameters    {model['parameters']:,}"
    yield f"  ReLU neurons  {model['relu_neurons']:,}"
    for row in model["operators"]:
        yield f"  {' ' if row['supported'] else '!'} {row['name']:<20} {row['count']:>5}  {row['handling']}"
    if model["reason"]:
        yield f"  ! {model['reason']}"


def _query_lines(query: dict[str, Any]) -> Iterator[str]:
    yield f"specification   {query['path']}"
    yield f"  version       {query['version']}"
    for name, tensors in query["networks"].items():
        yield f"  network       {name}: {', '.join(f'{tensor} ({size})' for tensor, size in tensors.items())}"
    yield f"  boxes         {query['boxes']} of {query['inputs']} inputs"
    if query["mean_width"] is not None:
        widths = f"mean {query['mean_width']:.4g}, largest {query['largest_width']:.4g}"
        yield f"  widths        {widths}; {query['fixed_inputs']} inputs fixed"
    yield f"  cases         {query['cases']}, over {query['atoms']} atoms"
    if query["products"]:
        yield f"  products      {query['products']} of variables"
