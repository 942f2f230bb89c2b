"""Records of the epochs of a training run, and the choice of the epoch whose weights are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from toolkit.data.dataset import Split
from toolkit.errors import FieldError, InputError
from toolkit.training.accuracy import accuracy, pgd_accuracy
from toolkit.training.certified_accuracy import certified_accuracy
from toolkit.training.schedule import epsilon_at, learning_rate_at
from toolkit.training.training_job import TrainingJob


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1; accuracies are of images held out of training, None where there are none."""

    epoch: int
    epsilon: float
    """Radius of training at the end of the epoch."""
    learning_rate: float
    loss: float
    """Mean of the training loss over the steps of the epoch, with all regularisers."""
    standard: float | None = None
    certified: float | None = None
    """Accuracy certified by intervals or CROWN-IBP at the measured radius; None, too, without rules for all layers."""


def measured_epoch(network: nn.Module, job: TrainingJob, epoch: int, loss: float) -> EpochRecord:
    """The record of an epoch after which training would end with this network."""
    epsilon, rate = epsilon_after(job, epoch), learning_rate_at(job.training, epoch)
    held = held_out(job).first(job.training.measured_images)
    if not len(held):
        return EpochRecord(epoch, epsilon, rate, loss)
    certified = certified_accuracy(network, held, job.measured_epsilon)
    return EpochRecord(epoch, epsilon, rate, loss, accuracy(network, held), certified)


def epsilon_after(job: TrainingJob, epoch: int) -> float:
    """Radius of training at the end of an epoch."""
    return epsilon_at(job.training, epoch * job.batches, job.batches)


def held_out(job: TrainingJob) -> Split:
    """The images held out of training, of which there may be none."""
    return job.data.first(0) if job.validation is None else job.validation


@dataclass
class BestEpoch:
    """The best epoch so far, by what ``training.keep`` says; of equals, the later one."""

    accuracy: float = -1.0
    weights: dict[str, Tensor] | None = None

    def consider(self, network: nn.Module, job: TrainingJob, record: EpochRecord) -> None:
        """Keep the weights if they are no worse; only where epsilon is the full one at the end of the epoch.

        Raises:
            InputError: no images are held out, or no bounds of the network are known to certify them by.
        """
        if job.training.keep == "last":
            return
        if not len(held_out(job)):
            raise FieldError(
                "data.validation", "keeping the best epoch needs images held out of training; hold some out"
            )
        if record.epsilon < (job.training.epsilon or 0.0):
            return
        found = chosen_accuracy(network, job, record)
        if found >= self.accuracy:
            self.accuracy = found
            self.weights = {name: value.clone() for name, value in network.state_dict().items()}


def chosen_accuracy(network: nn.Module, job: TrainingJob, record: EpochRecord) -> float:
    """The accuracy on images held out that the best epoch is chosen by."""
    if job.training.keep == "attacked":
        return pgd_accuracy(network, held_out(job), job.measured_epsilon, steps=10, restarts=1, seed=job.seed)
    if record.certified is None:
        raise InputError(
            "training.keep: nothing is certified without measured_images, or with layers that bounds have no rule for; "
            'choose "attacked"'
        )
    return record.certified


@dataclass
class Progress:
    """The records of a training run so far and its best epoch, for a checkpoint."""

    best: BestEpoch = field(default_factory=BestEpoch)
    curve: list[EpochRecord] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """The progress as plain values and tensors."""
        return {"best": vars(self.best), "curve": [vars(record) for record in self.curve]}

    def load_state_dict(self, record: dict[str, Any]) -> None:
        """Take over the progress of a checkpoint."""
        self.best = BestEpoch(**record["best"])
        self.curve = [EpochRecord(**row) for row in record["curve"]]
