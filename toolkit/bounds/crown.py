"""Bounds of all neurons of a box: intervals first, then CROWN for the rows that are still unstable.

Every layer is bounded with the bounds of the layers before it; the better of both methods is kept. Only neurons whose
relaxation would be inexact pay for a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.bounds.backward import LinearBounds, backward, both_signs, functional, layer_lines, of_rows
from toolkit.bounds.backward_rounding import RunningErrors, errors_for
from toolkit.bounds.interval import Bounds, concatenate, map_interval
from toolkit.bounds.relaxations import RELAXATIONS, RelaxationLines
from toolkit.problem.program import INPUT, Program
from toolkit.problem.sum_rounding import MapErrors

COEFFICIENTS_BY_DEVICE = {"cpu": 1 << 22}
"""Coefficients of one backward pass, by device: few enough to stay near a processor's cache."""
COEFFICIENTS_ELSEWHERE = 1 << 25
"""Coefficients of one backward pass, on devices that `COEFFICIENTS_BY_DEVICE` does not name."""


def crown_bounds(
    program: Program, box: Bounds, known: Bounds | None = None, check: Callable[[], None] = lambda: None
) -> Bounds:
    """Pre-activation bounds of all neurons, ``(B, num_neurons)``, for boxes ``(B, n)``.

    ``known`` are sound bounds to start from. ``check`` is called between passes and may raise to stop the work.
    """
    layers: list[Bounds] = []
    lines: list[RelaxationLines] = []
    running = RunningErrors(program, box)
    for number, layer in enumerate(program.layers):
        bounds = map_interval(program, layer.affine, box, layers)
        if known is not None:
            bounds = bounds.intersect(known.of(layer.neurons))
        if layer.affine.sources != (INPUT,):  # intervals of a map of the box alone are exact
            errors = running.up_to(number, layers)
            inexact = RELAXATIONS[layer.op].inexact(bounds.lower, bounds.upper)
            bounds = tighten_rows(program.ending_at(number), errors, inexact, box, bounds, lines, check)
        layers.append(bounds)
        lines.append(RELAXATIONS[layer.op].lines(bounds.lower, bounds.upper))
    return concatenate(layers, box)


def tighten_rows(
    program: Program,
    errors: MapErrors,
    inexact: Tensor,
    box: Bounds,
    bounds: Bounds,
    lines: list[RelaxationLines],
    check: Callable[[], None],
) -> Bounds:
    """CROWN bounds of those of a program's features that are ``inexact``, ``(B, F)``, intersected with ``bounds``.

    A row is bounded in all boxes when it is inexact in one, but only where it is inexact the result is taken: so no box
    depends on what others are in its batch.
    """
    index = inexact.any(0).nonzero().squeeze(1)
    if not len(index):
        return bounds
    lower, upper = bounds.lower.clone(), bounds.upper.clone()
    for part in index.split(rows_per_pass(program, len(bounds.lower))):
        check()
        found = bound_rows(program, errors, part, box, lines)
        old = Bounds(lower[:, part], upper[:, part])
        better, wanted = old.intersect(found), inexact[:, part]
        lower[:, part] = torch.where(wanted, better.lower, old.lower)
        upper[:, part] = torch.where(wanted, better.upper, old.upper)
    return Bounds(lower, upper)


def rows_per_pass(program: Program, batch: int) -> int:
    """How many rows of a layer are pushed back at once."""
    widest = max([1, program.num_inputs, *(layer.affine.size for layer in program.layers)])
    return max(1, COEFFICIENTS_BY_DEVICE.get(program.device.type, COEFFICIENTS_ELSEWHERE) // (2 * batch * widest))


def bound_rows(program: Program, errors: MapErrors, index: Tensor, box: Bounds, lines: list[RelaxationLines]) -> Bounds:
    """CROWN bounds, ``(B, len(index))`` each, of some of a program's features."""
    start = both_signs(of_rows(program.features, index, errors.features))
    bound = backward(program, start, lines, errors).minimum(box)
    low, negated = bound.split(len(index), 1)
    return Bounds(low, -negated)


def bound_features(
    program: Program, rows: Tensor, box: Bounds, bounds: Bounds, constants: Tensor | None = None
) -> tuple[LinearBounds, Tensor]:
    """CROWN lower bounds ``(B, R)`` of functionals of a program's features, for known bounds of all neurons, with the
    linear forms themselves. ``rows`` is ``(B or 1, R, F)``, ``constants`` ``(B or 1, R)``."""
    errors = errors_for(program, box, bounds)
    start = functional(program.features, rows, constants, errors.features)
    linear = backward(program, start, layer_lines(program, bounds), errors)
    return linear, linear.minimum(box)
