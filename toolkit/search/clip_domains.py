"""Clipping in the domains of a search over phases: better bounds of the neurons that their bounds hang on.

The bound of a domain is a linear function of the input that is at most zero wherever the domain has a violation: it
holds what atoms and split constraints say together, weighted as the ascent found best. So neurons need to be bounded
in that half-space of the box alone, and narrower neurons lift the bound in turn (Clip-and-Verify, 2025, its complete
clipping).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from toolkit.bounds.backward import backward, of_rows
from toolkit.bounds.clip_boxes import HalfSpaces, Polytopes, minimum_within, polytopes
from toolkit.bounds.crown import BoxNeuronRows, EarlierLayers, LayerPass, ViolationBounds, parts_of
from toolkit.bounds.dual_ascent import Polyak, Schedule, evaluate, optimise, relax
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Bound, Domain
from toolkit.problem.program import INPUT, Program
from toolkit.run.clock import Clock
from toolkit.search.branching import chord
from toolkit.search.phase_domains import proved
from toolkit.tuning import tuned

RECLIPPED_SCHEDULE = Schedule(1, Polyak())
"""How domains are bounded with their narrower neurons."""


def narrow(program: Program, domain: Domain, bound: Bound, count: int, clock: Clock) -> tuple[Bounds, Bound]:
    """The neurons' bounds and the domains' with ``count`` neurons clipped in every open domain whose bound cuts enough.

    Raises OutOfTime.

    What is stored for a domain holds where it may have violations, as its children need it. A domain whose neurons
    have contradicting bounds has none: its bound is the contradiction.
    """
    if not count:
        return domain.bounds, bound
    promising, spaces = _cutting(program, domain, bound)
    if not len(promising):
        return domain.bounds, bound
    some, at = domain.select(promising), bound.select(promising)
    found = clip_neurons(program, some, spaces, _costliest(program, some, at, count), clock.check)
    again = optimise(program, replace(some, bounds=found.bounds), at.multipliers, RECLIPPED_SCHEDULE, clock.check)
    lower = torch.where(found.contradiction > 0, found.contradiction, again.lower)
    return (
        _put(domain.bounds, promising, found.bounds),
        bound.put(promising, replace(again, lower=torch.fmax(at.lower, lower))),
    )


def _cutting(program: Program, domain: Domain, bound: Bound) -> tuple[Tensor, HalfSpaces]:
    """The open domains whose bounds cut enough of their boxes off, by position, with their half-spaces."""
    still_open = (~proved(bound.lower)).nonzero().squeeze(1)
    some = domain.select(still_open)
    linear = evaluate(program, relax(program, some), bound.multipliers.select(still_open)).linear
    wide = (some.box.upper - some.box.lower).unsqueeze(1)
    span = (linear.coefficients.abs() * wide).sum(2)
    cutting = -bound.lower[still_open] <= tuned().phases.most_depth_to_clip * span.squeeze(1)
    return still_open[cutting], HalfSpaces(linear.coefficients[cutting], linear.offset[cutting])


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
) -> ViolationBounds:
    """Bound the chosen neurons, ``(B, num_neurons)`` bool, of each domain where its half-spaces allow a violation.

    Of a neuron it is the end nearer to zero that a chord's offset hangs on most, so that end alone is bounded. Layers
    follow each other, so that each has the better bounds of those before. ``check`` is called between passes and may
    raise to stop the work.
    """
    lower, upper = domain.bounds.lower.clone(), domain.bounds.upper.clone()
    sign = torch.where(upper > -lower, 1.0, -1.0).to(program.dtype)
    contradiction = lower.new_full((len(lower),), -torch.inf)
    earlier, within = EarlierLayers(program, domain.box), polytopes(domain.box, spaces)
    for layer in program.layers[: _last_layer(program, chosen) + 1]:
        rows = BoxNeuronRows(*chosen[:, layer.neurons].nonzero(as_tuple=True))
        if len(rows.owner):
            at = (rows.owner, rows.neuron + layer.start)
            least = _least(earlier.next_pass(), rows, sign[at], within, check)
            lower[at] = torch.where(sign[at] > 0, torch.fmax(lower[at], least), lower[at])
            upper[at] = torch.where(sign[at] < 0, torch.fmin(upper[at], -least), upper[at])
            crossed = lower[:, layer.neurons] - upper[:, layer.neurons]
            contradiction = torch.fmax(contradiction, crossed.amax(1))
            upper = torch.maximum(lower, upper)
        earlier.add(layer, Bounds(lower, upper).of(layer.neurons))
    return ViolationBounds(Bounds(lower, upper), contradiction)


def _least(
    layer_pass: LayerPass, rows: BoxNeuronRows, sign: Tensor, within: Polytopes, check: Callable[[], None]
) -> Tensor:
    """Least values ``(N,)`` of a layer's values times signs in their owners' half-spaces."""
    least = []
    program, errors = layer_pass.program, layer_pass.errors
    parts = parts_of(program, rows)
    for part, signs in zip(parts, sign.split([len(part.owner) for part in parts]), strict=True):
        check()
        start = of_rows(program.features, part.neuron, errors.features, part.owner)
        turned = [row * signs.unsqueeze(1) for row in start.coefficients]
        start = replace(start, coefficients=turned, offset=start.offset * signs)
        linear = backward(program, start, layer_pass.lines, errors, owner=part.owner)
        least.append(minimum_within(linear.coefficients[0], linear.offset[0], within, part.owner))
    return torch.cat(least)


def _last_layer(program: Program, chosen: Tensor) -> int:
    """The last layer with a chosen neuron, or INPUT."""
    any_of = chosen.any(0)
    return max((n for n, layer in enumerate(program.layers) if bool(any_of[layer.neurons].any())), default=INPUT)
