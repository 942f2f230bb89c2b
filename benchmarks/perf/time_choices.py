"""Figures behind numbers of the tuning table (`toolkit.tuning`) that a few seconds of one processor can tell.

    python benchmarks/perf/time_choices.py benchmarks/perf/choices.json [GROUP.FIELD ...]

Each entry of `MEASURED` is named as the group and the field that it is about; without names, all are measured. Its
seconds are processor seconds, the least of several repeats that take turns, so that a busy machine disturbs them
little, and all of them alike. Entries of the file that are not measured here are kept: figures of commits and of other
scripts.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from host import machine, taken
from time_made_work import formula, shallow_network

from toolkit.bounds.interval import Bounds
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.problem.compile import Problem, compile_problem
from toolkit.run.clock import Clock
from toolkit.run.events import silent
from toolkit.search.mixed_integer import candidate
from toolkit.search.root import root_bounds
from toolkit.verify import load_networks

REPEATS = 5
ROWS, INPUTS, NEURONS = 256, 3072, 256
"""Sizes of a map of the input: a batch of points, an image's elements, and the neurons of a layer."""
MANY_ROWS, WIDTH = 2048, 1024
"""Sizes of a product of two layers' matrices, as lattice networks have them."""
SHARES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.24)
"""Shares of elements that are not zero."""
VARIABLES = (20, 30, 40, 50)
"""Variables of formulas."""
HIDDEN = ((64, 1 << 9), (1 << 7, 1 << 10), (1 << 8, 1 << 11))
"""Inputs of networks, and neurons."""
UNLIMITED = 1e9
MAGNITUDES = (0.01, 1, 2, 4, 8, 16, 32, 64, 256, 4096)
"""Slopes of a leaky ReLU below zero."""


def least_seconds(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least processor seconds of each way, over repeats in which all take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - start)
    return {name: float(f"{seconds:.3g}") for name, seconds in best.items()}


def sparse_matrix(rows: int, columns: int, share: float) -> torch.Tensor:
    """A matrix in which this share of the elements is not zero."""
    generator = torch.Generator().manual_seed(0)
    filled = torch.rand(rows, columns, generator=generator) < share
    return torch.randn(rows, columns, generator=generator) * filled


def compressed_rows() -> dict[str, Any]:
    """A map of the input as compressed rows, and dense; the compression is made once for many products."""
    points, found = torch.randn(ROWS, INPUTS), {}
    for share in SHARES:
        matrix = sparse_matrix(NEURONS, INPUTS, share)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that compressed rows are a beta feature
            rows = matrix.to_sparse_csr()
        ways = {"dense": lambda m=matrix: m @ points.T, "compressed": lambda r=rows: r @ points.T}
        found[str(share)] = least_seconds(ways)
    return {"what": "processor seconds of one product by the share of elements that are not zero", "by_share": found}


def sparse_products() -> dict[str, Any]:
    """One product with a matrix that is mostly zeros: dense, and with its conversion to a sparse one."""
    rows, found = torch.randn(MANY_ROWS, WIDTH), {}
    for share in SHARES:
        matrix = sparse_matrix(WIDTH, WIDTH, share)
        found[str(share)] = least_seconds({
            "dense": lambda m=matrix: rows @ m,
            "sparse": lambda m=matrix: torch.sparse.mm(m.T.to_sparse(), rows.T).T,
        })  # fmt: skip
    return {
        "what": "processor seconds of one product, conversion included, by the share of elements that are not zero",
        "by_share": found,
    }


def forks() -> dict[str, Any]:
    """Starting a process of one that has imported torch and holds 200 MB, and waiting for its end."""
    held = torch.ones(50_000_000)

    def fork() -> None:
        if not (pid := os.fork()):
            os._exit(0)
        os.waitpid(pid, 0)

    seconds = least_seconds({"start and end": fork})
    return {"what": f"processor seconds of a fork of a process that holds {held.nbytes >> 20} MiB", **seconds}


def hidden_terms() -> dict[str, Any]:
    """Two slopes by one ReLU and a line, and by two ReLUs, in single precision: what rounding makes of the first."""
    values, unit = torch.rand(1 << 16, generator=torch.Generator().manual_seed(0)), torch.finfo(torch.float32).eps
    found = {}
    for slope in MAGNITUDES:
        line = slope * values + (1 - slope) * torch.relu(values)
        two = torch.relu(values) - slope * torch.relu(-values)
        errors = [((way - values).abs() / values.clamp(min=unit)).max() / unit for way in (line, two)]
        found[str(slope)] = {"one ReLU": round(float(errors[0]), 1), "two ReLUs": round(float(errors[1]), 1)}
    return {"what": "largest relative error of leaky(x) = x for x in [0, 1], in units of rounding, by slope below zero",
            "by_slope": found}  # fmt: skip


def problem_of(path: Path, text: str) -> tuple[Problem, Bounds]:
    """The problem of a query, and its neurons' bounds at the root."""
    query, networks = parse_query(text), load_networks({"": path})
    bindings = {name: network.binding for name, network in bind(query, networks).items()}
    with torch.no_grad():
        problem = compile_problem(query, bindings, compile_cases(query))
        return problem, root_bounds(problem, Clock.started(UNLIMITED), silent).bounds


def formula_witnesses() -> dict[str, Any]:
    """Mixed-integer programs of satisfiable formulas, until a point is found."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, variables in enumerate(size for size in VARIABLES for _ in range(2)):
            problem, bounds = problem_of(*formula(Path(folder), seed, variables))
            start = time.process_time()
            point = candidate(problem, bounds, 0, Clock.started(60.0))
            seconds = round(time.process_time() - start, 2)
            found.setdefault(str(variables), []).append(seconds if point is not None else math.inf)
    return {"what": "processor seconds until HiGHS finds the witness of a formula, by its variables", "found": found}


def integer_programs() -> dict[str, Any]:
    """Setting up mixed-integer programs of networks of one hidden layer, solved for a hundredth of a second."""
    found, generator = {}, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for inputs, width in HIDDEN:
            sizes = (width, inputs), (width,), (2, width)
            path = shallow_network(Path(folder) / "wide.onnx", *map(generator.standard_normal, sizes))
            lines = [
                f"(declare-const X_{k} Real)(assert (>= X_{k} -1.0))(assert (<= X_{k} 1.0))" for k in range(inputs)
            ]
            lines += ["(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (<= Y_0 Y_1))"]
            problem, bounds = problem_of(path, "\n".join(lines))
            start = time.process_time()
            candidate(problem, bounds, 0, Clock.started(0.01))
            found[str(inputs * width)] = round(time.process_time() - start, 2)
    return {"what": "processor seconds of setting up, and of a hundredth more, by the coefficients", "found": found}


MEASURED: Mapping[str, Callable[[], dict[str, Any]]] = {
    "problem.most_filled_map": compressed_rows,
    "problem.most_filled_product": sparse_products,
    "processes.seconds_to_fork": forks,
    "networks.moderate_constant": hidden_terms,
    "mixed_integer.seconds": formula_witnesses,
    "mixed_integer.most_elements": integer_programs,
}


def main(path: Path, *names: str) -> None:
    """Measure, and write the file."""
    torch.set_num_threads(1)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name, measure in MEASURED.items():
        if names and name not in names:
            continue
        group, _, field = name.partition(".")
        kept.setdefault(group, {})[field] = {
            **taken(" ".join(["python", *sys.argv])),
            "machine": machine(),
            **measure(),
        }
        print(name, json.dumps(kept[group][field]), file=sys.stderr)
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
