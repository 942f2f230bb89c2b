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
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.backward import Linear, backward, functional, layer_lines
from toolkit.bounds.interval import Bounds
from toolkit.bounds.relaxations import Lines
from toolkit.problem.program import INPUT, Program, split_layers


@dataclass(frozen=True)
class Multipliers:
    """What is optimised, per domain: slopes and multipliers over all neurons, and weights over the case's atoms."""

    alpha: Tensor
    """Lower slopes in [0, 1], ``(B, num_neurons)``."""
    beta: Tensor
    """Multipliers of the split constraints, at least 0, ``(B, num_neurons)``; only split neurons' count."""
    weight: Tensor
    """Weights of the conjunction's atoms, in the simplex, ``(B, K)``."""

    def select(self, index: Tensor) -> Multipliers:
        """The multipliers of some domains."""
        return Multipliers(self.alpha[index], self.beta[index], self.weight[index])


@dataclass(frozen=True)
class Domain:
    """What is bounded, per domain: box, neuron bounds, phases (+1 active, -1 inactive, 0 open) and the case's atoms."""

    box: Bounds
    bounds: Bounds
    phase: Tensor
    """``(B, num_neurons)`` int8."""
    atoms: Tensor
    """Coefficients of the case's atoms on the features, ``(B, K, F)``."""
    constants: Tensor
    """Constants of the atoms, ``(B, K)``."""

    def select(self, index: Tensor) -> Domain:
        """Some of the domains; what all share (batch 1) stays shared."""

        def part(tensor: Tensor) -> Tensor:
            return tensor if tensor.shape[0] == 1 != len(self.atoms) else tensor[index]

        box = Bounds(part(self.box.lower), part(self.box.upper))
        bounds = Bounds(part(self.bounds.lower), part(self.bounds.upper))
        return Domain(box, bounds, part(self.phase), part(self.atoms), part(self.constants))


@dataclass(frozen=True)
class Bound:
    """The best bound of each domain, the multipliers that prove it, and the relaxation's minimiser there."""

    lower: Tensor
    """Lower bounds ``(B,)``: positive and finite means that no point of the domain satisfies the case."""
    multipliers: Multipliers
    point: Tensor
    """Minimising input ``(B, n)``: a candidate witness."""
    pre: Tensor
    """Pre-activations of the minimiser in the relaxation, ``(B, num_neurons)``."""
    post: Tensor
    """Coefficients on activations, ``(B, num_neurons)``: how much each neuron's relaxation matters."""


@dataclass(frozen=True)
class Schedule:
    """Steps and step sizes of the ascent (Adam)."""

    iterations: int
    rate_alpha: float = 0.1
    rate_beta: float = 0.1
    rate_weight: float = 0.1
    decay: float = 0.98
    until_proved: bool = True
    """Whether positive bounds need no further improvement."""


def evaluate(program: Program, domain: Domain, multipliers: Multipliers) -> tuple[Bound, Multipliers]:
    """The bound for given multipliers, and its supergradient with respect to them."""
    linear, lines = _relaxed(program, domain, multipliers)
    point = linear.minimiser(domain.box).squeeze(1)
    pre, features = push_forward(program, point, linear, lines)
    post = _concatenate_post(program, linear, len(point))
    gradient = Multipliers(
        alpha=post.clamp(min=0) * pre,
        beta=-domain.phase * pre,
        weight=(domain.atoms @ features.unsqueeze(-1)).squeeze(-1) + domain.constants,
    )
    return Bound(linear.minimum(domain.box).squeeze(1), multipliers, point, pre, post), gradient


def lower_bound(program: Program, domain: Domain, multipliers: Multipliers) -> Tensor:
    """The bound alone, ``(B,)``: half the work of `evaluate`."""
    linear, _ = _relaxed(program, domain, multipliers)
    return linear.minimum(domain.box).squeeze(1)


def _relaxed(program: Program, domain: Domain, multipliers: Multipliers) -> tuple[Linear, list[Lines]]:
    """The linear bound of the weighted atoms, one row a domain, and the lines it took."""
    rows = (multipliers.weight.unsqueeze(1) @ domain.atoms).contiguous()
    constant = (multipliers.weight * domain.constants).sum(1, keepdim=True)
    lines = layer_lines(program, domain.bounds, multipliers.alpha)
    signed = split_layers(program, multipliers.beta * domain.phase)
    return backward(program, functional(program.features, rows, constant), lines, signed), lines


def push_forward(program: Program, point: Tensor, linear: Linear, lines: list[Lines]) -> tuple[Tensor, Tensor]:
    """Pre-activations ``(B, num_neurons)`` and features ``(B, F)`` of a point in the relaxation the bound chose."""
    values: dict[int, Tensor] = {INPUT: point}
    pre: list[Tensor] = []
    for number, layer in enumerate(program.layers):
        z = layer.affine.apply([values[source] for source in layer.affine.sources])
        pre.append(z)
        values[number] = _chosen_line(z, linear.post[number], lines[number])
    features = program.features.apply([values[source] for source in program.features.sources])
    return (torch.cat(pre, 1) if pre else point[:, :0]), features


def _chosen_line(z: Tensor, coefficients: Tensor | None, lines: Lines) -> Tensor:
    """The activation on the lower line under a non-negative coefficient, on the upper line under a negative one."""
    lower = lines.lower_slope * z + lines.lower_offset
    if coefficients is None:
        return lower
    upper = lines.upper_slope * z + lines.upper_offset
    return torch.where(coefficients.squeeze(1) < 0, upper, lower)


def _concatenate_post(program: Program, linear: Linear, batch: int) -> Tensor:
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
    that are proved leave the batch early, if the schedule says so, with the bound that proves them.
    """
    best, gradient = evaluate(program, domain, start)
    state = _Adam(start, _zeros(start), _zeros(start))
    index = torch.arange(len(best.lower), device=best.lower.device)
    for step in range(1, schedule.iterations + 1):
        check()
        if schedule.until_proved:
            still_open = ~(best.lower[index] > 0)
            if not bool(still_open.any()):
                break
            if float(still_open.float().mean()) < 1 - LEAVE:
                domain, gradient, state = (
                    domain.select(still_open),
                    gradient.select(still_open),
                    state.select(still_open),
                )
                index = index[still_open]
        state = _ascend(state, gradient, step, schedule)
        bound, gradient = evaluate(program, domain, state.current)
        best = _better(best, bound, index)
    return best


LEAVE = 0.2
"""Share of a batch that must be proved before it is worth making the batch smaller."""


@dataclass(frozen=True)
class _Adam:
    current: Multipliers
    momentum: Multipliers
    square: Multipliers

    def select(self, index: Tensor) -> _Adam:
        return _Adam(self.current.select(index), self.momentum.select(index), self.square.select(index))


def _better(best: Bound, bound: Bound, index: Tensor) -> Bound:
    """The better of two bounds, row by row; ``bound`` has the rows ``index`` of ``best``."""
    # A comparison with NaN is false, so a broken step never replaces a good bound.
    improved = bound.lower > best.lower[index]
    rows = index[improved]

    def updated(old: Tensor, new: Tensor) -> Tensor:
        return old.index_copy(0, rows, new[improved])

    old, new = best.multipliers, bound.multipliers
    return Bound(
        updated(best.lower, bound.lower),
        Multipliers(updated(old.alpha, new.alpha), updated(old.beta, new.beta), updated(old.weight, new.weight)),
        updated(best.point, bound.point),
        updated(best.pre, bound.pre),
        updated(best.post, bound.post),
    )


def _zeros(like: Multipliers) -> Multipliers:
    return Multipliers(torch.zeros_like(like.alpha), torch.zeros_like(like.beta), torch.zeros_like(like.weight))


def _squared(m: Multipliers) -> Multipliers:
    return Multipliers(m.alpha.square(), m.beta.square(), m.weight.square())


def _mix(old: Multipliers, new: Multipliers, share: float) -> Multipliers:
    return Multipliers(
        torch.lerp(new.alpha, old.alpha, share),
        torch.lerp(new.beta, old.beta, share),
        torch.lerp(new.weight, old.weight, share),
    )


def _ascend(state: _Adam, gradient: Multipliers, step: int, schedule: Schedule) -> _Adam:
    """One step of Adam, projected back to where every bound is sound."""
    momentum = _mix(state.momentum, gradient, 0.9)
    square = _mix(state.square, _squared(gradient), 0.999)
    scale = schedule.decay ** (step - 1) * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)

    def move(value: Tensor, first: Tensor, second: Tensor, rate: float) -> Tensor:
        return value + rate * scale * first / (second.sqrt() + 1e-8)

    old = state.current
    current = Multipliers(
        move(old.alpha, momentum.alpha, square.alpha, schedule.rate_alpha).clamp(0, 1),
        move(old.beta, momentum.beta, square.beta, schedule.rate_beta).clamp(min=0),
        onto_simplex(move(old.weight, momentum.weight, square.weight, schedule.rate_weight)),
    )
    return _Adam(current, momentum, square)


def onto_simplex(weight: Tensor) -> Tensor:
    """Non-negative weights that sum to one, ``(B, K)``: clipped and rescaled (any such weights are sound)."""
    if weight.shape[1] == 1:
        return torch.ones_like(weight)
    clipped = weight.clamp(min=0) + 1e-12
    return clipped / clipped.sum(1, keepdim=True)
