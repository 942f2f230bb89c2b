"""Clipping neuron bounds in the domains of a search over phases (Clip-and-Verify, 2025, its complete clipping).

The bound of a domain is a linear function of the input that is at most zero wherever the domain has a violation: it
holds what atoms and split constraints say together, weighted as the ascent found best. So neurons need to be bounded
in that half-space of the box alone, and narrower neurons lift the bound in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from toolkit.bounds.backward import backward, of_rows
from toolkit.bounds.clip_boxes import HalfSpaces, Polytopes, minimum_within, polytopes
from toolkit.bounds.crown import BoxNeuronRows, EarlierLayers, LayerPass, ViolationBounds, parts_of
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Domain
from toolkit.problem.program import INPUT, Program


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
