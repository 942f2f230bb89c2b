"""Optimised bounds: slopes alpha, multipliers beta and atom weights lambda, improved together without a tape.

The bound of a domain is the minimum over the box of a piecewise linear function of (alpha, beta, lambda) that is
concave in beta and lambda. Its supergradient follows from the minimiser itself (envelope theorem): push the minimising
corner forward through the lines that the backward pass chose; with z the pre-activations met there and A the
coefficients on activations,

    d bound / d alpha = max(A, 0) z        d bound / d beta = - phase z        d bound / d lambda = atoms(z)

so one step costs one backward and one forward pass of vectors (alpha-CROWN, Xu et al. 2021; beta-CROWN, Wang et al.
2021, with the gradient in closed form instead of by automatic differentiation). Any alpha in [0, 1], beta >= 0 and
lambda in the simplex give a sound bound, so the best one met is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from toolkit.bounds.backward import LinearBounds, backward, layer_lines, weighted
from toolkit.bounds.backward_rounding import errors_for
from toolkit.bounds.interval import unstable_neurons
from toolkit.bounds.optimised_bound import Bound, Domain, Multipliers
from toolkit.bounds.step_rules import Adam, StepRule
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.program import INPUT, Layer, Program, split_layers
from toolkit.problem.sum_rounding import MapErrors
from toolkit.tuning import tuned


@dataclass(frozen=True)
class Schedule:
    """How long an ascent is, and how it steps."""

    iterations: int
    rule: StepRule = field(default_factory=Adam)
    until_proved: bool = True
    """Whether positive bounds need no further improvement."""


@dataclass(frozen=True)
class RelaxedDomain:
    """A domain with the lines of its neurons: all that does not change while multipliers do."""

    domain: Domain
    lines: list[RelaxationLines]
    free: Tensor
    """Unstable neurons, whose lower slopes are multipliers, ``(B, num_neurons)``."""
    errors: MapErrors
    """What rounding can change in a pass."""

    def lines_at(self, program: Program, alpha: Tensor) -> list[RelaxationLines]:
        """The lines of every layer with these slopes, ``(B, num_neurons)``, where they are free."""
        free, slopes = split_layers(program, self.free), split_layers(program, alpha)
        return [_with_slopes(*of_layer) for of_layer in zip(program.layers, self.lines, free, slopes, strict=True)]


def _with_slopes(layer: Layer, lines: RelaxationLines, free: Tensor, slope: Tensor) -> RelaxationLines:
    if not RELAXATIONS[layer.op].piecewise_linear:
        return lines
    return replace(lines, lower_slope=torch.where(free, slope, lines.lower_slope))


def relax(program: Program, domain: Domain) -> RelaxedDomain:
    """A domain with the lines of its neurons."""
    lines, free = layer_lines(program, domain.bounds), unstable_neurons(program, domain.bounds)
    return RelaxedDomain(domain, lines, free, errors_for(program, domain.box, domain.bounds))


@dataclass(frozen=True)
class Evaluation:
    """A bound with the relaxation that gave it."""

    bound: Bound
    linear: LinearBounds
    lines: list[RelaxationLines]


def evaluate(program: Program, relaxed: RelaxedDomain, multipliers: Multipliers) -> Evaluation:
    """The bound for given multipliers: one backward pass."""
    linear, lines = _push_back(program, relaxed, multipliers)
    box = relaxed.domain.box
    point = linear.minimiser(box).squeeze(1)
    post = _concatenate_post(program, linear, len(point))
    assert linear.error is not None
    bound = Bound(
        linear.minimum(box).squeeze(1), multipliers, point, post, linear.error.expand(len(point), 1).squeeze(1)
    )
    return Evaluation(bound, linear, lines)


def supergradient(program: Program, relaxed: RelaxedDomain, at: Evaluation) -> Multipliers:
    """The supergradient of the bound with respect to its multipliers: one forward pass."""
    pre, features = push_forward(program, at.bound.point, at.linear, at.lines)
    domain = relaxed.domain
    return Multipliers(
        alpha=at.bound.post.clamp(min=0) * pre * relaxed.free,
        beta=-domain.phase * pre,
        weight=(domain.atoms @ features.unsqueeze(-1)).squeeze(-1) + domain.constants,
    )


def lower_bound(program: Program, domain: Domain, multipliers: Multipliers) -> Tensor:
    """The bound alone, ``(B,)``, without what a step or a split needs."""
    linear, _ = _push_back(program, relax(program, domain), multipliers)
    return linear.minimum(domain.box).squeeze(1)


def _push_back(
    program: Program, relaxed: RelaxedDomain, multipliers: Multipliers
) -> tuple[LinearBounds, list[RelaxationLines]]:
    """The linear bound of the weighted atoms, one row a domain, and the lines it took."""
    domain, errors = relaxed.domain, relaxed.errors
    lines = relaxed.lines_at(program, multipliers.alpha)
    signed = split_layers(program, multipliers.beta * domain.phase)
    start = weighted(program.features, domain.atoms, domain.constants, multipliers.weight, errors.features)
    return backward(program, start, lines, errors, signed), lines


def push_forward(
    program: Program, point: Tensor, linear: LinearBounds, lines: list[RelaxationLines]
) -> tuple[Tensor, Tensor]:
    """Pre-activations ``(B, num_neurons)`` and features ``(B, F)`` of a point in the relaxation the bound chose."""
    values: dict[int, Tensor] = {INPUT: point}
    pre: list[Tensor] = []
    for number, layer in enumerate(program.layers):
        z = layer.affine.apply([values[source] for source in layer.affine.sources])
        pre.append(z)
        values[number] = _chosen_line(z, linear.post[number], lines[number])
    features = program.features.apply([values[source] for source in program.features.sources])
    return (torch.cat(pre, 1) if pre else point[:, :0]), features


def _chosen_line(z: Tensor, coefficients: Tensor | None, lines: RelaxationLines) -> Tensor:
    """The activation on the lower line under a non-negative coefficient, on the upper line under a negative one."""
    lower = lines.lower_slope * z
    lower = lower if lines.from_origin else lower + lines.lower_offset
    if coefficients is None:
        return lower
    upper = lines.upper_slope * z + lines.upper_offset
    return torch.where(coefficients.squeeze(1) < 0, upper, lower)


def _concatenate_post(program: Program, linear: LinearBounds, batch: int) -> Tensor:
    parts = [
        torch.zeros(batch, layer.affine.size, dtype=program.dtype, device=program.device)
        if coefficients is None
        else coefficients.squeeze(1)
        for layer, coefficients in zip(program.layers, linear.post, strict=True)
    ]
    return torch.cat(parts, 1) if parts else linear.offset.new_zeros(batch, 0)


def optimise(
    program: Program,
    domain: Domain,
    start: Multipliers,
    schedule: Schedule,
    check: Callable[[], None] = lambda: None,
) -> Bound:
    """Improve the bound of every domain for a number of steps; the best bound met is returned.

    The first evaluation is at ``start``. ``check`` is called before every step and may raise to stop the work. Domains
    that are proved leave the batch early, if the schedule says so, with the bound that proves them. If it does not,
    nothing here has a size that follows from values, so that a device need not be waited for, and may record it.
    """
    relaxed = relax(program, domain)
    at = evaluate(program, relaxed, start)
    best, state = at.bound, schedule.rule.start(start)
    rows: Tensor | None = None  # which domains are still in the batch; None: all
    for step in range(1, schedule.iterations + 1):
        check()
        staying = _unproved(best, rows) if schedule.until_proved else None
        if staying is not None and not len(staying):
            break
        bound, gradient = at.bound, supergradient(program, relaxed, at)
        if staying is not None and len(staying) < (1 - tuned().ascent.proved_share_to_shrink) * len(bound.lower):
            relaxed = relax(program, relaxed.domain.select(staying))
            state, bound, gradient = state.select(staying), bound.select(staying), gradient.select(staying)
            rows = staying if rows is None else rows[staying]
        state = state.advance(bound, gradient, step)
        at = evaluate(program, relaxed, state.current)
        best = best.or_better(at.bound, rows)
    return best


def _unproved(best: Bound, rows: Tensor | None) -> Tensor:
    """Positions in the batch of the domains that are not proved."""
    lower = best.lower if rows is None else best.lower[rows]
    return (~(lower > 0)).nonzero().squeeze(1)
