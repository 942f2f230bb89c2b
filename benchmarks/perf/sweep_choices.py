"""What each choice of the tuning table is worth: queries decided with half of it, with it, and with twice of it.

    VNNCOMP_DIR=... python benchmarks/perf/sweep_choices.py OUT.json [--groups NAME ...] [--seconds 3] [--timeout 20]
                                                            [--unmeasured] [--readers 6] [--folder benchmarks]
                                                            [--choices GROUP.NAME ...] [--factors 0.5 2]
                                                            [--passes 4000] [--processes 2]

Draws instances of VNN-COMP with a published verdict that the defaults decide within ``--seconds``, takes note of which
choices each of them reads, and decides it again with those halved and doubled, as far as their range allows; a share
is not made larger than 1. Each query has a process of its own, forked from one that has imported torch, with one
thread. What is compared is processor time, which a busy machine disturbs least: its sum over the instances, by the sum
of the defaults on the same ones. The defaults are measured anew for every group, which tells the noise. Results are
written after each choice, and choices that a file has already are not measured again; of some that are to be measured
again, it is enough to take them out of the file.

With ``--unmeasured``, choices of all groups that the table knows no record of are measured, each on the ``--readers``
quickest instances that read it, where defaults, half and twice take turns; ``--folder`` names other families than those
of VNN-COMP, ``--sample`` a file of instances with what they read, written if it is not there. With ``--choices``,
those that are named are measured so, by other ``--factors`` where half and twice are not enough. With ``--passes``, a
query is limited by bounding passes in place of time: the turns of its search are then the same however busy the machine
is, and so are its passes. Processor time is that of all ``--processes`` of a query together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from host import machine, taken
from pairs import drawn

from toolkit.formats.vnnlib.read import read_query
from toolkit.settings import Settings
from toolkit.tuning import DEFAULTS, Choice, PerDevice, TuningTable, using
from toolkit.verify import load_networks, verify

GROUPS = (
    "agreement", "points", "secants", "evolution", "gradients", "precision", "attack", "batches", "roots", "boxes",
    "phases", "neuron_trees", "exact", "mixed_integer", "reduction", "clipping", "zonotopes", "neuron_bounds",
    "crown", "strategy", "relaxations", "problem",
)  # fmt: skip
"""Groups whose choices change how fast a query is decided."""
FORKED = get_context("fork")
POINTER_BYTES = 512
"""A file that is smaller is no network, but a pointer of Git LFS to one."""


@dataclass(frozen=True)
class Limits:
    """What a query may take."""

    timeout: float
    passes: int = 0
    """Bounding passes in place of time; 0 where time is the limit."""
    processes: int = 1

    @property
    def settings(self) -> Settings:
        return Settings(device="cpu", **vars(self))


@dataclass(frozen=True)
class SampledInstance:
    """One query of the sample, and what the defaults come to."""

    family: str
    network: Path
    specification: Path
    published: str
    reads: frozenset[str] = frozenset()
    """Choices that are read on the way, as ``group.name``."""
    seconds: float = 0.0
    """Processor seconds with the defaults."""

    @property
    def name(self) -> str:
        return f"{self.family}: {self.network.name}, {self.specification.name}"


def recording_table(read: set[str]) -> TuningTable:
    """The defaults, in a table that takes note of what is read."""

    def recorder(name: str, group: Any) -> Any:
        class RecordingGroup(type(group)):  # type: ignore[misc]  # a class for each group
            def __getattribute__(self, attribute: str) -> Any:
                if attribute in type(group).choices:
                    read.add(f"{name}.{attribute}")
                return super().__getattribute__(attribute)

        RecordingGroup.choices = type(group).choices
        return RecordingGroup()

    return TuningTable(**{name: recorder(name, group) for name, group in DEFAULTS._asdict().items()})


def processor_seconds() -> float:
    """Seconds of this process and of those that it started and that ended."""
    return sum(os.times()[:4])


def decided_in_child(pipe: Any, instance: SampledInstance, table: TuningTable | None, limits: Limits) -> None:
    """Decide a query with a table, or with one that records what is read, and send what came of it."""
    read: set[str] = set()
    torch.set_num_threads(1)
    start = processor_seconds()
    with using(recording_table(read) if table is None else table):
        result = verify(load_networks({"": instance.network}), read_query(instance.specification), limits.settings)
    seconds = processor_seconds() - start
    told = result.statistics
    pipe.send({"verdict": str(result.verdict), "seconds": seconds, "passes": told.passes, "reads": read,
               "by": told.decided_by})  # fmt: skip
    pipe.close()


def answer(instance: SampledInstance, table: TuningTable | None, limits: Limits) -> dict[str, Any]:
    """What a forked process makes of a query."""
    receiver, sender = FORKED.Pipe(duplex=False)
    child = FORKED.Process(target=decided_in_child, args=(sender, instance, table, limits))
    child.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        found = {"verdict": "crash", "seconds": limits.timeout, "passes": 0, "reads": set(), "by": ""}
    child.join()
    return found


def sample(folder: Path, each: int, seed: int, limits: Limits) -> list[SampledInstance]:
    """Instances that the defaults decide soon, as was published, among those whose networks are there."""
    found = []
    for family, network, specification, published in drawn(folder, each, seed):
        here = folder / family
        if (here / network).stat().st_size < POINTER_BYTES:
            continue
        instance = SampledInstance(family, here / network, here / specification, published)
        got = answer(instance, None, limits)
        if got["verdict"] == published:
            one = SampledInstance(
                family, here / network, here / specification, published, frozenset(got["reads"]), got["seconds"]
            )
            found.append(one)
            print(f"{one.name}: {got['by']}, {one.seconds:.1f} s, {len(one.reads)} choices", flush=True)
    return found


def store(instances: list[SampledInstance], path: Path, folder: Path) -> None:
    """Write down instances with what they read, by their places in a folder of families."""
    rows = [{**vars(one), "network": str(one.network.relative_to(folder)),
             "specification": str(one.specification.relative_to(folder)), "reads": sorted(one.reads)}
            for one in instances]  # fmt: skip
    path.write_text(json.dumps(rows, indent=1) + "\n")


def stored(path: Path, folder: Path) -> list[SampledInstance]:
    """The instances that were written down."""
    return [SampledInstance(**row | {"network": folder / row["network"], "specification": folder / row["specification"],
                                     "reads": frozenset(row["reads"])})
            for row in json.loads(path.read_text())]  # fmt: skip


def scaled(entry: Choice, factor: float) -> Any:
    """A default times a factor, within its range, and whole if it is."""

    def one(value: float) -> float:
        most = min(entry.most, 1.0) if entry.unit == "share" else entry.most
        other = min(max(value * factor, entry.least), most)
        return type(value)(round(other)) if isinstance(value, int) else other

    default = entry.default
    return PerDevice(one(default.cpu), default.elsewhere) if isinstance(default, PerDevice) else one(default)


def choices(groups: list[str]) -> Iterator[tuple[str, str, Choice]]:
    """Group, name and entry of each choice of some groups."""
    for group in groups:
        for name, entry in getattr(DEFAULTS, group).choices.items():
            yield group, name, entry


def compared(instances: list[SampledInstance], table: TuningTable, limits: Limits) -> dict[str, Any]:
    """Instances decided with a table, and processor time by that of the defaults."""
    answers = [answer(instance, table, limits) for instance in instances]
    right = sum(found["verdict"] == one.published for found, one in zip(answers, instances, strict=True))
    seconds = sum(found["seconds"] for found in answers)
    return {"decided": right, "time": round(seconds / sum(one.seconds for one in instances), 3)}


def tables(
    group: str, name: str, entry: Choice, factors: Sequence[float] = (0.5, 2.0)
) -> dict[str, tuple[Any, TuningTable]]:
    """A choice times some factors, where its range has them: value and table, by label."""
    labels = {0.5: "half", 2.0: "twice"}
    values = {labels.get(factor, f"times {factor:g}"): scaled(entry, factor) for factor in factors}
    return {label: (value.cpu if isinstance(value, PerDevice) else value, DEFAULTS.changed(**{group: {name: value}}))
            for label, value in values.items() if value != entry.default}  # fmt: skip


def measured(group: str, name: str, entry: Choice, instances: list[SampledInstance], limits: Limits) -> dict[str, Any]:
    """Half and twice of a choice on the instances that read it."""
    readers = [one for one in instances if f"{group}.{name}" in one.reads]
    result: dict[str, Any] = {"instances": len(readers)}
    for label, (value, table) in tables(group, name, entry).items() if readers else ():
        result[label] = {"value": value, **compared(readers, table, limits)}
    return result


def readers_of(choice: str, instances: list[SampledInstance], most: int) -> list[SampledInstance]:
    """The quickest instances that read a choice, up to so many."""
    return sorted((one for one in instances if choice in one.reads), key=lambda one: one.seconds)[:most]


def in_turns(
    group: str, name: str, entry: Choice, readers: list[SampledInstance], limits: Limits, factors: Sequence[float]
) -> dict[str, Any]:
    """The default and other values of a choice on some instances, one after the other on each: instances decided,
    processor seconds, and the passes of bounding, which no other process disturbs; in all, and of each instance."""
    others = {"default": (entry.default, DEFAULTS), **tables(group, name, entry, factors)}
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in others}
    for one in readers:
        for label, (_, table) in others.items():
            found[label].append(answer(one, table, limits) | {"published": one.published})
    result: dict[str, Any] = {"instances": [one.name for one in readers]}
    for label, answers in found.items():
        result[label] = {
            "value": others[label][0],
            "decided": sum(each["verdict"] == each["published"] for each in answers),
            "seconds": round(sum(each["seconds"] for each in answers), 2),
            "passes": sum(each["passes"] for each in answers),
            "each": [f"{each['verdict']} {each['seconds']:.2f} {each['passes']}" for each in answers],
        }
    return result


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--groups", nargs="*", default=list(GROUPS))
    parser.add_argument("--each", type=int, default=1, help="instances drawn of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3, help="most seconds with the defaults")
    parser.add_argument("--timeout", type=float, default=20, help="limit of a query with other values")
    parser.add_argument("--unmeasured", action="store_true", help="the choices that have no record")
    parser.add_argument("--choices", nargs="*", default=[], help="these choices, as GROUP.NAME")
    parser.add_argument("--factors", nargs="*", type=float, default=[0.5, 2.0], help="what these are multiplied by")
    parser.add_argument("--passes", type=int, default=0, help="limit of bounding passes, in place of time")
    parser.add_argument("--processes", type=int, default=1, help="processes of each query")
    parser.add_argument("--readers", type=int, default=6, help="instances of each of these")
    parser.add_argument("--sample", type=Path, help="instances with what they read")
    parser.add_argument("--folder", type=Path, help="families, instead of those in VNNCOMP_DIR")
    return parser.parse_args()


def main() -> None:
    """Measure choices and write what was found."""
    options = arguments()
    report: Mapping[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    folder = options.folder or Path(os.environ["VNNCOMP_DIR"])
    limits = Limits(options.timeout, options.passes, options.processes)
    if options.sample and options.sample.exists():
        instances = stored(options.sample, folder)
    else:
        soon = replace(limits, timeout=min(options.seconds, options.timeout))
        instances = sample(folder, options.each, options.seed, soon)
        if options.sample:
            store(instances, options.sample, folder)
    command = "python benchmarks/perf/sweep_choices.py OUT " + " ".join(sys.argv[2:])
    groups = {name: dict(found) for name, found in report.items() if name in DEFAULTS._fields}
    noise = dict(report.get("about", {}).get("defaults again", {}))
    turns = options.unmeasured or options.choices
    for group, name, entry in choices(list(DEFAULTS._fields) if turns else options.groups):
        readers = readers_of(f"{group}.{name}", instances, options.readers)
        wanted = f"{group}.{name}" in options.choices or (options.unmeasured and entry.measured == "no")
        if name in groups.setdefault(group, {}) or (turns and not wanted):
            continue
        if turns and not readers:
            print(f"{group}.{name}: read by none of {len(instances)} instances", flush=True)
            continue
        if turns:
            groups[group][name] = in_turns(group, name, entry, readers, limits, options.factors)
        else:
            if group not in noise:
                noise[group] = compared(instances, DEFAULTS, limits)
            groups[group][name] = measured(group, name, entry, instances, limits)
        print(f"{group}.{name}: {json.dumps(groups[group][name])}", flush=True)
        about = {
            **taken(command),
            "machine": machine(),
            "sample": {one.name: round(one.seconds, 3) for one in instances},
            "defaults again": noise,
        }
        found = {name: group for name, group in groups.items() if group}
        options.out.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
