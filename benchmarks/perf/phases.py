"""Domains that a search over ReLU phases bounds in a second: on processors, on a GPU, with and without recordings.

    python benchmarks/perf/phases.py OUT.json WAY[,WAY...] NETWORK SPEC [NETWORK SPEC ...]

A WAY is ``cpu:2`` (with its number of threads and processes), ``cuda``, or ``cuda:unrecorded``. Every query is bounded
at its root, reduced, and then searched for six seconds in each of the ways; no witness is looked for.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from host import machine, taken

from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.compile import Problem, compile_problem
from toolkit.run import cuda_graphs
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.phase_frontier import PhaseFrontier
from toolkit.search.root import root_bounds
from toolkit.search.search_task import SearchTask, reduced
from toolkit.search.techniques import PhaseAttempt, refine, run_search
from toolkit.settings import Settings
from toolkit.verify import full_precision, load_networks, silent

SECONDS = 6.0
ROOT_SECONDS = 120.0


def main() -> None:
    """Measure every query in every way and write one JSON object."""
    out, ways, *files = sys.argv[1:]
    report = {
        **taken("python benchmarks/perf/phases.py OUT.json " + ways),
        "machine": machine(),
        "queries": [],
    }
    for network, spec in zip(files[::2], files[1::2], strict=True):
        for way in ways.split(","):
            row = {"network": Path(network).name, "spec": Path(spec).name, "way": way, **measured(network, spec, way)}
            report["queries"].append(row)
            print(json.dumps(row), flush=True)
    Path(out).write_text(json.dumps(report, indent=2) + "\n")


def measured(network: str, spec: str, way: str) -> dict[str, Any]:
    """One query searched in one way."""
    device, _, how = way.partition(":")
    threads = int(how) if device == "cpu" else 1
    torch.set_num_threads(threads)
    if how == "unrecorded":
        cuda_graphs.RECORDERS.clear()
    elif device == "cuda":
        cuda_graphs.RECORDERS["cuda"] = cuda_graphs.CudaRecorder
    with torch.no_grad(), full_precision():
        double = posed(network, spec).to(torch.device(device), torch.float64)
        task = task_of(double, Settings(device=device, processes=threads), ROOT_SECONDS)
        root = root_bounds(task.problem, task.clock, silent, double)
        task, root = reduced(task.with_rounding_errors(root.bounds), root)
        attempt = PhaseAttempt(task, root, root)
        refine(attempt)
        return searched(attempt.task, attempt.search)


def posed(network: str, spec: str) -> Problem:
    """The question of a query about one network."""
    query = read_query(Path(spec))
    networks = bind(query, load_networks({"": Path(network)}))
    return compile_problem(query, {name: one.binding for name, one in networks.items()})


def task_of(double: Problem, settings: Settings, seconds: float) -> SearchTask:
    """The problem in single precision, to be worked on so long; no point is accepted, and nobody is told anything."""
    clock, problem = Clock.started(seconds), double.to(double.program.device, torch.float32)
    return SearchTask(
        problem, settings, clock, lambda *_: False, silent, lambda **_: None, lambda *_: None, double=double
    )


def searched(task: SearchTask, search: PhaseFrontier) -> dict[str, Any]:
    """What a search for some seconds comes to."""
    start = time.perf_counter()
    try:
        found = run_search(replace(task, clock=Clock.started(SECONDS)), "branch-and-bound", search)
        outcome = "proved" if found.proved else found.reason
    except OutOfTime:
        outcome = "open"
    taken = time.perf_counter() - start
    return {
        "neurons": task.problem.program.num_neurons,
        "outcome": outcome,
        "bounded": search.progress.bounded,
        "depth": search.progress.depth,
        "seconds": taken,
        "bounded_a_second": search.progress.bounded / taken,
    }


if __name__ == "__main__":
    main()
