"""What choices are worth that few instances read: half of each, it, and twice of it, on work made for it.

    python benchmarks/perf/time_made_work.py OUT.json [--choices GROUP.NAME ...] [--rounds 3] [--factors 0.5 2]

Blocks of files, batches of images, first proofs without torch, exact leaves of strict queries, root bounds of many
queries at once, frozen benchmarks, and a search in several processes. The values take turns; of each the least
processor seconds over the rounds count, and what was done (queries decided, bytes) is written beside them.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from host import machine, taken
from onnx import TensorProto, helper, numpy_helper
from sweep_choices import processor_seconds, tables

from toolkit.backends.auto_lirpa import lower_bounds
from toolkit.batched_queries import bound_together
from toolkit.bench.freeze import freeze
from toolkit.bench.generate_properties import specification
from toolkit.data.dataset import Split
from toolkit.data.load import load_dataset
from toolkit.formats.compressed import read_decompressed
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.read import parse_query, read_query
from toolkit.models.imported import insert_batch_norms
from toolkit.problem.cases import compile_cases
from toolkit.problem.compile import FeatureNetwork, compile_question, in_double
from toolkit.quick_proof import quick_proof
from toolkit.recipe import Data
from toolkit.result import Result
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.training.accuracy import accuracy
from toolkit.training.stats import measure_stability
from toolkit.tuning import DEFAULTS, tuned, using
from toolkit.verify import load_networks, verify

ROOT = Path(__file__).resolve().parents[2]
Work = Callable[[], object]
TEXT_BYTES = 1 << 26
"""Size of the text that is read."""
NETWORKS = ("conv-dense", "mlp-dense")
"""Those of benchmarks/digits that many queries ask about."""
ONE_CORE = Settings(device="cpu", timeout=100, passes=1000, processes=1)
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


def shallow_network(path: Path, weight: Any, bias: Any, last: Any) -> Path:
    """A file of a network of one hidden layer of ReLUs."""
    tensors = {"w": weight, "b": bias, "v": last}
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1), helper.make_node("Relu", ["z"], ["a"]),
             helper.make_node("Gemm", ["a", "v"], ["y"], transB=1)]  # fmt: skip
    sizes = (("x", weight.shape[1]), ("y", last.shape[0]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size)) for name, size in sizes]
    graph = helper.make_graph(nodes, path.stem, ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def formula(folder: Path, seed: int, variables: int) -> tuple[Path, str]:
    """A network that counts the violated clauses of a 3-SAT formula, and how far inputs are from 0 and 1.

    The query asks for a point where both are nearly zero, which there is: an assignment, drawn first, satisfies all
    clauses.
    """
    generator, clauses = np.random.default_rng(seed), round(4.17 * variables)
    satisfying = generator.integers(0, 2, variables)
    rows, shifts = [2 * np.eye(variables), np.eye(variables)], [-np.ones(variables), np.zeros(variables)]
    while len(rows) < clauses + 2:
        chosen, wanted = generator.choice(variables, 3, replace=False), generator.integers(0, 2, 3)
        if (satisfying[chosen] == wanted).any():
            row = np.zeros((1, variables))
            row[0, chosen] = 1 - 2 * wanted  # one less the sum of the clause's literals
            rows.append(row)
            shifts.append(np.array([1.0 - (1 - wanted).sum()]))
    last = np.zeros((2, 2 * variables + clauses))
    last[0, 2 * variables :] = 1
    last[1, :variables], last[1, variables : 2 * variables] = -1, 1
    path = shallow_network(
        folder / f"formula_{seed}_{variables}.onnx", np.concatenate(rows), np.concatenate(shifts), last
    )
    lines = [f"(declare-const X_{k} Real)" for k in range(variables)]
    lines += [f"(declare-const Y_{k} Real)" for k in range(2)]
    lines += [f"(assert (>= X_{k} 0.0))(assert (<= X_{k} 1.0))" for k in range(variables)]
    return path, "\n".join([*lines, "(assert (<= Y_0 0.0001))(assert (<= Y_1 0.0001))"])


def strict_query(folder: Path, seed: int, width: int) -> tuple[Path, str]:
    """A sum of ReLUs with small integer weights on an integer box, asked to exceed its largest value, which it has."""
    generator = np.random.default_rng(seed)
    inputs, name = 3, f"strict_{seed}_{width}"
    weight, bias = generator.integers(-3, 4, (width, inputs)), generator.integers(-2, 3, width)
    last = generator.integers(0, 4, (1, width))
    lower = generator.integers(-2, 2, inputs)
    upper = lower + generator.integers(1, 4, inputs)
    corners = np.array(list(itertools.product(*zip(lower, upper, strict=True))))
    most = int((np.maximum(corners @ weight.T + bias, 0) @ last[0]).max())
    path = shallow_network(folder / f"{name}.onnx", weight, bias, last)
    lines = [f"(declare-const X_{k} Real)" for k in range(inputs)] + ["(declare-const Y_0 Real)"]
    lines += [f"(assert (>= X_{k} {low}))(assert (<= X_{k} {high}))"
              for k, (low, high) in enumerate(zip(lower, upper, strict=True))]  # fmt: skip
    return path, "\n".join([*lines, f"(assert (> Y_0 {most}))"])


def strict_queries(folder: Path, widths: Sequence[int] = (12,)) -> dict[str, int]:
    """Verdicts of strict queries, all of which are unsatisfiable, and by what."""
    found: dict[str, int] = {}
    for seed, width in enumerate(width for width in widths for _ in range(12 // len(widths))):
        path, text = strict_query(folder, seed, width)
        result = verify(load_networks({"": path}), parse_query(text), ONE_CORE)
        how = f"{result.verdict} {result.statistics.decided_by}".strip()
        found[how] = found.get(how, 0) + 1
    return found


def together(folder: Path) -> int:
    """Queries of each network that its root bounds prove, as many of them together as are surveyed at once."""
    specs, proved = sorted(folder.glob("vnnlib/*")), 0
    for network in NETWORKS:
        networks, most = load_networks({"": folder / f"onnx/{network}.onnx"}), tuned().bench.most_surveyed_jobs
        for part in (specs[start : start + most] for start in range(0, len(specs), most)):
            clock = Clock.started(60.0)
            proved += sum(isinstance(found, Result) for found in bound_together(networks, part, ONE_CORE, clock))
    return proved


def many_images(folder: Path) -> Path:
    """The networks of benchmarks/digits with specifications of as many images as a frozen benchmark keeps."""
    source, place = ROOT / "benchmarks/digits", folder / "many"
    (place / "vnnlib").mkdir(parents=True)
    shutil.copytree(source / "onnx", place / "onnx")
    about = json.loads((source / "properties.json").read_text())
    with np.load(source / "images.npz") as pool:
        labelled = list(zip(pool["images"], pool["labels"], strict=True))[: DEFAULTS.bench.most_kept_images]
    for number, (image, label) in enumerate(labelled):
        text = specification(number, image.reshape(-1).tolist(), int(label), about["classes"], about["epsilon"])
        (place / f"vnnlib/{number:03}.vnnlib").write_text(text)
    return place


def by_lirpa(folder: Path, regions: int, iterations: int) -> dict[str, float]:
    """Bounds by auto_LiRPA in boxes, one disjunct each: how many are above zero, and their mean."""
    generator, inputs, width = np.random.default_rng(0), 16, 64
    weights = generator.normal(size=(width, inputs)), generator.normal(size=width), generator.normal(size=(2, width))
    networks = load_networks({"": shallow_network(folder / "lirpa.onnx", *weights)})
    lines = [f"(declare-const X_{k} Real)" for k in range(inputs)] + [f"(declare-const Y_{k} Real)" for k in range(2)]
    cases = []
    for centre in generator.normal(size=(regions, inputs)).tolist():
        ends = [f"(>= X_{k} {value - 0.2:.6f})(<= X_{k} {value + 0.2:.6f})" for k, value in enumerate(centre)]
        cases.append(f"(and {' '.join(ends)} (<= Y_0 Y_1))")
    query = parse_query("\n".join([*lines, f"(assert (or {' '.join(cases)}))"]))
    bindings = {name: network.binding for name, network in bind(query, networks).items()}
    compiled = compile_cases(query)
    with torch.no_grad():
        features = FeatureNetwork(query, in_double(bindings, torch.device("cpu")), compiled)
    bounds = lower_bounds(features, compile_question(compiled), iterations)
    return {"above zero": int((bounds > 0).sum()), "mean": round(float(bounds.mean()), 5)}


def benchmark_of_pixels(folder: Path, pixels: int) -> Path:
    """The benchmark of digits with five specifications, of images of so many pixels, half of which are zero."""
    place = folder / f"pixels_{pixels}"
    shutil.copytree(ROOT / "benchmarks/digits", place)
    generator = np.random.default_rng(0)
    for path in itertools.chain.from_iterable(sorted(place.glob(f"{part}vnnlib/*"))[5:] for part in ("", "2.0/")):
        path.unlink()
    for path in [*place.glob("vnnlib/*"), *place.glob("2.0/vnnlib/*")]:
        image = np.round(generator.random(pixels), 8) * (generator.random(pixels) < 0.5)
        path.write_text(specification(0, image.tolist(), 3, 10, 2 / 255))
    return place


def frozen(benchmarks: Sequence[Path], folder: Path) -> dict[str, int]:
    """Bytes of the specifications and of the images of benchmarks that are frozen."""
    sizes = {}
    for benchmark in benchmarks:
        target = folder / "frozen"
        freeze(benchmark, target, [])
        sizes[benchmark.name] = sum(path.stat().st_size for path in (target / "vnnlib").iterdir())
        sizes[f"{benchmark.name}, images"] = (target / "images.npz").stat().st_size
        shutil.rmtree(target)
    return sizes


def started_statistics() -> float:
    """Largest relative error of a variance that inserted batch normalisation starts with."""
    images = load_dataset(Data(name="digits")).train.images
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU(),
              torch.nn.Flatten(), torch.nn.Linear(512, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)]  # fmt: skip

    def variances(count: int) -> torch.Tensor:
        row = insert_batch_norms(layers, images[:count])
        return torch.cat([part.running_var for part in row if hasattr(part, "running_var")])

    return round(float((variances(tuned().training.statistics_images) / variances(len(images)) - 1).abs().max()), 3)


def images(count: int) -> Split:
    return Split(torch.rand(count, 1, 28, 28), torch.randint(0, 10, (count,)))


def convolutions() -> torch.nn.Module:
    layers = [torch.nn.Conv2d(1, 16, 4, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 4, 2, 1), torch.nn.ReLU(),
              torch.nn.Flatten(), torch.nn.Linear(32 * 49, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)]  # fmt: skip
    return torch.nn.Sequential(*layers).eval()


def works(folder: Path) -> dict[str, Work]:
    """What is done for each choice."""
    text, model, split = compressed_text(folder), convolutions(), images(8192)
    strict, wide = partial(strict_queries, folder), partial(strict_queries, folder, (12, 24, 36))
    cifar10, many = ROOT / "benchmarks/cifar10_methods", many_images(folder)
    pixels = [benchmark_of_pixels(folder, count) for count in (64, 784, 3072)]
    return {
        "files.decompressed_block": lambda: len(read_decompressed(text, 1 << 31)),
        "training.evaluated_images": lambda: accuracy(model, split) >= 0,
        "training.bounded_images": lambda: len(measure_stability(model, split.images[:2048], 0.1).layers),
        "quick_proof.most_values": first_proofs,
        "training.statistics_images": started_statistics,
        "exact.most_atoms": strict,
        "exact.most_unstable": partial(strict_queries, folder, (24, 36, 48, 64)),
        **{f"exact.{name}": wide for name in ("time_share", "zero_tolerance")},
        "lirpa.regions_per_pass": partial(by_lirpa, folder, 128, 0),
        "lirpa.slope_margin": partial(by_lirpa, folder, 16, 20),
        "roots.batch_cost": partial(together, many),
        "bench.most_surveyed_jobs": partial(together, many),
        "bench.compressed_from_bytes": partial(frozen, pixels, folder),
        "bench.most_kept_images": partial(frozen, [ROOT / "benchmarks/digits", cifar10], folder),
    }  # fmt: skip


def in_turns(group: str, name: str, work: Work, rounds: int, factors: Sequence[float]) -> dict[str, Any]:
    """Least processor seconds of a piece of work with a choice and it times some factors, and what it comes to."""
    entry = getattr(DEFAULTS, group).choices[name]
    values = {"default": (entry.default, DEFAULTS), **tables(group, name, entry, factors)}
    found: dict[str, dict[str, Any]] = {label: {"value": value, "seconds": []} for label, (value, _) in values.items()}
    for _ in range(rounds):
        for label, (_, table) in values.items():
            start = processor_seconds()
            with using(table):
                found[label]["done"] = work()
            found[label]["seconds"].append(processor_seconds() - start)
    return {label: {**one, "seconds": round(min(one["seconds"]), 3)} for label, one in found.items()}


def main() -> None:
    """Measure and write down, after each choice what there is by then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--choices", nargs="*", help="those to measure; all without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--factors", nargs="*", type=float, default=[0.5, 2.0], help="what choices are multiplied by")
    options = parser.parse_args()
    command = " ".join(["python benchmarks/perf/time_made_work.py OUT.json", *sys.argv[2:]])
    torch.set_num_threads(1)
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for choice, work in works(Path(folder)).items():
            group, _, name = choice.partition(".")
            if name in report.get(group, {}) or (options.choices and choice not in options.choices):
                continue
            report.setdefault(group, {})[name] = in_turns(group, name, work, options.rounds, options.factors)
            print(f"{choice}: {json.dumps(report[group][name])}", flush=True)
            report["about"] = {**taken(command), "machine": machine()}
            options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
