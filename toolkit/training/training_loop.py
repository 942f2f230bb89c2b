"""The training loop: the same result for the same seed, also when it was killed and continued in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from toolkit.data.augment import AUGMENTATIONS
from toolkit.data.dataset import channels_last
from toolkit.errors import FieldError
from toolkit.models.structure import BatchNorm
from toolkit.training.batch_statistics import estimate_statistics
from toolkit.training.losses import robust_loss
from toolkit.training.precision import make_scaler, mixed
from toolkit.training.regularisers import regulariser
from toolkit.training.schedule import epsilon_at, learning_rate_at
from toolkit.training.shaping import shape_biases
from toolkit.training.tensor_files import PeriodicSaver, load
from toolkit.training.training_curve import EpochRecord, Progress, measured_epoch
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_options import Training
from toolkit.training.training_step import TrainingStep
from toolkit.training.weight_averages import WeightAverages

Masks = Mapping[str, Tensor]
"""Boolean masks by parameter name, of the parameters' shapes; False entries stay zero."""
Observer = Callable[[int, int], None]
"""Told after each epoch: epochs done, epochs in all."""


@dataclass(frozen=True)
class TrainedModel:
    """What a training run ends with."""

    model: nn.Module
    """In evaluation mode."""
    curve: tuple[EpochRecord, ...] = ()
    """Every epoch, in order."""


def train(
    model: nn.Module,
    job: TrainingJob,
    masks: Masks | None = None,
    *,
    checkpoint: Path | None = None,
    observer: Observer | None = None,
) -> nn.Module:
    """The model of `run_training`."""
    return run_training(model, job, masks, checkpoint=checkpoint, observer=observer).model


def run_training(
    model: nn.Module,
    job: TrainingJob,
    masks: Masks | None = None,
    *,
    checkpoint: Path | None = None,
    observer: Observer | None = None,
) -> TrainedModel:
    """Trains ``model`` in place; it ends in evaluation mode, with the weights of the last epoch or what is kept.

    A checkpoint file, if named, is written now and then, continued from if it exists, and removed at the end.

    Raises:
        InputError: the loss became infinite or NaN, or the best epoch is asked for and no images are held out.
    """
    masks = masks or {}
    apply_masks(model, masks)
    stepper, progress = make_stepper(model, job.training), Progress()
    first = _resume(model, stepper, progress, checkpoint)
    saver = PeriodicSaver(checkpoint, job.training.checkpoint_seconds)
    for epoch in range(first, job.last_epoch + 1):
        loss = train_epoch(model, stepper, job, epoch, masks)
        network = settled(model, stepper, job, epoch)
        progress.curve.append(measured_epoch(network, job, epoch, loss))
        progress.best.consider(network, job, progress.curve[-1])
        if observer is not None:
            observer(epoch, job.last_epoch)
        if saver.due():
            parts = stepper.state_dict() | progress.state_dict()
            saver.save({"epoch": epoch, "model": model.state_dict()} | parts)
    if progress.best.weights is not None:
        model.load_state_dict(progress.best.weights)
    elif (averaged := stepper.averaged) is not None:
        model.load_state_dict(averaged.state_dict())
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return TrainedModel(model.eval(), tuple(progress.curve))


def settled(model: nn.Module, stepper: OptimizerStepper, job: TrainingJob, epoch: int) -> nn.Module:
    """The network that training would end with after an epoch: its weights, or their average once there is one.

    Statistics of batch normalisation are estimated anew where the weights are averages, or the training says so.
    """
    averaged = stepper.averaged
    network = model if averaged is None else averaged
    if averaged is not None or job.training.batch_statistics == "population":
        seed = derive_seed(job.seed, "statistics", epoch)
        generator = torch.Generator(device=job.data.labels.device).manual_seed(seed)
        estimate_statistics(network, (images for images, _ in batches(job, generator)))
    return network


@dataclass(frozen=True)
class OptimizerStepper:
    """The optimizer of a training run with its loss scaling and weight averages: the state between its steps."""

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averages: WeightAverages | None = None

    @property
    def averaged(self) -> nn.Module | None:
        """The network of averaged weights, or None before any count."""
        return None if self.averages is None else self.averages.network

    def state_dict(self) -> dict[str, Any]:
        """The states of optimizer, scaling and averages, for a checkpoint."""
        averages = None if self.averages is None else self.averages.copy.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "averages": averages}

    def load_state_dict(self, record: Mapping[str, Any]) -> None:
        """Take over the states of a checkpoint."""
        self.optimizer.load_state_dict(record["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(record["scaler"])
        if self.averages is not None:
            self.averages.copy.load_state_dict(record["averages"])


def train_epoch(model: nn.Module, stepper: OptimizerStepper, job: TrainingJob, epoch: int, masks: Masks) -> float:
    """One pass over the data; ``epoch`` counts from 1 and fixes all randomness together with the seed.

    Returns the mean loss of its steps. Raises InputError where that is not a number, or infinite.
    """
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
        if stepper.averages is not None:
            stepper.averages.add(model, epoch, step)
    if not isfinite(float(total)):
        raise FieldError(
            "training.learning_rate", f"the loss became {float(total)} in epoch {epoch}; use a smaller rate"
        )
    return float(total) / job.batches


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
        if training.clean_share > 0:
            clean = cross_entropy(step.clean_logits(), labels)
            loss = (1 - training.clean_share) * loss + training.clean_share * clean
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
    """Shuffled, augmented batches of nearly equal size, none larger than ``training.batch``, their channels last."""
    order = torch.randperm(len(job.data), generator=generator, device=job.data.labels.device)
    augment = AUGMENTATIONS[job.augmentation if job.training.augment else "none"]
    for chosen in order.tensor_split(job.batches):
        yield channels_last(augment(job.data.images[chosen], generator)), job.data.labels[chosen]


def make_stepper(model: nn.Module, training: Training) -> OptimizerStepper:
    """A fresh optimizer over all parameters, and what mixed precision and averages need."""
    device = next(model.parameters()).device
    averages = None if training.averaging is None else WeightAverages(model, training.averaging)
    return OptimizerStepper(make_optimizer(model, training), make_scaler(device, training.precision), averages)


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


def _resume(model: nn.Module, stepper: OptimizerStepper, progress: Progress, checkpoint: Path | None) -> int:
    """Epoch to go on with, after loading the checkpoint if there is one."""
    record = None if checkpoint is None else load(checkpoint, next(model.parameters()).device)
    if record is None:
        return 1
    model.load_state_dict(record["model"])
    stepper.load_state_dict(record)
    progress.load_state_dict(record)
    return int(record["epoch"]) + 1
