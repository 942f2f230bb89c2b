"""What a pruning criterion is: options as a recipe writes them, and the function that makes masks of them.

A module of `toolkit.pruning.criteria` has both, and is named nowhere else. Recipes are read without torch, so that
these modules import it where they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from toolkit.options import RecipeRecord
from toolkit.registry import Registry

Density = Annotated[float, Field(gt=0, lt=1)]


class CriterionOptions(RecipeRecord):
    """Options of a criterion. Each has a field ``name``, a Literal of the names that a recipe gives the criterion."""

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Name of the criterion."""

    @property
    def learning_epochs(self) -> int:
        """Epochs in which the criterion learns its scores in a round; controls of equal epochs train as many more."""
        return 0


Criterion = Callable[[Any, Any], Any]
"""New masks (`toolkit.pruning.masks.Masks`) from the options, for a `toolkit.pruning.round.PruningRound`."""
CRITERIA: Registry[type[CriterionOptions], Criterion] = Registry("pruning criterion", folder="toolkit.pruning.criteria")
"""Criteria by the record of their options."""

criterion = CRITERIA.register
"""Decorate the function of a criterion with the record of its options."""


class Unstructured(CriterionOptions):
    """Options that all methods which prune single weights share."""

    layers: Annotated[tuple[Literal["conv", "linear"], ...], Field(min_length=1)] = ("conv",)
    """Kinds of layers whose weights are pruned; the paper prunes convolutions only."""
    layerwise: bool = False
    """Prune every layer to the same density, instead of by one threshold over all of them."""


class Structured(CriterionOptions):
    """Options that all methods which prune channels share."""

    layerwise: bool = False
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of each layer's channels that stays at least, or the density where that is less; one always does."""
    compress: bool = True
    """Remove pruned channels physically from the networks handed out (exact); training keeps the masked network."""
