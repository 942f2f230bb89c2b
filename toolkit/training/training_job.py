"""What a training run is about: its options, images and randomness."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from toolkit.data.dataset import Split
from toolkit.training.training_options import Training


@dataclass(frozen=True)
class TrainingJob:
    """Everything but the initial weights that decides how a training run ends."""

    training: Training
    data: Split
    """On the model's device."""
    augmentation: str = "none"
    seed: int = 0
    epochs: int | None = None
    """Stop after this many epochs of the schedule; None runs all of it."""
    validation: Split | None = None
    """Images held out, on the model's device, where the best epoch is kept."""

    @property
    def last_epoch(self) -> int:
        """Number of epochs to run."""
        return self.training.epochs if self.epochs is None else min(self.epochs, self.training.epochs)

    @property
    def measured_epsilon(self) -> float:
        """Radius at which images held out are certified or attacked."""
        training = self.training
        epsilon = training.epsilon if training.measured_epsilon is None else training.measured_epsilon
        assert epsilon is not None
        return epsilon

    @property
    def batches(self) -> int:
        """Steps in an epoch."""
        return max(1, ceil(len(self.data) / self.training.batch))
