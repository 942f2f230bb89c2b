"""Forward bounds: zonotopes, that is linear functions of the inputs and of the errors of the relaxations before.

With few inputs a layer costs as many columns as there are inputs and errors so far, where CROWN's backward pass costs
two rows for every neuron. An error is a column of its own (a term) from its neuron on, so that it keeps its sign and
cancels as an input would (Singh et al., NeurIPS 2018); the smallest of those that are too many are one radius a neuron,
which absolute coefficients push. Boxes so small that few neurons are unstable thus get bounds as tight as CROWN's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.bounds.bounder import NeuronQuestion, Stage, bounder
from toolkit.bounds.interval import Bounds, concatenate, inexact, without_overflow
from toolkit.ops import RELAXATIONS
from toolkit.ops.relaxation import Relaxation
from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.program import INPUT, Program
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, gamma
from toolkit.tuning import tuned

OUTWARD_ULPS = 16
"""Units in the last place by which an error is moved outward."""


@dataclass(frozen=True)
class Zonotope:
    """Values ``centre + sum_j e_j terms_j``, give or take ``radius``, for all e in [-1, 1]^G.

    The first terms are the varying inputs, the others errors in the order of their layers. A term has one number in all
    layers, whether they follow each other or stand side by side.
    """

    centre: Tensor
    """``(B, size)``."""
    terms: Tensor
    """``(B, G, size)``."""
    radius: Tensor
    """``(B, size)``."""
    reach: Tensor
    """Sums of the terms' magnitudes, ``(B, size)``."""


@dataclass(frozen=True)
class ActivationZonotope:
    """A zonotope whose terms are not multiplied out: those of ``before`` times ``slope``, and one neuron's each.

    Terms between the former and the latter are those of layers that this one does not read.
    """

    centre: Tensor
    radius: Tensor
    before: Tensor
    """``(B, G, size)``."""
    slope: Tensor
    """``(B, size)``."""
    neuron: Tensor
    """Neuron of each new term, ``(B, E)``."""
    error: Tensor
    """Coefficient of each new term on its neuron, ``(B, E)``."""
    first: int
    """Number of the first new term."""
    reach: Tensor
    """Bounds of the magnitudes of the values, ``(B, size)``."""

    @property
    def count(self) -> int:
        """Number of terms up to the last one that is not zero."""
        return self.first + self.neuron.shape[1] if self.neuron.shape[1] else self.before.shape[1]

    def block(self, start: int, stop: int) -> Tensor:
        """Some of the terms, ``(B, stop - start, size)``; there are zeros beyond the last one."""
        old = self.before[:, start:stop] * self.slope.unsqueeze(1)
        if old.shape[1] == stop - start:
            return old
        new = old.new_zeros(len(old), stop - start - old.shape[1], old.shape[2])
        low, high = max(start, self.first), min(stop, self.first + self.neuron.shape[1])
        if low < high:
            own = slice(low - self.first, high - self.first)
            place = low - start - old.shape[1]
            neuron, error = self.neuron[:, own].unsqueeze(2), self.error[:, own].unsqueeze(2)
            new[:, place : place + high - low].scatter_(2, neuron, error)
        return torch.cat([old, new], 1) if old.shape[1] else new


def has_wide_layer(program: Program) -> bool:
    """Whether some layer is so wide that forward bounds pay where few inputs vary."""
    return max((layer.affine.size for layer in program.layers), default=0) > tuned().zonotopes.least_width


@bounder(
    "forward",
    Stage.FIRST,
    suits=lambda question: has_wide_layer(question.program) and not question.stated,
    cost=lambda question: tuned().roots.forward_neurons_per_input * (question.varying + 1),
)
def by_zonotopes(question: NeuronQuestion) -> Bounds | None:
    """Forward bounds, in double precision where it is at hand."""
    if question.exact is not None:
        return None
    return forward_bounds(question.program, question.box, question.known, question.check)


def forward_bounds(program: Program, box: Bounds, known: Bounds, check: Callable[[], None] = lambda: None) -> Bounds:
    """Pre-activation bounds of all neurons, ``(B, num_neurons)``, never looser than the ``known`` ones.

    ``check`` is called before every layer and may raise to stop the work.
    """
    parts = [
        _forward_bounds(program, box.select(part), known.select(part), check)
        for part in torch.arange(len(box.lower), device=box.lower.device).split(boxes_together(program, box, known))
    ]
    return Bounds.of_rows(parts)


def _forward_bounds(program: Program, box: Bounds, known: Bounds, check: Callable[[], None]) -> Bounds:
    pass_ = ForwardPass(program, box)
    layers: list[Bounds] = []
    for number, layer in enumerate(program.layers):
        check()
        both = known.of(layer.neurons).meet(pass_.bounds(number))
        layers.append(Bounds(both.lower, torch.maximum(both.lower, both.upper)))
        pass_.advance(number, layers[-1])
    return concatenate(layers, box)


def boxes_together(program: Program, box: Bounds, known: Bounds) -> int:
    """How many boxes are bounded at once, by the terms that known bounds let expect."""
    room = max((_room(program, number) for number in range(len(program.layers))), default=1)
    counts = [inexact(layer, known.of(layer.neurons)).sum(1) for layer in program.layers]
    most = int(torch.stack(counts).sum(0).max()) if counts and len(box.lower) else 0
    widest = max((layer.affine.size for layer in program.layers), default=1)
    terms = min(room, box.lower.shape[1] + most)
    limits = tuned().zonotopes
    return max(1, limits.most_coefficients // max(1, min(limits.most_coefficients_per_box, terms * widest)))


def _room(program: Program, number: int) -> int:
    """Terms that there may be behind a layer: none where all later ones are quickly bounded by CROWN."""
    if not any(_is_costly(program, later) for later in range(number + 1, len(program.layers))):
        return 0
    return tuned().zonotopes.most_coefficients_per_box // max(layer.affine.size for layer in program.layers[number:])


def _is_costly(program: Program, number: int) -> bool:
    """Whether one backward pass for each of a layer's neurons costs much: many neurons, or operators on the way."""
    return program.layers[number].affine.size > tuned().zonotopes.least_width or not only_matrices(program, number)


def only_matrices(program: Program, number: int) -> bool:
    """Whether all maps up to a layer's are matrices."""
    return all(isinstance(layer.affine, DenseAffine) for layer in program.layers[: number + 1])


class ForwardPass:
    """Zonotopes of one layer after the other, each kept for as long as a later one needs it."""

    def __init__(self, program: Program, box: Bounds) -> None:
        self._program = program
        self._varying = (box.lower < box.upper).any(0).nonzero().squeeze(1)
        self._sources = {INPUT: input_zonotope(box, self._varying)}
        self._last = {source: number for number, layer in enumerate(program.layers) for source in layer.affine.sources}
        self._layer: Zonotope | None = None
        self._count = len(self._varying)
        """Terms that have a number."""

    def bounds(self, number: int) -> Bounds:
        """Bounds ``(B, size)`` of the next layer's pre-activations."""
        affine = self._program.layers[number].affine
        self._layer, bounds = through_map(affine, [self._sources[source] for source in affine.sources])
        return bounds

    def spread(self, owner: Tensor, neuron: Tensor, inputs: int) -> Tensor:
        """How far each input moves some neurons of that layer, ``(N, inputs)``."""
        assert self._layer is not None
        spread = self._layer.centre.new_zeros(len(owner), inputs)
        spread[:, self._varying] = self._layer.terms[:, : len(self._varying)].abs().mT[owner, neuron]
        return spread

    def advance(self, number: int, bounds: Bounds) -> None:
        """Take the layer's operator into account, for bounds of what goes into it."""
        assert self._layer is not None
        room = _room(self._program, number)
        op = self._program.layers[number].op
        self._sources[number] = through_layer(self._layer, RELAXATIONS[op], bounds, room, self._count)
        self._count += self._sources[number].neuron.shape[1]
        self._sources = {
            source: kept for source, kept in self._sources.items() if self._last.get(source, number) > number
        }


def input_zonotope(box: Bounds, varying: Tensor) -> ActivationZonotope:
    """The inputs, with a term for each that varies."""
    centre, radius = box.centre, box.radius
    unit = torch.finfo(centre.dtype).eps
    radius = torch.where(radius > 0, radius + 2 * unit * box.magnitude, 0.0)
    error = radius[:, varying]
    return ActivationZonotope(
        centre,
        torch.zeros_like(centre),
        centre.new_zeros(len(centre), 0, centre.shape[1]),
        torch.ones_like(centre),
        varying.expand(len(centre), -1),
        error,
        first=0,
        reach=box.magnitude,
    )


def through_map(affine: Affine, sources: Sequence[ActivationZonotope]) -> tuple[Zonotope, Bounds]:
    """The zonotope of an affine map's value, and its bounds less an allowance for rounding."""
    centre = affine.apply([source.centre for source in sources])
    # Rounding is of all that is summed up in the centre and in the terms, which may be many times what they come to.
    both = affine.radius([torch.cat([source.radius, source.reach]) for source in sources])
    radius, magnitude = both.chunk(2)
    terms, reach = _by_matrices(affine, sources) if isinstance(affine, DenseAffine) else _by_blocks(affine, sources)
    allowance = 2 * gamma(affine.terms + len(sources) + ROUNDINGS_BESIDE_SUM, centre.dtype)
    lost = allowance * (magnitude + affine.bias.abs()) + affine.uncertainty([source.reach for source in sources])
    radius = radius * (1 + allowance) + lost + 2 * affine.terms * torch.finfo(centre.dtype).tiny
    spread = (radius + reach) * (1 + gamma(terms.shape[1] + ROUNDINGS_BESIDE_SUM, centre.dtype))
    spread = spread + ROUNDINGS_BESIDE_SUM * torch.finfo(centre.dtype).eps * centre.abs()
    bounds = Bounds(without_overflow(centre - spread), -without_overflow(-centre - spread))
    return Zonotope(centre, terms, radius, reach), bounds


def _by_matrices(affine: DenseAffine, sources: Sequence[ActivationZonotope]) -> tuple[Tensor, Tensor]:
    """Terms ``(B, G, size)`` behind matrices, and the sum of their magnitudes: a new term is a column of its matrix."""
    count = max(source.count for source in sources)
    terms = affine.bias.new_zeros(len(sources[0].centre), count, affine.size)
    for matrix, source in zip(affine.matrices, sources, strict=True):
        old = source.before.shape[1]
        terms[:, :old] += source.block(0, old) @ matrix.T
        columns = matrix.T.index_select(0, source.neuron.flatten()).unflatten(0, source.neuron.shape)
        terms[:, source.first : source.first + columns.shape[1]] += columns * source.error.unsqueeze(2)
    return terms, terms.abs().sum(1)


def _by_blocks(affine: Affine, sources: Sequence[ActivationZonotope]) -> tuple[Tensor, Tensor]:
    """Terms ``(B, G, size)`` behind operators, and the sum of their magnitudes."""
    count, boxes = max(source.count for source in sources), len(sources[0].centre)
    terms = affine.bias.new_empty(boxes, count, affine.size)
    reach = affine.bias.new_zeros(boxes, affine.size)
    for start, stop in _blocks(reach, count, max(affine.size, *(source.slope.shape[1] for source in sources))):
        parts = [source.block(start, stop).flatten(0, 1) for source in sources]
        found = affine.change(parts).unflatten(0, (boxes, stop - start))
        terms[:, start:stop] = found
        reach += found.abs().sum(1)
    return terms, reach


def _blocks(like: Tensor, count: int, width: int) -> list[tuple[int, int]]:
    """Ranges of so many terms that the values of one for all boxes, of this width, are a block."""
    step = max(1, tuned().zonotopes.block_coefficients.on(like.device.type) // max(1, len(like) * width))
    return [(start, min(count, start + step)) for start in range(0, count, step)]


def through_layer(
    zonotope: Zonotope, relaxation: Relaxation, bounds: Bounds, room: int, first: int
) -> ActivationZonotope:
    """The zonotope of a layer's activations, for bounds ``(B, size)`` of its values.

    New terms have the numbers from ``first`` on, which no other layer's have, and below ``room``.
    """
    slope, middle, error = strip(relaxation, bounds)
    centre = slope * zonotope.centre + middle
    lost = (slope * zonotope.centre).abs() + middle.abs() + slope.abs() * (zonotope.reach + zonotope.radius)
    radius = slope.abs() * zonotope.radius + ROUNDINGS_BESIDE_SUM * torch.finfo(centre.dtype).eps * lost
    count = min(int((error > 0).sum(1).max()), room - first) if len(error) else 0
    neuron = error.topk(max(0, count), 1).indices
    whole = radius + error
    return ActivationZonotope(
        centre,
        whole.scatter(1, neuron, 0.0),
        zonotope.terms,
        slope,
        neuron,
        whole.gather(1, neuron),
        first=first,
        reach=(centre.abs() + slope.abs() * zonotope.reach + whole)
        * (1 + ROUNDINGS_BESIDE_SUM * torch.finfo(centre.dtype).eps),
    )


def strip(relaxation: Relaxation, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """Slope, offset and half width of two parallel lines around an operator on [l, u]; no width where it is linear."""
    lower, upper = bounds.lower, bounds.upper
    lines = relaxation.lines(lower, upper)
    if relaxation.piecewise_linear:  # whose line below takes any slope: that of the chord loses least
        lines = replace(lines, lower_slope=lines.upper_slope)
    slope = (lines.lower_slope + lines.upper_slope) / 2
    above = _extreme(torch.maximum, lines.upper_slope - slope, lines.upper_offset, bounds)
    below = _extreme(torch.minimum, lines.lower_slope - slope, lines.lower_offset, bounds)
    width = above - below
    magnitude = slope.abs() * bounds.magnitude + above.abs() + below.abs()
    outward = OUTWARD_ULPS * torch.finfo(width.dtype).eps * magnitude
    exact = ~relaxation.inexact(lower, upper) & (width == 0)
    return slope, (above + below) / 2, torch.where(exact, 0.0, width / 2 + outward)


def _extreme(choice: Callable[[Tensor, Tensor], Tensor], slope: Tensor, offset: Tensor, bounds: Bounds) -> Tensor:
    """The larger or the smaller value of a line at the ends of its interval."""
    return choice(slope * bounds.lower, slope * bounds.upper) + offset
