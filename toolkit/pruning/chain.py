"""One chain: train, prune, rewind, train again; every state stored so that a killed run goes on where it was."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from toolkit.data.dataset import Dataset, Split
from toolkit.models.architecture_options import ModelOptions, OnnxNet, identity
from toolkit.models.build import build_model
from toolkit.pruning.compress import compress, without_norms
from toolkit.pruning.criterion import Structured
from toolkit.pruning.graft import graft, grafted_job
from toolkit.pruning.masks import Masks, density, live_channels
from toolkit.pruning.pruning_options import Chain, Control, Graft, MethodOptions
from toolkit.pruning.round import PruningRound, prune
from toolkit.sources import code_hash, library_versions
from toolkit.training.initialise import ibp_initialise
from toolkit.training.schedule import learning_rate_at
from toolkit.training.tensor_files import load, save
from toolkit.training.training_curve import EpochRecord
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import derive_seed, run_training, train
from toolkit.training.training_options import Training

Progress = Callable[[str, int, int], None]
"""Told the name of what is being trained, the epochs done and the epochs in all."""


@dataclass(frozen=True)
class StoredNetwork:
    """A network with its masks as the cache holds it: trained, or to start from."""

    model: nn.Module
    masks: Masks
    curve: tuple[EpochRecord, ...] = ()
    """Every epoch of its training."""


MAKERS = ("toolkit.pruning.controls",)
"""The module whose imports make the states: their source and the versions of their libraries are part of every key."""


@dataclass(frozen=True)
class ChainState:
    """A trained network of a chain."""

    index: int
    """0 is dense."""
    density: float
    """Kept entries over prunable entries: weights, or channels for structured methods."""
    model: nn.Module
    """The masked network in evaluation mode; do not change it."""
    masks: Masks
    key: str
    """Hash of everything that made this state."""
    grafted: bool = False
    """Whether some of its ReLUs were made linear."""
    control: Control | None = None
    """Which control of the round's pruned network this one is; None for a pruned network, and for the dense one."""
    curve: tuple[EpochRecord, ...] = ()
    """Every epoch of its training, from the weights that it started with."""


@dataclass(frozen=True)
class ChainContext:
    """What all chains of an experiment have in common."""

    dataset: Dataset
    device: str = "cpu"
    seed: int = 0
    cache: Path | None = None
    progress: Progress | None = None

    def split(self, name: str) -> Split:
        """A split of the data set on the device."""
        part: Split = getattr(self.dataset, name)
        return part.to(self.device)


def prune_chain(context: ChainContext, options: ModelOptions, chain: Chain, training: Training) -> Iterator[ChainState]:
    """The dense network and then one trained network for each density of the chain.

    ``training`` is the chain's own (``Recipe.training_of``). Chains of equal model and training share the dense
    network through the cache.

    Raises:
        InputError: the method does not fit the network or the data, or training diverged.
    """
    initial = initial_model(context, options, training)
    job = chain_job(context, training)
    key = dense_key(context, options, training)
    first = replace(job, epochs=0) if isinstance(options, OnnxNet) else job
    dense = trained(context, f"{chain.model} dense", key, StoredNetwork(initial, {}), first)
    state = ChainState(0, 1.0, dense.model, {}, key, curve=dense.curve)
    yield state
    for index, target in enumerate(chain.targets, 1):
        key = _round_key(state, chain, index, target)
        checkpoint = None if context.cache is None else context.cache / f"{key}.scores"
        make = partial(_start, context, chain, job, target, state, initial, dense.model, checkpoint)
        start = stored(context, f"{key}.start", initial, make)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        name = f"{chain.name} {index}/{len(chain.targets)}"
        found = trained(context, name, key, start, rewound_job(job, chain, context, index))
        kept = state_density(chain.method, found.model, found.masks)
        state = ChainState(index, kept, found.model, found.masks, key, curve=found.curve)
        yield state
    if chain.graft is not None:
        yield grafted_state(context, chain, chain.graft, state, job)


def chain_job(context: ChainContext, training: Training) -> TrainingJob:
    """The training of a chain's dense network, and of every pruned one that starts as it did."""
    return TrainingJob(
        training,
        context.split("train"),
        context.dataset.augmentation,
        derive_seed(context.seed, "train", 0),
        validation=context.split("validation"),
    )


def grafted_state(
    context: ChainContext, chain: Chain, options: Graft, parent: ChainState, job: TrainingJob
) -> ChainState:
    """The network of a state with some of its ReLUs linear, trained on with the masks of the state."""
    epsilon, index = job.training.epsilon, len(chain.targets) + 1
    assert epsilon is not None
    key = digest({"parent": parent.key, "graft": options.model_dump()})
    start = graft(parent.model, options, context.split("train"), epsilon)
    retrained = grafted_job(job, options, derive_seed(context.seed, "train", index))
    found = trained(context, f"{chain.name} grafted", key, StoredNetwork(start, parent.masks), retrained)
    return ChainState(index, parent.density, found.model, found.masks, key, grafted=True, curve=found.curve)


def dense_key(context: ChainContext, options: ModelOptions, training: Training) -> str:
    """Hash of everything that makes a dense network."""
    content = {"data": context.dataset.digest, "model": identity(options), "seed": context.seed}
    content |= {"code": code_hash(MAKERS), "libraries": dict(library_versions(MAKERS))}
    return digest(content | {"training": training.model_dump(exclude={"checkpoint_seconds"})})


def _round_key(state: ChainState, chain: Chain, index: int, target: float) -> str:
    options = chain.model_dump(include={"method", "rewind", "rewind_epoch", "one_shot", "ramp"})
    options["method"].pop("compress", None)
    return digest({"parent": state.key, "index": index, "density": target, "options": options})


def digest(content: dict[str, Any]) -> str:
    """Hash of a JSON value, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def initial_model(context: ChainContext, options: ModelOptions, training: Training) -> nn.Module:
    """The network at epoch 0, on the device."""
    model = build_model(options, context.dataset, derive_seed(context.seed, "initial"))
    if training.initialisation == "ibp":
        ibp_initialise(model, derive_seed(context.seed, "initial"))
    return model.to(context.device)


def _start(
    context: ChainContext,
    chain: Chain,
    job: TrainingJob,
    target: float,
    state: ChainState,
    initial: nn.Module,
    dense: nn.Module,
    checkpoint: Path | None,
) -> StoredNetwork:
    """The weights that a round's training starts from, and its masks."""
    # One-shot pruning uses one seed for all densities, so that sparser networks are parts of denser ones.
    source, old, number = (initial, {}, 0) if chain.one_shot else (state.model, state.masks, state.index)
    seed = derive_seed(context.seed, "prune", number)
    round_ = PruningRound(copy.deepcopy(source), old, target, job, context.split("validation"), seed, checkpoint)
    return StoredNetwork(rewind(chain, job, initial, dense, state.model), prune(chain.method, round_))


def rewind(chain: Chain, job: TrainingJob, initial: nn.Module, dense: nn.Module, current: nn.Module) -> nn.Module:
    """A copy of the weights that the chain's pruned networks start from.

    Those of an epoch are the ones that its last step left, whichever weights the whole training ends with.
    """
    if chain.rewind == "rewind_lt":
        training = job.training.model_copy(update={"keep": "last", "averaging": None})
        return train(copy.deepcopy(initial), replace(job, training=training, epochs=chain.rewind_epoch))
    return copy.deepcopy({"lt": initial, "pt": dense, "finetune": current}[chain.rewind])


def rewound_job(job: TrainingJob, chain: Chain, context: ChainContext, index: int) -> TrainingJob:
    """The training of a pruned state: schedules start again, or stay at their end when fine-tuning, but for the ramp
    that the chain gives that."""
    training = job.training
    if chain.rewind == "finetune":
        last_rate = learning_rate_at(training, training.epochs)
        training = training.model_copy(update={"learning_rate": last_rate, "milestones": (), "ramp": chain.ramp})
    return replace(job, training=training, seed=derive_seed(context.seed, "train", index))


def state_density(method: MethodOptions, model: nn.Module, masks: Masks) -> float:
    """Density of the prunable set: channels for structured methods, weights otherwise; 1 without masks."""
    if not masks:
        return 1.0
    return density(live_channels(model, masks) if isinstance(method, Structured) else masks)


def trained(context: ChainContext, name: str, key: str, start: StoredNetwork, job: TrainingJob) -> StoredNetwork:
    """The network trained from ``start``: from the cache, or trained now."""
    observer = None if context.progress is None else partial(context.progress, name)
    checkpoint = None if context.cache is None else context.cache / f"{key}.part"

    def make() -> StoredNetwork:
        model = copy.deepcopy(start.model)
        found = run_training(model, job, start.masks, checkpoint=checkpoint, observer=observer)
        return StoredNetwork(found.model, start.masks, found.curve)

    result = stored(context, f"{key}.pt", start.model, make)
    if context.cache is not None:
        (context.cache / f"{key}.start").unlink(missing_ok=True)
    return result


def stored(context: ChainContext, file: str, template: nn.Module, make: Callable[[], StoredNetwork]) -> StoredNetwork:
    """What the cache holds under a name, or what ``make`` gives, which is then kept. ``template`` gives the layers."""
    if context.cache is None:
        return make()
    path = context.cache / file
    record = load(path, context.device)
    if record is not None:
        model = copy.deepcopy(template)
        model.load_state_dict(record["model"])
        return StoredNetwork(model.eval(), record["masks"], tuple(EpochRecord(**row) for row in record["curve"]))
    made = make()
    curve = [vars(epoch) for epoch in made.curve]
    save({"model": made.model.state_dict(), "masks": made.masks, "curve": curve}, path)
    return made


def exported_module(context: ChainContext, options: ModelOptions, chain: Chain, state: ChainState) -> nn.Module:
    """The state's network on the CPU, without its pruned channels where the method removes any.

    A network from a file is without batch normalisation, as it is exported: what was inserted to prune its channels is
    none of its parameters. Others keep that of their convolutions, which exporters fold themselves.
    """
    module = copy.deepcopy(state.model).cpu()
    if isinstance(chain.method, Structured) and chain.method.compress and state.masks and not state.grafted:
        live = {name: kept.cpu() for name, kept in live_channels(state.model, state.masks).items()}
        module = compress(module, live, context.dataset.input_shape)
    return without_norms(module, (nn.Linear, nn.Conv2d) if isinstance(options, OnnxNet) else (nn.Linear,))
