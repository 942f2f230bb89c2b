"""Which jobs come next: jobs of one network stay together, so that a worker keeps the network it has loaded.

Where the task can survey jobs, they are surveyed by network first; what that leaves open waits for the worker that did
it, which remembers what it found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from toolkit.bench.job import InstanceJob
from toolkit.settings import Settings

Networks = tuple[tuple[str, Path], ...]
K = TypeVar("K")
Kind = tuple[Networks, Settings]
"""What jobs of one survey have in common: networks, and settings but for the time limit."""


@dataclass
class JobQueue:
    """Jobs that no worker has yet, each group in the order given."""

    fresh: dict[Kind, deque[InstanceJob]]
    """Jobs that were not surveyed, by their kind."""
    together: int
    """Most jobs that are surveyed at once; 1 where none are."""
    opened: dict[int, deque[InstanceJob]] = field(default_factory=dict)
    """Jobs that the surveys of each worker left open."""

    def __bool__(self) -> bool:
        return bool(self.fresh or self.opened)


def kind(job: InstanceJob) -> Kind:
    """The kind of a job: those of one kind are surveyed together."""
    return job.networks, job.settings.model_copy(update={"timeout": 1.0})


def queue(jobs: Iterable[InstanceJob], together: int = 1, workers: int = 1) -> JobQueue:
    """The jobs by kind. Surveys are so small that every worker gets a part of the largest group."""
    fresh: dict[Kind, deque[InstanceJob]] = {}
    for job in jobs:
        fresh.setdefault(kind(job), deque()).append(job)
    largest = max(map(len, fresh.values()), default=1)
    return JobQueue(fresh, min(together, -(-largest // workers)))


def take(waiting: JobQueue, worker: int, loaded: Networks | None) -> Sequence[InstanceJob]:
    """Remove and return what a worker that has ``loaded`` does next: one job, some to survey, none where none is left.

    A worker first finishes what its surveys left open. One without more jobs of its network moves to the largest group,
    which also spreads the workers at the start, and at the end helps the others.
    """
    if worker in waiting.opened:
        return _pop(waiting.opened, worker, 1)
    if waiting.fresh:
        same = next((key for key in waiting.fresh if key[0] == loaded), None)
        return _pop(waiting.fresh, same or _largest(waiting.fresh), waiting.together)
    return _pop(waiting.opened, _largest(waiting.opened), 1) if waiting.opened else ()


def put_back(waiting: JobQueue, worker: int, jobs: Sequence[InstanceJob]) -> None:
    """Jobs that a worker's survey left open."""
    if jobs:
        waiting.opened.setdefault(worker, deque()).extend(jobs)


def _largest(groups: dict[K, deque[InstanceJob]]) -> K:
    return max(groups, key=lambda key: len(groups[key]))


def _pop(groups: dict[K, deque[InstanceJob]], key: K, most: int) -> Sequence[InstanceJob]:
    jobs = groups[key]
    taken = [jobs.popleft() for _ in range(min(most, len(jobs)))]
    if not jobs:
        del groups[key]
    return taken
