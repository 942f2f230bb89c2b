"""One experiment: a recipe's networks, pruned step by step, exported, verified and put in one table.

The verifier reads only what was exported: the folder ``benchmark/`` of a run is a complete VNN-COMP benchmark, and its
table would be the same with any other verifier's ``results.csv``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.executors import available_cores
from toolkit.bench.fingerprint import file_hash, fingerprint, model_hash, versions
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.freeze import check_target, freeze
from toolkit.bench.job import WorkerTask
from toolkit.bench.journal import JournalRecord
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.bench.verify_job import VERIFY
from toolkit.bench.writer import RobustnessBenchmark, write_benchmark
from toolkit.campaign import cards, execute, make_console
from toolkit.devices import visible_gpus
from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.models.architecture_options import OnnxNet
from toolkit.recipe import Data, Recipe, load_recipe
from toolkit.report.layer_stability import LayerRow, layer_rows, unstable_csv, unstable_table, width_table
from toolkit.report.page import Page, facts, write_page
from toolkit.report.paper_comparison import paper_table
from toolkit.report.plots import (
    cactus,
    certified_versus_density,
    every_network,
    instability_versus_density,
    save_png,
    unstable_by_layer,
)
from toolkit.report.seeds import averages, gains
from toolkit.report.summary import (
    ModelRecord,
    SummaryRow,
    chain_names,
    changes,
    effects,
    stability_csv,
    summarise,
    summary_csv,
    ticket_findings,
)
from toolkit.report.tables import Table, percent, summary_table, to_rich

if TYPE_CHECKING:
    from toolkit.data.dataset import Dataset, Split
    from toolkit.pruning import ChainModel

MAKERS = ("toolkit.pruning", "toolkit.data.dataset", "toolkit.formats.onnx.export", "toolkit.bench.writer")
"""The modules whose imports, besides this file, make the exported benchmark."""


def run_recipe(path: Path, options: Options, task: WorkerTask = VERIFY) -> int:
    """Run a recipe; the exit code is 1 when a verdict contradicts the attack, else 0."""
    return run_parsed(load_recipe(path), options, task)


def run_parsed(recipe: Recipe, options: Options, task: WorkerTask = VERIFY) -> int:
    """Run a recipe that was read; the exit code as above."""
    recipe = adapt(recipe, options)
    out = options.out or Path("results") / recipe.name
    console = make_console()
    if options.freeze is not None:
        check_target(options.freeze)
    with claimed(out):
        models = make_models(recipe, out, console, options.trainers)
        records = verify_models(recipe, out, options, task)
        wrong = conclude(recipe, out, models, records, console)
        if options.freeze is not None:
            freeze(out / "benchmark", options.freeze, records)
            console.print(f"frozen: {options.freeze}", highlight=False, soft_wrap=True)
    return int(wrong)


def verify_models(recipe: Recipe, out: Path, options: Options, task: WorkerTask) -> list[JournalRecord]:
    """Answer all instances of the benchmark that was written."""
    [benchmark] = find_benchmarks(out / "benchmark", options.spec_version)
    benchmark = replace(benchmark, category=recipe.name)
    jobs = make_jobs(benchmark, recipe.verification, recipe.verification.timeout, memory=options.memory_limit)
    return execute(jobs, out, options, {benchmark.category: benchmark.folder}, task)


def conclude(
    recipe: Recipe, out: Path, models: Sequence[ModelRecord], records: Sequence[JournalRecord], console: Console
) -> bool:
    """Print and write the results; whether something in them cannot be true."""
    rows = summarise(models, records)
    means = averages(models, rows)
    found = [str(finding) for finding in (*gains(models, rows), *changes(models, rows, records))]
    found += ticket_findings(means)
    if any(isinstance(options, OnnxNet) for options in recipe.models.values()):
        found += effects(means)
    wrong = impossible(rows)
    write_report(recipe, out, models, records, [*wrong, *found])
    console.print(to_rich(summary_table(means)))
    beside = paper_table(means, paper_keys(recipe))
    if beside.rows:
        console.print(to_rich(beside, "beside the paper's networks, whose training may be another"))
    for line in found:
        console.print(line, highlight=False, soft_wrap=True)
    for line in wrong:
        console.print(line, style="bold red", highlight=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    return bool(wrong)


def adapt(recipe: Recipe, options: Options) -> Recipe:
    """The recipe with what the command line says."""
    if options.category:
        raise InputError("--category: a recipe makes one benchmark only")
    images = min(recipe.specification.images, options.limit or recipe.specification.images)
    recipe = recipe if options.seed is None else recipe.only_seed(options.seed)
    return recipe.model_copy(
        update={
            "data": recipe.data if options.data is None else with_source(recipe.data, options.data),
            "verification": options.settings(recipe.verification),
            "specification": recipe.specification.model_copy(update={"images": images}),
        }
    )


def with_source(data: Data, source: str) -> Data:
    """The data set with its images from ``source``; relative paths start at the working directory."""
    kind, _, path = source.partition(":")
    if kind not in ("npz", "folder") or not path:
        raise InputError(f"--data {source}: expected npz:FILE or folder:DIRECTORY")
    return data.model_copy(update={"source": f"{kind}:{Path(path).resolve()}"})


def source_stamp(data: Data) -> list[object]:
    """What tells that the user's own files of images are others than before: the content of one, or name, size and
    time of change of all in a folder."""
    kind, colon, name = (data.source or data.name).partition(":")
    if not colon:
        return []
    path = data.base / name
    if not path.exists():
        raise InputError(f"data.{'source' if data.source else 'name'}: {path} does not exist")
    if path.is_file():
        return [kind, file_hash(path)]
    files = sorted(file for file in path.rglob("*") if file.is_file())
    stamps = [(file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return [kind, *stamps]


def make_models(recipe: Recipe, out: Path, console: Console, trainers: int | None = None) -> list[ModelRecord]:
    """Train, prune and export, and write the benchmark folder; or take all of that from an earlier run."""
    path, benchmark = out / "models.json", out / "benchmark"
    key = made_from(recipe)
    known = _read_models(path, key)
    if known is not None and _is_complete(benchmark, known):
        console.print(f"networks and benchmark of an earlier run: {benchmark}", highlight=False, soft_wrap=True)
        return known
    check_ours(benchmark, out / "cache")
    from toolkit.data.dataset import load_dataset

    dataset = load_dataset(recipe.data)
    train_in_parallel(recipe, dataset, out / "cache", trainers)
    models = list(_export_all(recipe, dataset, out, console))
    pool = dataset.test.images.numpy(), dataset.test.labels.numpy()
    write_benchmark(benchmark, [model.network for model in models], pool, properties(recipe))
    text = json.dumps({"key": key, "models": [asdict(model) for model in models]}, indent=1)
    write_text_atomically(path, text + "\n")
    return models


def made_from(recipe: Recipe) -> str:
    """Key of everything that the networks and their benchmark depend on."""
    origin = {
        "recipe": recipe.digest,
        "source": source_stamp(recipe.data),
        "versions": dict(versions(MAKERS)),
        "here": file_hash(Path(__file__)),
    }
    return fingerprint(recipe.name, "", "", origin)


def _is_complete(benchmark: Path, models: Sequence[ModelRecord]) -> bool:
    """Whether the benchmark is there with all networks as they were exported."""
    complete = (benchmark / "instances.csv").exists()
    return complete and all(model_hash(benchmark / model.network) == model.content for model in models)


def check_ours(benchmark: Path, cache: Path) -> None:
    """Raise InputError where somebody else's files would be taken for those of an earlier run, and be replaced."""
    if benchmark.is_dir() and any(benchmark.iterdir()) and not cache.is_dir():
        raise InputError(f"{benchmark}: holds files that no earlier run wrote; choose another --out")


def train_in_parallel(recipe: Recipe, dataset: Dataset, cache: Path, trainers: int | None) -> None:
    """Fill the cache by several processes, where there are several GPUs or the command line says so."""
    device = choose_device(recipe.verification.device)
    wanted = trainers or (len(visible_gpus()) if device == "cuda" else 1)
    chains = sum(len(recipe.seeds_of(chain)) for chain in recipe.all_chains)
    processes = min(wanted, chains)
    if processes > 1:
        from toolkit.pruning.parallel import TrainingProcesses, train_ahead

        train_ahead(
            recipe, dataset, TrainingProcesses(processes, device, max(1, available_cores() // processes), cache)
        )


def properties(recipe: Recipe) -> RobustnessBenchmark:
    """The robustness queries that the recipe asks to be verified."""
    wanted = recipe.specification
    return RobustnessBenchmark(recipe.name, wanted.epsilon, recipe.verification.timeout, wanted.images)


def _read_models(path: Path, key: str) -> list[ModelRecord] | None:
    """The models of an earlier run that was made in the same way."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        return [
            ModelRecord(**(model | {key: tuple(model[key]) for key in ("chains", "layers")}))
            for model in stored["models"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _export_all(recipe: Recipe, dataset: Dataset, out: Path, console: Console) -> Iterator[ModelRecord]:
    from toolkit.pruning import build_chains
    from toolkit.training.training_progress import EpochLines

    device = choose_device(recipe.verification.device)
    verified = dataset.test.first(recipe.specification.images)
    for seed in recipe.all_seeds:
        told = EpochLines(prefix=f"seed {seed}: " if len(recipe.all_seeds) > 1 else "")
        for model in build_chains(recipe.with_seed(seed), dataset, device, told, out / "cache"):
            name = f"{model.name}-seed{seed}" if len(recipe.all_seeds) > 1 else model.name
            exported = _export(name, model, recipe.with_seed(seed), dataset, verified, out / "benchmark")
            console.print(
                f"{exported.name}: density {exported.density:.3g}, {exported.parameters:,} parameters, "
                f"standard accuracy {percent(exported.standard_accuracy)}, PGD {percent(exported.pgd_accuracy)}",
                highlight=False,
                soft_wrap=True,
            )
            yield exported


def _export(
    name: str, model: ChainModel, recipe: Recipe, dataset: Dataset, verified: Split, folder: Path
) -> ModelRecord:
    from toolkit.formats.onnx.export import export_model

    network = f"onnx/{name}.onnx"
    export_model(model.module, dataset.test.images[:1], folder / network, model.metadata)
    return ModelRecord(
        content=model_hash(folder / network),
        name=name,
        group=model.name,
        seed=recipe.seed,
        tested=len(dataset.test),
        retrained=model.retrained,
        layers=tuple(asdict(layer) for layer in model.stability.layers),
        chains=model.chains,
        architecture=model.architecture,
        method=model.method,
        state=model.state,
        density=model.density,
        parameters=model.parameters,
        network=network,
        standard_accuracy=measured_accuracy(folder / network, dataset.test),
        fgsm_accuracy=model.fgsm_accuracy,
        pgd_accuracy=model.pgd_accuracy(verified, recipe.specification.epsilon, seed=recipe.seed),
    )


def choose_device(device: str) -> str:
    """``auto`` is cuda where there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device; use --device cpu")
    return device


def measured_accuracy(network: Path, split: Split) -> float:
    """Part of the images that the exported file classifies correctly, by onnxruntime."""
    images = split.images.reshape(len(split), -1).numpy()
    [scores] = Session(load_model(network)).run_batch([images])
    return float(np.mean(scores.argmax(1) == split.labels.numpy()))


def impossible(rows: Sequence[SummaryRow]) -> list[str]:
    """Rows that cannot be true: more images proved robust than survive the attack."""
    return [
        f"CONTRADICTION: {row.model}: certified accuracy {row.certified_accuracy:.1%} above PGD accuracy "
        f"{row.pgd_accuracy:.1%} on the same images"
        for row in rows
        if row.certified_accuracy > row.pgd_accuracy + 1e-9
    ]


def paper_keys(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Rows of the paper by the chain that they stand beside."""
    return {chain.name: chain.paper for chain in recipe.all_chains if chain.paper}


def extra_tables(
    recipe: Recipe,
    models: Sequence[ModelRecord],
    means: Sequence[SummaryRow],
    rows: Sequence[SummaryRow],
    layers: Sequence[LayerRow],
) -> dict[str, Table]:
    """What the page shows besides the summary: the paper's figures, every seed on its own, and layer by layer."""
    tables = {"Beside the paper": paper_table(means, paper_keys(recipe))}
    if len(means) < len(rows):
        tables["Every seed"] = summary_table(rows)
    tables["Unstable ReLUs by layer and bound method"] = unstable_table(layers)
    tables["Interval bounds by layer"] = width_table(models)
    return {heading: table for heading, table in tables.items() if table.rows}


@dataclass(frozen=True)
class Plot:
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure


def write_report(
    recipe: Recipe, out: Path, models: Sequence[ModelRecord], records: Sequence[JournalRecord], findings: list[str]
) -> None:
    """Write the tables, the plots and the page."""
    rows = summarise(models, records)
    means = averages(models, rows)
    write_text_atomically(out / "summary.csv", summary_csv(rows))
    if len(means) < len(rows):
        write_text_atomically(out / "seeds.csv", summary_csv(means))
    write_text_atomically(out / "stability.csv", stability_csv(models))
    write_text_atomically(out / "unstable.csv", unstable_csv(models, records))
    layers = layer_rows(models, records)
    networks = {chain: {model.network for model in models if chain in model.chains} for chain in chain_names(models)}
    plots = (
        Plot("certified", "Certified accuracy against density, with 95 % intervals.", certified_versus_density(means)),
        Plot("instability", "Unstable ReLUs: root bounds solid, intervals dotted.", instability_versus_density(means)),
        Plot("layers", "Unstable ReLUs by layer: CROWN bounds solid, intervals dotted.", unstable_by_layer(layers)),
        Plot("networks", "Every network, with its density: accuracies and unstable ReLUs.", every_network(means)),
        Plot(
            "cactus",
            "Time of the k-th fastest decided instance, by chain (lower and further right is better).",
            cactus({name: [r for r in records if r.onnx in group] for name, group in networks.items()}),
        ),
    )
    for plot in plots:
        save_png(plot.figure, out / "plots" / f"{plot.name}.png")
    page = Page(
        title=recipe.name,
        subtitle=f"{len(rows)} networks, {recipe.specification.images} images each, "
        f"radius {recipe.specification.epsilon:g} in the maximum norm, {recipe.verification.timeout:g} s each",
        cards=(("networks", str(len(rows))), ("instances", f"{len(records):,}"), *cards(records)),
        findings=tuple(findings),
        table=summary_table(means),
        more_tables=extra_tables(recipe, models, means, rows, layers),
        figures={plot.caption: plot.figure for plot in plots},
        records=records,
        facts=(("recipe", recipe.digest), *facts(records)),
    )
    write_page(page, out / "report.html")
