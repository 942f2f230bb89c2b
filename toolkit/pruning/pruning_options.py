"""How a chain of pruned networks is made, as written in a recipe; needs no torch.

Defaults are those of Li et al., "Can pruning improve certified robustness of neural networks?" (TMLR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from toolkit.options import RecipeRecord, shorthand
from toolkit.paper import paper_rows
from toolkit.training.training_options import Ramp

Density = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Control = Literal["retrained", "random_masks", "narrow"]
"""Kinds of networks that stand beside pruned ones (`toolkit.pruning.controls`)."""


class Unstructured(RecipeRecord):
    """Options that all methods which prune single weights share."""

    layers: Annotated[tuple[Literal["conv", "linear"], ...], Field(min_length=1)] = ("conv",)
    """Kinds of layers whose weights are pruned; the paper prunes convolutions only."""
    layerwise: bool = False
    """Prune every layer to the same density, instead of by one threshold over all of them."""


class Random(Unstructured):
    """A uniformly random choice among the live weights."""

    name: Literal["random"] = "random"


class Magnitude(Unstructured):
    """Smallest absolute weight after training (IMP; Frankle & Carbin, ICLR 2019)."""

    name: Literal["magnitude"] = "magnitude"


class Sensitivity(Unstructured):
    """Smallest ``|w dL/dw|``: SNIP (Lee et al., ICLR 2019) and the first-order Taylor score are this same number."""

    name: Literal["snip", "taylor"]
    batches: PositiveInt = 1
    """Training batches that the gradient is averaged over."""


class Hydra(RecipeRecord):
    """Learned scores, one density per layer (Sehwag et al., NeurIPS 2020)."""

    name: Literal["hydra"] = "hydra"
    layers: Annotated[tuple[Literal["conv", "linear"], ...], Field(min_length=1)] = ("conv",)
    epochs: PositiveInt = 20
    learning_rate: PositiveFloat = 0.01


class Structured(RecipeRecord):
    """Options that all methods which prune channels share."""

    layerwise: bool = False
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of each layer's channels that stays at least, or the density where that is less; one always does."""
    compress: bool = True
    """Remove pruned channels physically from the networks handed out (exact); training keeps the masked network."""


class Slim(Structured):
    """Smallest ``|gamma|`` of the batch normalisation (network slimming; Liu et al., ICCV 2017)."""

    name: Literal["slim"] = "slim"


class Refill(Structured):
    """IMP decides, whole channels go, kept channels are refilled (Chen et al., 2022, "IMP-Refill")."""

    name: Literal["refill"] = "refill"
    rate: Density = 0.2
    """Part of the live convolution weights that the magnitude step ignores in the ranking."""


class NrsChannel(Structured):
    """Most unstable channels first: largest NRSLoss on held-out images."""

    name: Literal["nrs_channel"] = "nrs_channel"


class UpperBound(Structured):
    """Channels with the smallest upper bound first, as they are nearly inactive (Xu et al., TACAS 2024)."""

    name: Literal["upper_bound"] = "upper_bound"


class HydraFilter(Structured):
    """Learned scores, one per channel, with the same density in every layer: their sizes are not comparable."""

    name: Literal["hydra_filter"] = "hydra_filter"
    layerwise: Literal[True] = True
    epochs: PositiveInt = 20
    learning_rate: PositiveFloat = 0.01


MethodOptions = Annotated[
    Random | Magnitude | Sensitivity | Hydra | Slim | Refill | NrsChannel | UpperBound | HydraFilter,
    Field(discriminator="name"),
    shorthand("name"),
]


class Graft(RecipeRecord):
    """Linearity grafting: unstable ReLUs that matter little become learned affine maps (Chen et al., ICML 2022)."""

    share: Density = 0.5
    """Part of all neurons that is grafted."""
    slope: float = 0.4
    """Slope that grafted neurons start with; their shift starts at zero."""
    images: PositiveInt = 1000
    """Training images that the neurons are ranked on."""
    epochs: PositiveInt = 100
    """Epochs of training after grafting."""
    learning_rate: PositiveFloat = 1e-3


class Rounds(RecipeRecord):
    """Densities, rewinding and training of a chain.

    The densities are given one by one, or as ``rate`` (part of the remaining entries pruned per round) and ``states``
    (number of trained networks, the dense one included). The paper: rate 0.2, 16 states; channels 0.11, 12 states.
    """

    densities: tuple[Density, ...] | None = None
    rate: Density | None = None
    states: Annotated[int, Field(ge=2)] | None = None
    rewind: Literal["lt", "rewind_lt", "pt", "finetune"] = "lt"
    """Weights a pruned network starts from: the initial ones, those after ``rewind_epoch`` epochs of dense training,
    the trained dense ones, or those it has (learning rate and epsilon then stay where they ended)."""
    rewind_epoch: PositiveInt = 8
    ramp: Ramp | None = None
    """Schedule of epsilon in each round of fine-tuning; None trains at the full epsilon from the first step."""
    controls: tuple[Control, ...] = ()
    """Networks beside each pruned one: the unpruned network after as many epochs in all (``retrained``), one with as
    many weights or channels in each layer, chosen at random (``random_masks``), and a dense one with as many parameters
    (``narrow``)."""
    graft: Graft | None = None
    """After the sparsest network, graft it: one more network, of the same density; channels are then not removed."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Seeds of this chain, in place of the recipe's."""
    one_shot: bool = False
    """Score the initial network, each density on its own, in place of the trained one round after round."""
    trained: str | None = None
    """One of the recipe's ``trainings``, whose keys replace those of its training."""
    training: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Keys that replace those of the recipe's training for this chain."""

    @model_validator(mode="after")
    def _check_densities(self) -> Rounds:
        if (self.densities is None) == (self.rate is None) or (self.rate is None) != (self.states is None):
            raise ValueError("give either densities, or rate and states")
        if self.densities is not None and not _falls(self.densities):
            raise ValueError(f"densities must be a falling list of numbers between 0 and 1, not {list(self.densities)}")
        if self.one_shot and "retrained" in self.controls:
            raise ValueError(
                "controls: networks of one_shot chains train as long as the dense one, which is their control"
            )
        return self

    @property
    def targets(self) -> tuple[float, ...]:
        """Densities of states 1, 2, ...; state 0 is dense."""
        if self.densities is not None:
            return self.densities
        assert self.rate is not None
        assert self.states is not None
        return tuple((1 - self.rate) ** state for state in range(1, self.states))


class Chain(Rounds):
    """One chain: the dense network, then ever sparser ones, each rewound and retrained."""

    name: Name
    model: str
    method: MethodOptions
    paper: Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)] = ()
    """Rows of the paper's tables to show beside this chain, as ``cifar10-2/certified/IMP+NRSLoss``."""

    @field_validator("paper")
    @classmethod
    def _check_paper(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if key not in paper_rows():
                raise ValueError(f"the paper has no row {key!r}; it has {', '.join(paper_rows())}")
        return keys


class Sweep(Rounds):
    """One chain for every model and method, called ``NAME-METHOD``, or ``NAME-MODEL-METHOD`` for several models."""

    name: Name
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    methods: Annotated[tuple[MethodOptions, ...], Field(min_length=1)]

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The chains of the sweep."""
        common = {name: getattr(self, name) for name in Rounds.model_fields}
        return tuple(
            Chain(
                name="-".join([self.name, *[model] * (len(self.models) > 1), method.name]),
                model=model,
                method=method,
                **common,
            )
            for model in self.models
            for method in self.methods
        )


def _falls(values: Sequence[float]) -> bool:
    return len(values) > 0 and all(first > second for first, second in pairwise(values))
