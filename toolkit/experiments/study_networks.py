"""The networks of a study: trained, pruned, exported, and a benchmark folder about them; or those of an earlier run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.executors import available_cores
from toolkit.bench.fingerprint import file_hash, fingerprint, model_hash, versions
from toolkit.bench.scoring import wilson
from toolkit.bench.write_benchmark import RobustnessBenchmark, write_benchmark
from toolkit.data.input_space import InputSpace
from toolkit.devices import check_device, visible_gpus
from toolkit.errors import FieldError, InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.models.architecture_options import ModelOptions, OnnxNet, identity
from toolkit.recipe import Data, Recipe
from toolkit.report.summary import ModelRecord
from toolkit.report.tables import percent
from toolkit.run.memory_limits import available
from toolkit.training.training_progress import EpochLines
from toolkit.tuning import tuned

if TYPE_CHECKING:
    import torch
    from torch import nn

    from toolkit.data.dataset import Dataset, Split
    from toolkit.pruning import ChainModel

MAKERS = ("toolkit.pruning", "toolkit.data.load", "toolkit.formats.onnx.export", "toolkit.bench.write_benchmark")
"""The modules whose imports, besides this file, make the exported benchmark."""


def make_models(
    recipe: Recipe, out: Path, console: Console, trainers: int | None = None, dataset: Dataset | None = None
) -> list[ModelRecord]:
    """Train, prune and export, and write the benchmark folder; or take all of that from an earlier run.

    ``dataset`` is the recipe's where that was read already.
    """
    path, benchmark = out / "models.json", out / "benchmark"
    key = made_from(recipe)
    known = _read_models(path, key)
    if known is not None and _is_complete(benchmark, known):
        console.print(f"networks and benchmark of an earlier run: {benchmark}", highlight=False, soft_wrap=True)
        return known
    check_ours(benchmark, out / "cache")
    if dataset is None:
        from toolkit.data.load import load_dataset

        dataset = load_dataset(recipe.data)
    wanted, there = recipe.specification.images, len(dataset.test)
    if wanted > there:
        raise FieldError("specification.images", f"{wanted} are wanted, and there are {there} test images")
    if warning := sorted_by_class(dataset.test.labels.tolist(), wanted):
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if remark := changed_at_random(recipe.data, dataset.augmentation):
        console.print(remark, markup=False, highlight=False, soft_wrap=True)
    train_in_parallel(recipe, dataset, out / "cache", trainers)
    models = list(_export_all(recipe, dataset, out, console))
    pool = dataset.test.images.numpy(), dataset.test.labels.numpy()
    write_benchmark(benchmark, [model.network for model in models], pool, properties(recipe, dataset.space))
    text = json.dumps({"key": key, "models": [asdict(model) for model in models]}, indent=1)
    write_text_atomically(path, text + "\n")
    return models


def changed_at_random(data: Data, augmentation: str) -> str:
    """What is said where own images are changed at random although nobody asked for it; else empty."""
    if augmentation == "none" or data.augmentation is not None or ":" not in data.name:
        return ""
    return (
        f"{data.name}: images to train on are cut out of a margin and mirrored at random ({augmentation}); where a "
        'mirror image can be another class, have it changed: data.augmentation = "none" (prune: --augmentation none)'
    )


def sorted_by_class(labels: Sequence[int], wanted: int) -> str:
    """A warning where the ``wanted`` first test images lack classes because they are sorted by class; else empty."""
    verified, classes = labels[:wanted], len(set(labels))
    seen = len(set(verified))
    if wanted < classes or seen == classes or list(verified) != sorted(verified):
        return ""
    return (
        f"the {wanted} verified images are of {seen} of {classes} classes, as the test images are sorted by class: "
        "shuffle them, or certified accuracy speaks of these classes alone"
    )


def made_from(recipe: Recipe) -> str:
    """Key of everything that the networks and their benchmark depend on."""
    origin = {
        "recipe": recipe.digest,
        "source": source_stamp(recipe.data),
        "versions": dict(versions(MAKERS)),
        "here": file_hash(Path(__file__)),
    }
    return fingerprint(recipe.name, "", "", origin)


def source_stamp(data: Data) -> list[object]:
    """What tells that the user's own files of data are others than before: the content of one, or name, size and
    time of change of all in a folder."""
    kind, colon, name = (data.source or data.name).partition(":")
    if not colon:
        return []
    path = data.base / name
    if not path.exists():
        raise FieldError(f"data.{'source' if data.source else 'name'}", f"{path} does not exist")
    if path.is_file():
        test = [] if data.test is None or not (data.base / data.test).is_file() else [file_hash(data.base / data.test)]
        return [kind, file_hash(path), *test]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    stamps = [(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [kind, *stamps]


def _is_complete(benchmark: Path, models: Sequence[ModelRecord]) -> bool:
    """Whether the benchmark is there with all networks as they were exported."""
    complete = (benchmark / "instances.csv").exists()
    return complete and all(model_hash(benchmark / model.network) == model.content for model in models)


def check_ours(benchmark: Path, cache: Path) -> None:
    """Raise InputError where somebody else's files would be taken for those of an earlier run, and be replaced."""
    if benchmark.is_dir() and any(benchmark.iterdir()) and not cache.is_dir():
        raise InputError(f"{benchmark}: holds files that no earlier run wrote; choose another --out")


def train_in_parallel(recipe: Recipe, dataset: Dataset, cache: Path, trainers: int | None) -> None:
    """Fill the cache by several processes, where there are several GPUs or cores, or the command line says so."""
    device = choose_device(recipe.verification.device)
    chains = sum(len(recipe.seeds_of(chain)) for chain in recipe.all_chains)
    processes = min(trainers or default_trainers(recipe, dataset, device), chains)
    if processes > 1:
        from toolkit.pruning.parallel import TrainingProcesses, train_ahead

        train_ahead(
            recipe, dataset, TrainingProcesses(processes, device, max(1, available_cores() // processes), cache)
        )


def default_trainers(recipe: Recipe, dataset: Dataset, device: str) -> int:
    """Processes that train: one for each GPU, or for each core that has memory for one; one where there is little work.

    On a processor two with a thread each do far more than one with two threads (``trainers_2026_11_30.json``).
    """
    if device == "cuda":
        return len(visible_gpus())
    epochs = sum(recipe.training_of(chain).epochs * len(recipe.seeds_of(chain)) for chain in recipe.all_chains)
    if epochs * len(dataset.train.labels) < tuned().training.images_worth_processes:
        return 1
    return max(1, min(available_cores(), available() // tuned().training.bytes_of_trainer))


def properties(recipe: Recipe, space: InputSpace) -> RobustnessBenchmark:
    """The robustness queries that the recipe asks to be verified, of inputs of this space."""
    wanted = recipe.specification
    return RobustnessBenchmark(
        recipe.name, wanted.epsilon, recipe.verification.timeout, wanted.images, space.low, space.high, space.radii
    )


def _read_models(path: Path, key: str) -> list[ModelRecord] | None:
    """The models of an earlier run that was made in the same way."""
    try:
        made_from_this, models = _parse_models(path)
        return models if made_from_this == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored_models(out: Path) -> list[ModelRecord]:
    """The models that a study left in its folder, however they were made. Raises InputError where there are none."""
    try:
        return _parse_models(out / "models.json")[1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out / 'models.json'}: cannot be read as the models of a study ({error})") from None


def _parse_models(path: Path) -> tuple[str, list[ModelRecord]]:
    """The key of what the models were made from, and the models."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return stored["key"], [_parse_record(model) for model in stored["models"]]


def _parse_record(values: dict[str, Any]) -> ModelRecord:
    """A model as it was written."""
    rows: dict[str, Any] = {key: tuple(values[key]) for key in ("chains", "layers", "curve") if key in values}
    return ModelRecord(**(values | rows))


def _export_all(recipe: Recipe, dataset: Dataset, out: Path, console: Console) -> Iterator[ModelRecord]:
    from toolkit.pruning import build_chains

    device = choose_device(recipe.verification.device)
    verified = dataset.test.first(recipe.specification.images)
    for seed in recipe.all_seeds:
        told = EpochLines(prefix=f"seed {seed}: " if len(recipe.all_seeds) > 1 else "")
        for model in build_chains(recipe.with_seed(seed), dataset, device, told, out / "cache"):
            name = f"{model.name}-seed{seed}" if len(recipe.all_seeds) > 1 else model.name
            exported = _record(name, model, recipe.with_seed(seed), dataset, verified, out)
            console.print(
                f"{exported.name}: density {exported.density:.3g}, {exported.parameters:,} parameters, "
                f"standard accuracy {percent(exported.standard_accuracy)}, PGD {percent(exported.pgd_accuracy)}",
                highlight=False,
                soft_wrap=True,
            )
            if warning := near_chance(exported, dataset.classes):
                console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
            yield exported


def near_chance(model: ModelRecord, classes: int) -> str:
    """What to look at where a network that was not pruned is hardly better than guessing; empty of others."""
    right = round(model.standard_accuracy * model.tested)
    if model.state > 0 or wilson(right, model.tested)[0] > 1 / classes:
        return ""
    return (
        f"{model.name}: standard accuracy {percent(model.standard_accuracy)} is near chance ({percent(1 / classes)}): "
        "does the network expect another scale (--normalise, --mean, --std), layout or order of classes (--classes)?"
    )


def write_network(
    module: nn.Module, options: ModelOptions, images: torch.Tensor, path: Path, metadata: dict[str, str]
) -> None:
    """Export a network for one input or many of the shape in the user's file; for one where that has no batch.

    The shape is the file's where each of its inputs is one of the images, ``(1, ...)``, and theirs otherwise.
    """
    from torch import nn

    from toolkit.formats.onnx.export import export_model
    from toolkit.models.imported import is_vector, sample_shape, scores_of
    from toolkit.models.layers import BatchReshape

    original = scores_of(options.file) if isinstance(options, OnnxNet) else None
    shape = taken = tuple(images.shape[1:])
    if original is not None and math.prod(sample_shape(original)) == images[0].numel():
        shape = sample_shape(original)
    if original is not None and is_vector(original):
        single = nn.Sequential(BatchReshape(taken), module, BatchReshape(()))
        export_model(single, images[0].reshape(shape), path, metadata, batched=False)
        return
    any_shape = shape == taken or isinstance(next(module.children()), nn.Flatten)
    whole = module if any_shape else nn.Sequential(BatchReshape(taken), module)
    export_model(whole, images[:1].reshape(1, *shape), path, metadata)


def _record(name: str, model: ChainModel, recipe: Recipe, dataset: Dataset, verified: Split, out: Path) -> ModelRecord:
    """What is known of a network that was exported and measured, now or by a run before this one."""
    path = out / "cache" / f"{_record_key(name, model, recipe)}.json"
    known = _stored_record(path)
    if known is not None and model_hash(out / "benchmark" / known.network) == known.content:
        return known
    record = _export(name, model, recipe, dataset, verified, out / "benchmark")
    write_text_atomically(path, json.dumps(asdict(record)) + "\n")
    return record


def _record_key(name: str, model: ChainModel, recipe: Recipe) -> str:
    """Key of everything that an exported network and what is measured of it depend on: the state and what of it is
    exported, the question, the test images and the code."""
    origin = {
        "network": [model.name, model.chains, model.architecture, model.method, model.retrained, model.control],
        "metadata": model.metadata,
        "tensors": {key: list(value.shape) for key, value in model.module.state_dict().items()},
        "model": identity(recipe.models[model.architecture]),
        "specification": recipe.specification.model_dump(),
        "seed": recipe.seed,
        "test": model.test.digest,
        "versions": dict(versions(MAKERS)),
        "here": file_hash(Path(__file__)),
    }
    return fingerprint(name, "", "", origin)


def _stored_record(path: Path) -> ModelRecord | None:
    """The record that an earlier run left; None where there is none, or it is damaged."""
    try:
        return _parse_record(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _export(
    name: str, model: ChainModel, recipe: Recipe, dataset: Dataset, verified: Split, folder: Path
) -> ModelRecord:
    network = f"onnx/{name}.onnx"
    options = recipe.models[model.architecture]
    write_network(model.module, options, dataset.test.images[:1], folder / network, model.metadata)
    return ModelRecord(
        content=model_hash(folder / network),
        name=name,
        group=model.name,
        seed=recipe.seed,
        tested=len(dataset.test),
        retrained=model.retrained,
        control=model.control or "",
        layers=tuple(asdict(layer) for layer in model.stability.layers),
        curve=tuple(asdict(epoch) for epoch in model.curve),
        chains=model.chains,
        architecture=model.architecture,
        method=model.method,
        grafted=model.grafted,
        state=model.state,
        density=model.density,
        parameters=model.parameters,
        network=network,
        standard_accuracy=measured_accuracy(folder / network, dataset.test),
        fgsm_accuracy=model.fgsm_accuracy,
        pgd_accuracy=model.pgd_accuracy(verified, recipe.specification.epsilon, seed=recipe.seed),
    )


def choose_device(device: str) -> str:
    """``auto`` is cuda where there is one. Raises InputError for a device that there is not."""
    import torch

    check_device(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def measured_accuracy(network: Path, split: Split) -> float:
    """Part of the images that the exported file classifies correctly, by onnxruntime."""
    images = split.images.reshape(len(split), -1).numpy()
    [scores] = Session(load_model(network)).run_batch([images])
    return float(np.mean(scores.argmax(1) == split.labels.numpy()))
