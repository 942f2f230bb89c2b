"""Backward linear bounds (CROWN, Zhang et al., NeurIPS 2018), for any program and any rows.

A functional of some affine map's value is pushed back layer by layer: through a nonlinear layer by the line that keeps
a lower bound (the lower line under a positive coefficient, the upper under a negative), through an affine map by its
transpose. What remains is a linear function of the input, minimised over the box in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds, rounding
from toolkit.bounds.pending import Pending
from toolkit.bounds.relaxations import RELAXATIONS, Lines
from toolkit.problem.affine import Affine
from toolkit.problem.program import INPUT, Program, split_layers


@dataclass(frozen=True)
class Functional:
    """Rows of coefficients on the sources of an affine map, ``(B or 1, R, size)`` each, and offsets ``(B or 1, R)``."""

    sources: tuple[int, ...]
    coefficients: list[Tensor]
    offset: Tensor


@dataclass(frozen=True)
class Linear:
    """Linear lower bounds over the input, ``coefficients . x + offset``, and what they met on the way.

    ``coefficients`` is ``(B, R, n)``, ``offset`` ``(B, R)``; ``post[i]`` are the coefficients on layer i's activations,
    ``(B, R, N_i)``, or None where nothing depends on that layer.
    """

    coefficients: Tensor
    offset: Tensor
    post: list[Tensor | None]

    def minimum(self, box: Bounds) -> Tensor:
        """Lower bounds ``(B, R)`` over boxes ``(B, n)``, less an allowance for rounding."""
        centre, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
        allowance = rounding(self.offset.dtype)
        widened = radius + allowance * torch.maximum(box.lower.abs(), box.upper.abs())
        spread = _dot(self.coefficients.abs(), widened) + allowance * self.offset.abs()
        return _dot(self.coefficients, centre) - spread + self.offset

    def minimiser(self, box: Bounds) -> Tensor:
        """The corner of each box at which the bound is attained, ``(B, R, n)``."""
        return torch.where(self.coefficients > 0, box.lower.unsqueeze(1), box.upper.unsqueeze(1))


def functional(affine: Affine, rows: Tensor, constants: Tensor | None = None) -> Functional:
    """The functionals ``rows . value + constants`` of an affine map's value, as functionals of its sources.

    ``rows`` is ``(B or 1, R, size)``, ``constants`` ``(B or 1, R)``.
    """
    offset = rows @ affine.bias
    return Functional(affine.sources, affine.transpose(rows), offset if constants is None else offset + constants)


def layer_lines(program: Program, bounds: Bounds) -> list[Lines]:
    """The lines of every layer for bounds ``(B, num_neurons)``."""
    lower, upper = split_layers(program, bounds.lower), split_layers(program, bounds.upper)
    layers = program.layers[: len(lower)]
    return [RELAXATIONS[layer.op].lines(l, u) for layer, l, u in zip(layers, lower, upper, strict=True)]


def backward(
    program: Program, start: Functional, lines: Sequence[Lines], multipliers: Sequence[Tensor] | None = None
) -> Linear:
    """Push functionals of a map's sources back to the input.

    ``multipliers[i]``, ``(B, N_i)``, are signed Lagrange multipliers of split constraints on layer i's
    pre-activations: the term ``- multipliers . z`` is added to the bounded function (beta-CROWN, Wang et al. 2021).
    """
    pending = Pending(program, start.sources, start.coefficients)
    offset = start.offset
    post: list[Tensor | None] = [None] * len(program.layers)
    for number in range(max(start.sources, default=INPUT), INPUT, -1):
        coefficients = pending.take(number)
        if coefficients is None:
            continue
        post[number] = coefficients
        rows, constant = through_lines(coefficients, lines[number])
        if multipliers is not None:
            rows = rows - multipliers[number].unsqueeze(1)
        offset = offset + constant + rows @ program.layers[number].affine.bias
        pending.push(number, rows)
    remaining = pending.take(INPUT)
    if remaining is None:
        remaining = offset.new_zeros(*offset.shape, program.num_inputs)
    return Linear(remaining, offset, post)


def through_lines(coefficients: Tensor, lines: Lines) -> tuple[Tensor, Tensor]:
    """Coefficients on pre-activations, ``(B, R, N)``, and constants, ``(B, R)``, of a sound lower bound."""
    if lines.lower_slope is lines.upper_slope and lines.lower_offset is lines.upper_offset:  # then no sign matters
        return coefficients * lines.lower_slope.unsqueeze(1), _dot(coefficients, lines.lower_offset)
    positive = coefficients.clamp(min=0)
    negative = coefficients - positive
    rows = positive * lines.lower_slope.unsqueeze(1) + negative * lines.upper_slope.unsqueeze(1)
    constant = _dot(negative, lines.upper_offset)
    return rows, constant if lines.from_origin else constant + _dot(positive, lines.lower_offset)


def _dot(rows: Tensor, vector: Tensor) -> Tensor:
    """Row-wise products ``(B, R)`` of ``(B, R, N)`` and ``(B, N)``; either batch may be 1."""
    if len(vector) == 1:
        return rows @ vector[0]  # one product of a matrix with a vector
    return (rows @ vector.unsqueeze(-1)).squeeze(-1)
