"""Controls: networks that tell what pruning does from what training, size and sparsity alone do.

A round of a chain trains a pruned network. Beside it stand, where the chain asks for them, the unpruned network trained
on to as many epochs in all (``retrained``), or trained once with the schedule stretched over as many (``stretched``),
one with as many weights or channels in each layer, chosen at random (``random_masks``), and a dense network with as
many parameters (``narrow``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from toolkit.errors import FieldError
from toolkit.models.architecture_options import ModelOptions, OnnxNet
from toolkit.models.narrow import narrowed
from toolkit.pruning.chain import (
    ChainContext,
    ChainState,
    StoredNetwork,
    chain_job,
    dense_key,
    digest,
    exported_module,
    initial_model,
    prune_chain,
    rewind,
    rewound_job,
    state_density,
    trained,
)
from toolkit.pruning.criterion import Structured
from toolkit.pruning.masks import Masks, channel_masks, live_channels
from toolkit.pruning.pruning_options import Chain, Control
from toolkit.training.schedule import stretched
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import derive_seed
from toolkit.training.training_options import Training

UNPRUNED: frozenset[Control] = frozenset({"retrained", "stretched"})
"""Controls that do not depend on what a chain prunes, so that chains of equal training share them."""


@dataclass(frozen=True)
class ControlRound:
    """A round of a chain that a control is made beside."""

    context: ChainContext
    options: ModelOptions
    chain: Chain
    job: TrainingJob
    """The training of the dense network."""
    dense: ChainState
    pruned: ChainState
    """The pruned network of the round."""
    before: ChainState
    """The control of the round before, or the dense network."""

    def retraining(self) -> TrainingJob:
        """The training that the pruned network of the round had."""
        return rewound_job(self.job, self.chain, self.context, self.pruned.index)

    def key(self, control: Control, **more: object) -> str:
        """Hash of everything that makes a control of the pruned network."""
        parents = {"before": self.before.key, "pruned": self.pruned.key}
        return _key(self.chain, control, self.pruned.index, parents | more)

    def state(self, control: Control, key: str, start: nn.Module, masks: Masks, job: TrainingJob) -> ChainState:
        """The control, trained from ``start`` or taken from the cache."""
        name = f"{self.chain.name} {self.pruned.index}/{len(self.chain.targets)} {control}"
        found = trained(self.context, name, key, StoredNetwork(start, masks), job)
        density = state_density(self.chain.method, found.model, found.masks)
        return ChainState(self.pruned.index, density, found.model, found.masks, key, control=control, curve=found.curve)


def _key(chain: Chain, control: Control, index: int, made_of: Mapping[str, object]) -> str:
    """Hash of everything that makes a control of the round with this index, counted from 1."""
    training = chain.model_dump(include={"rewind", "rewind_epoch", "ramp"})
    return digest({"control": control, "index": index, "training": training} | dict(made_of))


def retrained_key(chain: Chain, index: int, before: str) -> str:
    """Key of the unpruned network trained on in a round, from that of the round before, or of the dense network."""
    made_of = {"before": before, "pruned": "", "learning": chain.method.learning_epochs}
    return _key(chain, "retrained", index, made_of)


def stretched_key(context: ChainContext, options: ModelOptions, chain: Chain, training: Training, index: int) -> str:
    """Key of the unpruned network trained once for as many epochs as the chain had after a round."""
    dense = dense_key(context, options, stretched_training(chain, training, index))
    return _key(chain, "stretched", index, {"before": "", "pruned": "", "dense": dense})


def stretched_training(chain: Chain, training: Training, index: int) -> Training:
    """A chain's training, stretched over all epochs up to a round, those of learning scores included."""
    return stretched(training, training.epochs + index * (training.epochs + chain.method.learning_epochs))


def unpruned_keys(context: ChainContext, options: ModelOptions, chain: Chain, training: Training) -> Iterator[str]:
    """Keys of the networks of a chain that do not depend on what it prunes: the dense one, then `UNPRUNED` controls."""
    before = dense_key(context, options, training)
    yield before
    for index in range(1, len(chain.targets) + 1):
        if "retrained" in chain.controls:
            before = retrained_key(chain, index, before)
            yield before
        if "stretched" in chain.controls and not isinstance(options, OnnxNet):
            yield stretched_key(context, options, chain, training, index)


def chain_with_controls(
    context: ChainContext, options: ModelOptions, chain: Chain, training: Training
) -> Iterator[ChainState]:
    """The networks of a chain, each pruned one followed by its controls.

    Raises:
        InputError: the method or a control does not fit the network or the data, or training diverged.
    """
    job = chain_job(context, training)
    states = prune_chain(context, options, chain, training)
    dense = next(states)
    yield dense
    latest = dict.fromkeys(chain.controls, dense)
    for state in states:
        yield state
        for control in () if state.grafted else chain.controls:
            round_ = ControlRound(context, options, chain, job, dense, state, latest[control])
            latest[control] = CONTROLS[control](round_)
            yield latest[control]


def _retrained(round_: ControlRound) -> ChainState:
    """The unpruned network trained on from where it was: after any round it had as many epochs as the chain, those of
    learning scores included."""
    job, learning = round_.retraining(), round_.chain.method.learning_epochs
    longer = job.training.model_copy(update={"epochs": job.training.epochs + learning})
    key = retrained_key(round_.chain, round_.pruned.index, round_.before.key)
    return round_.state("retrained", key, copy.deepcopy(round_.before.model), {}, replace(job, training=longer))


def _stretched(round_: ControlRound) -> ChainState:
    """The unpruned network, trained once from its initial weights for all epochs of the chain, in the proportions of
    the dense network's schedule. Raises InputError for a network that was trained elsewhere."""
    context, options, training = round_.context, round_.options, round_.job.training
    if isinstance(options, OnnxNet):
        raise FieldError("chains.controls", f"{options.file} has no initial weights; leave out 'stretched'")
    longer = stretched_training(round_.chain, training, round_.pruned.index)
    key = stretched_key(context, options, round_.chain, training, round_.pruned.index)
    job = replace(round_.job, training=longer)
    return round_.state("stretched", key, initial_model(context, options, training), {}, job)


def _random_masks(round_: ControlRound) -> ChainState:
    """The control with random masks: each layer keeps as many entries as in the pruned network, and starts as there."""
    context, chain, before = round_.context, round_.chain, round_.before
    seed = derive_seed(context.seed, "random masks", 0 if chain.one_shot else round_.pruned.index)
    generator = torch.Generator(device=context.device).manual_seed(seed)
    initial = initial_model(context, round_.options, round_.job.training)
    old = {} if chain.one_shot else before.masks
    if isinstance(chain.method, Structured):
        wanted, live = (live_channels(initial, masks) for masks in (round_.pruned.masks, old))
        masks = channel_masks(initial, random_like(wanted, live, generator))
    else:
        masks = random_like(round_.pruned.masks, old, generator)
    start = rewind(chain, round_.job, initial, round_.dense.model, before.model)
    return round_.state("random_masks", round_.key("random_masks"), start, masks, round_.retraining())


def random_like(wanted: Masks, live: Masks, generator: torch.Generator) -> Masks:
    """Masks with as many entries as the wanted ones in each layer, a random part of those still alive there."""
    return {
        name: _part(int(mask.sum()), live.get(name, torch.ones_like(mask)), generator) for name, mask in wanted.items()
    }


def _part(count: int, live: Tensor, generator: torch.Generator) -> Tensor:
    order = (
        torch.rand(live.shape, generator=generator, device=live.device)
        .masked_fill(~live, -1)
        .flatten()
        .argsort(descending=True)
    )
    kept = torch.zeros_like(live).flatten()
    kept[order[:count]] = True
    return kept.reshape(live.shape)


def _narrow(round_: ControlRound) -> ChainState:
    """A dense network with as many parameters as the pruned one, trained once from its own initial weights."""
    context, training = round_.context, round_.job.training
    pruned = exported_module(context, round_.options, round_.chain, round_.pruned)
    parameters = sum(int(parameter.count_nonzero()) for parameter in pruned.parameters())
    options = narrowed(round_.options, context.dataset, parameters)
    job = replace(round_.job, seed=derive_seed(context.seed, "train", round_.pruned.index))
    key = round_.key("narrow", before="", pruned="", dense=dense_key(context, options, training))
    return round_.state("narrow", key, initial_model(context, options, training), {}, job)


CONTROLS: dict[Control, Callable[[ControlRound], ChainState]] = {
    "retrained": _retrained,
    "stretched": _stretched,
    "random_masks": _random_masks,
    "narrow": _narrow,
}
"""What makes each control."""
