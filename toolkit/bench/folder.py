"""Benchmark folders in VNN-COMP layout: which there are, what they hold, and their instances as jobs.

Three layouts are read: ``instances.csv`` in the folder itself (2021 to 2025), ``1.0/instances.csv`` and
``2.0/instances.csv`` (2026), and a folder of such folders, each of which is a category.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.bench.expected import Expected, read_expected
from toolkit.bench.fingerprint import fingerprint, provenance
from toolkit.bench.job import InstanceJob, limited_key
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import Instance, read_instances
from toolkit.settings import Settings

INSTANCES = "instances.csv"
VERSIONS = ("1.0", "2.0")


@dataclass(frozen=True)
class Benchmark:
    """The instances of one category."""

    category: str
    folder: Path
    """Where ``instances.csv`` lies; networks and specifications are relative to it."""
    instances: tuple[Instance, ...]
    expected: Expected


def find_benchmarks(path: Path, version: str | None = None, categories: Collection[str] = ()) -> list[Benchmark]:
    """The benchmarks in a folder, by name; ``version`` picks the specifications' language where both are there.

    Raises :class:`InputError` when there are none, or none of a name in ``categories``.
    """
    if not path.is_dir():
        what = "a file, and its folder is wanted" if path.is_file() else "no such folder"
        raise InputError(f"{path}: {what}; give a recipe (.toml) or a folder with instances.csv")
    root = path.resolve()
    found = {_name(root): path} if _instances_folder(path, version) else _inner(path, version)
    if not found:
        raise InputError(
            f"{path}: no {INSTANCES} in it, nor in its folders{f' for VNN-LIB {version}' if version else ''}"
        )
    missing = [name for name in categories if name not in found]
    if missing:
        raise InputError(f"{path}: no category '{missing[0]}'; there are {', '.join(sorted(found))}")
    return [_read(name, folder, version) for name, folder in found.items() if not categories or name in categories]


def _name(folder: Path) -> str:
    return folder.parent.name if folder.name in VERSIONS else folder.name


def _inner(path: Path, version: str | None) -> dict[str, Path]:
    return {folder.name: folder for folder in sorted(path.iterdir()) if _instances_folder(folder, version)}


def _instances_folder(path: Path, version: str | None) -> Path | None:
    """Where the ``instances.csv`` of that version lies; without a version the folder's own, then 1.0, then 2.0."""
    names = {None: ("", *VERSIONS), "1.0": ("1.0", ""), "2.0": ("2.0",)}[version]
    return next((path / name for name in names if (path / name / INSTANCES).is_file()), None)


def _read(category: str, path: Path, version: str | None) -> Benchmark:
    folder = _instances_folder(path, version)
    assert folder is not None
    return Benchmark(category, folder, tuple(read_instances(folder / INSTANCES)), read_expected(folder))


def make_jobs(
    benchmark: Benchmark,
    settings: Settings,
    timeout: float | None = None,
    limit: int | None = None,
    memory: float | None = None,
) -> list[InstanceJob]:
    """The first ``limit`` instances as jobs; ``timeout`` (seconds) replaces the time limit of every instance.

    ``memory`` is the limit of the whole run in GiB, if there is one: what decides nothing under it may under another.
    """
    return [with_key(job) for job in list_jobs(benchmark, settings, timeout, limit, memory)]


def list_jobs(
    benchmark: Benchmark,
    settings: Settings,
    timeout: float | None = None,
    limit: int | None = None,
    memory: float | None = None,
) -> list[InstanceJob]:
    """The first ``limit`` instances as jobs that have no key yet, for which no network or specification is read."""
    return [_list_job(benchmark, instance, settings, timeout, memory) for instance in benchmark.instances[:limit]]


def with_key(job: InstanceJob) -> InstanceJob:
    """The job with what its answer depends on, and its keys; its files are read for that."""
    origin = provenance(job.networks, job.spec, job.settings)
    question = fingerprint(job.category, job.onnx, job.vnnlib, origin)
    return replace(job, key=limited_key(question, job.settings, job.memory), origin=origin, question=question)


def _list_job(
    benchmark: Benchmark, instance: Instance, settings: Settings, timeout: float | None, memory: float | None
) -> InstanceJob:
    return InstanceJob(
        key="",
        category=benchmark.category,
        onnx=instance.onnx_field,
        vnnlib=instance.spec_field,
        networks=tuple((name, present(path)) for name, path in instance.networks.items()),
        spec=present(instance.spec),
        settings=settings.model_copy(update={"timeout": timeout or instance.timeout}),
        memory=memory,
    )


def present(path: Path) -> Path:
    """The path itself, or its compressed form where only that is there."""
    compressed = path.with_name(path.name + ".gz")
    return compressed if not path.exists() and compressed.exists() else path
