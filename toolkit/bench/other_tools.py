"""Other verifiers over the instances of a benchmark: the scripts of VNN-COMP, or a command line with placeholders.

A tool gets what the competition gives it: the plain network and specification, a time limit, and a file for its answer,
of which the first line is the verdict and the rest the counterexample. It runs in a process group of its own, below a
worker process that keeps the limit and replays a ``sat``: one that does not hold, exactly as the specification is
written, is no ``sat``. An ``unsat`` is what the tool says, and is told as that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import IO

from toolkit.bench.columns import LABEL, OURS, check_labels
from toolkit.bench.executors import ExecutorLimits
from toolkit.bench.fingerprint import fingerprint, provenance
from toolkit.bench.job import Answer, Event, Finished, InstanceJob, Started, WorkerTask, limited_key, settle
from toolkit.bench.worker_processes import processes
from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model, read_bytes
from toolkit.formats.vnncomp.instances import networks_field, parse_verdict
from toolkit.formats.vnncomp.witness import open_sessions
from toolkit.formats.vnncomp.witness_check import Classification, classify
from toolkit.formats.vnnlib.read import read_query
from toolkit.result import Statistics, Verdict
from toolkit.run.lifetime import DIE_WITH_PARENT, SAFE_PATH
from toolkit.tuning import tuned

PREPARE, RUN = "prepare_instance.sh", "run_instance.sh"
PLACEHOLDERS = ("{network}", "{specification}", "{timeout}", "{results}", "{category}")
NEEDED = ("{network}", "{specification}", "{results}")

SUPERVISE = """
trap 'trap "" TERM; kill -TERM 0; sleep 1; rm -rf "$0"; kill -KILL 0' TERM
"$@" &
wait $!
"""
"""A shell that leads the process group of a tool: told to end, which it is also when its parent is killed, it ends all
of them, after a second in which they may end what they have started in groups of their own, and removes the folder that
it has in place of a name."""


@dataclass(frozen=True)
class Tool:
    """A verifier: a folder with scripts of VNN-COMP, or the words of a command line."""

    label: str
    scripts: Path | None = None
    command: tuple[str, ...] = ()

    def keyed(self, job: InstanceJob) -> InstanceJob:
        """The job with its keys: its files, and what is known of the tool. Settings and versions are not the tool's."""
        found = provenance(job.networks, job.spec, job.settings)
        origin = {"networks": found["networks"], "spec": found["spec"], "tool": self.facts()}
        question = fingerprint(job.category, job.onnx, job.vnnlib, origin)
        return replace(job, key=limited_key(question, job.settings, job.memory), origin=origin, question=question)

    def facts(self) -> dict[str, str]:
        """What is known of the tool: its command line, or where its scripts are and the hashes of their content."""
        if self.scripts is None:
            return {"command": shlex.join(self.command)}
        hashes = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(self.scripts.glob("*.sh"))
        }
        return {"scripts": str(self.scripts), **hashes}

    @property
    def task(self) -> WorkerTask:
        """What a worker process does for the tool."""
        return WorkerTask(_ready, partial(ask, self))

    def execute(
        self, jobs: Sequence[InstanceJob], task: WorkerTask, limits: ExecutorLimits
    ) -> Generator[Event, None, None]:
        """An executor: worker processes that have time to prepare and to replay beside each job's limit.

        The time of a job is that of the tool's run alone.
        """
        beside = tuned().bench.preparing_seconds + tuned().bench.replaying_seconds
        asked = {job.key: job for job in jobs}
        for event in processes([_with_time(job, beside) for job in jobs], task, limits):
            job = asked[event.job.key]
            if isinstance(event, Started):
                yield Started(job)
            else:
                yield Finished(job, settle(job, event.answer, event.answer.statistics.seconds))


@dataclass(frozen=True)
class ToolJob(InstanceJob):
    """A job whose settings have the time of everything around the tool, too."""

    limit: float = 0.0
    """Time limit of the tool in seconds."""


def _with_time(job: InstanceJob, seconds: float) -> ToolJob:
    values = {one.name: getattr(job, one.name) for one in fields(job)}
    values["settings"] = job.settings.model_copy(update={"timeout": job.timeout + seconds})
    return ToolJob(**values, limit=job.timeout)


def parse_tools(texts: Sequence[str]) -> list[Tool]:
    """The tools that ``--tool`` names. Raises InputError where one cannot be meant, or two have one label, and on
    Windows, where nothing that a tool starts would be sure to end with it."""
    if texts and sys.platform == "win32":
        raise InputError(f"--tool {texts[0]}: other verifiers run in process groups of POSIX, which Windows has not")
    tools = [_parse(text) for text in texts]
    for tool, text in zip(tools, texts, strict=True):
        if not re.fullmatch(LABEL, tool.label):
            raise InputError(f"--tool {text}: give it a name for its folder, as in NAME={text}")
    check_labels("--tool", [OURS, *(tool.label for tool in tools)], "NAME=COMMAND")
    return tools


def check_programs(tools: Sequence[Tool]) -> None:
    """Raise InputError for a command line whose program cannot be found from here, or may not be executed."""
    for tool in tools:
        if tool.command and "{" not in tool.command[0] and shutil.which(tool.command[0]) is None:
            raise InputError(
                f"--tool {tool.label}: no program {tool.command[0]} that may be executed, as seen from {Path.cwd()}"
            )


def _parse(text: str) -> Tool:
    found = re.fullmatch(f"({LABEL})=(.+)", text, re.DOTALL)
    label, rest = found.groups() if found else ("", text)
    if "{" not in rest:
        folder = Path(rest).resolve()
        missing = [name for name in (PREPARE, RUN) if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"--tool {text}: no {missing[0]} in {folder}; give a folder with VNN-COMP's scripts, or a command line "
                f"with {', '.join(NEEDED)}"
            )
        generic = folder.name in ("vnncomp_scripts", "scripts", "vnncomp")
        return Tool(label or (folder.parent.name if generic else folder.name), scripts=folder)
    try:
        words = tuple(shlex.split(rest))
    except ValueError as error:
        raise InputError(f"--tool {text}: no command line ({error})") from None
    for name in NEEDED:
        if name not in rest:
            raise InputError(f"--tool {text}: no {name} in it; the words that are replaced: {', '.join(PLACEHOLDERS)}")
    return Tool(label or Path(words[0]).stem, command=words)


def _ready() -> None:
    """Nothing has to be loaded for another verifier."""


# --- in a worker process ----------------------------------------------------------------------------------------------


def ask(tool: Tool, job: InstanceJob) -> Answer:
    """What the tool says about a job; the statistics have the seconds that it ran."""
    assert isinstance(job, ToolJob)
    with tempfile.TemporaryDirectory(prefix="prunecert-tool-") as name:
        folder = Path(name)
        files = {
            "{network}": networks_field({key: str(plain(path, folder)) for key, path in job.networks}),
            "{specification}": str(plain(job.spec, folder)),
            "{timeout}": f"{job.limit:.15g}",
            "{results}": str(folder / "results.txt"),
            "{category}": job.category,
        }
        if tool.scripts is not None:
            words = [files[one] for one in ("{category}", "{network}", "{specification}")]
            prepared = run(["bash", str(tool.scripts / PREPARE), "v1", *words], folder, tuned().bench.preparing_seconds)
            if prepared.reason:
                return Answer(Verdict.ERROR, f"{PREPARE}: {prepared.reason}")
            command = ["bash", str(tool.scripts / RUN), "v1", *words, files["{results}"], files["{timeout}"]]
        else:
            command = [_filled(word, files) for word in tool.command]
        ended = run(command, folder, job.limit + tuned().bench.late_seconds)
        return _judged(tool, job, folder / "results.txt", ended)


def plain(path: Path, folder: Path) -> Path:
    """The absolute path of a file, or of an uncompressed copy in a folder: the competition gives no other."""
    if path.suffix != ".gz" or not path.is_file():
        return path.resolve()
    copy = Path(tempfile.mkdtemp(dir=folder)) / path.stem
    copy.write_bytes(read_bytes(path))
    return copy


def _filled(word: str, values: Mapping[str, str]) -> str:
    return re.sub("|".join(map(re.escape, values)), lambda found: values[found.group()], word)


@dataclass(frozen=True)
class EndedProcess:
    """How a tool's process ended."""

    seconds: float
    reason: str = ""
    """What went wrong; empty where it ended by itself with exit code 0."""
    stopped: bool = False
    """Whether it was stopped for its time."""


def run(command: Sequence[str], folder: Path, limit: float) -> EndedProcess:
    """Run a command until it ends, or for so many seconds; none of its process group is left."""
    with (folder / "output").open("w+b") as output:
        # Workers look for modules in no folder but the libraries'; programs of a tool may have theirs beside them.
        environment = {key: value for key, value in os.environ.items() if key != SAFE_PATH}
        start = time.monotonic()
        try:
            process = subprocess.Popen(
                ["sh", "-c", SUPERVISE, str(folder), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no thread of Python runs in a worker
            )
        except OSError as error:
            return EndedProcess(0.0, f"cannot be started: {error.strerror}")
        stopped = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            stopped = True
        seconds = time.monotonic() - start
        _end_group(process)
        if stopped:
            return EndedProcess(seconds, f"stopped after {seconds:.1f} s", stopped=True)
        return EndedProcess(seconds, _exit_reason(process.returncode, output))


_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
"""Looked up before there is a fork, after which only system calls are safe."""


def _end_with_parent() -> None:
    """Have the shell told to end when this worker is killed (Linux)."""
    if _PRCTL is not None:
        _PRCTL(DIE_WITH_PARENT, signal.SIGTERM)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process group: its shell does, if it is there; of what it left, there is no other use."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(tuned().bench.node_seconds)
    if sys.platform != "win32":  # for which `parse_tools` lets none through
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _exit_reason(code: int, output: IO[bytes]) -> str:
    """What an exit code other than 0 says, with the last line that was printed."""
    if not code:
        return ""
    output.seek(max(0, output.seek(0, os.SEEK_END) - tuned().bench.shown_output_bytes))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return f"exit code {code}" + (f": {lines[-1]}" if lines else "")


def _judged(tool: Tool, job: InstanceJob, results: Path, ended: EndedProcess) -> Answer:
    """The answer that a results file is, with a counterexample replayed."""
    about = Statistics(seconds=ended.seconds, decided_by=tool.label)
    undecided = Statistics(seconds=ended.seconds)
    text = read_bytes(results).decode(errors="replace") if results.is_file() else ""
    word, _, rest = text.partition("\n")
    try:
        said = parse_verdict(word)
    except InputError:
        return Answer(Verdict.ERROR, f"its results file begins with '{word[:40]}', no verdict", statistics=undecided)
    if said is Verdict.UNSAT:
        return Answer(said, f"as {tool.label} says", statistics=about)
    if said is Verdict.SAT:
        return _replayed(job, results.with_name("witness"), rest, about)
    if ended.stopped:
        return Answer(Verdict.TIMEOUT, ended.reason, statistics=undecided)
    if ended.reason and not word.strip():
        return Answer(Verdict.ERROR, ended.reason, statistics=undecided)
    return Answer(
        said, ended.reason or ("" if word.strip() else "no verdict in its results file"), statistics=undecided
    )


def _replayed(job: InstanceJob, path: Path, text: str, statistics: Statistics) -> Answer:
    """``sat`` with a counterexample that holds exactly; one that holds only with a tolerance is ``unknown``, another an
    ``error``."""
    path.write_text(text, encoding="utf-8")
    query = read_query(job.spec)
    kind, reason = classify(
        open_sessions({name: load_model(network) for name, network in job.networks}, query), query, path
    )
    if kind is Classification.CORRECT:
        return Answer(Verdict.SAT, statistics=statistics, witness=text)
    reason = f"it says sat, and its counterexample is {kind}: {reason}".replace(str(path), "the results file")
    verdict = Verdict.UNKNOWN if kind is Classification.CORRECT_UP_TO_TOLERANCE else Verdict.ERROR
    return Answer(verdict, reason, statistics=replace(statistics, decided_by=""))
