"""Executors: how jobs are run. Each is a generator of events; `toolkit.bench.executor_table` has them by name.

An executor owns its workers for as long as its generator is open: closing it (or an exception such as
``KeyboardInterrupt`` passing through it) ends them. It must answer every job, and never with more than the worker
said: whatever goes wrong is ``error`` or ``timeout``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from toolkit.bench.job import Answer, Event, Finished, InstanceJob, Started, WorkerTask, failure, settle, shared
from toolkit.bench.job_queue import JobQueue, put_back, queue, take
from toolkit.devices import uses_gpu, visible_gpus
from toolkit.errors import ToolkitError
from toolkit.result import Verdict
from toolkit.run.memory_limits import limit_memory, refused
from toolkit.tuning import tuned


@dataclass(frozen=True)
class ExecutorLimits:
    """What the executor may use."""

    workers: int = 1
    threads: int = 1
    """Threads of each worker."""
    grace: float = 5.0
    """Most seconds after the time limit before a worker is stopped from outside; less for short limits."""
    startup: float = 300.0
    """Seconds a worker may take to get ready."""
    memory: int = 0
    """Bytes that each worker may take, and each process that it forks; 0 for no limit."""


Executor = Callable[[Sequence[InstanceJob], WorkerTask, ExecutorLimits], Generator[Event, None, None]]


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_limits(workers: int | None = None, device: str = "cpu", memory: int = 0) -> ExecutorLimits:
    """One worker per core unless told otherwise; the cores' threads, and the memory, are divided among the workers.

    A GPU gets at most four by default: each takes its own share of the memory, and they queue for the same kernels.
    """
    cores = available_cores()
    most = tuned().bench.workers_per_gpu * max(1, len(visible_gpus()))
    workers = workers or (min(cores, most) if uses_gpu(device) else cores)
    return ExecutorLimits(workers=workers, threads=max(1, cores // workers), memory=memory // workers)


def guarded(task: WorkerTask, job: InstanceJob) -> Answer:
    """The task's answer, or ``error`` with the reason when it raises."""
    try:
        return task.answer(job)
    except ToolkitError as error:
        return Answer(Verdict.ERROR, str(error))
    except Exception as error:
        return Answer(Verdict.UNKNOWN, "out of memory") if refused(error) else failure(error)


def surveyed(task: WorkerTask, jobs: Sequence[InstanceJob]) -> Sequence[Answer | None]:
    """The task's answers to some of the jobs; to none of them when it raises."""
    try:
        return list(task.survey(jobs)) if task.survey else []
    except Exception:  # whatever it is, each job that it concerns meets it again on its own
        return [None] * len(jobs)


def line_up(jobs: Sequence[InstanceJob], task: WorkerTask, workers: int = 1) -> JobQueue:
    """The jobs as they wait for workers, who survey them where the task can and none needs a certificate."""
    together = task.survey is not None and all(job.draft is None for job in jobs)
    return queue(jobs, tuned().bench.most_surveyed_jobs if together else 1, workers)


def begin(jobs: Sequence[InstanceJob]) -> list[Event]:
    """What is told when a worker takes jobs; one that was surveyed was taken before."""
    return [Started(job) for job in jobs if not job.spent]


def conclude(
    waiting: JobQueue, worker: int, jobs: Sequence[InstanceJob], answers: Sequence[Answer | None], seconds: float
) -> list[Event]:
    """Take the answers of a survey of so many seconds, and put back what it leaves open.

    Each job's time is an equal part of it; but a survey that took longer than a job's limit answers nothing.
    """
    jobs = shared(jobs, seconds)
    if len(answers) != len(jobs) or seconds > min(job.timeout for job in jobs):
        answers = [None] * len(jobs)
    pairs = list(zip(jobs, answers, strict=True))
    put_back(waiting, worker, [job for job, answer in pairs if answer is None])
    return [Finished(job, settle(job, answer, 0.0)) for job, answer in pairs if answer is not None]


def in_process(jobs: Sequence[InstanceJob], task: WorkerTask, limits: ExecutorLimits) -> Generator[Event, None, None]:
    """One after the other in this process: for debugging. Only the verifier's own clock enforces the time limit."""
    limit_memory(limits.memory)
    task.prepare()
    waiting = line_up(jobs, task)
    taken: Sequence[InstanceJob] = ()
    while taken := take(waiting, 0, taken[0].networks if taken else None):
        yield from begin(taken)
        start = time.monotonic()
        if len(taken) > 1:
            answers = surveyed(task, taken)
            yield from conclude(waiting, 0, taken, answers, time.monotonic() - start)
        else:
            answer = guarded(task, taken[0])
            yield Finished(taken[0], settle(taken[0], answer, time.monotonic() - start))
