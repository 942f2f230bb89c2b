"""The price of one CROWN bound: ours against auto_LiRPA's, on the same queries in one process.

    python benchmarks/perf/time_lirpa.py FOLDER OUT.json FILE:ROW ...

FOLDER holds benchmark folders; each FILE:ROW is one of them and a row of its ``instances.csv``, counted from one. Both
bound all cases of the query at the root, in float64 on the CPU, from nothing known: intermediate bounds included, ours
with intervals first. The time of auto_LiRPA includes making its module and comparing it with the network, without which
no bound of it is used; that of building our program, which all phases share, is told apart. Without the library nothing
is done.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from host import machine, taken
from torch import Tensor

from toolkit.backends.auto_lirpa import library, lower_bounds
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import read_instances
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import compile_cases
from toolkit.problem.compile import FeatureNetwork, compile_problem, compile_question, in_double
from toolkit.run.clock import Clock
from toolkit.search.root import root_bounds
from toolkit.verify import load_networks, silent

REPEATS = 3
UNLIMITED = 1e9


def main() -> None:
    """Measure the chosen instances and write one JSON object."""
    folder, out, *chosen = sys.argv[1:]
    try:
        library()
    except InputError as error:
        print(f"skipped: {error}")
        return
    rows = [name.rsplit(":", 1) for name in chosen]
    report = {
        **taken("python benchmarks/perf/time_lirpa.py FOLDER OUT.json " + " ".join(chosen)),
        "machine": machine(),
        "queries": [measured(Path(folder) / name, int(row)) for name, row in rows],
    }
    Path(out).write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def measured(folder: Path, row: int) -> dict[str, Any]:
    """One query: seconds of both, their ratio, and how the bounds compare."""
    instance = read_instances(folder / "instances.csv")[row - 1]
    networks, query = load_networks(instance.networks), read_query(instance.spec)
    bindings = {name: network.binding for name, network in bind(query, networks).items()}
    cases = compile_cases(query)
    with torch.no_grad():
        building, problem = timed(lambda: compile_problem(query, bindings, cases), 1)
        features = FeatureNetwork(query, in_double(bindings, torch.device("cpu")), cases)
        own, root = timed(lambda: root_bounds(problem, Clock.started(UNLIMITED), silent))
        theirs, bounds = timed(lambda: lower_bounds(features, compile_question(cases)))
    return {
        "benchmark": folder.name,
        "network": instance.onnx_field,
        "spec": instance.spec_field,
        "cases": problem.num_cases,
        "neurons": problem.program.num_neurons,
        "seconds_to_build_ours": building,
        "seconds_native": own,
        "seconds_auto_lirpa": theirs,
        "ratio_auto_lirpa_to_native": theirs / own,
        **compared(root.lower, bounds),
    }


def compared(own: Tensor, theirs: Tensor) -> dict[str, float]:
    """Weakest bounds, and the largest advantage of either, relative to the bound's size."""
    size = 1 + torch.maximum(own.abs(), theirs.abs())
    return {
        "weakest_native": float(own.min()),
        "weakest_auto_lirpa": float(theirs.min()),
        "native_tighter_by": float(((own - theirs) / size).max()),
        "auto_lirpa_tighter_by": float(((theirs - own) / size).max()),
    }


def timed(work: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, Any]:
    """Best processor time of a few runs, and the last result."""
    times, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return min(times), result


if __name__ == "__main__":
    main()
