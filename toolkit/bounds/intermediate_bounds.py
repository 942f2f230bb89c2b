"""Optimised bounds of intermediate layers: every unstable row gets slopes of its own (alpha-CROWN, Xu et al. 2021).

A row of layer i is bounded as if it were the output of the program that ends there, so the ascent that serves the
query's cases serves the neurons too: rows are its batch, and all share the box and the bounds of the earlier layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from toolkit.bounds.bounder import NeuronQuestion, NeuronTrees, Stage, TightenedRows, bounder
from toolkit.bounds.crown import rows_per_pass
from toolkit.bounds.dual_ascent import Adam, Schedule, optimise
from toolkit.bounds.interval import Bounds, inexact
from toolkit.bounds.optimised_bound import Bound, Domain, adaptive_multipliers
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.tuning import tuned


@bounder(
    "alpha-crown",
    Stage.REFINING,
    suits=lambda question: len(question.box.lower) == 1,
    cost=lambda question: 2 * question.iterations * question.unstable,
)
def by_optimised_slopes(question: NeuronQuestion) -> Bounds:
    """Tighter bounds of all neurons of one box, layer by layer: slopes of every row, optimised in a few large steps."""
    steps = max(1, question.iterations // tuned().roots.steps_of_cases_divisor)
    schedule = Schedule(steps, Adam(rate_alpha=0.5, decay=0.8), in_bytes=question.stated)
    bounds = question.known
    for number in range(len(question.program.layers)):
        bounds = refine_layer(question.program, number, question.box, bounds, schedule, question.check, question.tell)
    return bounds


def refine_layer(
    program: Program,
    number: int,
    box: Bounds,
    bounds: Bounds,
    schedule: Schedule,
    check: Callable[[], None] = lambda: None,
    tell: Callable[[TightenedRows | NeuronTrees], None] = lambda rows: None,
) -> Bounds:
    """The bounds with those of one layer's inexact rows tightened, for one box (batch 1), from sound bounds.

    A layer whose first rows hardly gain is left as it is.
    """
    layer = program.layers[number]
    lower, upper = bounds.lower.clone(), bounds.upper.clone()
    index = inexact(layer, bounds.of(layer.neurons))[0].nonzero().squeeze(1)
    if layer.affine.sources == (INPUT,) or not len(index):
        return bounds
    schedule = replace(schedule, until_proved=False)
    ending_here = program.ending_at(number)
    earlier = bounds.of(slice(layer.start))
    for part in _sample_first(index, max(1, rows_per_pass(program, 1) // 4)):
        rows = _bound_rows(ending_here, layer, part, box, earlier, schedule, check)
        old = Bounds(lower[:, layer.start + part], upper[:, layer.start + part])
        known, width = lower_ends(old)
        better = worth_stating(rows.lower, known, width) if schedule.in_bytes else rows.lower > known
        low, negated = torch.where(better, rows.lower, known).unsqueeze(0).split(len(part), 1)
        new = old.intersect(Bounds(low, -negated))
        tell(TightenedRows(number, part, rows.multipliers.alpha, better))
        lower[:, layer.start + part], upper[:, layer.start + part] = new.lower, new.upper
        least = 1 - tuned().neuron_bounds.least_width_gain
        if float((new.upper - new.lower).sum()) > least * float((old.upper - old.lower).sum()):
            break
    return Bounds(lower, upper)


def lower_ends(bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Lower bounds of neurons and then of their negatives, from bounds ``(1, n)``, and the neurons' widths, twice."""
    return torch.cat([bounds.lower, -bounds.upper], 1)[0], (bounds.upper - bounds.lower)[0].repeat(2)


def worth_stating(ends: Tensor, known: Tensor, width: Tensor) -> Tensor:
    """Which lower ends of neurons, or of their negatives, a certificate states: those that prove a phase, and those
    that are better than what is known by some part of the neurons' width. All are ``(n,)``."""
    return (ends > known + tuned().neuron_bounds.least_stated_gain * width) | ((ends > 0) & (known <= 0))


def _sample_first(index: Tensor, size: int) -> list[Tensor]:
    """The rows in parts: a few from everywhere, then the others in parts of at most ``size``."""
    if not len(index):
        return []
    sampled = torch.zeros(len(index), dtype=torch.bool, device=index.device)
    sampled[:: max(1, len(index) // tuned().neuron_bounds.tried_rows)] = True
    return [index[sampled], *index[~sampled].split(size)] if not bool(sampled.all()) else [index]


def _bound_rows(
    program: Program,
    layer: Layer,
    index: Tensor,
    box: Bounds,
    bounds: Bounds,
    schedule: Schedule,
    check: Callable[[], None],
) -> Bound:
    """Lower bounds of some rows of the program's features, then of their negatives, ``(2 len(index),)``."""
    rows = torch.zeros(len(index), layer.affine.size, dtype=program.dtype, device=program.device)
    rows[torch.arange(len(index), device=program.device), index] = 1.0
    atoms = torch.cat([rows, -rows]).unsqueeze(1)
    unsplit = torch.zeros(1, 1, dtype=torch.int8, device=program.device).expand(len(atoms), program.num_neurons)
    domain = Domain(box, bounds, unsplit, atoms, atoms.new_zeros(len(atoms), 1))
    start = adaptive_multipliers(bounds, atoms.new_ones(len(atoms), 1))
    return optimise(program, domain, start, schedule, check)
