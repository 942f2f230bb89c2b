"""What a run says about itself in its folder (``run.json``): which instances it asks, how, and on which machine.

With the journal it is all that is needed to make the run's page again, and to compare the run with others.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.bench import journal
from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.executors import available_cores
from toolkit.bench.folder import present
from toolkit.bench.job import InstanceJob
from toolkit.bench.journal import JournalRecord, answer_to
from toolkit.bench.results import has_its_files
from toolkit.bench.shards import Shard
from toolkit.devices import gpu_models
from toolkit.errors import InputError
from toolkit.result import Verdict
from toolkit.run.memory_limits import GIB, available
from toolkit.settings import Settings

NAME = "run.json"


@dataclass(frozen=True)
class AskedInstance:
    """One instance of a run: under which key the journal has its answer, and what is known of it beforehand."""

    key: str
    question: str
    settings: Settings
    expected: str = ""
    """The known verdict, empty where there is none."""
    position: int = 0
    """Place of the instance, counted from 0, among all that an undivided run has."""

    @property
    def about(self) -> str:
        """Key of the question, limits left out."""
        return self.question or self.key


@dataclass(frozen=True)
class InstanceList:
    """The instances of an undivided run, of which a run may have a part (`toolkit.bench.shards`)."""

    total: int
    digest: str
    """Hash of the names, settings and limits of all instances, which has to be the same in all parts."""

    @classmethod
    def of(cls, jobs: Sequence[InstanceJob]) -> InstanceList:
        """The list of an undivided run, from its jobs in order; they need no keys."""
        rows = [[*job.row, job.memory, job.settings.model_dump(mode="json")] for job in jobs]
        return cls(len(jobs), hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest())


@dataclass(frozen=True)
class StoredRun:
    """The description of a run."""

    name: str
    instances: tuple[AskedInstance, ...]
    folders: dict[str, str]
    """Where the networks and specifications of each category lie, as the command line named it."""
    working_folder: str
    """Where the command was called: relative folders start there."""
    command: str
    started: str
    """Time of day (UTC, ISO 8601) of the latest start."""
    machine: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    """Values of the recipe that the run is about; None for a benchmark folder."""
    shard: str = ""
    """Which part of the instances was asked for, as in 2/4; empty for all of them."""
    undivided: InstanceList | None = None
    """What the run may be a part of; None where it cannot be divided."""

    def files_of(self, record: JournalRecord) -> tuple[Path, Path]:
        """Where network and specification of an answer were, in their compressed form if only that is there."""
        folder = Path(self.working_folder, self.folders.get(record.category, ""))
        return present(folder / record.onnx), present(folder / record.vnnlib)


def describe_run(
    name: str,
    jobs: Sequence[InstanceJob],
    folders: Mapping[str, Path],
    expected: Mapping[str, Verdict],
    recipe: dict[str, Any] | None = None,
) -> StoredRun:
    """The description of a run that starts now, called by this process's command line.

    ``expected`` has known verdicts by the jobs' keys, ``folders`` the folder of each category.
    """
    return StoredRun(
        name=name,
        instances=tuple(AskedInstance(job.key, job.question, job.settings, expected.get(job.key, "")) for job in jobs),
        folders={category: str(folder) for category, folder in folders.items()},
        working_folder=str(Path.cwd()),
        command=shlex.join(["prunecert", *sys.argv[1:]]),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine_facts(),
        recipe=recipe,
    )


def as_part(run: StoredRun, shard: Shard | None, undivided: InstanceList) -> StoredRun:
    """The run as that part of an undivided one, or, without a shard, as all of it."""
    places = range(undivided.total) if shard is None else shard.positions(undivided.total)
    instances = tuple(replace(one, position=place) for one, place in zip(run.instances, places, strict=True))
    return replace(run, instances=instances, shard="" if shard is None else str(shard), undivided=undivided)


def machine_facts() -> dict[str, str]:
    """What the machine is: processor, cores that this process may use, memory, GPUs, system."""
    gpus = gpu_models()
    return {
        "processor": _processor(),
        "cores": f"{available_cores()} of {os.cpu_count()}",
        "memory": f"{available() / GIB:.0f} GiB available",
        "gpu": ", ".join(gpus) or "none",
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    """The model of the processor as Linux tells it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def check_no_other(out: Path, name: str, categories: Iterable[str], recipe: bool) -> None:
    """Raise InputError where a folder has a run about something else, whose tables and page a new one would replace.

    Two runs are about the same when both are of a recipe or both of a benchmark folder, and they have the name or a
    category in common. A description that cannot be read is no run.
    """
    try:
        before = read_run(out)
    except InputError:
        return
    common = before.name == name or not before.folders.keys().isdisjoint(categories)
    if not common or recipe != (before.recipe is not None):
        raise InputError(
            f"{out}: holds another run, of {before.name} ({before.command}), whose results would be replaced; choose "
            "another folder for this one"
        )


def store_run(out: Path, run: StoredRun) -> None:
    """Write the description into the folder of the run, in place of an earlier one.

    Settings stand there once; an instance has those that are others for it.
    """
    common = run.instances[0].settings.model_dump(mode="json") if run.instances else {}
    instances = [
        {**{name: getattr(one, name) for name in _ASKED}, "settings": _others(one.settings, common)}
        for one in run.instances
    ]
    values = {entry.name: getattr(run, entry.name) for entry in fields(run)}
    values["undivided"] = run.undivided and asdict(run.undivided)
    write_text_atomically(
        out / NAME, json.dumps({**values, "settings": common, "instances": instances}, indent=1) + "\n"
    )


_ASKED = tuple(entry.name for entry in fields(AskedInstance) if entry.name != "settings")


def _others(settings: Settings, common: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.model_dump(mode="json").items() if value != common[name]}


def note_limits(out: Path, jobs: Sequence[InstanceJob]) -> None:
    """Keep that the instances of a run are asked under other limits now: those of these jobs, in the same order.

    Nothing is done in a folder without a description.
    """
    if (out / NAME).is_file():
        run = read_run(out)
        pairs = zip(run.instances, jobs, strict=True)
        instances = tuple(replace(one, key=job.key, settings=job.settings) for one, job in pairs)
        store_run(out, replace(run, instances=instances))


def note_workers(out: Path, workers: str) -> None:
    """Keep how many workers a run has, beside what its machine is; nothing in a folder without a description."""
    if (out / NAME).is_file():
        run = read_run(out)
        store_run(out, replace(run, machine={**run.machine, "workers": workers}))


def read_run(out: Path) -> StoredRun:
    """The description in the folder of a run. Raises InputError where there is none, or it cannot be used."""
    path = out / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        common = values.pop("settings")
        instances = tuple(
            AskedInstance(**{"position": place, **one, "settings": Settings(**common | one["settings"])})
            for place, one in enumerate(values.pop("instances"))
        )
        whole = values.pop("undivided", None)
        return StoredRun(instances=instances, undivided=whole and InstanceList(**whole), **values)
    except (FileNotFoundError, NotADirectoryError):
        below = [str(found.parent) for found in sorted(out.glob(f"*/{NAME}"))]
        if below:
            raise InputError(f"{out}: no run itself, but a folder of runs; name one: {', '.join(below)}") from None
        raise InputError(
            f"{out}: no {NAME} in it, so no run of prunecert bench that can be read; the command that made the folder "
            "writes it when it is called again, and keeps the answers"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as the description of a run ({error})") from None


def stored_records(out: Path, run: StoredRun) -> list[JournalRecord]:
    """The answers that a run has so far, in the order of its instances; instances without one are absent.

    An answer whose counterexample or certificate is gone or changed does not count.
    """
    found = records_that_count(out, run)
    answers = (answer_to(one, found.get(one.about, ())) for one in run.instances)
    return [answer for answer in answers if answer is not None]


def records_that_count(out: Path, run: StoredRun) -> dict[str, list[JournalRecord]]:
    """The journal's records about each question of a run, in order, without those whose files are gone or changed."""
    found: dict[str, list[JournalRecord]] = {}
    wanted = {instance.about for instance in run.instances}
    for record in journal.history(out / journal.NAME):
        if record.about in wanted and has_its_files(record, out):
            found.setdefault(record.about, []).append(record)
    return found


def expected_by_key(run: StoredRun) -> dict[str, Verdict]:
    """Known verdicts of a run's instances, by their keys."""
    return {instance.key: Verdict(instance.expected) for instance in run.instances if instance.expected}
