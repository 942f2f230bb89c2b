"""What each choice of the tuning table is worth: queries decided with half of it, with it, and with twice of it.

    VNNCOMP_DIR=... python benchmarks/perf/sweep_choices.py OUT.json [--groups NAME ...] [--seconds 3] [--timeout 20]

Draws instances of VNN-COMP with a published verdict that the defaults decide within ``--seconds``, takes note of which
choices each of them reads, and decides it again with those halved and doubled, as far as their range allows; a share
is not made larger than 1. Each query has a process of its own, forked from one that has imported torch, with one
thread. What is compared is processor time, which a busy machine disturbs least: its sum over the instances, by the sum
of the defaults on the same ones. The defaults are measured anew for every group, which tells the noise. Results are
written after each choice, and choices that a file has already are not measured again; of some that are to be measured
again, it is enough to take them out of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
    "ascent", "crown", "strategy", "relaxations", "problem",
)  # fmt: skip
"""Groups whose choices change how fast a query is decided."""
FORKED = get_context("fork")
POINTER_BYTES = 512
"""A file that is smaller is no network, but a pointer of Git LFS to one."""


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
        class Recording(type(group)):  # type: ignore[misc]  # a class for each group
            def __getattribute__(self, attribute: str) -> Any:
                if attribute in type(group).choices:
                    read.add(f"{name}.{attribute}")
                return super().__getattribute__(attribute)

        Recording.choices = type(group).choices
        return Recording()

    return TuningTable(**{name: recorder(name, group) for name, group in DEFAULTS._asdict().items()})


def decided_in_child(pipe: Any, instance: SampledInstance, table: TuningTable | None, timeout: float) -> None:
    """Decide a query with a table, or with one that records what is read, and send what came of it."""
    read: set[str] = set()
    torch.set_num_threads(1)
    start = time.process_time()
    with using(recording_table(read) if table is None else table):
        settings = Settings(device="cpu", timeout=timeout, processes=1)
        result = verify(load_networks({"": instance.network}), read_query(instance.specification), settings)
    seconds = time.process_time() - start
    pipe.send({"verdict": str(result.verdict), "seconds": seconds, "reads": read, "by": result.statistics.decided_by})
    pipe.close()


def answer(instance: SampledInstance, table: TuningTable | None, timeout: float) -> dict[str, Any]:
    """What a forked process makes of a query."""
    receiver, sender = FORKED.Pipe(duplex=False)
    child = FORKED.Process(target=decided_in_child, args=(sender, instance, table, timeout))
    child.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        found = {"verdict": "crash", "seconds": timeout, "reads": set(), "by": ""}
    child.join()
    return found


def sample(folder: Path, each: int, seed: int, seconds: float, timeout: float) -> list[SampledInstance]:
    """Instances that the defaults decide soon, as was published, among those whose networks are there."""
    found = []
    for family, network, specification, published in drawn(folder, each, seed):
        here = folder / family
        if (here / network).stat().st_size < POINTER_BYTES:
            continue
        instance = SampledInstance(family, here / network, here / specification, published)
        got = answer(instance, None, min(seconds, timeout))
        if got["verdict"] == published:
            one = SampledInstance(
                family, here / network, here / specification, published, frozenset(got["reads"]), got["seconds"]
            )
            found.append(one)
            print(f"{one.name}: {got['by']}, {one.seconds:.1f} s, {len(one.reads)} choices", flush=True)
    return found


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


def compared(instances: list[SampledInstance], table: TuningTable, timeout: float) -> dict[str, Any]:
    """Instances decided with a table, and processor time by that of the defaults."""
    answers = [answer(instance, table, timeout) for instance in instances]
    right = sum(found["verdict"] == one.published for found, one in zip(answers, instances, strict=True))
    seconds = sum(found["seconds"] for found in answers)
    return {"decided": right, "time": round(seconds / sum(one.seconds for one in instances), 3)}


def measured(group: str, name: str, entry: Choice, instances: list[SampledInstance], timeout: float) -> dict[str, Any]:
    """Half and twice of a choice on the instances that read it."""
    readers = [one for one in instances if f"{group}.{name}" in one.reads]
    result: dict[str, Any] = {"instances": len(readers)}
    for label, factor in (("half", 0.5), ("twice", 2.0)) if readers else ():
        value = scaled(entry, factor)
        if value != entry.default:
            table = DEFAULTS.changed(**{group: {name: value}})
            shown = value.cpu if isinstance(value, PerDevice) else value
            result[label] = {"value": shown, **compared(readers, table, timeout)}
    return result


def main() -> None:
    """Measure choices and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--groups", nargs="*", default=list(GROUPS))
    parser.add_argument("--each", type=int, default=1, help="instances drawn of each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3, help="most seconds with the defaults")
    parser.add_argument("--timeout", type=float, default=20, help="limit of a query with other values")
    options = parser.parse_args()
    report: Mapping[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    instances = sample(Path(os.environ["VNNCOMP_DIR"]), options.each, options.seed, options.seconds, options.timeout)
    command = "python benchmarks/perf/sweep_choices.py OUT" + f" --each {options.each} --seed {options.seed}"
    groups = {name: dict(found) for name, found in report.items() if name in GROUPS}
    noise = dict(report.get("about", {}).get("defaults again", {}))
    for group, name, entry in choices(options.groups):
        if name in groups.setdefault(group, {}):
            continue
        if group not in noise:
            noise[group] = compared(instances, DEFAULTS, options.timeout)
        groups[group][name] = measured(group, name, entry, instances, options.timeout)
        print(f"{group}.{name}: {json.dumps(groups[group][name])}", flush=True)
        about = {
            **taken(command),
            "machine": machine(),
            "sample": {one.name: round(one.seconds, 3) for one in instances},
            "defaults again": noise,
        }
        options.out.write_text(json.dumps({"about": about, **groups}, indent=1) + "\n")


if __name__ == "__main__":
    main()
