"""Run jobs and keep what they answer: journal, witnesses and ``results.csv``, whatever happens on the way."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from toolkit.bench import journal
from toolkit.bench.executors import Executor, Limits
from toolkit.bench.job import Answer, Event, Finished, Job, Task
from toolkit.bench.journal import Record
from toolkit.bench.store import witness_path, write_text_atomically
from toolkit.errors import InputError
from toolkit.result import Verdict


class Observer(Protocol):
    """Listens to a run."""

    def begin(self, total: int, resumed: Sequence[Record]) -> None:
        """The run starts; ``resumed`` answers were in the journal."""

    def see(self, event: Event) -> None:
        """A job was started or finished."""

    def end(self) -> None:
        """The run is over, finished or not."""


@dataclass(frozen=True)
class Run:
    """How jobs are run and where their answers go."""

    out: Path
    task: Task
    execute: Executor
    limits: Limits
    observer: Observer
    retry_errors: bool = False
    """Run instances again whose answer in the journal is ``error``."""


def run_jobs(jobs: Sequence[Job], run: Run) -> list[Record]:
    """Answer all jobs, in their order; those in the journal are not run again.

    ``KeyboardInterrupt`` (Ctrl-C, or SIGTERM) passes through after the workers are gone; what was answered until then
    is in the journal.
    """
    path = run.out / journal.NAME
    done = {record.key: record for record in _reusable(path, jobs, run.retry_errors)}
    todo = [job for job in jobs if job.key not in done]
    run.observer.begin(len(jobs), list(done.values()))
    try:
        with terminable(), closing(_events(todo, run)) as events:
            for event in events:
                if isinstance(event, Finished):
                    record = keep(event.job, event.answer, run.out)
                    done[record.key] = record
                run.observer.see(event)
    finally:
        run.observer.end()
    return [done[job.key] for job in jobs]


def answered(jobs: Sequence[Job], out: Path) -> list[Record]:
    """The answers that a run left in its journal, in the order of the jobs; the others are absent."""
    known = {record.key: record for record in journal.read(out / journal.NAME)}
    return [known[job.key] for job in jobs if job.key in known]


def keep(job: Job, answer: Answer, out: Path) -> Record:
    """Write one answer down: the witness first, then the journal line that names it."""
    witness = witness_path(job)
    if answer.witness is not None:
        write_text_atomically(out / witness, answer.witness)
    else:
        (out / witness).unlink(missing_ok=True)  # of an earlier run
    record = journal.make_record(job, answer, witness if answer.witness is not None else "")
    journal.append(out / journal.NAME, record)
    return record


def _events(jobs: Sequence[Job], run: Run) -> Generator[Event, None, None]:
    if jobs:
        yield from run.execute(jobs, run.task, run.limits)


def _reusable(path: Path, jobs: Sequence[Job], retry_errors: bool) -> list[Record]:
    keys = {job.key for job in jobs}
    records = [record for record in journal.read(path) if record.key in keys]
    return [record for record in records if not (retry_errors and record.verdict == Verdict.ERROR)]


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the folder of a run, and keep other runs out of it; :class:`InputError` when there is one."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{out}: another run is writing there; wait for it or choose another --out") from None
        yield


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that a run told to end cleans up its workers. Only the main thread can."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
