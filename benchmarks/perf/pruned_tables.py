"""Networks of small tables, pruned by several criteria at equal density and with equal epochs of fine-tuning.

    python benchmarks/perf/pruned_tables.py OUT.json [METHOD ...]

The tables are scikit-learn's: iris, wine, breast cancer, and digits. Each dense network, two hidden layers, is trained
plainly; all of its weights are pruned to a fifth and to a tenth in one step, and it is fine-tuned against PGD. Figures
are means over five seeds, and the least standard accuracy among them; HYDRA learns its scores for 20 epochs besides.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from host import machine, taken
from sklearn import datasets
from torch import nn

from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.models.architecture_options import Mlp
from toolkit.models.build import build_model
from toolkit.pruning.criteria.crown_margin import CrownMargin
from toolkit.pruning.criteria.hydra import Hydra
from toolkit.pruning.criteria.weights import Magnitude, Random
from toolkit.pruning.masks import Masks
from toolkit.pruning.pruning_options import MethodOptions
from toolkit.pruning.round import PruningRound, prune
from toolkit.recipe import Data
from toolkit.training.accuracy import accuracy, pgd_accuracy
from toolkit.training.certified_accuracy import certified_accuracy
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import apply_masks, derive_seed, train
from toolkit.training.training_options import Pgd, Standard, Training

SEEDS = range(5)
DENSITIES = (0.2, 0.1)
LAYERS = ("conv", "linear")
METHODS: dict[str, MethodOptions] = {
    "magnitude": Magnitude(layers=LAYERS),
    "random": Random(layers=LAYERS),
    "hydra": Hydra(layers=LAYERS),
    "crown_margin": CrownMargin(layers=LAYERS),
    "crown_margin, size": CrownMargin(layers=LAYERS, change="size"),
}
MEASURED = 200
"""Test rows that are attacked and bounded."""


@dataclass(frozen=True)
class Setting:
    """How the networks of one table are trained; radii of features are multiples of their deviation."""

    epsilon: float = 0.1
    hidden: tuple[int, ...] = (32, 32)
    epochs: int = 40
    rate: float = 0.005
    batch: int = 16


SETTINGS = {
    "iris": Setting(),
    "wine": Setting(),
    "breast_cancer": Setting(),
    "digits": Setting(epsilon=0.05, hidden=(48, 48), epochs=20, rate=0.003, batch=64),
}


def load(name: str, folder: Path) -> Dataset:
    """The table as `prunecert prune` reads a file of it; the digits as images in [0, 1]."""
    if name == "digits":
        return load_dataset(Data(name=name))
    table = getattr(datasets, f"load_{name}")()
    names = [f"f{number}" for number in range(table.data.shape[1])]
    lines = [",".join([*names, "label"])]
    lines += [",".join([*map(repr, map(float, x)), str(y)]) for x, y in zip(table.data, table.target, strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    entry = Data(name=f"csv:{name}.csv", base=folder)
    return load_dataset(entry.model_copy(update={"radii": load_dataset(entry).std}))


def networks(name: str, dataset: Dataset, seed: int, methods: list[str]) -> Iterator[dict[str, Any]]:
    """What is measured of the dense network, of the one trained on, and of each pruned one."""
    setting = SETTINGS[name]
    common = {"epsilon": setting.epsilon, "batch": setting.batch, "optimizer": "adam", "weight_decay": 0.0}
    plain = Training(loss=Standard(), epochs=setting.epochs, learning_rate=setting.rate, measured_images=0, **common)
    tuning = Training(loss=Pgd(), epochs=20, learning_rate=1e-3, measured_images=0, **common)
    jobs = [TrainingJob(plain, dataset.train, seed=derive_seed(seed, "train", 0)),
            TrainingJob(tuning, dataset.train, seed=derive_seed(seed, "train", 1))]  # fmt: skip
    dense = train(build_model(Mlp(hidden=setting.hidden), dataset, seed), jobs[0])
    yield {"method": "dense", "density": 1.0, **measured(dense, dataset, setting)}
    yield {"method": "retrained", "density": 1.0, **measured(train(copy.deepcopy(dense), jobs[1]), dataset, setting)}
    for density in DENSITIES:
        for method in methods:
            generator = derive_seed(seed, "prune", 0)
            round_ = PruningRound(copy.deepcopy(dense), {}, density, jobs[1], dataset.validation, generator)
            masks = prune(METHODS[method], round_)
            left = kept(dense, masks, dataset)
            tuned = train(copy.deepcopy(dense), jobs[1], masks)
            yield {"method": method, "density": density, **left, **measured(tuned, dataset, setting)}


def measured(model: nn.Module, dataset: Dataset, setting: Setting) -> dict[str, float]:
    """Standard accuracy of all test rows, and under attack and certified by CROWN-IBP of the first ones."""
    some, epsilon = dataset.test.first(MEASURED), setting.epsilon
    return {
        "standard": accuracy(model, dataset.test),
        "pgd": pgd_accuracy(model, some, epsilon, steps=20, restarts=1),
        "certified": certified_accuracy(model, some, epsilon),
    }


def kept(dense: nn.Module, masks: Masks, dataset: Dataset) -> dict[str, Any]:
    """Standard accuracy before fine-tuning, the density of each layer, and how many outputs have no weight left."""
    bare = copy.deepcopy(dense)
    apply_masks(bare, masks)
    *_, last = masks.values()
    return {
        "standard_as_pruned": accuracy(bare, dataset.test),
        "layers": [float(mask.double().mean()) for mask in masks.values()],
        "outputs_without_weights": int((~last.any(1)).sum()),
    }


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each method and density."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["density"]), []).append(row)
    found = []
    for (method, density), own in groups.items():
        columns = [name for name in own[0] if name not in ("method", "density")]
        mean = {name: np.mean([row[name] for row in own], axis=0).round(4).tolist() for name in columns}
        least = round(min(row["standard"] for row in own), 4)
        found.append({"method": method, "density": density, **mean, "least_standard": least})
    return found


def main(out: Path, methods: list[str]) -> None:
    """Measure all tables and write what came of it after each."""
    record: dict[str, Any] = {
        **taken("python benchmarks/perf/pruned_tables.py OUT.json"), "machine": machine(), "seeds": len(SEEDS),
        "tables": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in SETTINGS:
            dataset = load(name, Path(folder))
            rows = [row for seed in SEEDS for row in networks(name, dataset, seed, methods)]
            record["tables"][name] = means(rows)
            out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            for row in record["tables"][name]:
                print(name, json.dumps(row), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(METHODS))
