"""``prunecert check-witness``: judge a counterexample file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from toolkit.commands.arguments import Flag, network_paths, print_json
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.vnncomp.model_binding import bind, check_binding
from toolkit.formats.vnncomp.witness import Witness, open_sessions
from toolkit.formats.vnncomp.witness_check import Classification, classify, read_witness
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query

CREDITED = {Classification.CORRECT, Classification.CORRECT_UP_TO_TOLERANCE}


def check_witness(
    net: str,
    spec: Path,
    witness: Path,
    /,
    *,
    network: Annotated[list[str], Parameter(negative=())] = [],  # noqa: B006
    json: Flag = False,
) -> int:
    """Judge a counterexample with onnxruntime, as VNN-COMP's scorer does.

    Where the specification declares its tensors real, it has to hold in real arithmetic, too.

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
    json
        Print one JSON object instead.
    """
    query = read_query(spec)
    models = {name: load_model(path) for name, path in network_paths([net, *network]).items()}
    check_binding(query, bind(query, models))
    verdict, explanation = classify(open_sessions(models, query), query, witness)
    if verdict is Classification.CORRECT and query.over_reals:
        verdict, explanation = _over_reals(models, query, witness)
    if json:
        print_json({"classification": verdict.value, "explanation": explanation})
    else:
        print(f"{verdict.value}\n{explanation}")
    return 0 if verdict in CREDITED else 1


def _over_reals(models: Mapping[str, OnnxModel], query: Query, path: Path) -> tuple[Classification, str]:
    """The class of a witness that holds as onnxruntime computes, under a specification about real numbers."""
    from toolkit.agreement.real_semantics import holds_over_reals
    from toolkit.verify import LoadedNetwork, load_query

    loaded = load_query({name: LoadedNetwork(model) for name, model in models.items()}, query)
    given = read_witness(path, query)
    witness = Witness(query.version, query.tensors, tuple(given[tensor.name] for tensor in query.tensors))
    holds = holds_over_reals(query, bind(query, models), witness, loaded.imported_whole)
    if holds is None:
        return Classification.CORRECT, "the specification holds for the replayed outputs; in real arithmetic, unknown"
    if holds:
        return Classification.CORRECT, "the specification holds for the replayed outputs, and in real arithmetic"
    return (
        Classification.SPEC_NOT_VIOLATED,
        "the specification declares real numbers and does not hold over them, but for the replayed outputs alone",
    )
