"""All networks of a recipe, one after the other: what an experiment exports and verifies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from toolkit.data.dataset import Dataset, Split
from toolkit.errors import FieldError, UnsupportedError
from toolkit.models.architecture_options import OnnxNet
from toolkit.models.structure import count_relus
from toolkit.pruning.chain import ChainContext, ChainState, Progress, dense_key, exported_module
from toolkit.pruning.controls import chain_with_controls, unpruned_keys
from toolkit.pruning.pruning_options import Chain, Control
from toolkit.recipe import Recipe, Specification
from toolkit.training.accuracy import accuracy, fgsm_accuracy, pgd_accuracy
from toolkit.training.stats import NetworkStability, measure_stability
from toolkit.training.training_curve import EpochRecord


@dataclass(frozen=True)
class ChainModel:
    """A trained network, ready for export."""

    name: str
    """Unique in the recipe, and usable as a file name."""
    chains: tuple[str, ...]
    """Chains that it belongs to: those of equal model and training share their dense network, and unpruned controls."""
    architecture: str
    """Name of the model in the recipe."""
    method: str
    """Pruning method; ``dense`` for state 0, and for a control what it is."""
    state: int
    """Rounds of pruning behind it; 0 is dense."""
    density: float
    """Kept entries over prunable entries: weights, or channels for structured methods."""
    parameters: int
    """Parameters of ``module`` that are not zero: weights, biases, and what it has of batch normalisation."""
    relus: int
    """ReLU neurons for one input."""
    module: nn.Module = field(repr=False)
    """In evaluation mode, on the CPU; pruned channels are physically gone. Input ``(B, C, H, W)`` in [0, 1], or
    rows ``(B, n)``."""
    retrained: bool
    """Trained from the initial weights, of which pruning took some away: what a lottery ticket is."""
    control: Control | None
    """Which control of the round's pruned network this one is; None for a pruned network, and for the dense one."""
    grafted: bool
    """Whether some of its ReLUs were made linear."""
    curve: tuple[EpochRecord, ...]
    """Every epoch of its training."""
    metadata: dict[str, str]
    """What was pruned, how, and out of which recipe: for the exported file."""
    test: Split = field(repr=False)
    """The whole test split, on the CPU."""
    specification: Specification

    @cached_property
    def standard_accuracy(self) -> float:
        """Accuracy on the whole test split; measured when it is first asked for."""
        return accuracy(self.module, self.test)

    @cached_property
    def fgsm_accuracy(self) -> float:
        """Accuracy on the whole test split under a one-step attack at the specification's radius."""
        return fgsm_accuracy(self.module, self.test, self.specification.epsilon)

    @cached_property
    def stability(self) -> NetworkStability:
        """Stable neurons by interval bounds at the specification's radius, on the test images that are verified."""
        verified = self.test.first(self.specification.images)
        return stability(self.module, verified.images, self.specification.epsilon)

    def pgd_accuracy(self, split: Split, epsilon: float, *, steps: int = 50, restarts: int = 3, seed: int = 0) -> float:
        """Accuracy under attack on a split (on the CPU), an upper bound of the certified accuracy."""
        return pgd_accuracy(self.module, split, epsilon, steps=steps, restarts=restarts, seed=seed)


def build_chains(
    recipe: Recipe,
    dataset: Dataset,
    device: str = "cpu",
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Iterator[ChainModel]:
    """Trains and prunes all networks of a recipe, or takes them from the cache folder; each network comes once.

    A run that was killed goes on from the folder with the same result. ``progress`` is called with the name of what is
    trained, the epochs done and the epochs in all.

    Raises:
        InputError: a method does not fit its network or the data, or training diverged.
    """
    context = ChainContext(dataset, device, recipe.seed, cache, progress)
    shared = SharedNetworks(dense_names(recipe, context), sharing_chains(recipe, context))
    seen: set[str] = set()
    for chain in recipe.all_chains:
        for state in chain_with_controls(context, recipe.models[chain.model], chain, recipe.training_of(chain)):
            if state.key not in seen or state.key not in shared.chains:
                yield finished(recipe, context, chain, state, shared)
            seen.add(state.key)


@dataclass(frozen=True)
class SharedNetworks:
    """What is known, before anything is trained, of networks that chains of equal training share."""

    dense: dict[str, str]
    """Names of the dense networks by their keys."""
    chains: dict[str, tuple[str, ...]]
    """Chains of each dense network and unpruned control, by its key."""


def sharing_chains(recipe: Recipe, context: ChainContext) -> dict[str, tuple[str, ...]]:
    """The names of the chains of each network that does not depend on what a chain prunes, by the network's key."""
    found: dict[str, list[str]] = {}
    for chain in recipe.all_chains:
        for key in unpruned_keys(context, recipe.models[chain.model], chain, recipe.training_of(chain)):
            found.setdefault(key, []).append(chain.name)
    return {key: tuple(names) for key, names in found.items()}


def dense_names(recipe: Recipe, context: ChainContext) -> dict[str, str]:
    """Names of the distinct dense networks of a recipe by key: after their model and training, or, where an earlier one
    has that name, after the first chain that starts from them.

    Raises:
        InputError: two networks would have the same name.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for chain in recipe.all_chains:
        key = dense_key(context, recipe.models[chain.model], recipe.training_of(chain))
        if key not in found:
            usual = chain.model if chain.trained is None else f"{chain.model}-{chain.trained}"
            found[key] = f"{chain.name if usual in taken else usual}-dense"
            taken.add(usual)
    _check_unique(list(found.values()))
    return found


def _check_unique(names: list[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise FieldError("chains.name", f"two networks would be called {name!r}; rename a chain or a model")


def finished(
    recipe: Recipe, context: ChainContext, chain: Chain, state: ChainState, shared: SharedNetworks
) -> ChainModel:
    """The record of one state: compressed, and named."""
    options = recipe.models[chain.model]
    module = exported_module(context, options, chain, state)
    method = _method(chain, state)
    given = isinstance(options, OnnxNet)
    parameters = sum(int(parameter.count_nonzero()) for parameter in module.parameters())
    metadata = {
        "recipe": recipe.name,
        "network": state.key,
        "architecture": chain.model,
        "method": method,
        "state": str(state.index),
        "density": f"{state.density:.6f}",
        "nonzero_parameters": str(parameters),
    }
    return ChainModel(
        name=shared.dense.get(state.key) or "-".join(filter(None, [chain.name, f"{state.index:02d}", state.control])),
        chains=shared.chains.get(state.key, (chain.name,)),
        architecture=chain.model,
        method=method,
        state=state.index,
        density=state.density,
        parameters=parameters,
        relus=count_relus(module, context.dataset.input_shape),
        module=module,
        retrained=state.density < 1 and chain.rewind == "lt" and not (given or state.grafted or state.control),
        control=state.control,
        grafted=state.grafted,
        curve=state.curve,
        metadata=metadata,
        test=context.dataset.test,
        specification=recipe.specification,
    )


def _method(chain: Chain, state: ChainState) -> str:
    """How the table names what was done to a network."""
    if state.index == 0:
        return "dense"
    name = state.control or chain.method.name
    return f"{name}+graft" if state.grafted else name


def stability(module: nn.Module, images: Tensor, epsilon: float) -> NetworkStability:
    """Stability of the ReLUs; of no layers where the network has layers without interval rules."""
    try:
        return measure_stability(module, images, epsilon)
    except UnsupportedError:
        return NetworkStability(epsilon, ())
