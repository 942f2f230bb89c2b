"""The executors that ``--executor`` takes, by name."""

from __future__ import annotations

from toolkit.bench.executors import Executor, in_process
from toolkit.bench.ray_cluster import RayCluster
from toolkit.bench.worker_processes import processes
from toolkit.errors import InputError

EXECUTORS: dict[str, Executor] = {"in-process": in_process, "processes": processes, "ray": RayCluster()}


def find_executor(name: str) -> Executor:
    """The executor of that name; :class:`InputError` when there is none."""
    if name not in EXECUTORS:
        raise InputError(f"unknown executor '{name}': choose one of {', '.join(sorted(EXECUTORS))}")
    return EXECUTORS[name]
