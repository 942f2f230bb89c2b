"""How a chain of pruned networks is made, as written in a recipe; needs no torch.

Defaults are those of Li et al., "Can pruning improve certified robustness of neural networks?" (TMLR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from operator import attrgetter, or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from toolkit.options import RecipeRecord, shorthand
from toolkit.paper import paper_rows
from toolkit.pruning.criterion import CRITERIA, CriterionOptions, Density
from toolkit.training.training_options import Ramp

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Control = Literal["retrained", "stretched", "random_masks", "narrow"]
"""Kinds of networks that stand beside pruned ones (`toolkit.pruning.controls`)."""


if TYPE_CHECKING:
    MethodOptions = CriterionOptions
else:
    MethodOptions = Annotated[
        reduce(or_, sorted(CRITERIA.loaded(), key=attrgetter("__name__"))),
        Field(discriminator="name"),
        shorthand("name"),
    ]
"""The options of any criterion, told apart by their names."""


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
    """Networks beside each pruned one: the unpruned network trained on to as many epochs in all (``retrained``), or
    trained once with the schedule stretched over as many (``stretched``), one with as many weights or channels in each
    layer, chosen at random (``random_masks``), and a dense one with as many parameters (``narrow``)."""
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
        if self.one_shot and {"retrained", "stretched"} & {*self.controls}:
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
