"""A study: a recipe from end to end. Its networks are made, verified, and put in one table.

The verifier reads only what was exported: the folder ``benchmark/`` of a run is a complete VNN-COMP benchmark, and its
table would be the same with any other verifier's ``results.csv``. `toolkit.experiments.study_networks` makes the
benchmark, `toolkit.experiments.campaign` verifies it like any other, `toolkit.experiments.study_report` writes the
results.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bench.columns import check_free
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.freeze import check_target, freeze
from toolkit.bench.job import WorkerTask
from toolkit.bench.journal import JournalRecord
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.bench.stored_run import describe_run, store_run
from toolkit.bench.verify_job import VERIFY
from toolkit.errors import InputError
from toolkit.experiments.campaign import execute, make_console
from toolkit.experiments.study_networks import make_models
from toolkit.experiments.study_report import conclude
from toolkit.recipe import Data, Recipe, load_recipe

if TYPE_CHECKING:
    from toolkit.data.dataset import Dataset


def run_recipe(path: Path, options: Options, task: WorkerTask = VERIFY) -> int:
    """Run a recipe; the exit code is 1 when a verdict contradicts the attack, else 0."""
    return run_parsed(load_recipe(path), options, task=task)


def run_parsed(recipe: Recipe, options: Options, dataset: Dataset | None = None, task: WorkerTask = VERIFY) -> int:
    """Run a recipe that was read; the exit code is 1 when a verdict contradicts the attack, else 0.

    ``dataset`` is the recipe's where that was read already.
    """
    recipe = adapt(recipe, options)
    out = options.folder(recipe.name)
    console = make_console()
    if options.freeze is not None:
        check_target(options.freeze)
    check_free(out, recipe.name, [recipe.name], recipe=True, fresh=options.fresh)
    with claimed(out):
        models = make_models(recipe, out, console, options.trainers, dataset)
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
    where = {benchmark.category: benchmark.folder}
    store_run(out, describe_run(recipe.name, jobs, where, {}, recipe.model_dump(mode="json")))
    return execute(jobs, out, options, where, task)


def adapt(recipe: Recipe, options: Options) -> Recipe:
    """The recipe with what the command line says."""
    if options.category:
        raise InputError("--category: a recipe makes one benchmark only")
    if options.shard is not None:
        out = options.folder(recipe.name)
        raise InputError(
            f"--shard: every part of a recipe would train its networks anew; run it without, until it verifies, which "
            f"may be interrupted, and then the parts of the folder that it has made: {out / 'benchmark'}"
        )
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
    if kind not in ("npz", "folder", "csv") or not path:
        raise InputError(f"--data {source}: expected npz:FILE, folder:DIRECTORY or csv:FILE")
    return data.model_copy(update={"source": f"{kind}:{Path(path).resolve()}"})
