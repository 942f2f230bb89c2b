"""Which job comes next: jobs of one network stay together, so that a worker keeps the network it has loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from toolkit.bench.job import Job

Networks = tuple[tuple[str, Path], ...]
Groups = dict[Networks, deque[Job]]


def group(jobs: Iterable[Job]) -> Groups:
    """The jobs by network, each group in the order given."""
    groups: Groups = {}
    for job in jobs:
        groups.setdefault(job.networks, deque()).append(job)
    return groups


def take(groups: Groups, loaded: Networks | None) -> Job | None:
    """Remove and return the next job for a worker that has ``loaded``; None when nothing is left.

    A worker without more jobs of its network moves to the largest group, which also spreads the workers at the start.
    """
    if not groups:
        return None
    networks = loaded if loaded in groups else max(groups, key=lambda key: len(groups[key]))
    jobs = groups[networks]
    job = jobs.popleft()
    if not jobs:
        del groups[networks]
    return job
