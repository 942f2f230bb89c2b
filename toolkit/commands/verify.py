"""``prunecert verify``: the solver interface of the VNN-LIB standard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import onnx
from cyclopts import Parameter

from toolkit.commands.arguments import network_paths
from toolkit.errors import UnsupportedError
from toolkit.formats.query import Query
from toolkit.formats.read import read_query
from toolkit.formats.witness import Witness, witness_text
from toolkit.result import Result, Verdict
from toolkit.settings import Settings

DEFAULTS = Settings()
WORDS = {
    Verdict.SAT: "sat", Verdict.UNSAT: "unsat", Verdict.UNKNOWN: "unknown", Verdict.TIMEOUT: "timed-out",
}  # fmt: skip


def verify(
    query: Path,
    /,
    *,
    network: Annotated[list[str], Parameter(negative=())],
    serialise_assignments: Annotated[Path | None, Parameter(alias="--assignments")] = None,
    real_semantics: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[Settings, Parameter(name="*")] = DEFAULTS,
) -> int:
    """Decide a VNN-LIB query about ONNX networks.

    The first line on stdout is sat, unsat, unknown or timed-out; after sat follows the assignment. Everything else
    goes to stderr.

    Parameters
    ----------
    query
        The specification, VNN-LIB 1.0 or 2.x, plain or .gz.
    network
        NAME=PATH for each network of the specification, or the PATH of its only one; .onnx or .onnx.gz.
    serialise_assignments
        Write the assignment to this folder, a TensorProto NAME.pb for each variable, instead of stdout.
    real_semantics
        Read declared floating-point types as real numbers: unsat is then proved for exact arithmetic.
    settings
        Settings of the verifier.
    """
    from toolkit.search.clock import Clock
    from toolkit.verify import load_networks, verify

    paths = network_paths(network)
    clock = Clock.started(settings.timeout)
    parsed = read_query(query)
    if not real_semantics:
        _refuse_float_types(parsed, query)
    return _report(verify(load_networks(paths), parsed, settings, clock=clock), serialise_assignments)


def _refuse_float_types(query: Query, path: Path) -> None:
    """The standard wants an error from a solver that is not sound for the declared types."""
    typed = [tensor for tensor in query.tensors if tensor.dtype != "real"]
    if typed:
        raise UnsupportedError(
            f"{path}: '{typed[0].name}' is declared {typed[0].dtype}, and proofs are for real arithmetic;"
            " accept that with --real-semantics"
        )


def _report(result: Result, folder: Path | None) -> int:
    if result.reason:
        print(result.reason, file=sys.stderr)
    if result.verdict == Verdict.ERROR:
        return 1
    print(WORDS[result.verdict])
    if result.witness is not None and folder is not None:
        write_tensors(result.witness, folder)
    elif result.witness is not None:
        print(witness_text(result.witness), end="")
    return 0


def write_tensors(witness: Witness, folder: Path) -> None:
    """Write each variable as an ONNX TensorProto file ``NAME.pb``."""
    folder.mkdir(parents=True, exist_ok=True)
    for tensor, value in zip(witness.tensors, witness.values, strict=True):
        proto = onnx.numpy_helper.from_array(value, tensor.name)
        (folder / f"{tensor.name}.pb").write_bytes(proto.SerializeToString())
