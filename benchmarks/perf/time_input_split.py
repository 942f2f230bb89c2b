"""Input splitting on real queries: boxes, boxes a second, and the price of a box against plain CROWN.

    python benchmarks/perf/time_input_split.py FOLDER OUT.json [TEXT ...]

FOLDER has an ``instances.csv``; of its instances those are taken whose network and specification contain all words of
some TEXT (``"3_3 prop_2"``), or all. Every query runs once, with the time limit of its instance. The price of a box is
measured on the same boxes in the same run, so that its ratio holds on a busy machine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from host import machine, taken

from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.crown import crown_bounds, tighten
from toolkit.bounds.interval import Bounds
from toolkit.formats.vnncomp.instances import Instance, read_instances
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.compile import Problem, compile_problem
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

BOXES = 512
"""Boxes on which the two ways of bounding are compared."""
WIDTH = 0.05
"""Their width, as a share of the query's box."""
CHILD = 0.8
"""Width of a child, as a share of its parent's: what is left of a half after clipping varies."""
REPEATS = 3


def main() -> None:
    """Measure the chosen instances and write one JSON object."""
    folder, out, *texts = sys.argv[1:]
    report = {
        **taken("python benchmarks/perf/time_input_split.py FOLDER OUT.json " + " ".join(map(repr, texts))),
        "machine": machine(),
        "queries": [measured(instance) for instance in chosen(Path(folder), texts)],
    }
    Path(out).write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def chosen(folder: Path, texts: list[str]) -> Iterator[Instance]:
    """Instances whose files' names contain all words of some text."""
    for instance in read_instances(folder / "instances.csv"):
        name = f"{instance.onnx_field} {instance.spec_field}"
        if not texts or any(all(word in name for word in text.split()) for text in texts):
            yield instance


def measured(instance: Instance) -> dict[str, Any]:
    """One run of one query, and the prices of its boxes."""
    networks, query = load_networks(instance.networks), read_query(instance.spec)
    bindings = {name: network.binding for name, network in bind(query, networks).items()}
    processor = time.process_time()
    result = verify(networks, query, Settings(timeout=instance.timeout, strategy="input", device="cpu"))
    processor = time.process_time() - processor
    statistics = result.statistics
    with torch.no_grad():
        prices = price_of_a_box(compile_problem(query, bindings))
    return {
        "network": instance.onnx_field,
        "spec": instance.spec_field,
        "verdict": result.verdict,
        "decided_by": statistics.decided_by,
        "seconds": statistics.seconds,
        "processor_seconds": processor,
        "boxes": statistics.domains,
        "boxes_a_second": statistics.domains / statistics.seconds,
        "depth": statistics.depth,
        **prices,
    }


def price_of_a_box(problem: Problem) -> dict[str, float]:
    """Microseconds to bound a box: all rows from nothing, and only those that were unstable in its parent."""
    generator = torch.Generator().manual_seed(0)
    side = problem.upper[:1] - problem.lower[:1]
    lower = problem.lower[:1] + torch.rand(BOXES, side.shape[1], generator=generator, dtype=side.dtype) * side * 0.9
    parent, child = Bounds(lower, lower + WIDTH * side), Bounds(lower, lower + WIDTH * CHILD * side)
    known = crown_bounds(problem.program, parent)
    empty = lower.new_zeros(BOXES, 0, side.shape[1])
    plain = seconds(lambda: crown_bounds(problem.program, child))
    inherited = seconds(lambda: tighten(problem.program, child, known, HalfSpaces(empty, empty[..., 0])))
    return {"microseconds_plain": plain / BOXES * 1e6, "microseconds_inherited": inherited / BOXES * 1e6}


def seconds(work: Callable[[], object]) -> float:
    """Best processor time of a few runs, after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
