"""What the runner hands to an executor and gets back: jobs, answers and the two events between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from toolkit.result import Statistics, Verdict
from toolkit.settings import Settings
from toolkit.tuning import tuned


@dataclass(frozen=True)
class InstanceJob:
    """One instance of a benchmark: networks, specification, time limit (``settings.timeout``)."""

    key: str
    """Fingerprint of everything the answer depends on (see :mod:`toolkit.bench.fingerprint`)."""
    category: str
    onnx: str
    """The network as ``results.csv`` names it."""
    vnnlib: str
    """The specification as ``results.csv`` names it."""
    networks: tuple[tuple[str, Path], ...]
    spec: Path
    settings: Settings
    spent: float = field(default=0.0, compare=False)
    """Seconds of the time limit that a survey has taken."""
    origin: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    """What the question is made of."""
    question: str = field(default="", compare=False)
    """The key without limits, under which a proof or a counterexample found in less time, or fewer passes, stands."""
    memory: float | None = field(default=None, compare=False)
    """Limit of the whole run in GiB, if there is one."""
    draft: Path | None = field(default=None, compare=False)
    """Where the worker writes the certificate, if there is to be one; whoever keeps the answer gives it its name."""

    def times(self, factor: float) -> InstanceJob:
        """The job with limits of time and passes so many times as large."""
        settings = self.settings.times(factor)
        return replace(self, settings=settings, key=limited_key(self.question, settings, self.memory))

    @property
    def timeout(self) -> float:
        """Time limit in seconds."""
        return self.settings.timeout

    @property
    def row(self) -> tuple[str, str, str]:
        """Category, network and specification: what names the instance in a benchmark."""
        return self.category, self.onnx, self.vnnlib


def limited_key(question: str, settings: Settings, memory: float | None) -> str:
    """The key of a question under limits of passes, time and memory (GiB), where there are such."""
    passes = f"-{settings.passes}p" if settings.passes else ""
    return f"{question}-{settings.timeout!r}{passes}" + ("" if memory is None else f"-{memory!r}")


@dataclass(frozen=True)
class Answer:
    """What came out of one job. Picklable: it travels between processes."""

    verdict: Verdict
    reason: str = ""
    seconds: float = 0.0
    """Wall time as seen from outside the verifier."""
    statistics: Statistics = field(default_factory=Statistics)
    witness: str | None = None
    """Text of the counterexample file; present exactly when the verdict is ``sat``."""


@dataclass(frozen=True)
class WorkerTask:
    """What a worker does: get ready once (imports, device), then answer jobs. Both must be importable by name."""

    prepare: Callable[[], None]
    answer: Callable[[InstanceJob], Answer]
    survey: Callable[[Sequence[InstanceJob]], Sequence[Answer | None]] | None = None
    """Looks at several jobs of one network together, and answers those that this decides. The others (None) are
    answered one by one afterwards, by the same worker if it is free."""


@dataclass(frozen=True)
class Started:
    """A worker took the job."""

    job: InstanceJob


@dataclass(frozen=True)
class Finished:
    """The job has its answer."""

    job: InstanceJob
    answer: Answer


Event = Started | Finished


def survey_limit(jobs: Sequence[InstanceJob]) -> float:
    """Time limit of a survey in seconds."""
    return tuned().bench.survey_time_share * min(job.timeout for job in jobs)


def shared(jobs: Sequence[InstanceJob], seconds: float) -> list[InstanceJob]:
    """The jobs after a survey of so many seconds: each has spent an equal part of them, within bounds."""
    return [replace(job, spent=min(seconds / len(jobs), tuned().bench.survey_cost_share * job.timeout)) for job in jobs]


def failure(error: BaseException) -> Answer:
    """The answer to a job whose verification raised: always ``error``, never a verdict about the network."""
    text = (str(error).splitlines() or [""])[0]
    return Answer(Verdict.ERROR, f"{type(error).__name__}: {text}" if text else type(error).__name__)


def settle(job: InstanceJob, answer: Answer, seconds: float) -> Answer:
    """Stamp the outside time on an answer; one that came after the limit is a ``timeout``, as in VNN-COMP.

    ``seconds`` is what answering took, to which the job's part of a survey is added.
    """
    seconds += job.spent
    answer = replace(answer, seconds=seconds)
    if seconds <= job.timeout or answer.verdict not in (Verdict.SAT, Verdict.UNSAT):
        return answer
    reason = f"{answer.verdict} after {seconds:.2f} s, past the limit of {job.timeout:g} s"
    return replace(answer, verdict=Verdict.TIMEOUT, reason=reason, witness=None)
