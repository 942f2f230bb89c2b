"""Shipped networks of VNN-COMP pruned by every method with every loss of fine-tuning: what happens, case by case.

    python benchmarks/perf/pruning_matrix.py OUT.json VNNCOMP_DIR MNIST.npz CIFAR10.npz [NETWORK METHOD LOSS]

Each case is what `prunecert prune` does at a tiny size: the first images of the archives, one epoch, five test images,
one second each. It either ends with networks of which everything in `faults` holds, or with one line that says why
not. A NETWORK, METHOD or LOSS given restricts the cases; `-` stands for all. Cases that OUT.json has are not run again.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import onnx
import onnxruntime
import torch
from host import machine, taken
from onnx import numpy_helper
from rich.console import Console

from toolkit.bench import journal
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.bench.verify_job import VERIFY
from toolkit.commands.prune import CHANNELS, Check, NetworkInput, Pruning, Tuning, as_recipe
from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.errors import ToolkitError
from toolkit.experiments.study import verify_models
from toolkit.experiments.study_networks import make_models, stored_models
from toolkit.experiments.study_report import impossible
from toolkit.formats.onnx.model_file import load_model
from toolkit.pruning import ChainModel, build_chains
from toolkit.pruning.criterion import CRITERIA
from toolkit.recipe import Recipe
from toolkit.report.summary import summarise
from toolkit.result import Verdict

DENSITY = 0.5
TRAIN, TEST = 222, 100
"""Images of the archives that are used; a tenth of the first is held out for scores."""
SLACK = 1e-4
"""Difference of outputs, as a share of the largest, that the order of sums may make."""


@dataclass(frozen=True)
class Given:
    """A network as it is shipped, and what it is pruned for."""

    file: str
    images: str
    """Shape of the images that it is for: mnist or cifar10."""
    epsilon: str
    standardised: NetworkInput = field(default_factory=NetworkInput)


NETWORKS = {
    "mnist_fc 256x2": Given("mnist_fc/onnx/mnist-net_256x2.onnx.gz", "mnist", "0.01"),
    "mnist_fc 256x4": Given("mnist_fc/onnx/mnist-net_256x4.onnx.gz", "mnist", "0.01"),
    "cifar10_resnet 2b": Given(
        "cifar10_resnet/onnx/resnet_2b.onnx", "cifar10", "0.001", NetworkInput(mean="0.485,0.456,0.406", std="0.225")
    ),
}
METHODS = tuple(
    sorted(
        name
        for options in CRITERIA.loaded()
        for name in get_args(get_type_hints(options, include_extras=False)["name"])
    )
)
LOSSES = get_args(get_type_hints(Tuning)["loss"])


@dataclass(frozen=True)
class Case:
    """One network, method and loss."""

    network: str
    method: str
    loss: str

    def recipe(self, vnncomp: Path, images: dict[str, str]) -> Recipe:
        """What `prunecert prune` makes of it."""
        given = NETWORKS[self.network]
        return as_recipe(
            vnncomp / given.file,
            images[given.images],
            given.epsilon,
            given.standardised,
            Pruning(method=self.method, density=(DENSITY,), control=("retrained",)),
            Tuning(loss=self.loss, epochs=1),  # type: ignore[arg-type]
            Check(images=5, timeout=1, device="cpu"),
        )


def cases() -> list[Case]:
    """All of them, mixed, so that some of them say something of all."""
    found = [Case(*row) for row in product(NETWORKS, METHODS, LOSSES)]
    random.Random(0).shuffle(found)
    return found


def outcome(case: Case, vnncomp: Path, images: dict[str, str]) -> dict[str, Any]:
    """What happens: the faults of what was made, or the reason of a refusal.

    Networks are made and verified as in every study; the page and its plots, which are drawn alike of all, are not.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            recipe = case.recipe(vnncomp, images)
            with claimed(out):
                models = make_models(recipe, out, Console(quiet=True))
                options = Options(out=out, device="cpu", executor="in-process")
                records = verify_models(recipe, out, options, VERIFY)
        except ToolkitError as error:
            return {"refused": str(error)}
        found = list(faults(case, recipe, out, vnncomp / NETWORKS[case.network].file))
        verdicts = Counter(str(record.verdict) for record in records)
        accuracy = {model.method: round(model.standard_accuracy, 3) for model in models}
        return {"verdicts": verdicts, "standard_accuracy": accuracy, "faults": found}


def faults(case: Case, recipe: Recipe, out: Path, given: Path) -> Iterator[str]:
    """Everything that is not as it should be in the folder of a run."""
    records = {model.name: model for model in stored_models(out)}
    answers = journal.read(out / journal.NAME)
    yield from impossible(summarise(list(records.values()), answers))
    if [record.method for record in records.values()] != ["dense", case.method, "retrained"]:
        yield f"networks are {list(records)}"
    dataset = load_dataset(recipe.data)
    models = {model.name: model for model in build_chains(recipe, dataset, cache=out / "cache")}
    for name, model in models.items():
        file = out / "benchmark" / records[name].network
        yield from (f"{name}: {fault}" for fault in unlike(model, file, given, dataset))
    dense, pruned, _ = models.values()
    yield from not_pruned(case, dense, pruned, out / "benchmark" / records[pruned.name].network)
    if len(answers) != 5 * len(models):
        yield f"{len(answers)} answers"
    known = {Verdict.SAT, Verdict.UNSAT, Verdict.TIMEOUT, Verdict.UNKNOWN}
    yield from (
        f"{answer.onnx}: {answer.verdict}: {answer.reason}" for answer in answers if answer.verdict not in known
    )


def unlike(model: ChainModel, file: Path, given: Path, dataset: Dataset) -> Iterator[str]:
    """How an exported file differs from the trained network, and its input from that of the file it was made of."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    [entry] = session.get_inputs()
    shape = load_model(given).inputs[0].shape[1:]
    shape = shape if prod(shape) == prod(dataset.input_shape) else dataset.input_shape
    if isinstance(entry.shape[0], int) or tuple(entry.shape[1:]) != tuple(shape):
        yield f"input {entry.shape}, not {shape} with an open batch"
    images = dataset.test.images[:7]
    with torch.no_grad():
        expected = model.module(images).numpy()
    rows = images.reshape(7, *shape).numpy()
    [together] = session.run(None, {entry.name: rows})
    alone = np.concatenate([session.run(None, {entry.name: row[None]})[0].reshape(1, -1) for row in rows])
    for what, found in (("together", together), ("alone", alone)):
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not difference <= SLACK * max(1.0, float(np.abs(expected).max())):
            yield f"images {what}: outputs of {found.shape} differ by {difference:g}"


def not_pruned(case: Case, dense: ChainModel, pruned: ChainModel, file: Path) -> Iterator[str]:
    """What was not taken away: weights that should be zero, or channels and neurons that should be gone."""
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer]
    matrices = [array for array in arrays if array.ndim in (2, 4)]
    size = sum(array.size for array in matrices)
    if case.method in CHANNELS:
        if not pruned.relus < dense.relus or not size < dense.parameters:
            yield f"{pruned.relus} ReLUs of {dense.relus}, {size} weights of {dense.parameters}"
    elif abs(sum(np.count_nonzero(array) for array in matrices) / size - DENSITY) > 0.01:
        yield f"{sum(np.count_nonzero(array) for array in matrices)} of {size} weights are left"


def smaller(archive: Path, folder: Path) -> str:
    """The first images of an archive, as an archive of its own."""
    with np.load(archive) as arrays:
        limits = {"x_train": TRAIN, "y_train": TRAIN, "x_test": TEST, "y_test": TEST}
        small = {name: arrays[name][:limit] for name, limit in limits.items()}
    np.savez(folder / archive.name, **small)
    return f"npz:{folder / archive.name}"


def main() -> None:
    """Run the cases that are missing, and write each down as it comes."""
    target, vnncomp, mnist, cifar, *only = sys.argv[1:]
    report: dict[str, Any] = {"cases": []}
    with suppress(FileNotFoundError):
        report = json.loads(Path(target).read_text())
    done = {(row["network"], row["method"], row["loss"]) for row in report["cases"]}
    command = "python benchmarks/perf/pruning_matrix.py OUT.json VNNCOMP_DIR MNIST.npz CIFAR10.npz"
    with tempfile.TemporaryDirectory() as folder:
        images = {"mnist": smaller(Path(mnist), Path(folder)), "cifar10": smaller(Path(cifar), Path(folder))}
        for case in cases():
            key = (case.network, case.method, case.loss)
            if key in done or any(word not in ("-", own) for word, own in zip(only, key, strict=False)):
                continue
            report["cases"].append(vars(case) | outcome(case, Path(vnncomp), images))
            print(json.dumps(report["cases"][-1]), flush=True)
            Path(target).write_text(json.dumps(taken(command) | {"machine": machine()} | report, indent=1) + "\n")


if __name__ == "__main__":
    main()
