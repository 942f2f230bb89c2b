"""The training loop: the same result for the same seed, also when it was killed and continued in between."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.data.augment import AUGMENTATIONS
from toolkit.data.dataset import Split
from toolkit.errors import InputError
from toolkit.models.structure import BatchNorm
from toolkit.training.accuracy import pgd_accuracy
from toolkit.training.losses import robust_loss
from toolkit.training.precision import make_scaler, mixed
from toolkit.training.regularisers import regulariser
from toolkit.training.schedule import epsilon_at, learning_rate_at
from toolkit.training.shaping import shape_biases
from toolkit.training.tensor_files import load, save
from toolkit.training.training_options import Training
from toolkit.training.training_step import TrainingStep

Masks = Mapping[str, Tensor]
"""Boolean masks by parameter name, of the parameters' shapes; False entries stay zero."""
Observer = Callable[[int, int], None]
"""Told after each epoch: epochs done, epochs in all."""


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
    def batches(self) -> int:
        """Steps in an epoch."""
        return max(1, ceil(len(self.data) / self.training.batch))


def train(
    model: nn.Module,
    job: TrainingJob,
    masks: Masks | None = None,
    *,
    checkpoint: Path | None = None,
    observer: Observer | None = None,
) -> nn.Module:
    """Trains ``model`` in place and returns it in evaluation mode, with the weights of the last epoch or the best one.

    A checkpoint file, if named, is written now and then, continued from if it exists, and removed at the end.

    Raises:
        InputError: the loss became infinite or NaN, or the best epoch is asked for and no images are held out.
    """
    masks = masks or {}
    apply_masks(model, masks)
    stepper = make_stepper(model, job.training)
    best = BestEpoch()
    first = _resume(model, stepper, best, checkpoint)
    saved = time.monotonic()
    for epoch in range(first, job.last_epoch + 1):
        train_epoch(model, stepper, job, epoch, masks)
        if job.training.keep == "best":
            best.consider(model, job, epoch)
        if observer is not None:
            observer(epoch, job.last_epoch)
        if checkpoint is not None and time.monotonic() - saved >= job.training.checkpoint_seconds:
            save({"epoch": epoch, "model": model.state_dict(), "best": vars(best)} | stepper.state_dict(), checkpoint)
            saved = time.monotonic()
    if best.weights is not None:
        model.load_state_dict(best.weights)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


@dataclass
class BestEpoch:
    """The best epoch so far, by accuracy under a short attack on images held out; of equals, the later one."""

    accuracy: float = -1.0
    weights: dict[str, Tensor] | None = None

    def consider(self, model: nn.Module, job: TrainingJob, epoch: int) -> None:
        """Keep the weights if they are no worse; only where epsilon is the full one at the end of the epoch."""
        if job.validation is None or len(job.validation) == 0:
            raise InputError("data.validation: keeping the best epoch needs images held out of training; hold some out")
        epsilon = job.training.epsilon
        assert epsilon is not None
        if epsilon_at(job.training, epoch * job.batches, job.batches) < epsilon:
            return
        found = pgd_accuracy(model, job.validation, epsilon, steps=10, restarts=1, seed=job.seed)
        if found >= self.accuracy:
            self.accuracy = found
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class OptimizerStepper:
    """What turns losses into steps of the weights, and remembers things between them."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, for a checkpoint."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Remember what a checkpoint has."""
        self.optimizer.load_state_dict(record["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(record["scaler"])


def train_epoch(model: nn.Module, stepper: OptimizerStepper, job: TrainingJob, epoch: int, masks: Masks) -> None:
    """One pass over the data; ``epoch`` counts from 1 and fixes all randomness together with the seed."""
    model.train()
    optimizer, scaler = stepper.optimizer, stepper.scaler
    optimizer.param_groups[0]["lr"] = learning_rate_at(job.training, epoch)
    generator = torch.Generator(device=job.data.labels.device).manual_seed(derive_seed(job.seed, "epoch", epoch))
    parameters = list(model.parameters())
    masked = [(parameter, masks[name]) for name, parameter in model.named_parameters() if name in masks]
    total = torch.zeros((), device=job.data.labels.device)
    for index, (images, labels) in enumerate(batches(job, generator)):
        step = (epoch - 1) * job.batches + index
        epsilon = epsilon_at(job.training, step, job.batches)
        loss = objective(model, job.training, images, labels, epsilon, generator)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        for parameter, mask in masked:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        nn.utils.clip_grad_norm_(parameters, job.training.clip)
        scaler.step(optimizer)
        scaler.update()
        total += loss.detach()
        shape(model, job.training, step, images, masks)
    if not isfinite(float(total)):
        raise InputError(f"training.learning_rate: the loss became {float(total)} in epoch {epoch}; use a smaller rate")


def shape(model: nn.Module, training: Training, step: int, images: Tensor, masks: Masks) -> None:
    """Bias shaping after every ``pace`` steps, where the training has any."""
    options = training.shaping
    if options is not None and (step + 1) % options.pace == 0:
        assert training.epsilon is not None
        shape_biases(model, options, images, training.epsilon, masks)


def objective(
    model: nn.Module,
    training: Training,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    generator: torch.Generator,
) -> Tensor:
    """Robust loss plus regularisers of one batch, a scalar; the model is in training mode."""
    assert training.epsilon is not None
    step = TrainingStep(model, images, labels, epsilon, training.epsilon, generator)
    with one_update(model), mixed(images.device, training.precision):
        loss = robust_loss(training.loss, step)
        for options in training.regularisers:
            loss = loss + regulariser(options, step)
    return loss


@contextmanager
def one_update(model: nn.Module) -> Iterator[None]:
    """Inside, the first pass in training mode updates the running statistics of batch normalisation, and no other.

    A step of training takes several passes: of images, of attacked images, of bounds.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    momenta = [norm.momentum for norm in norms]

    def stop(norm: nn.Module, *_: object) -> None:
        if norm.training:
            norm.momentum = 0.0  # type: ignore[assignment]

    hooks = [norm.register_forward_hook(stop) for norm in norms]
    try:
        yield
    finally:
        for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
            norm.momentum = momentum
            hook.remove()


def batches(job: TrainingJob, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented batches of nearly equal size, none larger than ``training.batch``."""
    order = torch.randperm(len(job.data), generator=generator, device=job.data.labels.device)
    augment = AUGMENTATIONS[job.augmentation if job.training.augment else "none"]
    for chosen in order.tensor_split(job.batches):
        yield augment(job.data.images[chosen], generator), job.data.labels[chosen]


def make_stepper(model: nn.Module, training: Training) -> OptimizerStepper:
    """A fresh optimizer over all parameters, and what mixed precision needs."""
    device = next(model.parameters()).device
    return OptimizerStepper(make_optimizer(model, training), make_scaler(device, training.precision))


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """A fresh optimizer over all parameters."""
    if training.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    return torch.optim.SGD(
        model.parameters(), training.learning_rate, training.momentum, weight_decay=training.weight_decay
    )


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Sets masked entries to zero; with masked gradients they stay zero through momentum and weight decay."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.mul_(masks[name])


def derive_seed(*parts: object) -> int:
    """A seed for one purpose out of the experiment's seed and words that name the purpose."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7])


def _resume(model: nn.Module, stepper: OptimizerStepper, best: BestEpoch, checkpoint: Path | None) -> int:
    """Epoch to go on with, after loading the checkpoint if there is one."""
    record = None if checkpoint is None else load(checkpoint, next(model.parameters()).device)
    if record is None:
        return 1
    model.load_state_dict(record["model"])
    stepper.load_state_dict(record)
    if "best" in record:
        best.accuracy, best.weights = record["best"]["accuracy"], record["best"]["weights"]
    return int(record["epoch"]) + 1
