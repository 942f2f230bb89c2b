"""How epsilon and the learning rate move during training."""

from __future__ import annotations

from math import floor

from toolkit.training.training_options import Ramp, Training


def smoothed_fraction(ramp: Ramp, step: int, batches: int) -> float:
    """Part of the largest epsilon at a step (counted from 0), with ``batches`` steps in an epoch.

    Zero, then ``A t^b``, then linear from the middle with the same slope, then one (the schedule of CROWN-IBP's code).
    """
    start = (ramp.start - 1) * batches
    end = (ramp.start + ramp.length - 1) * batches
    middle = start + floor(ramp.middle * (end - start))
    if step <= start:
        return 0.0
    if step >= end:
        return 1.0
    if middle == start:
        return (step - start) / (end - start)
    b = ramp.exponent
    slope = b * float(middle - start) ** (b - 1)
    scale = 1 / ((end - middle) * slope + float(middle - start) ** b)
    if step < middle:
        return scale * float(step - start) ** b
    return scale * (float(middle - start) ** b + slope * (step - middle))


def epsilon_at(training: Training, step: int, batches: int) -> float:
    """Radius of training at a step."""
    assert training.epsilon is not None
    if training.ramp is None:
        return training.epsilon
    return training.epsilon * smoothed_fraction(training.ramp, step, batches)


def stretched(training: Training, epochs: int) -> Training:
    """The training with so many epochs, and with its ramp, milestones and averaging in the same proportions."""
    factor = epochs / max(1, training.epochs)

    def later(epoch: int) -> int:
        """The epoch, counted from 1, before which the same part of the training is done."""
        return 1 + round((epoch - 1) * factor)

    ramp, averaging = training.ramp, training.averaging
    if ramp is not None:
        length = max(1, round(ramp.length * factor))
        ramp = ramp.model_copy(update={"start": later(ramp.start), "length": length})
    if averaging is not None:
        averaging = averaging.model_copy(update={"start": later(averaging.start)})
    milestones = tuple(max(1, round(milestone * factor)) for milestone in training.milestones)
    changed = {"epochs": epochs, "milestones": milestones, "ramp": ramp, "averaging": averaging}
    return training.model_copy(update=changed)


def learning_rate_at(training: Training, epoch: int) -> float:
    """Learning rate of an epoch, counted from 1."""
    passed = sum(epoch > milestone for milestone in training.milestones)
    return training.learning_rate * training.decay**passed
