"""Honest numbers of this machine: start-up, bounding rate against matrix products, time against density.

    python benchmarks/perf/run.py [OUT.json]

Prints one JSON object and writes it to OUT (default ``results/perf.json``). Compare ratios within one run: machines are
noisy, and other work on them is part of every second measured. Keep a run that backs a claim under
``benchmarks/perf/`` with the claim's name.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from host import machine, taken

from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.dual_ascent import evaluate, relax, supergradient
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Domain, Multipliers
from toolkit.formats.vnncomp.instances import Instance, read_instances
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.program import Program, build_program
from toolkit.problem.trace import trace
from toolkit.settings import Settings
from toolkit.verify import LoadedNetwork, load_networks, verify

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "benchmarks" / "digits"
REPEATS = 3
DOMAINS = 512


def seconds(work: Callable[[], object]) -> float:
    """Best time of a few runs, after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def matrix_rate() -> float:
    """Billions of multiplications and additions a second in a large matrix product, single precision."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / seconds(lambda: a @ a) / 1e9


def random_program(*widths: int) -> Program:
    """A fully connected ReLU network with random weights."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b) for a, b in itertools.pairwise(widths)]

    def network(x: torch.Tensor) -> torch.Tensor:
        for layer in layers[:-1]:
            x = torch.relu(layer(x))
        return layers[-1](x)

    graph = trace(lambda x: network(x.reshape(1, -1)).reshape(-1), [torch.zeros(widths[0])])
    return build_program(graph).to(torch.device("cpu"), torch.float32)


def bounding_rate(peak: float) -> dict[str, float]:
    """Domains bounded a second (one step of the ascent each), and the share of the matrix rate that it reaches."""
    program = random_program(784, 256, 256, 256, 10)
    centre = torch.zeros(1, 784)
    box = Bounds(centre - 0.01, centre + 0.01)
    bounds = crown_bounds(program, box)
    shape = (DOMAINS, program.num_neurons)
    domain = Domain(
        box=Bounds(box.lower.expand(DOMAINS, -1), box.upper.expand(DOMAINS, -1)),
        bounds=Bounds(bounds.lower.expand(shape), bounds.upper.expand(shape)),
        phase=torch.zeros(shape, dtype=torch.int8),
        atoms=torch.randn(DOMAINS, 1, 10),
        constants=torch.zeros(DOMAINS, 1),
    )
    multipliers = Multipliers(torch.full(shape, 0.5), torch.zeros(shape), torch.ones(DOMAINS, 1))
    relaxed = relax(program, domain)
    taken = seconds(lambda: supergradient(program, relaxed, evaluate(program, relaxed, multipliers)))
    # One step is a backward and a forward pass.
    rate = 2 * 2 * program.cost * DOMAINS / taken / 1e9
    return {"domains_per_second": DOMAINS / taken, "gflops": rate, "share_of_matrix_rate": rate / peak}


def start_up(verdict: str) -> float:
    """Seconds of a whole process for the first digits query with this verdict."""
    rows = [line.rsplit(",", 3) for line in (DIGITS / "expected.csv").read_text().splitlines()]
    network, spec = next((row[0], row[1]) for row in rows if row[-1] == verdict)
    command = [sys.executable, "-m", "toolkit.cli", "verify", str(DIGITS / spec), "--network", str(DIGITS / network)]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True, cwd=ROOT))


def by_network() -> dict[str, list[Instance]]:
    """The first ten digits queries of each network."""
    groups: dict[str, list[Instance]] = {}
    for instance in read_instances(DIGITS / "instances.csv"):
        groups.setdefault(instance.onnx_field, []).append(instance)
    return {name: instances[:10] for name, instances in groups.items()}


def against_density() -> list[dict[str, Any]]:
    """Mean seconds and domains of the magnitude chain's networks: the same architecture, ever sparser."""
    rows = []
    for name, instances in by_network().items():
        if "conv-magnitude-0" not in name and "conv-dense" not in name:
            continue
        networks: dict[str, LoadedNetwork] = load_networks(instances[0].networks)
        queries = [read_query(instance.spec) for instance in instances]
        verify(networks, queries[0], Settings())
        results = [verify(networks, query, Settings()) for query in queries]
        rows.append(
            {
                "network": name,
                "seconds": statistics.mean(result.statistics.seconds for result in results),
                "unstable": statistics.mean(result.statistics.unstable for result in results),
                "domains": statistics.mean(result.statistics.domains for result in results),
            }
        )
    return rows


def main() -> None:
    """Measure everything and write it down."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "perf.json"
    peak = matrix_rate()
    with torch.no_grad():
        bounding = bounding_rate(peak)
    report = {
        "machine": {**taken("python benchmarks/perf/run.py"), **machine()},
        "matrix_gflops": peak,
        "bounding": bounding,
        "start_up_seconds": {"sat": start_up("sat"), "unsat": start_up("unsat")},
        "against_density": against_density(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
