"""What a pruning criterion (`toolkit.pruning.criterion`) sees of a round, and the masks that it makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.data.dataset import Split
from toolkit.pruning.criterion import CRITERIA, CriterionOptions
from toolkit.pruning.masks import Masks
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import batches, derive_seed, objective


@dataclass(frozen=True)
class PruningRound:
    """A network that was just trained (or is initial, for one-shot pruning), and what to make of it."""

    model: nn.Module
    """A copy: methods may change it."""
    masks: Masks
    """Masks it was trained with; a new mask keeps nothing that these dropped."""
    density: float
    """Density to reach, of all prunable entries."""
    job: TrainingJob
    validation: Split
    """Images held out of training, on the model's device."""
    seed: int
    checkpoint: Path | None = None
    """Where criteria that take long keep what they have so far, to go on with after a kill."""

    def generator(self, purpose: str) -> torch.Generator:
        """Randomness for one purpose, on the model's device."""
        device = self.job.data.labels.device
        return torch.Generator(device=device).manual_seed(derive_seed(self.seed, purpose))

    def losses(self, model: nn.Module, purpose: str) -> Iterator[Tensor]:
        """The training loss at the full epsilon on one shuffled, augmented batch after the other, for ever.

        In single precision whatever the training's, as small derivatives decide which weights stay.
        """
        for epoch in count():
            yield from self.epoch_losses(model, purpose, epoch)

    def epoch_losses(self, model: nn.Module, purpose: str, epoch: int) -> Iterator[Tensor]:
        """The losses of one epoch, counted from 0, which draws its own random numbers."""
        epsilon = self.job.training.epsilon
        training = self.job.training.model_copy(update={"precision": "float32"})
        assert epsilon is not None
        generator = self.generator(f"{purpose} {epoch}")
        for images, labels in batches(self.job, generator):
            model.train()
            yield objective(model, training, images, labels, epsilon, generator)


def prune(options: CriterionOptions, round_: PruningRound) -> Masks:
    """New masks for a round, by the criterion of these options."""
    masks: Masks = CRITERIA.loaded()[type(options)](options, round_)
    return masks
