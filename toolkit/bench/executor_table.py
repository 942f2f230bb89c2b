"""The executors that ``--executor`` takes, by name."""

from __future__ import annotations

from toolkit.bench.executors import Executor, in_process
from toolkit.bench.ray_cluster import RayCluster
from toolkit.bench.worker_processes import processes
from toolkit.errors import InputError, did_you_mean

EXECUTORS: dict[str, Executor] = {"in-process": in_process, "processes": processes, "ray": RayCluster()}


def find_executor(name: str) -> Executor:
    """The executor of that name; :class:`InputError` when there is none."""
    if name not in EXECUTORS:
        known = f"choose one of {', '.join(sorted(EXECUTORS))}{did_you_mean(name, EXECUTORS)}"
        raise InputError(f"unknown executor '{name}': {known}")
    return EXECUTORS[name]
