"""Executors: how jobs are run. Each is a generator of events, registered by name.

An executor owns its workers for as long as its generator is open: closing it (or an exception such as
``KeyboardInterrupt`` passing through it) ends them. It must answer every job, and never with more than the worker
said: whatever goes wrong is ``error`` or ``timeout``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.job import Answer, Event, Finished, Job, Started, Task, failure, settle
from toolkit.devices import visible_gpus
from toolkit.errors import InputError, ToolkitError
from toolkit.result import Verdict


@dataclass(frozen=True)
class Limits:
    """What the executor may use."""

    workers: int = 1
    threads: int = 1
    """Threads of each worker."""
    grace: float = 5.0
    """Seconds after the time limit before a worker is stopped from outside."""
    startup: float = 300.0
    """Seconds a worker may take to get ready."""


GPU_WORKERS = 4

Executor = Callable[[Sequence[Job], Task, Limits], Generator[Event, None, None]]
EXECUTORS: dict[str, Executor] = {}


def executor(name: str) -> Callable[[Executor], Executor]:
    """Register an executor under a name that ``--executor`` takes."""

    def register(function: Executor) -> Executor:
        EXECUTORS[name] = function
        return function

    return register


def find_executor(name: str) -> Executor:
    """The executor of that name; :class:`InputError` when there is none."""
    import toolkit.bench.processes  # noqa: F401  (registers itself)

    if name not in EXECUTORS:
        raise InputError(f"unknown executor '{name}': choose one of {', '.join(sorted(EXECUTORS))}")
    return EXECUTORS[name]


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_limits(workers: int | None = None, device: str = "cpu") -> Limits:
    """One worker per core unless told otherwise; the cores' threads are divided among the workers.

    A GPU gets at most four by default: each takes its own share of the memory, and they queue for the same kernels.
    """
    cores = available_cores()
    most = GPU_WORKERS * max(1, len(visible_gpus()))
    workers = workers or (min(cores, most) if uses_gpu(device) else cores)
    return Limits(workers=workers, threads=max(1, cores // workers))


def uses_gpu(device: str) -> bool:
    """Whether a device setting means a GPU here; found out without loading torch, which only workers need."""
    return device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists())


def guarded(task: Task, job: Job) -> Answer:
    """The task's answer, or ``error`` with the reason when it raises."""
    try:
        return task.answer(job)
    except ToolkitError as error:
        return Answer(Verdict.ERROR, str(error))
    except Exception as error:
        return failure(error)


@executor("in-process")
def in_process(jobs: Sequence[Job], task: Task, limits: Limits) -> Generator[Event, None, None]:
    """One job after the other in this process: for debugging. Only the verifier's own clock enforces the time limit."""
    task.prepare()
    for job in jobs:
        yield Started(job)
        start = time.monotonic()
        answer = guarded(task, job)
        yield Finished(job, settle(job, answer, time.monotonic() - start))
