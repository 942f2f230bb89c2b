"""Run jobs and keep what they answer: journal, witnesses and ``results.csv``, whatever happens on the way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from filelock import FileLock, Timeout

from toolkit.bench import journal
from toolkit.bench.executors import Executor, ExecutorLimits
from toolkit.bench.fingerprint import is_about
from toolkit.bench.job import Answer, Event, Finished, InstanceJob, WorkerTask
from toolkit.bench.journal import JournalRecord
from toolkit.bench.results import EvidenceFolder, has_its_files
from toolkit.errors import InputError
from toolkit.result import Verdict


class RunObserver(Protocol):
    """Listens to a run."""

    def begin(self, total: int, resumed: Sequence[JournalRecord]) -> None:
        """The run starts; ``resumed`` answers were in the journal."""

    def see(self, event: Event) -> None:
        """A job was started or finished."""

    def end(self) -> None:
        """The run is over, finished or not."""


@dataclass(frozen=True)
class RunPlan:
    """How jobs are run and where their answers go."""

    out: Path
    task: WorkerTask
    execute: Executor
    limits: ExecutorLimits
    observer: RunObserver
    retry_errors: bool = False
    """Run instances again whose answer in the journal is ``error``."""
    undivided: Sequence[InstanceJob] = ()
    """All jobs of the run that this is a part of, whose counterexamples may need the same names; empty for no part."""


def run_jobs(jobs: Sequence[InstanceJob], run: RunPlan) -> list[JournalRecord]:
    """Answer all jobs, in their order; those in the journal are not run again, and equal ones are run once.

    ``KeyboardInterrupt`` (Ctrl-C, or SIGTERM) passes through after the workers are gone; what was answered until then
    is in the journal. So does an ``OSError`` of a journal or counterexample that cannot be written.
    """
    keeper = RunRecorder.of(run.out, jobs, run.undivided or jobs)
    done = keeper.answers(jobs, run.retry_errors)
    todo = list({job.key: job for job in jobs if job.key not in done}.values())
    run.observer.begin(len(todo) + len(done), list(done.values()))
    try:
        with terminable(), closing(_events(todo, run)) as events:
            for event in events:
                if isinstance(event, Finished):
                    done[event.job.key] = keeper.keep(event.job, event.answer)
                run.observer.see(event)
    finally:
        run.observer.end()
    return [done[job.key] for job in jobs]


def about(job: InstanceJob) -> str:
    """The question of a job, under whatever limits."""
    return job.question or job.key


def answered(jobs: Sequence[InstanceJob], out: Path) -> list[JournalRecord]:
    """The answers that a run left in its journal, in the order of the jobs; the others are absent."""
    known = RunRecorder.of(out, jobs, jobs).answers(jobs)
    return [known[job.key] for job in jobs if job.key in known]


@dataclass
class RunRecorder:
    """The journal of a run and its counterexamples."""

    out: Path
    evidence: EvidenceFolder
    records: dict[str, list[JournalRecord]]
    """What is in the journal and counts, by the question that it answers, in order."""

    @classmethod
    def of(cls, out: Path, jobs: Iterable[InstanceJob], undivided: Iterable[InstanceJob]) -> RunRecorder:
        """With what earlier runs left. An answer whose counterexample or certificate is gone, or another's by now,
        does not count; names are told apart among all jobs of the undivided run."""
        history = journal.history(out / journal.NAME)
        wanted = {about(job) for job in jobs}
        records: dict[str, list[JournalRecord]] = {}
        for record in history:
            if record.about in wanted and has_its_files(record, out):
                records.setdefault(record.about, []).append(record)
        return cls(out, EvidenceFolder.of(out, undivided, history), records)

    def answers(self, jobs: Iterable[InstanceJob], retry_errors: bool = False) -> dict[str, JournalRecord]:
        """The answers of the jobs that need not be run, by their keys."""
        found = {job.key: journal.answer_to(job, self.records.get(about(job), ())) for job in jobs}
        again = {Verdict.ERROR} if retry_errors else set()
        return {key: record for key, record in found.items() if record and record.verdict not in again}

    def keep(self, job: InstanceJob, answer: Answer) -> JournalRecord:
        """Write one answer down: its counterexample or certificate first, then the journal line that names it."""
        if not is_about(job.origin, job.networks, job.spec, job.settings):
            reason = f"{CHANGED}: it said {answer.verdict}; start the run again"
            answer = replace(answer, verdict=Verdict.ERROR, reason=reason, witness=None)
        files = self._certificate(job, answer) if answer.witness is None else self._witness(job, answer.witness)
        record = journal.make_record(job, answer, **files)
        journal.append(self.out / journal.NAME, record)
        self.records.setdefault(record.about, []).append(record)
        return record

    def _witness(self, job: InstanceJob, text: str) -> dict[str, str]:
        """The counterexample's file and its SHA-256. One that is there for this very question is as good, and another
        line of the journal names it."""
        for record in self.records.get(about(job), ()):
            if record.witness and has_its_files(record, self.out):
                return {"witness": record.witness, "witness_sha256": record.witness_sha256}
        path, digest = self.evidence.put_witness(job, text)
        return {"witness": path, "witness_sha256": digest}

    def _certificate(self, job: InstanceJob, answer: Answer) -> dict[str, str]:
        """The certificate's file and its SHA-256, where an answer `unsat` has one; else what was written goes."""
        if job.draft is None:
            return {}
        if answer.verdict is not Verdict.UNSAT or not answer.statistics.certificate:
            job.draft.unlink(missing_ok=True)
            return {}
        path, digest = self.evidence.keep_certificate(job, job.draft)
        return {"certificate": path, "certificate_sha256": digest}


CHANGED = "its files, or the verifier, changed while it was answered"
"""Why an answer is not kept: nobody can say which content it is about."""


def _events(jobs: Sequence[InstanceJob], run: RunPlan) -> Generator[Event, None, None]:
    if jobs:
        yield from run.execute(jobs, run.task, run.limits)


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Make the folder of a run, and keep other runs out of it; :class:`InputError` when there is one, or a file in the
    way. A folder that cannot be written to is an ``OSError``."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{out}: a file is in the way of this folder; choose another --out") from None
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{out}: another run is writing there; wait for it or choose another --out") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM, and a terminal that is closed, like Ctrl-C, so that a run told to end cleans up its workers. Only
    the main thread can."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    ends = [signal.SIGTERM]
    if sys.platform != "win32":
        ends.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ends}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
