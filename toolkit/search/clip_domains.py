"""Clipping in the domains of a search over phases: better bounds of the neurons that cost a domain's bound most.

The bound of a domain is a linear function of the input that is at most zero wherever the domain has a violation: it
holds what atoms and split constraints say together, weighted as the ascent found best. So neurons need to be bounded
in that half-space of the box alone, and narrower neurons lift the bound in turn (Clip-and-Verify, 2025, its complete
clipping).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.bounds.backward import backward, of_rows
from toolkit.bounds.clip_boxes import HalfSpaces, Polytopes, minimum_with_multipliers, polytopes
from toolkit.bounds.crown import BoxNeuronRows, EarlierLayers, LayerPass, ViolationBounds, parts_of
from toolkit.bounds.dual_ascent import Polyak, Schedule, evaluate, optimise, relax
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Bound, Domain, Multipliers
from toolkit.problem.program import INPUT, Program
from toolkit.run.clock import Clock
from toolkit.search.branching import chord
from toolkit.search.phase_domains import proved
from toolkit.tuning import tuned

RECLIPPED_SCHEDULE = Schedule(1, Polyak())
"""How domains are bounded with their narrower neurons."""


@dataclass(frozen=True)
class ClippedRows:
    """How ends of neurons of one layer were bounded in the only half-space of their domains: all ``(N,)``."""

    owner: Tensor
    """Position of the domain."""
    neuron: Tensor
    """Number among all neurons."""
    sign: Tensor
    """1 for a lower end, -1 for an upper one."""
    multiplier: Tensor
    """Multiplier of the half-space in the bound of the end."""


@dataclass(frozen=True)
class ClippedBounds(ViolationBounds):
    """Bounds of all neurons at violations, with the rows that are better than what was known, layer by layer."""

    rows: list[ClippedRows]


@dataclass(frozen=True)
class Clipping:
    """The clipping of some domains, for a certificate: half-spaces, and ends of neurons that were bounded in them."""

    domains: Tensor
    """Positions of the domains, ``(P,)``."""
    multipliers: Multipliers
    """Multipliers of the linear bounds that are the half-spaces, a row for each of the P domains."""
    rows: list[ClippedRows]
    """The bounded ends of neurons, layer by layer; their owners are positions among the P domains."""


def narrow(
    program: Program, domain: Domain, bound: Bound, count: int, clock: Clock, in_bytes: bool = False
) -> tuple[Bounds, Bound, Clipping | None]:
    """The neurons' bounds and the domains' with ``count`` neurons clipped in every open domain whose bound cuts enough.

    Raises OutOfTime.

    What is stored for a domain holds where it may have violations, as its children need it. A domain whose neurons
    have contradicting bounds has none: its bound is the contradiction. What clipping says is the last of what is
    returned, where it was done. ``in_bytes``: half-spaces have slopes that a byte can state.
    """
    if not count:
        return domain.bounds, bound, None
    promising, multipliers, spaces = _cutting(program, domain, bound, in_bytes)
    if not len(promising):
        return domain.bounds, bound, None
    some, at = domain.select(promising), bound.select(promising)
    found = clip_neurons(program, some, spaces, _costliest(program, some, at, count), clock.check)
    again = optimise(program, replace(some, bounds=found.bounds), at.multipliers, RECLIPPED_SCHEDULE, clock.check)
    lower = torch.where(found.contradiction > 0, found.contradiction, again.lower)
    return (
        _put(domain.bounds, promising, found.bounds),
        bound.put(promising, replace(again, lower=torch.fmax(at.lower, lower))),
        Clipping(promising, multipliers, found.rows),
    )


def _cutting(program: Program, domain: Domain, bound: Bound, in_bytes: bool) -> tuple[Tensor, Multipliers, HalfSpaces]:
    """The open domains whose bounds cut enough of their boxes off, by position, with multipliers and half-spaces."""
    still_open = (~proved(bound.lower)).nonzero().squeeze(1)
    some = domain.select(still_open)
    multipliers = bound.multipliers.select(still_open)
    multipliers = multipliers.stated() if in_bytes else multipliers
    linear = evaluate(program, relax(program, some), multipliers).linear
    wide = (some.box.upper - some.box.lower).unsqueeze(1)
    span = (linear.coefficients.abs() * wide).sum(2)
    cutting = -bound.lower[still_open] <= tuned().phases.most_depth_to_clip * span.squeeze(1)
    chosen = cutting.nonzero().squeeze(1)
    spaces = HalfSpaces(linear.coefficients[chosen], linear.offset[chosen])
    return still_open[chosen], multipliers.select(chosen), spaces


def _costliest(program: Program, domain: Domain, bound: Bound, count: int) -> Tensor:
    """The open neurons whose chords cost a domain's bound most, ``(B, num_neurons)`` bool."""
    splittable = unstable_neurons(program, domain.bounds) & (domain.phase == 0)
    score = chord(program, domain.bounds, bound).nan_to_num(0.0, posinf=0.0, neginf=0.0).masked_fill(~splittable, -1.0)
    best, index = score.topk(min(count, score.shape[1]), 1)
    return torch.zeros_like(splittable).scatter(1, index, best > 0)


def _put(bounds: Bounds, rows: Tensor, new: Bounds) -> Bounds:
    return Bounds(bounds.lower.index_copy(0, rows, new.lower), bounds.upper.index_copy(0, rows, new.upper))


def clip_neurons(
    program: Program, domain: Domain, spaces: HalfSpaces, chosen: Tensor, check: Callable[[], None] = lambda: None
) -> ClippedBounds:
    """Bound the chosen neurons, ``(B, num_neurons)`` bool, of each domain where its half-spaces allow a violation.

    A chord's offset depends most on the end of a neuron's interval that is nearer to zero, so only that one is bounded.
    Layers are bounded in their order: each uses the better bounds of those before. ``check`` is called between passes
    and may raise to stop the work.
    """
    lower, upper = domain.bounds.lower.clone(), domain.bounds.upper.clone()
    sign = torch.where(upper > -lower, 1.0, -1.0).to(program.dtype)
    contradiction = lower.new_full((len(lower),), -torch.inf)
    earlier, within = EarlierLayers(program, domain.box), polytopes(domain.box, spaces)
    stated: list[ClippedRows] = []
    for layer in program.layers[: _last_layer(program, chosen) + 1]:
        rows = BoxNeuronRows(*chosen[:, layer.neurons].nonzero(as_tuple=True))
        if len(rows.owner):
            at = (rows.owner, rows.neuron + layer.start)
            least, multiplier = _least(earlier.next_pass(), rows, sign[at], within, check)
            better = (least > torch.where(sign[at] > 0, lower[at], -upper[at])).nonzero().squeeze(1)
            stated.append(ClippedRows(at[0][better], at[1][better], sign[at][better], multiplier[better]))
            lower[at] = torch.where(sign[at] > 0, torch.fmax(lower[at], least), lower[at])
            upper[at] = torch.where(sign[at] < 0, torch.fmin(upper[at], -least), upper[at])
            crossed = lower[:, layer.neurons] - upper[:, layer.neurons]
            contradiction = torch.fmax(contradiction, crossed.amax(1))
            upper = torch.maximum(lower, upper)
        earlier.add(layer, Bounds(lower, upper).of(layer.neurons))
    return ClippedBounds(Bounds(lower, upper), contradiction, stated)


def _least(
    layer_pass: LayerPass, rows: BoxNeuronRows, sign: Tensor, within: Polytopes, check: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """Least values ``(N,)`` of a layer's values times signs in their owners' half-spaces, with the multipliers of the
    last of these, 0 where there is none."""
    least, multipliers = [], []
    program, errors = layer_pass.program, layer_pass.errors
    parts = parts_of(program, rows)
    for part, signs in zip(parts, sign.split([len(part.owner) for part in parts]), strict=True):
        check()
        start = of_rows(program.features, part.neuron, errors.features, part.owner)
        turned = [row * signs.unsqueeze(1) for row in start.coefficients]
        start = replace(start, coefficients=turned, offset=start.offset * signs)
        linear = backward(program, start, layer_pass.lines, errors, owner=part.owner)
        found, given = minimum_with_multipliers(linear.coefficients[0], linear.offset[0], within, part.owner)
        least.append(found)
        multipliers.append(given[-1] if given else torch.zeros_like(found))
    return torch.cat(least), torch.cat(multipliers)


def _last_layer(program: Program, chosen: Tensor) -> int:
    """The last layer with a chosen neuron, or INPUT."""
    any_of = chosen.any(0)
    return max((n for n, layer in enumerate(program.layers) if bool(any_of[layer.neurons].any())), default=INPUT)
