"""The task of a worker: verify the files of a job."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bench.job import Answer, Job, Task
from toolkit.formats.witness import witness_text
from toolkit.result import Result, Verdict

if TYPE_CHECKING:
    from toolkit.verify import LoadedNetwork


def prepare() -> None:
    """Load the verifier and torch, so that no instance pays for it."""
    from toolkit.bench.warmup import warm_up

    warm_up()


def answer(job: Job) -> Answer:
    """Verify one job. Reading the files counts as run time."""
    from toolkit.formats.read import read_query
    from toolkit.search.clock import Clock
    from toolkit.verify import silent, verify

    clock = Clock.started(job.timeout)
    query = read_query(job.spec)
    return to_answer(verify(load(job.networks), query, job.settings, silent, clock))


@lru_cache(maxsize=1)
def load(networks: tuple[tuple[str, Path], ...]) -> dict[str, LoadedNetwork]:
    """The networks, kept until other ones are asked for: jobs of one network come one after the other."""
    from toolkit.verify import load_networks

    return load_networks(dict(networks))


def to_answer(result: Result) -> Answer:
    """A result in the form that travels between processes; a ``sat`` without a witness is an error."""
    if result.verdict != Verdict.SAT:
        return Answer(result.verdict, result.reason, statistics=result.statistics)
    if result.witness is None:
        return Answer(Verdict.ERROR, "the verifier said sat without a witness", statistics=result.statistics)
    text = witness_text(result.witness)
    return Answer(result.verdict, result.reason, statistics=result.statistics, witness=text)


VERIFY = Task(prepare, answer)
