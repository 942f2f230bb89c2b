"""Backward linear bounds (CROWN, Zhang et al., NeurIPS 2018), for any program and any rows.

A functional of some affine map's value is pushed back layer by layer: through a nonlinear layer by the line that keeps
a lower bound (the lower line under a positive coefficient, the upper under a negative), through an affine map by its
transpose. What remains is a linear function of the input, minimised over the box in closed form.

That function is a lower bound over the real numbers, as it stands: what rounding may have changed on the way, by the
errors of every map (`toolkit.bounds.backward_rounding`), has been taken off its offset. Only a pass that is given no
errors counts none: its bound is a guide, and proves nothing.

Rows are either the same for all boxes of a batch, or each has one box as its *owner*, whose lines and errors it takes:
so a box pays for the neurons that it needs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.bounds.backward_rounding import MOST_ATOMS
from toolkit.bounds.interval import Bounds, without_overflow
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.affine import Affine
from toolkit.problem.fast_maps import SparseAffine
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, MapErrors, added_up, gamma, long_terms


@dataclass(frozen=True)
class Functional:
    """Rows of coefficients on the sources of an affine map, ``(B or 1, R, size)`` each, and offsets ``(B or 1, R)``."""

    sources: tuple[int, ...]
    coefficients: list[Tensor]
    offset: Tensor
    error: Tensor | None = None
    """What rounding may have changed at the sources, ``(B or 1, R)``; None where that was not counted."""


@dataclass(frozen=True)
class LinearBounds:
    """Linear lower bounds over the input, ``coefficients . x + offset``, and what they met on the way.

    ``coefficients`` is ``(B, R, n)``, ``offset`` ``(B, R)``; ``post[i]`` are the coefficients on layer i's activations,
    ``(B, R, N_i)``, or None where nothing depends on that layer.
    """

    coefficients: Tensor
    offset: Tensor
    post: list[Tensor | None]
    error: Tensor | None = None
    """What was taken off the offset for rounding, ``(B, R)``; None where that was not counted."""
    summed: Tensor | None = None
    """The offset as it was added up, ``(B, R)``, before anything was taken off: where that is much larger, the
    difference has lost the sum's digits. None where no rounding was counted."""

    def minimum(self, box: Bounds) -> Tensor:
        """Lower bounds ``(B, R)`` over boxes ``(B, n)``, less what rounding can change here."""
        allowance = 2 * gamma(box.lower.shape[1] + ROUNDINGS_BESIDE_SUM, self.offset.dtype)  # for both of the sums
        widened = box.radius + allowance * box.magnitude
        spread = _dot(self.coefficients.abs(), widened) + allowance * self.offset.abs()
        return without_overflow(_dot(self.coefficients, box.centre) - spread + self.offset)

    def minimiser(self, box: Bounds) -> Tensor:
        """The corner of each box at which the bound is attained, ``(B, R, n)``."""
        return torch.where(self.coefficients > 0, box.lower.unsqueeze(1), box.upper.unsqueeze(1))


def functional(
    affine: Affine, rows: Tensor, constants: Tensor | None = None, errors: Tensor | None = None
) -> Functional:
    """The functionals ``rows . value + constants`` of an affine map's value, as functionals of its sources.

    ``rows`` is ``(B or 1, R, size)``, ``constants`` ``(B or 1, R)``, ``errors`` ``(B or 1, size)`` are the map's.
    """
    offset = rows @ affine.bias
    error = None if errors is None else _dot(rows.abs(), errors)
    if constants is not None:
        offset = offset + constants
        error = None if error is None else error + gamma(ROUNDINGS_BESIDE_SUM, offset.dtype) * constants.abs()
    return Functional(affine.sources, affine.transpose(rows), offset, error)


def weighted(affine: Affine, atoms: Tensor, constants: Tensor, weight: Tensor, errors: Tensor) -> Functional:
    """The sums of atoms ``(B, K, size)`` with constants ``(B, K)`` by weights ``(B, K)``: one functional a domain."""
    if weight.shape[1] == 1:
        return functional(affine, weight.unsqueeze(1) * atoms, weight * constants, errors)
    plain = functional(affine, weight.unsqueeze(1) @ atoms, (weight * constants).sum(1, keepdim=True))
    # Atoms may cancel, and so may their constants.
    unit = max(1.0, weight.shape[1] / MOST_ATOMS) * (1 + gamma(weight.shape[1] + ROUNDINGS_BESIDE_SUM, weight.dtype))
    of_atoms = _dot(weight.unsqueeze(1) @ atoms.abs(), errors)
    of_constants = gamma(weight.shape[1] + ROUNDINGS_BESIDE_SUM, weight.dtype) * (weight * constants.abs()).sum(
        1, keepdim=True
    )
    return replace(plain, error=unit * (of_atoms + of_constants))


def of_rows(affine: Affine, index: Tensor, errors: Tensor | None, owner: Tensor | None = None) -> Functional:
    """The functionals that are some values of an affine map themselves, ``R = len(index)``, for all boxes or one."""
    if errors is None:
        error = None
    else:
        error = errors[:, index] if owner is None or len(errors) == 1 else errors[owner, index].unsqueeze(0)
    return Functional(affine.sources, affine.select(index), affine.bias[index].unsqueeze(0), error)


def both_signs(start: Functional) -> Functional:
    """The functionals, and then their negatives: ``2 R`` rows, whose lower bounds are bounds from below and above."""
    return Functional(
        start.sources,
        [torch.cat([part, -part], 1) for part in start.coefficients],
        torch.cat([start.offset, -start.offset], 1),
        None if start.error is None else torch.cat([start.error, start.error], 1),
    )


def layer_lines(program: Program, bounds: Bounds) -> list[RelaxationLines]:
    """The lines of every layer for bounds ``(B, num_neurons)``."""
    return [lines_of(layer, bounds.of(layer.neurons)) for layer in program.layers]


def lines_of(layer: Layer, bounds: Bounds) -> RelaxationLines:
    """The lines of one layer for bounds ``(B, size)`` of its pre-activations."""
    return RELAXATIONS[layer.op].lines(bounds.lower, bounds.upper)


def backward(
    program: Program,
    start: Functional,
    lines: Sequence[RelaxationLines],
    errors: MapErrors | None,
    multipliers: Sequence[Tensor] | None = None,
    owner: Tensor | None = None,
) -> LinearBounds:
    """Push functionals of a map's sources back to the input.

    ``multipliers[i]``, ``(B, N_i)``, are signed Lagrange multipliers of split constraints on layer i's
    pre-activations: the term ``- multipliers . z`` is added to the bounded function (beta-CROWN, Wang et al. 2021).
    ``errors`` are the program's where the boxes and bounds are; None counts no rounding, which proves nothing.
    ``owner`` ``(R,)`` has the box that each row is for, where they are not for all: the batch of rows is 1 then, and
    coefficients on activations, which would be many, are not kept.
    """
    pending = RowAccumulator(program, start.sources, start.coefficients)
    total = OffsetTotal.beginning(program, start, errors, owner)
    post: list[Tensor | None] = [None] * len(program.layers)
    for number in range(max(start.sources, default=INPUT), INPUT, -1):
        coefficients = pending.take(number)
        if coefficients is None:
            continue
        if owner is None:
            post[number] = coefficients
            line = through_lines(coefficients, lines[number])
        else:
            line = through_owners_lines(coefficients, lines[number], owner)
        rows = line.rows
        if multipliers is not None:
            rows = rows - multipliers[number].unsqueeze(1)
        total = total.plus(program, number, rows, line, None if multipliers is None else multipliers[number])
        pending.push(number, rows)
    remaining = pending.take(INPUT)
    if remaining is None:
        remaining = total.offset.new_zeros(*total.offset.shape, program.num_inputs)
    summed = None if total.error is None else total.offset
    return LinearBounds(remaining, total.settled(), post, total.error, summed)


class RowAccumulator:
    """Coefficients ``(B, R, size)`` on sources that a backward pass has yet to reach.

    Layers are taken from the last to the first. A program with stacks keeps the rows of the layers met, and multiplies
    them with all that reads a source when it is reached.
    """

    def __init__(self, program: Program, sources: Sequence[int], coefficients: Sequence[Tensor]) -> None:
        self._program = program
        self._left = dict(zip(sources, coefficients, strict=True))
        self._rows: Tensor | None = None

    def take(self, source: int) -> Tensor | None:
        """The coefficients gathered on a source, which are handed out once; None where no layer met so far reads it."""
        left = self._left.pop(source, None)
        stack = (self._program.stacks or {}).get(source)
        if stack is None or self._rows is None or self._rows.shape[-1] <= stack.first:
            return left
        rows = self._rows[..., stack.first :]
        pulled = rows @ stack.matrix[: rows.shape[-1]]
        return pulled if left is None else left + pulled

    def push(self, number: int, rows: Tensor) -> None:
        """Add a layer's rows, ``(B, R, N)`` on its pre-activations, to the coefficients on the sources of its map."""
        layer = self._program.layers[number]
        if self._program.stacks is None:
            self._push(layer.affine, rows)
            return
        if self._rows is None:
            self._rows = rows.new_zeros(*rows.shape[:-1], layer.stop)
        self._rows[..., layer.neurons] = rows
        if isinstance(layer.affine, SparseAffine) and layer.start < self._program.stacks[INPUT].first:
            self._add(INPUT, layer.affine.transpose_input(rows))

    def _push(self, affine: Affine, rows: Tensor) -> None:
        for source, part in zip(affine.sources, affine.transpose(rows), strict=True):
            self._add(source, part)

    def _add(self, source: int, part: Tensor) -> None:
        before = self._left.get(source)
        self._left[source] = part if before is None else before + part


@dataclass(frozen=True)
class PreActivationRows:
    """Functionals of activations as functionals of pre-activations, by lines."""

    rows: Tensor
    """Coefficients on pre-activations, ``(B, R, N)``."""
    constant: Tensor
    """Sums of the lines' offsets, ``(B, R)``."""
    reach: Tensor
    """Sums of their magnitudes, ``(B, R)``."""


def through_lines(coefficients: Tensor, lines: RelaxationLines) -> PreActivationRows:
    """A sound lower bound of functionals ``(B, R, N)`` of activations: each takes the lines that its signs call for."""
    if lines.lower_slope is lines.upper_slope and lines.lower_offset is lines.upper_offset:  # then no sign matters
        constant = long_dot(coefficients, lines.lower_offset)
        return PreActivationRows(
            coefficients * lines.lower_slope.unsqueeze(1), constant, _dot(coefficients.abs(), lines.lower_offset.abs())
        )
    positive = coefficients.clamp(min=0)
    negative = coefficients - positive
    rows = positive * lines.lower_slope.unsqueeze(1) + negative * lines.upper_slope.unsqueeze(1)
    constant = long_dot(negative, lines.upper_offset)
    if lines.from_origin:  # offsets above are not negative: their terms have one sign
        return PreActivationRows(rows, constant, constant.abs())
    reach = _dot(positive, lines.lower_offset.abs()) - _dot(negative, lines.upper_offset.abs())
    return PreActivationRows(rows, constant + long_dot(positive, lines.lower_offset), reach)


def through_owners_lines(coefficients: Tensor, lines: RelaxationLines, owner: Tensor) -> PreActivationRows:
    """A sound lower bound of functionals ``(1, R, N)`` of activations, by the lines of the boxes that own them."""
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
    return PreActivationRows(rows, added_up(constant + below), (constant.abs() + below.abs()).sum(-1))


@dataclass(frozen=True)
class OffsetTotal:
    """The offset of a backward pass on its way, ``(B, R)``, and what rounding may have changed so far."""

    offset: Tensor
    error: Tensor | None
    errors: MapErrors | None
    owner: Tensor | None

    @staticmethod
    def beginning(program: Program, start: Functional, errors: MapErrors | None, owner: Tensor | None) -> OffsetTotal:
        """Where a pass begins. A start that counted no rounding cannot become a proof."""
        if errors is None:
            return OffsetTotal(start.offset, None, None, owner)
        assert start.error is not None, "the start of a pass that is to prove something counts its own rounding"
        unit = gamma(2 * len(program.layers) + ROUNDINGS_BESIDE_SUM, program.dtype)
        underflow = errors.underflow
        if owner is not None and len(underflow) > 1:
            underflow = underflow.index_select(0, owner).T
        return OffsetTotal(start.offset, start.error + unit * start.offset.abs() + underflow, errors, owner)

    def plus(
        self, program: Program, number: int, rows: Tensor, line: PreActivationRows, multipliers: Tensor | None
    ) -> OffsetTotal:
        """The total with what a layer adds: its lines' offsets, and its bias times the rows on its values."""
        bias = program.layers[number].affine.bias
        offset = self.offset + line.constant + long_dot(rows, bias.unsqueeze(0))
        if self.errors is None or self.error is None:
            return OffsetTotal(offset, None, None, self.owner)
        unit = gamma(
            long_terms(rows.shape[-1], rows.dtype) + 2 * len(program.layers) + ROUNDINGS_BESIDE_SUM, rows.dtype
        )
        of_layer = self.errors.layers[number]
        error = self.error + _dot(rows.abs(), of_layer, self.owner) + unit * line.reach
        if multipliers is not None:  # a slope that a multiplier takes off was rounded all the same
            error = error + _dot(multipliers.abs().unsqueeze(1), of_layer)
        return OffsetTotal(offset, error, self.errors, self.owner)

    def settled(self) -> Tensor:
        """The offset ``(B, R)`` less what rounding may have changed; as it is where that was not counted."""
        if self.error is None:
            return self.offset
        # The difference is rounded, too. What that may lose relative to the offset is in the error since `beginning`.
        return self.offset - self.error * (1 + ROUNDINGS_BESIDE_SUM * torch.finfo(self.offset.dtype).eps)


def long_dot(rows: Tensor, vector: Tensor) -> Tensor:
    """Row-wise products, as `_dot` has them, whose error is that of `long_terms`."""
    count = rows.shape[-1]
    if long_terms(count, rows.dtype) == count:
        return _dot(rows, vector)
    return added_up(rows * (vector[0] if len(vector) == 1 else vector.unsqueeze(1)))


def _dot(rows: Tensor, vector: Tensor, owner: Tensor | None = None) -> Tensor:
    """Row-wise products ``(..., R)`` of ``(..., R, N)`` and ``(B or 1, N)``; with batches, either may be 1."""
    if len(vector) == 1:
        return rows @ vector[0]  # one product of a matrix with a vector
    if owner is not None:
        return (rows * vector.index_select(0, owner)).sum(-1)
    return (rows @ vector.unsqueeze(-1)).squeeze(-1)
