"""``prunecert inspect``: what a network and a specification contain, and what the verifier would do with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import onnx
from cyclopts import Parameter
from cyclopts.validators import Number

from toolkit.commands.arguments import MemoryLimit, memory_of, network_paths
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
    """
    limits = ProcessLimits(timeout - seconds_passed(), memory_of(memory_limit))
    try:
        print(run_forked(partial(_inspected, net, spec, network), limits))
    except ProcessOverdue:
        raise InputError(f"{net}: not read and run once within {timeout:g} s; --timeout sets another limit") from None
    return 0


def _inspected(net: str, spec: Path | None, network: Sequence[str]) -> str:
    """The whole text."""
    from toolkit.verify import load_networks, load_query

    networks = load_networks(network_paths([net, *network]))
    lines, reason = list[str](), ""
    for opened in networks.values():
        found = _surveyed(opened)
        reason = reason or found.reason
        lines += _describe_model(opened.model, found)
    if spec is not None:
        loaded = load_query(networks, read_query(spec))
        reason = _reason(loaded)
        lines += _describe_query(loaded.query, loaded.cases, spec)
    return "\n".join([*lines, f"plan            {_plan(reason)}"])


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


def _describe_model(model: OnnxModel, found: OperatorSurvey) -> Iterator[str]:
    yield f"network         {model.path}"
    yield f"  sha256        {model.sha256}"
    yield f"  operator set  {model.opset}, by {model.proto.producer_name or 'unknown'} {model.proto.producer_version}"
    for entry in model.proto.metadata_props:
        yield f"  {entry.key:<13} {entry.value}"
    for title, infos in (("input", model.inputs), ("output", model.outputs)):
        for info in infos:
            yield f"  {title:<13} {_describe_tensor(info)}"
    yield f"  parameters    {_parameters(model.proto.graph):,}"
    yield f"  ReLU neurons  {sum(row.neurons for row in found.rows if row.op_type == 'Relu'):,}"
    for row in found.rows:
        mark = " " if row.supported else "!"
        yield f"  {mark} {row.op_type:<20} {row.count:>5}  {row.handling}"
    if found.reason:
        yield f"  ! {found.reason}"


_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


def _describe_tensor(info: TensorInfo) -> str:
    declared = ", ".join(str(dim or "?") for dim in info.declared_shape or ())
    return f"{info.name} {info.dtype} [{declared}], {info.size} elements"


def _describe_query(query: Query, cases: Cases, path: Path) -> Iterator[str]:
    yield f"specification   {path}"
    yield f"  version       {query.version}"
    for network in query.networks:
        yield f"  network       {network.name}: {', '.join(f'{t.name} ({t.size})' for t in network.tensors)}"
    widths = cases.upper - cases.lower
    yield f"  boxes         {len(cases.lower)} of {len(cases.inputs)} inputs"
    if widths.size:
        fixed = int((widths == 0).all(axis=0).sum())
        yield f"  widths        mean {widths.mean():.4g}, largest {widths.max():.4g}; {fixed} inputs fixed"
    yield f"  cases         {len(cases)}, over {len(cases.atoms)} atoms"
    if query.products:
        yield f"  products      {len(query.products)} of variables"
