"""``prunecert convert``: between the versions of VNN-LIB."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from toolkit.commands.arguments import Flag, print_json
from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.convert_versions import downgrade, upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query
from toolkit.formats.vnnlib.write import write_query


def convert(
    spec: Path,
    /,
    *,
    to: Literal["1.0", "2.0"],
    output: Annotated[Path, Parameter(alias="-o")],
    network: Path | None = None,
    real: Flag = False,
    json: Flag = False,
) -> int:
    """Convert a specification between VNN-LIB 1.0 and 2.0.

    Parameters
    ----------
    spec
        The specification, plain or .gz.
    to
        The version to write.
    output
        The file to write, plain or .gz.
    network
        The network, .onnx or .onnx.gz: version 2.0 needs its shapes and element type.
    real
        Declare the tensors real instead of the network's element type.
    json
        Print what was written as one JSON object.
    """
    query = read_query(spec)
    write_query(downgrade(query) if to == "1.0" else _upgraded(query, spec, network, real), output, to)
    if json:
        print_json({"file": str(output), "version": to, "from": query.version})
    return 0


def _upgraded(query: Query, spec: Path, network: Path | None, real: bool) -> Query:
    if not query.version.startswith("1"):
        return query
    if network is None:
        raise InputError(f"{spec}: version 2.0 needs the shapes of the network; add --network PATH")
    model = load_model(network)
    shapes = [info.shape for info in model.inputs], [info.shape for info in model.outputs]
    if real:
        return upgrade(query, *shapes, dtype="real")
    return upgrade(query, *shapes, dtype=model.inputs[0].dtype, output_dtype=model.outputs[0].dtype)
