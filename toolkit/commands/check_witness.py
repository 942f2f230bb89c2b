"""``prunecert check-witness``: judge a counterexample file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from toolkit.commands.arguments import network_paths
from toolkit.formats.binding import bind, check_binding
from toolkit.formats.onnx_file import load_model
from toolkit.formats.read import read_query
from toolkit.formats.witness import open_sessions
from toolkit.formats.witness_check import Classification, classify

CREDITED = {Classification.CORRECT, Classification.CORRECT_UP_TO_TOLERANCE}


def check_witness(
    net: str,
    spec: Path,
    witness: Path,
    /,
    *,
    network: Annotated[list[str], Parameter(negative=())] = [],  # noqa: B006
) -> int:
    """Judge a counterexample with onnxruntime, as VNN-COMP's scorer does.

    The first line on stdout is correct, correct_up_to_tolerance, spec_not_violated, wrong_shape, malformed or missing.
    The exit code is 0 for the first two and 1 for the others.

    Parameters
    ----------
    net
        The network, .onnx or .onnx.gz, or NAME=PATH.
    spec
        The specification, plain or .gz.
    witness
        The counterexample file, plain or .gz.
    network
        NAME=PATH of further networks of the specification.
    """
    query = read_query(spec)
    models = {name: load_model(path) for name, path in network_paths([net, *network]).items()}
    check_binding(query, bind(query, models))
    verdict, explanation = classify(open_sessions(models, query), query, witness)
    print(verdict.value)
    print(explanation)
    return 0 if verdict in CREDITED else 1
