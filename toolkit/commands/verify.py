"""``prunecert verify``: the solver interface of the VNN-LIB standard."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from toolkit.commands.arguments import MemoryLimit, memory_of
from toolkit.errors import ExitCode, ToolkitError
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.run.forked_query import ProcessCrashed, ProcessLimits, ProcessOverdue, run_forked, seconds_passed
from toolkit.run.memory_limits import refused
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.formats.vnncomp.witness import Witness
    from toolkit.run.events import Event

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
    memory_limit: MemoryLimit = None,
    certificate: Path | None = None,
    certified: Annotated[bool, Parameter(negative=())] = False,
    settings: Annotated[Settings, Parameter(name="*")] = DEFAULTS,
) -> ExitCode:
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
    memory_limit
        Memory of each process in GiB, by default what the machine has left, and without a limit beside GPUs. Where it
        is short, batches become smaller, and then the answer is unknown.
    certificate
        Write a proof of unsat to this file, for `prunecert check`, which shares nothing with the search. It implies
        --certifiable.
    certified
        Answer unsat only after the checker has accepted the certificate, within the time limit; else the answer is
        unknown.
    settings
        Settings of the verifier.
    """
    # Starting up counts, but a short limit is not over before anything was done.
    spent = min(seconds_passed(), settings.timeout / 2)
    clock = Clock.started(settings.timeout, spent, settings.passes)
    work = partial(_decide, query, tuple(network), serialise_assignments, (certificate, certified), settings, clock)
    try:
        answer = run_forked(work, ProcessLimits(settings.timeout - clock.seconds, memory_of(memory_limit)))
    except ProcessOverdue:
        answer = _Answer(Verdict.TIMEOUT, f"time limit of {settings.timeout:g} s")
    except ProcessCrashed as error:
        hint = "" if memory_limit is None else f", with {memory_limit:g} GiB to work in"
        answer = _Answer(Verdict.UNKNOWN, f"{error}{hint}")
    except Exception as error:
        if isinstance(error, ToolkitError) or not refused(error):
            raise
        answer = _Answer(Verdict.UNKNOWN, f"out of memory: {' '.join(str(error).split())[:200]}")
    return _tell(answer)


@dataclass(frozen=True)
class _Answer:
    """What is told of a result."""

    verdict: Verdict
    reason: str
    assignment: str = ""
    """Text of the witness, where it is to be printed."""


def _decide(
    query: Path,
    network: Sequence[str],
    folder: Path | None,
    proof: tuple[Path | None, bool],
    settings: Settings,
    clock: Clock,
) -> _Answer:
    """Everything that needs the files, in a process of its own."""
    from toolkit.commands.arguments import network_paths
    from toolkit.formats.vnnlib.read import read_query
    from toolkit.verify import load_networks, verify

    paths = network_paths(network)
    networks, notes, (certificate, certified) = load_networks(paths), _Notes(), proof
    if certificate is None and not certified:
        return _answer(verify(networks, read_query(query), settings, notes, clock), folder)
    from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate

    with TemporaryDirectory() as name:
        files = ProofFiles(paths, query, certificate or Path(name) / "certificate")
        result = verify_with_certificate(files, networks, settings, notes, clock, _say, certified)
    return _answer(result, folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class _Notes:
    """Says on stderr, as soon as it is known and once, why nothing can be proved."""

    told: str = ""

    def __call__(self, event: Event) -> None:
        from toolkit.run.events import NoBounds

        if isinstance(event, NoBounds) and event.reason != self.told:
            self.told = event.reason
            print(f"cannot be proved, only refuted by points: {event.reason}", file=sys.stderr, flush=True)


def _answer(result: Result, folder: Path | None) -> _Answer:
    """The result without its witness, which is written to the folder or becomes text."""
    from toolkit.formats.vnncomp.witness import witness_text

    assignment = ""
    if result.witness is not None and folder is not None:
        write_tensors(result.witness, folder)
    elif result.witness is not None:
        assignment = witness_text(result.witness)
    return _Answer(result.verdict, result.reason, assignment)


def _tell(answer: _Answer) -> ExitCode:
    if answer.reason:
        print(answer.reason, file=sys.stderr)
    if answer.verdict == Verdict.ERROR:
        return ExitCode.INTERNAL_ERROR
    print(WORDS[answer.verdict])
    print(answer.assignment, end="")
    return ExitCode.DONE


def write_tensors(witness: Witness, folder: Path) -> None:
    """Write each variable as an ONNX TensorProto file ``NAME.pb``."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    for tensor, value in zip(witness.tensors, witness.values, strict=True):
        proto = onnx.numpy_helper.from_array(value, tensor.name)
        (folder / f"{tensor.name}.pb").write_bytes(proto.SerializeToString())
