"""The task of a worker: verify the files of a job, after the root bounds of jobs of one network together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from toolkit.bench.job import Answer, InstanceJob, WorkerTask, survey_limit
from toolkit.formats.vnncomp.witness import witness_text
from toolkit.formats.vnnlib.read import read_query
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.run.events import silent
from toolkit.verify import LoadedNetwork, LoadedQuery, check_settings, decide, load_networks, load_query

_left_open: dict[str, LoadedQuery] = {}
"""Queries that this process's last survey left open, by the keys of their jobs."""


def prepare() -> None:
    """Load the verifier and torch, so that no instance pays for it."""
    from toolkit.bench.warmup import warm_up

    warm_up()


def answer(job: InstanceJob) -> Answer:
    """Verify one job. Reading the files counts as run time."""
    clock = Clock.started(job.timeout, job.spent, job.settings.passes)
    check_settings(job.settings)
    if job.draft is not None:
        from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate

        files = ProofFiles(dict(job.networks), job.spec, job.draft)
        return to_answer(verify_with_certificate(files, load(job.networks), job.settings, silent, clock))
    posed = _left_open.pop(job.key, None) or load_query(load(job.networks), read_query(job.spec))
    return to_answer(decide(posed, job.settings, clock))


def survey(jobs: Sequence[InstanceJob]) -> list[Answer | None]:
    """Answer the jobs of one network that root bounds decide, and keep what is known of the others."""
    from toolkit.batched_queries import bound_together as look

    clock = Clock.started(survey_limit(jobs))
    _left_open.clear()
    found = look(load(jobs[0].networks), [job.spec for job in jobs], jobs[0].settings, clock)
    _left_open.update({job.key: item for job, item in zip(jobs, found, strict=True) if isinstance(item, LoadedQuery)})
    return [to_answer(item) if isinstance(item, Result) else None for item in found]


@lru_cache(maxsize=1)
def load(networks: tuple[tuple[str, Path], ...]) -> dict[str, LoadedNetwork]:
    """The networks, kept until other ones are asked for: jobs of one network come one after the other."""
    return load_networks(dict(networks))


def to_answer(result: Result) -> Answer:
    """A result in the form that travels between processes; a ``sat`` without a witness is an error."""
    if result.verdict != Verdict.SAT:
        return Answer(result.verdict, result.reason, statistics=result.statistics)
    if result.witness is None:
        return Answer(Verdict.ERROR, "the verifier said sat without a witness", statistics=result.statistics)
    text = witness_text(result.witness)
    return Answer(result.verdict, result.reason, statistics=result.statistics, witness=text)


VERIFY = WorkerTask(prepare, answer, survey)
