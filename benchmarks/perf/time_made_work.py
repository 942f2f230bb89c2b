"""What choices are worth that few instances read: half of each, it, and twice of it, on work made for it.

    python benchmarks/perf/time_made_work.py OUT.json [--choices GROUP.NAME ...] [--rounds 3]

Blocks of files, batches of images, first proofs without torch, exact leaves of strict queries, and root bounds of many
queries at once. The values take turns; of each the least processor seconds over the rounds count, and what was done
(queries decided, bytes) is written beside them.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from host import machine, taken
from onnx import TensorProto, helper, numpy_helper
from sweep_choices import tables

from toolkit.bench.executors import ExecutorLimits, in_process
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Finished
from toolkit.bench.verify_job import VERIFY, load
from toolkit.data.dataset import Split
from toolkit.formats.compressed import read_decompressed
from toolkit.formats.vnnlib.read import parse_query, read_query
from toolkit.problem.cases import compile_cases
from toolkit.quick_proof import quick_proof
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.training.accuracy import accuracy
from toolkit.training.stats import measure_stability
from toolkit.tuning import DEFAULTS, using
from toolkit.verify import load_networks, verify

ROOT = Path(__file__).resolve().parents[2]
Work = Callable[[], object]
TEXT_BYTES = 1 << 26
"""Size of the text that is read."""
QUERIES = 40
"""Queries of benchmarks/digits, evenly spread over it."""


def compressed_text(folder: Path) -> Path:
    """A compressed file of numbers, as specifications are."""
    numbers = np.random.default_rng(0).random(1 << 16)
    text = "".join(f"(assert (<= X_{k} {number:.6f}))\n" for k, number in enumerate(numbers)).encode()
    path = folder / "text.gz"
    path.write_bytes(gzip.compress((text * (TEXT_BYTES // len(text) + 1))[:TEXT_BYTES], 1))
    return path


def digits() -> list[tuple[Path, Path]]:
    """Networks and specifications of some queries."""
    folder = ROOT / "benchmarks/digits"
    rows = [line.split(",") for line in (folder / "instances.csv").read_text().splitlines()]
    return [(folder / row[0], folder / row[1]) for row in rows[:: max(1, len(rows) // QUERIES)]]


def first_proofs() -> int:
    """How many of these queries are proved by the checker's bounds."""
    proved = 0
    for network, spec in digits():
        query = read_query(spec)
        model = load_networks({"": network})[""].model
        proved += quick_proof(query, compile_cases(query), model, Clock.started(1.0)) is not None
    return proved


def strict_query(folder: Path, seed: int) -> tuple[Path, str]:
    """A sum of ReLUs with small integer weights on an integer box, asked to exceed its largest value, which it has."""
    generator = np.random.default_rng(seed)
    inputs, width = 3, 12
    weight, bias = generator.integers(-3, 4, (width, inputs)), generator.integers(-2, 3, width)
    last = generator.integers(0, 4, (1, width))
    lower = generator.integers(-2, 2, inputs)
    upper = lower + generator.integers(1, 4, inputs)
    corners = np.array(list(itertools.product(*zip(lower, upper, strict=True))))
    most = int((np.maximum(corners @ weight.T + bias, 0) @ last[0]).max())
    tensors = {"w": weight, "b": bias, "v": last}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1), helper.make_node("Relu", ["z"], ["a"]),
             helper.make_node("Gemm", ["a", "v"], ["y"], transB=1)]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size)) for name, size in (("x", 3), ("y", 1))]
    graph = helper.make_graph(nodes, "strict", ends[:1], ends[1:], constants)
    path = folder / f"strict_{seed}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    lines = [f"(declare-const X_{k} Real)" for k in range(inputs)] + ["(declare-const Y_0 Real)"]
    lines += [f"(assert (>= X_{k} {low}))(assert (<= X_{k} {high}))"
              for k, (low, high) in enumerate(zip(lower, upper, strict=True))]  # fmt: skip
    return path, "\n".join([*lines, f"(assert (> Y_0 {most}))"])


def strict_queries(folder: Path) -> dict[str, int]:
    """Verdicts of strict queries, all of which are unsatisfiable, and by what."""
    found: dict[str, int] = {}
    for seed in range(12):
        path, text = strict_query(folder, seed)
        result = verify(load_networks({"": path}), parse_query(text), Settings(device="cpu", timeout=10, processes=1))
        how = f"{result.verdict} {result.statistics.decided_by}".strip()
        found[how] = found.get(how, 0) + 1
    return found


def together() -> int:
    """Queries of one network decided in one process with their root bounds computed together."""
    load.cache_clear()
    (benchmark,) = find_benchmarks(ROOT / "benchmarks/digits", "1.0")
    jobs = make_jobs(benchmark, Settings(device="cpu", processes=1), 20, QUERIES)
    events = in_process(jobs, VERIFY, ExecutorLimits())
    return sum(str(event.answer.verdict) in ("sat", "unsat") for event in events if isinstance(event, Finished))


def images(count: int) -> Split:
    return Split(torch.rand(count, 1, 28, 28), torch.randint(0, 10, (count,)))


def convolutions() -> torch.nn.Module:
    layers = [torch.nn.Conv2d(1, 16, 4, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 4, 2, 1), torch.nn.ReLU(),
              torch.nn.Flatten(), torch.nn.Linear(32 * 49, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)]  # fmt: skip
    return torch.nn.Sequential(*layers).eval()


def works(folder: Path) -> dict[str, Work]:
    """What is done for each choice."""
    text, model, split = compressed_text(folder), convolutions(), images(8192)
    strict = lambda: strict_queries(folder)  # noqa: E731
    return {
        "files.decompressed_block": lambda: len(read_decompressed(text, 1 << 31)),
        "training.evaluated_images": lambda: accuracy(model, split) >= 0,
        "training.bounded_images": lambda: len(measure_stability(model, split.images[:2048], 0.1).layers),
        "quick_proof.most_values": first_proofs,
        **{f"exact.{name}": strict for name in ("most_atoms", "most_unstable", "time_share", "most_domains",
                                                "zero_tolerance")},
        "roots.batch_cost": together,
        "roots.most_boxes": together,
    }  # fmt: skip


def in_turns(group: str, name: str, work: Work, rounds: int) -> dict[str, Any]:
    """Least processor seconds of a piece of work with half, all and twice of a choice, and what it comes to."""
    entry = getattr(DEFAULTS, group).choices[name]
    values = {"default": (entry.default, DEFAULTS), **tables(group, name, entry)}
    found: dict[str, dict[str, Any]] = {label: {"value": value, "seconds": []} for label, (value, _) in values.items()}
    for _ in range(rounds):
        for label, (_, table) in values.items():
            start = time.process_time()
            with using(table):
                found[label]["done"] = work()
            found[label]["seconds"].append(time.process_time() - start)
    return {label: {**one, "seconds": round(min(one["seconds"]), 3)} for label, one in found.items()}


def main() -> None:
    """Measure and write down, after each choice what there is by then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--choices", nargs="*", help="those to measure; all without it")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for choice, work in works(Path(folder)).items():
            group, _, name = choice.partition(".")
            if name in report.get(group, {}) or (options.choices and choice not in options.choices):
                continue
            report.setdefault(group, {})[name] = in_turns(group, name, work, options.rounds)
            print(f"{choice}: {json.dumps(report[group][name])}", flush=True)
            report["about"] = {**taken("python benchmarks/perf/time_made_work.py OUT.json"), "machine": machine()}
            options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
