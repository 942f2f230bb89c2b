"""Optimised bounds: slopes alpha, multipliers beta and atom weights lambda, improved together without a tape.

The bound of a domain is the minimum over the box of a piecewise linear function of (alpha, beta, lambda) that is
concave in beta and lambda. Its supergradient follows from the minimiser itself (envelope theorem): push the minimising
corner forward through the lines that the backward pass chose; with z the pre-activations met there and A the
coefficients on activations,

    d bound / d alpha = max(A, 0) z        d bound / d beta = - phase z        d bound / d lambda = atoms(z)

so one step costs one backward and one forward pass of vectors (alpha-CROWN, Xu et al. 2021; beta-CROWN, Wang et al.
2021, with the gradient in closed form instead of by automatic differentiation). Any alpha in [0, 1], beta >= 0 and
lambda in the simplex give a sound bound, so the best one met is kept.

A step rule starts a state from multipliers, and a state advances by one step. Whatever a rule does, every place it
visits is projected to where all bounds are sound, so rules differ in speed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from toolkit.bounds.backward import LinearBounds, backward, layer_lines, weighted
from toolkit.bounds.backward_rounding import map_errors
from toolkit.bounds.interval import unstable_neurons
from toolkit.bounds.optimised_bound import Bound, Domain, Multipliers
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.program import INPUT, Program, split_layers
from toolkit.problem.sum_rounding import MapErrors


class AscentState(Protocol):
    """Where an ascent is, with what its rule remembers."""

    @property
    def current(self) -> Multipliers:
        """The multipliers to evaluate next."""

    def advance(self, bound: Bound, gradient: Multipliers, step: int) -> Self:
        """The state after step number ``step``, from 1; bound and gradient are those at ``current``."""


class StepRule(Protocol):
    """A rule by which an ascent steps from one set of multipliers to the next."""

    def start(self, multipliers: Multipliers) -> AscentState:
        """The state before the first step."""


@dataclass(frozen=True)
class Adam:
    """Steps of a set length (Kingma and Ba, ICLR 2015): where it is unknown how far a bound can rise."""

    rate_alpha: float = 0.1
    rate_beta: float = 0.1
    rate_weight: float = 0.1
    decay: float = 0.98

    def start(self, multipliers: Multipliers) -> AdamState:
        """The state at the first multipliers, with zero means: no gradient was seen yet."""
        zero = multipliers.map(torch.zeros_like)
        return AdamState(self, multipliers, zero, zero)


@dataclass(frozen=True)
class AdamState:
    """Adam's running means of the gradient and of its square."""

    rule: Adam
    current: Multipliers
    mean: Multipliers
    square: Multipliers

    def advance(self, bound: Bound, gradient: Multipliers, step: int) -> AdamState:
        """A step along the mean, in units of the root of the mean square."""
        rule, old = self.rule, self.current
        mean = gradient.map(lambda new, before: torch.lerp(new, before, 0.9), self.mean)
        square = gradient.map(lambda new, before: torch.lerp(new.square(), before, 0.999), self.square)
        scale = rule.decay ** (step - 1) * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        direction = mean.map(lambda first, second: scale * first / (second.sqrt() + 1e-8), square)
        moved = Multipliers(
            old.alpha + rule.rate_alpha * direction.alpha,
            old.beta + rule.rate_beta * direction.beta,
            old.weight + rule.rate_weight * direction.weight,
        )
        return AdamState(rule, moved.projected(), mean, square)


@dataclass(frozen=True)
class Polyak:
    """Steps as long as a bound must rise to be a proof: ``length * -bound / |gradient|^2`` (Polyak 1969).

    A domain is done once its bound is positive, so zero is the value to step to. Slopes and weights are numbers
    between 0 and 1; split multipliers are measured by the coefficients that they compete with.
    """

    length: float = 1.4
    unit_beta: float = 0.3
    """Unit of the split multipliers, in terms of the largest coefficient on an activation."""

    def start(self, multipliers: Multipliers) -> PolyakState:
        """The state at the first multipliers; the rule remembers nothing else."""
        return PolyakState(self, multipliers)


@dataclass(frozen=True)
class PolyakState:
    """Where an ascent by `Polyak` is: at some multipliers, without a memory of earlier ones."""

    rule: Polyak
    current: Multipliers

    def advance(self, bound: Bound, gradient: Multipliers, step: int) -> PolyakState:
        """A step to where the gradient promises ``length`` times what is missing."""
        rule, old, free = self.rule, self.current, _inward(self.current, gradient)
        unit = (rule.unit_beta * bound.post.abs().amax(1, keepdim=True)).square() if bound.post.shape[1] else 1.0
        size = (free.alpha.square() + unit * free.beta.square()).sum(1) + free.weight.square().sum(1)
        reach = (rule.length * (-bound.lower).clamp(min=0) / size.clamp(min=LEAST_SQUARED_GRADIENT)).unsqueeze(1)
        moved = Multipliers(
            old.alpha + reach * free.alpha, old.beta + reach * unit * free.beta, old.weight + reach * free.weight
        )
        return PolyakState(rule, moved.projected())


LEAST_SQUARED_GRADIENT = 1e-20
"""Least squared length of a gradient that is divided by."""


def _inward(at: Multipliers, gradient: Multipliers) -> Multipliers:
    """The gradient without the parts that lead out of the feasible set, which a projection would undo."""
    alpha, beta = gradient.alpha, gradient.beta
    stuck = ((at.alpha <= 0) & (alpha < 0)) | ((at.alpha >= 1) & (alpha > 0))
    return Multipliers(
        alpha.masked_fill(stuck, 0.0),
        beta.masked_fill((at.beta <= 0) & (beta < 0), 0.0),
        gradient.weight - gradient.weight.mean(1, keepdim=True),
    )


@dataclass(frozen=True)
class Schedule:
    """How long an ascent is, and how it steps."""

    iterations: int
    rule: StepRule = field(default_factory=Adam)
    until_proved: bool = True
    """Whether it ends early where all bounds are positive."""
    in_bytes: bool = False
    """Whether the slopes are to be such that a byte can state them, for a certificate."""


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
        parts = zip(split_layers(program, self.free), split_layers(program, alpha), strict=True)
        return [
            replace(lines, lower_slope=torch.where(free, slope, lines.lower_slope))
            if RELAXATIONS[layer.op].piecewise_linear
            else lines
            for layer, lines, (free, slope) in zip(program.layers, self.lines, parts, strict=True)
        ]


def relax(program: Program, domain: Domain) -> RelaxedDomain:
    """The relaxation of a domain at its neuron bounds, with what rounding can change in a pass."""
    lines, free = layer_lines(program, domain.bounds), unstable_neurons(program, domain.bounds)
    return RelaxedDomain(domain, lines, free, map_errors(program, domain.box, domain.bounds))


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

    The first evaluation is at ``start``. ``check`` is called before every step and may raise to stop the work. It ends
    early where all domains are proved, if the schedule says so; if it does not, a device need not be waited for, and
    may record it. Domains that are proved stay in the batch: without them, no search was faster.
    """
    relaxed = relax(program, domain)
    at = evaluate(program, relaxed, start)
    best, state = at.bound, schedule.rule.start(start)
    for step in range(1, schedule.iterations + 1):
        check()
        if schedule.until_proved and bool((best.lower > 0).all()):
            break
        state = state.advance(at.bound, supergradient(program, relaxed, at), step)
        at = evaluate(program, relaxed, state.current)
        best = best.or_better(at.bound)
    return stated(program, domain, best) if schedule.in_bytes else best


def stated(program: Program, domain: Domain, bound: Bound) -> Bound:
    """The bounds of domains, ``(B,)``, with slopes that a byte can state."""
    return evaluate(program, relax(program, domain), bound.multipliers.stated()).bound
