"""Work in a forked process of its own, which can be ended whatever it does.

Libraries may run without end, crash, or take all memory on a hostile model, and none of that can be stopped from
inside. Here the parent only waits: it keeps the time limit, and turns a crash into a reason. It forks before anything
heavy is imported, which takes about a millisecond.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from toolkit.errors import ToolkitError
from toolkit.run.lifetime import die_with
from toolkit.run.memory_limits import limit_memory
from toolkit.tuning import tuned

T = TypeVar("T")

HEADER = struct.Struct("<Q")
"""Length of what a process sends, in front of it."""
PIPE_CAPACITY = 1 << 16
"""Bytes that a pipe of Linux holds: no read of one returns more."""
LONGEST_WAIT_SECONDS = 3600.0
"""Seconds that a system call is asked to wait at most; systems take no number of any size."""
SPAWNS_THREADS = "torch"
"""A library that starts threads when it is first used; a process that has it is not forked."""
STARTED = "PRUNECERT_STARTED"
"""Environment variable with the time of day, in seconds, at which the command that this process runs was called."""


class ProcessOverdue(Exception):  # noqa: N818 - what becomes of it is up to the caller
    """The work was not done in time, and was ended."""


class ProcessCrashed(ToolkitError):  # noqa: N818 - like ProcessOverdue
    """The process that did the work ended before it was done; the message says how."""


@dataclass(frozen=True)
class ProcessLimits:
    """What the work may take."""

    seconds: float
    """Time limit, to which a short grace is added; infinity for none."""
    memory: int = 0
    """Bytes; 0 for no limit."""


def run_forked(work: Callable[[], T], limits: ProcessLimits) -> T:
    """What the work returns, done in a process of its own; what it raises is raised here.

    In this process where a fork is refused, or not safe because libraries with threads are in use; then no limit holds
    but those that the work itself keeps. Whatever happens, nothing is left running. Raises ProcessOverdue and
    ProcessCrashed.
    """
    if sys.platform == "win32" or not can_fork():
        return work()
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError:  # too many processes, or too little memory for one more
        os.close(reading)
        os.close(writing)
        limit_memory(limits.memory)
        return work()
    if not pid:
        os.close(reading)
        _serve(work, writing, parent, limits.memory)
    os.close(writing)
    return _result(pid, reading, time.monotonic() + limits.seconds + tuned().processes.grace_seconds)


def can_fork() -> bool:
    """Whether a fork of this process is sure to work: it has no threads, nor libraries that wait for theirs."""
    return hasattr(os, "fork") and SPAWNS_THREADS not in sys.modules and threading.active_count() == 1


def seconds_passed() -> float:
    """Seconds since the command that this process runs was called, as far as that is known."""
    try:
        called = float(os.environ.get(STARTED, "").replace(",", "."))  # written so where numbers have a decimal comma
    except ValueError:
        return 0.0
    return max(0.0, time.time() - called)


def note_start() -> None:
    """Note for `seconds_passed` when this process, which runs a command, was started."""
    os.environ[STARTED] = f"{time.time() - _age():.3f}"


def _age() -> float:
    """Seconds since the start of this process; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0.0
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return max(0.0, up - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


def _serve(work: Callable[[], object], writing: int, parent: int, memory: int) -> NoReturn:
    """What the forked process does: the work, and sending what came of it."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, which ends this process
        with suppress(OSError):  # what a library prints is no answer: HiGHS tells of its solutions on stdout, at times
            os.dup2(2, 1)
        die_with(parent)
        limit_memory(memory)
        _send(writing, _outcome(work))
        code = 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _outcome(work: Callable[[], object]) -> bytes:
    """The pickled pair of whether the work succeeded, and what it returned or raised."""
    try:
        return pickle.dumps((True, work()), protocol=pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        try:
            error.__context__ = error.__cause__ = None
            error.add_note(trace)
            packed = pickle.dumps((False, error), protocol=pickle.HIGHEST_PROTOCOL)
            pickle.loads(packed)
        except Exception:  # not every library's errors can be sent
            packed = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return packed


def _send(descriptor: int, data: bytes) -> None:
    view = memoryview(HEADER.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _result(pid: int, reading: int, deadline: float) -> Any:
    """What the process sends until the deadline; it is gone afterwards."""
    ended = False
    try:
        header = _receive(reading, HEADER.size, deadline)
        data = _receive(reading, HEADER.unpack(header)[0], deadline) if header else b""
        if not data:
            ended = True
            raise ProcessCrashed(_how_it_ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    finally:
        os.close(reading)
        if sys.platform != "win32" and not ended:  # where no process was forked
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    succeeded, value = pickle.loads(data)
    if succeeded:
        return value
    raise value


def _receive(descriptor: int, size: int, deadline: float) -> bytes:
    """The next ``size`` bytes of a pipe, or none where its other end closes before all came. Raises ProcessOverdue."""
    parts = []
    while size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProcessOverdue
        if not select.select([descriptor], [], [], min(left, LONGEST_WAIT_SECONDS))[0]:
            continue
        part = os.read(descriptor, min(size, PIPE_CAPACITY))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"the verifying process ended with exit code {code}"
    name = signal.Signals(-code).name
    known = {"SIGKILL": "killed from outside, probably because memory ran out", "SIGFPE": "an integer division that has"
             " no result", "SIGSEGV": "an invalid access to memory"}  # fmt: skip
    return f"the verifying process was ended by {name}" + (f" ({known[name]})" if name in known else "")
