"""The executor of long-living worker processes, each with one job, or one survey of jobs, at a time.

Workers are spawned, never forked (CUDA and threads do not survive a fork). The parent holds the clock: a worker that
is not back in time is killed and replaced, and so is one that dies; jobs that it was surveying are then answered one
by one. One that cannot start is left out, and the others go on. Workers ignore Ctrl-C, which is the parent's, and end
with the parent, whatever ends that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from toolkit.bench.executors import ExecutorLimits, begin, conclude, guarded, line_up, surveyed
from toolkit.bench.job import Answer, Event, Finished, InstanceJob, WorkerTask, failure, settle, survey_limit
from toolkit.bench.job_queue import JobQueue, take
from toolkit.devices import take_gpu
from toolkit.errors import MachineError
from toolkit.result import Verdict
from toolkit.run.lifetime import die_with_spawner, safe_path
from toolkit.run.memory_limits import limit_memory
from toolkit.run.thread_waits import spin_briefly
from toolkit.tuning import tuned

if TYPE_CHECKING and sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
elif TYPE_CHECKING:
    from multiprocessing.connection import Connection

READY = "ready"


def serve(connection: Connection, task: WorkerTask, limits: ExecutorLimits, number: int) -> None:
    """What a worker process does: get ready, then answer jobs until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_spawner()
    limit_memory(limits.memory)
    threads = limits.threads
    # Read by OpenMP and by torch when they are loaded, which task.prepare does: nothing here may load them earlier.
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    spin_briefly()
    take_gpu(number)
    try:
        task.prepare()
    except BaseException as error:
        connection.send(failure(error))
        return
    connection.send(READY)
    try:
        while True:
            jobs = connection.recv()
            connection.send(surveyed(task, jobs) if len(jobs) > 1 else guarded(task, jobs[0]))
    except (EOFError, BrokenPipeError):
        return


@dataclass
class Worker:
    """A worker process as the parent sees it. ``jobs`` is empty while it has nothing to do."""

    process: BaseProcess
    connection: Connection
    deadline: float
    ready: bool = False
    jobs: Sequence[InstanceJob] = ()
    """The one it answers, or those it surveys."""
    started: float = 0.0
    loaded: tuple | None = None


def start(task: WorkerTask, limits: ExecutorLimits, number: int) -> Worker:
    """Start the worker of a number, which decides on its GPU; it will report ``READY``. Raises OSError where the
    system has no room for a process more."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, task, limits, number), daemon=True)
    try:
        with safe_path():
            process.start()
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Worker(process, ours, deadline=time.monotonic() + limits.startup)


def stop(worker: Worker) -> None:
    """Kill a worker and wait until it is gone."""
    worker.process.kill()
    worker.process.join()
    worker.connection.close()


def assign(worker: Worker, jobs: Sequence[InstanceJob], limits: ExecutorLimits) -> None:
    """Give an idle worker a job, or several to survey; its clock starts now."""
    worker.jobs, worker.loaded, worker.started = jobs, jobs[0].networks, time.monotonic()
    limit = survey_limit(jobs) if len(jobs) > 1 else jobs[0].timeout - jobs[0].spent
    # Killing costs a new start; but no answer comes later than a fifth of its limit and a second.
    late = tuned().bench.late_share * limit + tuned().bench.late_seconds
    worker.deadline = worker.started + limit + min(limits.grace, late)
    with suppress(BrokenPipeError, ConnectionResetError):  # it died while idle: receive() finds that out and says so
        worker.connection.send(jobs)


Message = Answer | Sequence[Answer | None] | str
"""The answer to a job, the answers of a survey, or READY."""


def receive(worker: Worker) -> Message | None:
    """What the worker says, or what its silence means; None when it is only busy."""
    try:
        if worker.connection.poll():
            return worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        return Answer(Verdict.ERROR, f"the verifier process died ({_exit_reason(worker.process.exitcode)})")
    if time.monotonic() > worker.deadline:
        return Answer(Verdict.TIMEOUT, f"stopped from outside after {time.monotonic() - worker.started:.1f} s")
    return None


def _exit_reason(code: int | None) -> str:
    if code is not None and -code in set(signal.Signals):  # codes of Windows are of any size
        name = signal.Signals(-code).name
        return f"{name}: probably out of memory" if name == "SIGKILL" else name
    return f"exit code {code}"


def must_be_replaced(worker: Worker) -> bool:
    """Whether the worker is dead or past its deadline."""
    return not worker.process.is_alive() or time.monotonic() > worker.deadline


def finish(waiting: JobQueue, number: int, worker: Worker, message: Message) -> Sequence[Event]:
    """Take its jobs off the worker of that number and make their events; what is left open waits again."""
    jobs, worker.jobs = worker.jobs, ()
    seconds = time.monotonic() - worker.started
    if len(jobs) > 1:  # anything but a list of answers says that the survey failed
        return conclude(waiting, number, jobs, message if isinstance(message, list) else [], seconds)
    assert isinstance(message, Answer)
    return [Finished(jobs[0], settle(jobs[0], message, seconds))]


@dataclass
class WorkerPool:
    """The workers of a run by their numbers; those that could not start are missing."""

    task: WorkerTask
    limits: ExecutorLimits
    workers: dict[int, Worker] = field(default_factory=dict)
    failure: str = ""
    """Why the last one that could not start could not."""

    def hire(self, number: int) -> None:
        """Start the worker of a number, where the system lets it."""
        try:
            self.workers[number] = start(self.task, self.limits, number)
        except OSError as error:
            self.failure = failure(error).reason

    def dismiss(self, number: int) -> None:
        """End the worker of a number."""
        stop(self.workers.pop(number))

    def check(self) -> None:
        """Raise MachineError where no worker is left."""
        if not self.workers:
            raise MachineError(f"a verifier process cannot start: {self.failure}; check the installation")

    def welcome(self, number: int, message: Message) -> None:
        """Take the first message of a worker: that it is ready, or why it will never be."""
        if isinstance(message, Answer):
            self.failure = message.reason if message.verdict == Verdict.ERROR else "it does not get ready"
            self.dismiss(number)
        else:
            self.workers[number].ready = True


def processes(jobs: Sequence[InstanceJob], task: WorkerTask, limits: ExecutorLimits) -> Generator[Event, None, None]:
    """Run the jobs in ``limits.workers`` processes; events come as they happen.

    Raises MachineError where no worker can start.
    """
    waiting = line_up(jobs, task, limits.workers)
    crew = WorkerPool(task, limits)
    try:
        for number in range(min(limits.workers, len(jobs))):
            crew.hire(number)
        while waiting or any(worker.jobs for worker in crew.workers.values()):
            crew.check()
            for number, worker in crew.workers.items():
                if worker.ready and not worker.jobs and (taken := take(waiting, number, worker.loaded)):
                    assign(worker, taken, limits)
                    yield from begin(taken)
            wait_for(list(crew.workers.values()))
            yield from _heard(waiting, crew)
    finally:
        for number in list(crew.workers):
            crew.dismiss(number)


def _heard(waiting: JobQueue, crew: WorkerPool) -> Generator[Event, None, None]:
    """What the workers have said, or their silence means, with those replaced that are dead or late."""
    for number, worker in list(crew.workers.items()):
        if (not worker.jobs and worker.ready) or (message := receive(worker)) is None:
            continue
        if not worker.ready:
            crew.welcome(number, message)
            continue
        spent = must_be_replaced(worker)
        yield from finish(waiting, number, worker, message)
        if spent:
            crew.dismiss(number)
            crew.hire(number)


def wait_for(workers: Sequence[Worker]) -> None:
    """Sleep until a worker speaks, dies or passes its deadline."""
    busy = [worker for worker in workers if worker.jobs or not worker.ready]
    if busy:
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        wait([worker.connection for worker in busy], timeout=patience + 0.01)
