"""Bounds of many small boxes at once, where each box pays for its own unstable neurons only.

A box inherits its parent's bounds, so that only neurons unstable there are bounded again: all pairs (box, neuron) of a
layer are one flat list of rows, pushed back to the input by CROWN and minimised over the box and the half-spaces in
which a violation has to lie (`toolkit.bounds.clip_boxes`). Such bounds hold at violations only, which is all that a
refutation needs; bounds that contradict each other refute the box.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.bounds.backward import Functional, PreActivationRows, both_signs, long_dot, of_rows
from toolkit.bounds.backward_rounding import RunningErrors
from toolkit.bounds.clip_boxes import HalfSpaces, Polytopes, minimum_within, polytopes
from toolkit.bounds.forward import ForwardPass, boxes_together, only_matrices, suits
from toolkit.bounds.interval import Bounds, concatenate, map_interval
from toolkit.bounds.relaxations import RELAXATIONS, RelaxationLines
from toolkit.bounds.row_accumulator import RowAccumulator
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, MapErrors, added_up, gamma, long_terms

COEFFICIENTS_BY_DEVICE = {"cpu": 1 << 18}
"""Coefficients of one pass over the widest layer, by device: few enough to stay in a processor's cache."""
COEFFICIENTS_ELSEWHERE = 1 << 24
"""Coefficients of a pass over the widest layer, on devices that `COEFFICIENTS_BY_DEVICE` does not name: enough to keep
them busy."""
LEAST_ROWS_PER_PASS = 128
"""Rows of one pass at least, however wide the layers are."""
MOST_NEURONS_PER_BOX = 256
"""Neurons of a layer of matrices, for each box, beyond which forward bounds have to do where there are any."""
MOST_NEURONS_PER_INPUT = 2
"""Neurons of a layer of operators, for each box and each input of it, beyond which forward bounds have to do."""


@dataclass(frozen=True)
class InputInfluence:
    """How much each input dimension moves each neuron that was bounded: a flat list over pairs (box, neuron)."""

    owner: Tensor
    """Box of each pair, ``(N,)``."""
    neuron: Tensor
    """Its number among all neurons, ``(N,)``."""
    share: Tensor
    """Share of every dimension in the neuron's variation over the box, ``(N, n)``; a row sums to one (or is zero)."""


@dataclass(frozen=True)
class TightenedBounds:
    """Neuron bounds of some boxes, valid at violations, with what was learned on the way."""

    bounds: Bounds
    contradiction: Tensor
    """By how much bounds of one neuron exclude each other, ``(B,)``: positive only where the box has no violation."""
    reach: InputInfluence


@dataclass(frozen=True)
class BoxNeuronRows:
    """Functionals of one layer's inputs, each for a box of its own: pairs (box, neuron of the layer)."""

    owner: Tensor
    neuron: Tensor


def tighten(
    program: Program, box: Bounds, known: Bounds, spaces: HalfSpaces, check: Callable[[], None] = lambda: None
) -> TightenedBounds:
    """Pre-activation bounds ``(B, num_neurons)`` of boxes ``(B, n)``, starting from the bounds of larger ones.

    They hold at the points of the box in all of its half-spaces (shape ``(B, K, n)``; K may be 0). ``check`` is called
    between passes and may raise to stop the work.
    """
    if not suits(program):
        return _tighten(program, box, known, spaces, None, check)
    parts = []
    for part in torch.arange(len(box.lower), device=box.lower.device).split(boxes_together(program, box, known)):
        inner = box.select(part)
        forward = ForwardPass(program, inner)
        parts.append(_tighten(program, inner, known.select(part), spaces.select(part), forward, check))
    return parts[0] if len(parts) == 1 else _stacked(parts, box)


def _tighten(
    program: Program,
    box: Bounds,
    known: Bounds,
    spaces: HalfSpaces,
    forward: ForwardPass | None,
    check: Callable[[], None],
) -> TightenedBounds:
    layers: list[Bounds] = []
    lines: list[RelaxationLines] = []
    reaches: list[InputInfluence] = []
    running = RunningErrors(program, box)
    within = polytopes(box, spaces)
    values = {INPUT: box.centre}
    contradiction = box.lower.new_full((len(box.lower),), -torch.inf)
    for number, layer in enumerate(program.layers):
        check()
        bounds = _inherited(program, layer, box, known)
        if forward is not None:
            bounds = bounds.meet(forward.bounds(number))
        rows = _doubtful(layer, bounds, values, number)
        if forward is not None and len(rows.owner) > _most_rows(program, number, box) * len(box.lower):
            share = _normalised(forward.spread(rows.owner, rows.neuron, program.num_inputs))
            reaches.append(InputInfluence(rows.owner, rows.neuron + layer.start, share))
        elif len(rows.owner):
            errors = running.up_to(number, layers)
            found, share = _bound_rows(program.ending_at(number), errors, rows, lines, within, check)
            bounds = _narrowed(bounds, rows, found)
            reaches.append(InputInfluence(rows.owner, rows.neuron + layer.start, share))
        contradiction = torch.fmax(contradiction, (bounds.lower - bounds.upper).amax(1))
        layers.append(Bounds(bounds.lower, torch.maximum(bounds.lower, bounds.upper)))
        lines.append(RELAXATIONS[layer.op].lines(layers[-1].lower, layers[-1].upper))
        if forward is not None:
            forward.advance(number, layers[-1])
    return TightenedBounds(concatenate(layers, box), contradiction, _joined(reaches, box))


def _stacked(parts: list[TightenedBounds], box: Bounds) -> TightenedBounds:
    """What was found for some boxes after what was found for others."""
    starts = itertools.accumulate((len(part.contradiction) for part in parts[:-1]), initial=0)
    reaches = [replace(part.reach, owner=part.reach.owner + start) for part, start in zip(parts, starts, strict=True)]
    return TightenedBounds(
        Bounds.of_rows([part.bounds for part in parts]),
        torch.cat([part.contradiction for part in parts]),
        _joined(reaches, box),
    )


def _most_rows(program: Program, number: int, box: Bounds) -> int:
    """Rows of a layer, for each box, that are worth a backward pass where forward bounds are known.

    Matrices serve many rows at little cost; operators cost as much for each row as for a column of forward bounds.
    """
    return MOST_NEURONS_PER_BOX if only_matrices(program, number) else MOST_NEURONS_PER_INPUT * (box.lower.shape[1] + 1)


def _inherited(program: Program, layer: Layer, box: Bounds, known: Bounds) -> Bounds:
    """The layer's known bounds, with exact intervals where it depends on the box alone."""
    bounds = known.of(layer.neurons)
    if layer.affine.sources != (INPUT,):
        return bounds
    return bounds.meet(map_interval(program, layer.affine, box, []))


def _doubtful(layer: Layer, bounds: Bounds, values: dict[int, Tensor], number: int) -> BoxNeuronRows:
    """Neurons to bound again; puts the layer's activations at the boxes' centres into ``values``.

    These are the ones whose relaxation is inexact, and those whose value at the centre contradicts what is known: a
    bound that holds at violations only, and whose violations may all lie outside this box.
    """
    z = layer.affine.apply([values[source] for source in layer.affine.sources])
    relaxation = RELAXATIONS[layer.op]
    values[number] = relaxation.function(z)
    doubtful = relaxation.inexact(bounds.lower, bounds.upper) | (z < bounds.lower) | (z > bounds.upper)
    return BoxNeuronRows(*doubtful.nonzero(as_tuple=True))


def _narrowed(bounds: Bounds, rows: BoxNeuronRows, found: Bounds) -> Bounds:
    """The bounds, with those found for some rows ``(N,)`` where they are better."""
    lower, upper = bounds.lower.clone(), bounds.upper.clone()
    lower[rows.owner, rows.neuron] = found.lower
    upper[rows.owner, rows.neuron] = found.upper
    return bounds.meet(Bounds(lower, upper))


def _joined(reaches: list[InputInfluence], box: Bounds) -> InputInfluence:
    if not reaches:
        none = torch.zeros(0, dtype=torch.int64, device=box.lower.device)
        return InputInfluence(none, none, box.lower[:0])
    owners, neurons, shares = zip(*((reach.owner, reach.neuron, reach.share) for reach in reaches), strict=True)
    return InputInfluence(torch.cat(owners), torch.cat(neurons), torch.cat(shares))


def _bound_rows(
    program: Program,
    errors: MapErrors,
    rows: BoxNeuronRows,
    lines: list[RelaxationLines],
    within: Polytopes,
    check: Callable[[], None],
) -> tuple[Bounds, Tensor]:
    """Bounds ``(N,)`` of a program's features, each for the box that owns it, and shares of the dimensions."""
    lows, highs, shares = [], [], []
    for part in parts_of(program, rows):
        check()
        both = torch.cat([part.owner, part.owner])
        start = both_signs(of_rows(program.features, part.neuron, None))
        pushed, offset = backward_rows(program, BoxNeuronRows(both, part.neuron.repeat(2)), start, errors, lines)
        low, negated = minimum_within(pushed, offset, within, both).chunk(2)
        lows.append(low)
        highs.append(-negated)
        lower_row, upper_row = pushed.chunk(2)
        shares.append(_shares(lower_row - upper_row, within.box, part.owner))
    return Bounds(torch.cat(lows), torch.cat(highs)), torch.cat(shares)


def parts_of(program: Program, rows: BoxNeuronRows) -> list[BoxNeuronRows]:
    """The rows in parts of what one pass takes, both ends of each."""
    widest = max([1, program.num_inputs, *(layer.affine.size for layer in program.layers)])
    elements = COEFFICIENTS_BY_DEVICE.get(program.device.type, COEFFICIENTS_ELSEWHERE)
    count = max(LEAST_ROWS_PER_PASS, elements // (2 * widest))
    return [BoxNeuronRows(*part) for part in zip(rows.owner.split(count), rows.neuron.split(count), strict=True)]


def _shares(coefficients: Tensor, box: Bounds, owner: Tensor) -> Tensor:
    """Share of each dimension in the variation of linear functions, ``(N, n)``, over their owners' boxes."""
    return _normalised(coefficients.abs() * (box.upper - box.lower).index_select(0, owner))


def _normalised(variation: Tensor) -> Tensor:
    """Rows that sum to one, or are zero."""
    return variation / variation.sum(1, keepdim=True).clamp(min=torch.finfo(variation.dtype).tiny)


def backward_rows(
    program: Program, rows: BoxNeuronRows, start: Functional, errors: MapErrors, lines: list[RelaxationLines]
) -> tuple[Tensor, Tensor]:
    """Linear lower bounds over the input, ``(N, n)`` and ``(N,)``, of single features or their negatives.

    Each row ``(N,)`` is one feature, for the box that owns it, whose lines and errors it takes; ``start`` are their
    functionals, ``(1, N, size)``. The bounds hold over the real numbers: rounding has been taken off the offsets.
    """
    pending = RowAccumulator(program, start.sources, start.coefficients)
    offset = start.offset[0]
    depth = 2 * len(program.layers) + ROUNDINGS_BESIDE_SUM
    error = (
        _own(errors.features, rows) + gamma(depth, program.dtype) * offset.abs() + _each(errors.underflow, rows)[:, 0]
    )
    for number in range(max(start.sources), INPUT, -1):
        coefficients = pending.take(number)
        if coefficients is None:
            continue
        line = _through_lines(coefficients[0], lines[number], rows.owner)
        bias, lost = program.layers[number].affine.bias, errors.layers[number]
        offset = offset + line.constant + long_dot(line.rows, bias.unsqueeze(0))
        magnitudes = line.rows.abs()
        of_rows = magnitudes @ lost[0] if len(lost) == 1 else (magnitudes * _each(lost, rows)).sum(1)
        error = error + of_rows + gamma(long_terms(len(bias), program.dtype) + depth, program.dtype) * line.reach
        pending.push(number, line.rows.unsqueeze(0))
    remaining = pending.take(INPUT)
    offset = offset - error * (1 + ROUNDINGS_BESIDE_SUM * torch.finfo(offset.dtype).eps)
    if remaining is None:
        return offset.new_zeros(len(offset), program.num_inputs), offset
    return remaining[0], offset


def _each(values: Tensor, rows: BoxNeuronRows) -> Tensor:
    """The values ``(B or 1, size)`` of each row's owner, ``(N or 1, size)``."""
    return values if len(values) == 1 else values.index_select(0, rows.owner)


def _own(values: Tensor, rows: BoxNeuronRows) -> Tensor:
    """Each row's own value ``(N,)`` among those of all features, ``(B or 1, size)``."""
    return values[0, rows.neuron] if len(values) == 1 else values[rows.owner, rows.neuron]


def _through_lines(coefficients: Tensor, lines: RelaxationLines, owner: Tensor) -> PreActivationRows:
    """Functionals ``(N, size)`` of a layer's activations, as those of its pre-activations, by their owners' lines."""
    # index_select, not advanced indexing: the latter is ten times slower on a processor.
    lower_slope, upper_slope, upper_offset = (
        line.index_select(0, owner) for line in (lines.lower_slope, lines.upper_slope, lines.upper_offset)
    )
    negative = coefficients.clamp(max=0)
    positive = coefficients - negative
    rows = torch.addcmul(positive * lower_slope, negative, upper_slope)
    constant = negative * upper_offset
    if lines.from_origin:  # offsets above are not negative: their terms have one sign
        total = added_up(constant)
        return PreActivationRows(rows, total, total.abs())
    below = positive * lines.lower_offset.index_select(0, owner)
    total = added_up(constant + below)
    return PreActivationRows(rows, total, (constant.abs() + below.abs()).sum(1))
