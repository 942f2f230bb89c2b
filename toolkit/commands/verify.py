"""``prunecert verify``: the solver interface of the VNN-LIB standard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from toolkit.commands.arguments import MemoryLimit, memory_of, network_paths
from toolkit.errors import ExitCode, InputError, ToolkitError, one_line
from toolkit.result import Result, Verdict
from toolkit.run.alarm import Overdue, out_of_time_after
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Event, NoBounds, Observer, ObserverGroup
from toolkit.run.forked_query import ProcessCrashed, ProcessLimits, ProcessOverdue, run_forked, seconds_passed
from toolkit.run.memory_limits import refused
from toolkit.settings import Settings
from toolkit.tuning import tuned

if TYPE_CHECKING:
    from toolkit.formats.vnncomp.witness import Witness

DEFAULTS = Settings()
WORDS = {
    Verdict.SAT: "sat", Verdict.UNSAT: "unsat", Verdict.UNKNOWN: "unknown", Verdict.TIMEOUT: "timed-out",
}  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class Telling:
    """What is told of a query besides its answer."""

    json: Annotated[bool, Parameter(negative=())] = False
    """Print one JSON object instead: verdict, reason, statistics, open cases, and the values of a counterexample."""
    events: Path | None = None
    """Write what happens to this file, a JSON object a line: phases, root bounds, rounds of branch and bound."""
    certificate: Path | None = None
    """Write a proof of unsat to this file, for `prunecert check`, which shares nothing with the search. It implies
    --certifiable."""


NOTHING_MORE = Telling()


def verify(
    *files: Path,
    network: Annotated[list[str] | None, Parameter(negative=())] = None,
    serialise_assignments: Annotated[Path | None, Parameter(alias="--assignments")] = None,
    memory_limit: MemoryLimit = None,
    telling: Telling = NOTHING_MORE,
    settings: Annotated[Settings, Parameter(name="*")] = DEFAULTS,
) -> ExitCode:
    """Decide a VNN-LIB query about ONNX networks.

    The first line on stdout is sat, unsat, unknown or timed-out; after sat follows the assignment. Everything else
    goes to stderr: on a terminal, how far the query is; after unknown or timed-out, what is open and what to try.

    Parameters
    ----------
    files
        The network, .onnx or .onnx.gz, then the specification, VNN-LIB 1.0 or 2.x, plain or .gz. The specification
        alone where --network is given, as in the standard's interface of solvers.
    network
        NAME=PATH for each network of the specification, or the PATH of its only one.
    serialise_assignments
        Write the assignment to this folder, a TensorProto NAME.pb for each variable, instead of stdout.
    memory_limit
        Memory of each process in GiB, by default what the machine has left, and without a limit beside GPUs. Where it
        is short, batches become smaller, and then the answer is unknown.
    settings
        Settings of the verifier.
    """
    query, networks = _named(files, network or [])
    # Starting up counts, but a short limit is not over before anything was done.
    spent = min(seconds_passed(), settings.timeout / 2)
    clock = Clock.started(settings.timeout, spent, settings.passes)
    work = partial(_decide, query, networks, serialise_assignments, telling, settings, clock)
    return _tell(_guarded(work, settings, clock, memory_limit, telling), telling)


def _named(files: Sequence[Path], network: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """The specification, and the networks: one before it, or those of --network. Raises InputError."""
    wanted = 1 if network else 2
    if len(files) == wanted:
        return files[-1], tuple(network) or (str(files[0]),)
    given = " ".join(map(str, files)) or "nothing"
    raise InputError(
        f"{given}: with --network, only the specification is to be given besides"
        if network
        else f"{given}: give the network, then the specification: prunecert verify NET.onnx SPEC.vnnlib"
    )


def _guarded(
    work: Callable[[], _Answer], settings: Settings, clock: Clock, memory_limit: float | None, telling: Telling
) -> _Answer:
    """The answer of work in a process of its own, or what became of that process."""
    try:
        return run_forked(work, ProcessLimits(settings.timeout - clock.seconds, memory_of(memory_limit)))
    except ProcessOverdue:
        return _Answer.of(Result(Verdict.TIMEOUT, f"time limit of {settings.timeout:g} s"), telling)
    except ProcessCrashed as error:
        hint = "" if memory_limit is None else f", with {memory_limit:g} GiB to work in"
        return _Answer.of(Result(Verdict.UNKNOWN, f"{error}{hint}"), telling)
    except Exception as error:
        if isinstance(error, ToolkitError) or not refused(error):
            raise
        return _Answer.of(Result(Verdict.UNKNOWN, f"out of memory: {one_line(error)}"), telling)


@dataclass(frozen=True)
class _Answer:
    """What is told of a result."""

    verdict: Verdict
    reason: str
    explanation: tuple[str, ...]
    """Lines about what stays open."""
    json: str = ""
    """Everything about the result, where it is to be printed so."""
    assignment: str = ""
    """Text of the witness, where it is to be printed."""

    @classmethod
    def of(cls, result: Result, telling: Telling, assignment: str = "") -> _Answer:
        """What is told of a result and the text of its witness."""
        if telling.json:
            return cls(result.verdict, result.reason, (), result.to_json())
        lines = () if result.explanation is None else tuple(result.explanation.lines())
        return cls(result.verdict, result.reason, lines, assignment=assignment)


def _decide(
    query: Path,
    network: Sequence[str],
    folder: Path | None,
    telling: Telling,
    settings: Settings,
    clock: Clock,
) -> _Answer:
    """Everything that needs the files, in a process of its own."""
    from toolkit.formats.vnnlib.read import read_query
    from toolkit.verify import load_networks, verify

    paths = network_paths(network)
    late = clock.seconds_left + tuned().processes.grace_seconds / 2
    try:
        with _watchers(telling, clock) as observer, out_of_time_after(late):
            networks = load_networks(paths)
            if telling.certificate is None and not settings.certified:
                return _answer(verify(networks, read_query(query), settings, observer, clock), folder, telling)
            from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate

            with TemporaryDirectory() as name:
                files = ProofFiles(paths, query, telling.certificate or Path(name) / "certificate")
                result = verify_with_certificate(files, networks, settings, observer, clock)
            return _answer(result, folder, telling)
    except (OutOfTime, Overdue):
        return _Answer.of(Result(Verdict.TIMEOUT, f"time limit of {settings.timeout:g} s"), telling)


@contextmanager
def _watchers(telling: Telling, clock: Clock) -> Iterator[Observer]:
    """Everything that listens to the query. Raises OSError for a file that cannot be written."""
    observers: list[Observer] = [_Notes()]
    if telling.events is not None:
        from toolkit.run.watching import EventLog

        observers.append(EventLog.opened(telling.events, clock))
    if not sys.stderr.isatty():
        yield ObserverGroup(observers)
        return
    from rich.console import Console

    from toolkit.run.watching import ProgressLine

    line = ProgressLine(Console(stderr=True), clock)
    try:
        yield ObserverGroup([*observers, line])
    finally:
        line.erase()


@dataclass
class _Notes:
    """Says on stderr, as soon as it is known and once, why nothing can be proved."""

    told: str = ""

    def __call__(self, event: Event) -> None:
        if isinstance(event, NoBounds) and event.reason != self.told:
            self.told = event.reason
            print(f"cannot be proved, only refuted by points: {event.reason}", file=sys.stderr, flush=True)


def _answer(result: Result, folder: Path | None, telling: Telling) -> _Answer:
    """The result without its witness, which is written to the folder or becomes text."""
    from toolkit.formats.vnncomp.witness import witness_text

    assignment = ""
    if result.witness is not None and folder is not None:
        write_tensors(result.witness, folder)
    elif result.witness is not None and not telling.json:
        assignment = witness_text(result.witness)
    return _Answer.of(result, telling, assignment)


def _tell(answer: _Answer, telling: Telling) -> ExitCode:
    if sys.stderr.isatty():  # a process that was ended leaves its line of progress
        print(end="\r\x1b[2K", file=sys.stderr)
    for line in (answer.reason, *answer.explanation) if not telling.json else ():
        if line:
            print(line, file=sys.stderr)
    if telling.json:
        print(answer.json)
    elif answer.verdict != Verdict.ERROR:
        print(WORDS[answer.verdict])
        print(answer.assignment, end="")
    return ExitCode.INTERNAL_ERROR if answer.verdict == Verdict.ERROR else ExitCode.DONE


def write_tensors(witness: Witness, folder: Path) -> None:
    """Write each variable as an ONNX TensorProto file ``NAME.pb``."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    for tensor, value in zip(witness.tensors, witness.values, strict=True):
        proto = onnx.numpy_helper.from_array(value, tensor.name)
        (folder / f"{tensor.name}.pb").write_bytes(proto.SerializeToString())
