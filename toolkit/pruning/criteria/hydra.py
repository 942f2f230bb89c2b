"""Criteria whose scores are learned (`toolkit.pruning.learned_scores`): HYDRA, of weights and of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from toolkit.pruning.criterion import CriterionOptions, Structured, criterion

if TYPE_CHECKING:
    from toolkit.pruning.masks import Masks
    from toolkit.pruning.round import PruningRound


class Hydra(CriterionOptions):
    """Learned scores, one density per layer (Sehwag et al., NeurIPS 2020)."""

    name: Literal["hydra"] = "hydra"
    layers: Annotated[tuple[Literal["conv", "linear"], ...], Field(min_length=1)] = ("conv",)
    epochs: PositiveInt = 20
    learning_rate: PositiveFloat = 0.01

    @property
    def learning_epochs(self) -> int:
        """Epochs of the scores, in which weights stay as they are."""
        return self.epochs


@criterion(Hydra)
def by_learned_scores(options: Hydra, round_: PruningRound) -> Masks:
    """Masks by a score that is learned for each weight."""
    from toolkit.pruning.learned_scores import learned_weights

    return learned_weights(round_, options.layers, options.epochs, options.learning_rate)


class HydraFilter(Structured):
    """Learned scores, one per channel, with the same density in every layer: their sizes are not comparable."""

    name: Literal["hydra_filter"] = "hydra_filter"
    layerwise: Literal[True] = True
    epochs: PositiveInt = 20
    learning_rate: PositiveFloat = 0.01

    @property
    def learning_epochs(self) -> int:
        """Epochs of the scores, in which weights stay as they are."""
        return self.epochs


@criterion(HydraFilter)
def by_learned_channel_scores(options: HydraFilter, round_: PruningRound) -> Masks:
    """Masks by a score that is learned for each channel."""
    from toolkit.pruning.learned_scores import learned_channels

    return learned_channels(options, round_, options.epochs, options.learning_rate)
