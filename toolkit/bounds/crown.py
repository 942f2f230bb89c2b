"""Bounds of all neurons by CROWN: intervals or known bounds first, then backward passes for the rows that need them.

Every layer is bounded with the bounds of the layers before it (`EarlierLayers`), and the better of old and new bounds
is kept. Only neurons whose relaxation would be inexact pay for a backward pass. There are two ways to share that out:

- `crown_bounds`, for one box or a few: a row that is inexact in one box is pushed back for all of them at once.
- `tighten`, for many small boxes, as a search over the input has them: each box pays for its own inexact neurons only.
  All pairs (box, neuron) of a layer are one flat list of rows, minimised over the box and the half-spaces in which a
  violation has to lie (`toolkit.bounds.clip_boxes`). Such bounds hold at violations only, which is all that a
  refutation needs; bounds that contradict each other refute the box.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from toolkit.bounds.backward import LinearBounds, backward, both_signs, functional, layer_lines, lines_of, of_rows
from toolkit.bounds.backward_rounding import RunningErrors, map_errors
from toolkit.bounds.clip_boxes import HalfSpaces, Polytopes, minimum_within, polytopes
from toolkit.bounds.forward import ForwardPass, boxes_together, has_wide_layer
from toolkit.bounds.interval import Bounds, concatenate, inexact, map_interval
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import MapErrors
from toolkit.tuning import tuned


@dataclass(frozen=True)
class LayerPass:
    """All that backward passes from one layer's pre-activations need: the layers before it as a program whose features
    they are, with the errors of its maps and the lines of its layers."""

    program: Program
    errors: MapErrors
    lines: list[RelaxationLines]


@dataclass
class EarlierLayers:
    """The layers that are bounded already, for boxes ``(B, n)``."""

    program: Program
    box: Bounds
    bounds: list[Bounds] = field(default_factory=list)
    lines: list[RelaxationLines] = field(default_factory=list)
    running: RunningErrors = field(init=False)

    def __post_init__(self) -> None:
        self.running = RunningErrors(self.program, self.box)

    def next_pass(self) -> LayerPass:
        """Backward passes from the values of the next layer."""
        number = len(self.bounds)
        return LayerPass(self.program.ending_at(number), self.running.up_to(number, self.bounds), self.lines)

    def add(self, layer: Layer, bounds: Bounds) -> None:
        """Take the bounds ``(B, size)`` of the next layer for known."""
        self.bounds.append(bounds)
        self.lines.append(lines_of(layer, bounds))


def crown_bounds(
    program: Program, box: Bounds, known: Bounds | None = None, check: Callable[[], None] = lambda: None
) -> Bounds:
    """Pre-activation bounds of all neurons, ``(B, num_neurons)``, for boxes ``(B, n)``.

    ``known`` are sound bounds to start from. ``check`` is called between passes and may raise to stop the work.
    """
    earlier = EarlierLayers(program, box)
    for layer in program.layers:
        bounds = map_interval(program, layer.affine, box, earlier.bounds)
        if known is not None:
            bounds = bounds.intersect(known.of(layer.neurons))
        if layer.affine.sources != (INPUT,):  # intervals of a map of the box alone are exact
            bounds = tighten_rows(earlier.next_pass(), inexact(layer, bounds), box, bounds, check)
        earlier.add(layer, bounds)
    return concatenate(earlier.bounds, box)


def tighten_rows(
    layer_pass: LayerPass, wanted: Tensor, box: Bounds, bounds: Bounds, check: Callable[[], None]
) -> Bounds:
    """CROWN bounds of those of a layer's values that are ``wanted``, ``(B, F)``, intersected with ``bounds``.

    A row is bounded in all boxes when it is wanted in one, but only where it is wanted the result is taken: so no box
    depends on what others are in its batch.
    """
    index = wanted.any(0).nonzero().squeeze(1)
    if not len(index):
        return bounds
    lower, upper = bounds.lower.clone(), bounds.upper.clone()
    for part in index.split(rows_per_pass(layer_pass.program, len(bounds.lower))):
        check()
        old = Bounds(lower[:, part], upper[:, part])
        better, here = old.intersect(_bound_rows(layer_pass, part, box)), wanted[:, part]
        lower[:, part] = torch.where(here, better.lower, old.lower)
        upper[:, part] = torch.where(here, better.upper, old.upper)
    return Bounds(lower, upper)


def rows_per_pass(program: Program, batch: int) -> int:
    """How many rows of a layer are pushed back at once for all boxes."""
    elements = tuned().crown.coefficients.on(program.device.type)
    return max(1, elements // (2 * batch * _widest(program)))


def _widest(program: Program) -> int:
    return max([1, program.num_inputs, *(layer.affine.size for layer in program.layers)])


def _bound_rows(layer_pass: LayerPass, index: Tensor, box: Bounds) -> Bounds:
    """CROWN bounds, ``(B, len(index))`` each, of some of a layer's values."""
    program, errors = layer_pass.program, layer_pass.errors
    start = both_signs(of_rows(program.features, index, errors.features))
    low, negated = backward(program, start, layer_pass.lines, errors).minimum(box).split(len(index), 1)
    return Bounds(low, -negated)


def bound_features(
    program: Program, rows: Tensor, box: Bounds, bounds: Bounds, constants: Tensor | None = None
) -> tuple[LinearBounds, Tensor]:
    """CROWN lower bounds ``(B, R)`` of functionals of a program's features, for known bounds of all neurons, with the
    linear forms themselves. ``rows`` is ``(B or 1, R, F)``, ``constants`` ``(B or 1, R)``."""
    errors = map_errors(program, box, bounds)
    start = functional(program.features, rows, constants, errors.features)
    linear = backward(program, start, layer_lines(program, bounds), errors)
    return linear, linear.minimum(box)


@dataclass(frozen=True)
class InputInfluence:
    """How much each input dimension moves each neuron that was bounded: a flat list over pairs (box, neuron)."""

    owner: Tensor
    """Box of each pair, ``(N,)``."""
    neuron: Tensor
    """Neuron of each pair, as its number among all neurons, ``(N,)``."""
    share: Tensor
    """Share of every dimension in the neuron's variation over the box, ``(N, n)``; a row sums to one (or is zero)."""


@dataclass(frozen=True)
class ViolationBounds:
    """Bounds of all neurons, ``(B, num_neurons)``, in some boxes or domains: valid at violations, and nowhere else."""

    bounds: Bounds
    contradiction: Tensor
    """By how much bounds of one neuron exclude each other, ``(B,)``: positive only where there is no violation."""


@dataclass(frozen=True)
class TightenedBounds(ViolationBounds):
    """Bounds of all neurons at the violations in some boxes, with what was learned of the inputs on the way."""

    influence: InputInfluence


def tighten(
    program: Program, box: Bounds, known: Bounds, spaces: HalfSpaces, check: Callable[[], None] = lambda: None
) -> TightenedBounds:
    """Pre-activation bounds ``(B, num_neurons)`` of boxes ``(B, n)``, starting from the bounds of larger ones.

    They hold at the points of the box in all of its half-spaces (shape ``(B, K, n)``; K may be 0). ``check`` is called
    between passes and may raise to stop the work.
    """
    if not has_wide_layer(program):
        return _tighten(program, box, known, spaces, None, check)
    parts = []
    for part in torch.arange(len(box.lower), device=box.lower.device).split(boxes_together(program, box, known)):
        inner = box.select(part)
        forward = ForwardPass(program, inner)
        parts.append(_tighten(program, inner, known.select(part), spaces.select(part), forward, check))
    return parts[0] if len(parts) == 1 else _stacked(parts, box)


def tighten_by_passes(
    program: Program, box: Bounds, known: Bounds, spaces: HalfSpaces, check: Callable[[], None] = lambda: None
) -> TightenedBounds:
    """Pre-activation bounds as `tighten` gives them, but by nothing but the bounds known and backward passes for what
    these leave inexact: what a checker can find in the same order, on a network that is not reduced, whose intervals
    are other ones."""
    return _tighten(program, box, known, spaces, None, check)


def _tighten(
    program: Program,
    box: Bounds,
    known: Bounds,
    spaces: HalfSpaces,
    forward: ForwardPass | None,
    check: Callable[[], None],
) -> TightenedBounds:
    earlier, within = EarlierLayers(program, box), polytopes(box, spaces)
    influences: list[InputInfluence] = []
    values = {INPUT: box.centre}
    contradiction = box.lower.new_full((len(box.lower),), -torch.inf)
    for number, layer in enumerate(program.layers):
        check()
        bounds = _inherited(program, layer, box, known)
        if forward is not None:
            bounds = bounds.meet(forward.bounds(number))
        rows = _doubtful(layer, bounds, values, number)
        share: Tensor | None = None
        if forward is not None and len(rows.owner) > tuned().crown.most_neurons_per_box * len(box.lower):
            share = _normalised(forward.spread(rows.owner, rows.neuron, program.num_inputs))
        elif len(rows.owner):
            found, share = _bound_owned_rows(earlier.next_pass(), rows, within, check)
            bounds = _narrowed(bounds, rows, found)
        if share is not None:
            influences.append(InputInfluence(rows.owner, rows.neuron + layer.start, share))
        contradiction = torch.fmax(contradiction, (bounds.lower - bounds.upper).amax(1))
        earlier.add(layer, Bounds(bounds.lower, torch.maximum(bounds.lower, bounds.upper)))
        if forward is not None:
            forward.advance(number, earlier.bounds[-1])
    return TightenedBounds(concatenate(earlier.bounds, box), contradiction, _joined(influences, box))


def _stacked(parts: list[TightenedBounds], box: Bounds) -> TightenedBounds:
    """The results of several batches of boxes as one, in their order."""
    starts = itertools.accumulate((len(part.contradiction) for part in parts[:-1]), initial=0)
    influences = [
        replace(part.influence, owner=part.influence.owner + start) for part, start in zip(parts, starts, strict=True)
    ]
    return TightenedBounds(
        Bounds.of_rows([part.bounds for part in parts]),
        torch.cat([part.contradiction for part in parts]),
        _joined(influences, box),
    )


def _inherited(program: Program, layer: Layer, box: Bounds, known: Bounds) -> Bounds:
    """The layer's known bounds, with exact intervals where it depends on the box alone."""
    bounds = known.of(layer.neurons)
    return bounds.meet(map_interval(program, layer.affine, box, [])) if layer.affine.sources == (INPUT,) else bounds


@dataclass(frozen=True)
class BoxNeuronRows:
    """Values of one layer, each in a box of its own: pairs (box, neuron of the layer), ``(N,)`` each."""

    owner: Tensor
    neuron: Tensor


def _doubtful(layer: Layer, bounds: Bounds, values: dict[int, Tensor], number: int) -> BoxNeuronRows:
    """Neurons of a layer to bound again; puts its activations at the boxes' centres into ``values``.

    These are the ones whose relaxation is inexact, and those whose value at the centre contradicts what is known: a
    bound that holds at violations only, and whose violations may all lie outside this box.
    """
    z = layer.affine.apply([values[source] for source in layer.affine.sources])
    values[number] = RELAXATIONS[layer.op].function(z)
    doubtful = inexact(layer, bounds) | (z < bounds.lower) | (z > bounds.upper)
    return BoxNeuronRows(*doubtful.nonzero(as_tuple=True))


def _narrowed(bounds: Bounds, rows: BoxNeuronRows, found: Bounds) -> Bounds:
    """The bounds, with those found for some rows ``(N,)`` where they are better."""
    lower, upper = bounds.lower.clone(), bounds.upper.clone()
    lower[rows.owner, rows.neuron] = found.lower
    upper[rows.owner, rows.neuron] = found.upper
    return bounds.meet(Bounds(lower, upper))


def _joined(influences: list[InputInfluence], box: Bounds) -> InputInfluence:
    """Several lists of pairs as one; an empty one where there is none."""
    if not influences:
        none = torch.zeros(0, dtype=torch.int64, device=box.lower.device)
        return InputInfluence(none, none, box.lower[:0])
    owners, neurons, shares = zip(*((found.owner, found.neuron, found.share) for found in influences), strict=True)
    return InputInfluence(torch.cat(owners), torch.cat(neurons), torch.cat(shares))


def _bound_owned_rows(
    layer_pass: LayerPass, rows: BoxNeuronRows, within: Polytopes, check: Callable[[], None]
) -> tuple[Bounds, Tensor]:
    """Bounds ``(N,)`` of a layer's values, each in the box that owns it, and shares of the dimensions."""
    lows, highs, shares = [], [], []
    program, errors = layer_pass.program, layer_pass.errors
    for part in parts_of(program, rows):
        check()
        both = torch.cat([part.owner, part.owner])
        start = both_signs(of_rows(program.features, part.neuron, errors.features, part.owner))
        linear = backward(program, start, layer_pass.lines, errors, owner=both)
        pushed, offset = linear.coefficients[0], linear.offset[0]
        low, negated = minimum_within(pushed, offset, within, both).chunk(2)
        lows.append(low)
        highs.append(-negated)
        lower_row, upper_row = pushed.chunk(2)
        shares.append(_shares(lower_row - upper_row, within.box, part.owner))
    return Bounds(torch.cat(lows), torch.cat(highs)), torch.cat(shares)


def parts_of(program: Program, rows: BoxNeuronRows) -> list[BoxNeuronRows]:
    """The rows in parts that fit into one backward pass, which bounds each from below and above."""
    limits = tuned().crown
    elements = limits.owned_coefficients.on(program.device.type)
    count = max(limits.least_rows, elements // (2 * _widest(program)))
    return [BoxNeuronRows(*part) for part in zip(rows.owner.split(count), rows.neuron.split(count), strict=True)]


def _shares(coefficients: Tensor, box: Bounds, owner: Tensor) -> Tensor:
    """Share of each dimension in the variation of linear functions, ``(N, n)``, over their owners' boxes."""
    return _normalised(coefficients.abs() * (box.upper - box.lower).index_select(0, owner))


def _normalised(variation: Tensor) -> Tensor:
    """Variations divided by their row sums, so that shares of a row sum to one; rows of zeros stay."""
    return variation / variation.sum(1, keepdim=True).clamp(min=torch.finfo(variation.dtype).tiny)
