"""Chains of an experiment trained by several processes at once, on all GPUs or all cores: they fill the cache.

Chains do not depend on each other once their dense networks are there, so those come first. What is made afterwards
from the cache is the same as without this.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.devices import take_gpu
from toolkit.errors import ToolkitError
from toolkit.pruning.chain import ChainContext
from toolkit.pruning.controls import UNPRUNED, chain_with_controls, unpruned_keys
from toolkit.pruning.pruning_options import Control
from toolkit.recipe import Recipe
from toolkit.run.lifetime import die_with_spawner, safe_path
from toolkit.training.training_progress import EpochLines


@dataclass(frozen=True)
class ChainWork:
    """Work of one process: a chain of a recipe with one seed, or only its dense network."""

    recipe: Recipe
    chain: str
    dense_only: bool
    controls: tuple[Control, ...] = ()
    """Controls to train: those of the chain, but for unpruned ones that another chain of equal training has, too."""


@dataclass(frozen=True)
class TrainingProcesses:
    """Processes that train: how many, on what kind of device, with how many threads each, into which cache."""

    processes: int
    device: str
    threads: int
    cache: Path


def train_ahead(recipe: Recipe, dataset: Dataset, crew: TrainingProcesses) -> None:
    """Train all chains of a recipe, of every seed, into the cache.

    Raises:
        InputError: a method does not fit its network or the data, or training diverged.
        ToolkitError: a process died.
    """
    context = get_context("spawn")
    numbers: SimpleQueue[int] = context.SimpleQueue()
    for number in range(crew.processes):
        numbers.put(number)
    with safe_path(), ProcessPoolExecutor(crew.processes, context, _get_ready, (numbers, crew)) as pool:
        for wave in pieces(recipe, dataset):
            _work_off(pool, wave, crew)


def pieces(recipe: Recipe, dataset: Dataset) -> tuple[list[ChainWork], list[ChainWork]]:
    """The distinct dense networks, by one chain of each, and all chains."""
    dense, whole = list[ChainWork](), list[ChainWork]()
    for seed in recipe.all_seeds:
        part, known = recipe.with_seed(seed), set[str]()
        context = ChainContext(dataset, seed=seed)
        for chain in part.all_chains:
            first, *later = unpruned_keys(context, part.models[chain.model], chain, part.training_of(chain))
            if first not in known:
                dense.append(ChainWork(part, chain.name, dense_only=True))
            theirs = UNPRUNED if known.issuperset(later) else set[Control]()
            own = tuple(control for control in chain.controls if control not in theirs)
            whole.append(ChainWork(part, chain.name, dense_only=False, controls=own))
            known |= {first, *later}
    return dense, whole


def _work_off(pool: ProcessPoolExecutor, wave: Sequence[ChainWork], crew: TrainingProcesses) -> None:
    """Train some pieces; whatever goes wrong ends all processes at once, and what they finished is in the cache."""
    try:
        for done in as_completed([pool.submit(train_piece, piece, crew) for piece in wave]):
            done.result()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise ToolkitError(
                "a training process died, probably out of memory; the same command continues: use fewer --trainers"
            ) from error
        raise


def _get_ready(numbers: SimpleQueue[int], crew: TrainingProcesses) -> None:
    """First thing in a process: its end with that of the run, its GPU, its share of the cores."""
    die_with_spawner()
    take_gpu(numbers.get())
    torch.set_num_threads(crew.threads)


def train_piece(piece: ChainWork, crew: TrainingProcesses) -> None:
    """Train one piece into the cache."""
    recipe = piece.recipe
    [found] = [chain for chain in recipe.all_chains if chain.name == piece.chain]
    chain = found.model_copy(update={"controls": piece.controls})
    told = EpochLines(prefix=f"seed {recipe.seed}: ")
    context = ChainContext(load_dataset(recipe.data), crew.device, recipe.seed, crew.cache, told)
    states = chain_with_controls(context, recipe.models[chain.model], chain, recipe.training_of(chain))
    for _ in states:
        if piece.dense_only:
            break
