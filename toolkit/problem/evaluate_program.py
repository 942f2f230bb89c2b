"""Values of a program at points, and how far another evaluation in floating point may be from them.

Two estimates are carried along. The first is a bound on the error of any evaluation that rounds each operation to some
unit u: ``n u / (1 - n u)`` times the magnitudes of all n terms of a sum (Higham 2002, section 3.1), and what errors
before become, by absolute coefficients; the image of an operator on the interval that is left says what it makes of
them, jumps included. Through many layers absolute coefficients let it grow beyond all use, as errors cancel and it does
not know. The second pushes copies of the values through the program, disturbed at each operation by the rounding that
the first allows there (Monte Carlo arithmetic, Parker 1997): the spread of the copies, with a margin, is what errors
come to. An evaluation of the same function is inside both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from toolkit.ops import ELEMENTWISE, Relaxation
from toolkit.problem.affine import Affine, DenseAffine, sum_of
from toolkit.problem.program import INPUT, Program
from toolkit.problem.sum_lengths import value_terms
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, gamma_at, unit_roundoff
from toolkit.tuning import tuned


@dataclass(frozen=True)
class PointValues:
    """Values ``(B, N)`` at points, with what is known of their errors."""

    value: Tensor
    error: Tensor
    """Bound on the distance of any evaluation, ``(B, N)``; infinite where there is none."""
    copies: Tensor
    """Disturbed values, ``(COPIES, B, N)``."""
    jumps: bool = False
    """Whether functions with jumps take part."""

    @property
    def tolerance(self) -> Tensor:
        """How far the value of another evaluation may be away, ``(B, N)``: the smaller of both estimates.

        Errors of one value at several points are alike, so that the spread is taken over all of them.
        """
        if self.jumps or not len(self.copies):
            return self.error
        return torch.fmin(self.error, tuned().agreement.spread_factor * _spread(self.value, self.copies))


@dataclass(frozen=True)
class Arithmetic:
    """Evaluation with rounding to a unit: the relative error of one operation."""

    unit: float
    generator: torch.Generator
    copies: int
    """Disturbed copies of each point; with none, the bounds on errors are all that is known."""

    @property
    def underflow(self) -> float:
        """What a term or a sum may lose by itself: a result below the least normal number may be rounded to zero."""
        dtype = torch.float32 if self.unit >= unit_roundoff(torch.float32) else torch.float64
        return torch.finfo(dtype).tiny

    @classmethod
    def of(cls, unit: float, copies: int | None = None) -> Arithmetic:
        """Arithmetic with so many copies; None stands for as many as the tuning table says."""
        count = tuned().agreement.disturbed_copies if copies is None else copies
        return cls(unit, torch.Generator().manual_seed(0), count)

    def start(self, points: Tensor, error: Tensor) -> PointValues:
        """The inputs, ``(B, n)`` each: given up to an error."""
        copies = points.expand(self.copies, *points.shape)
        return PointValues(points, error, copies + error * self._signs(copies))

    def affine(
        self,
        apply: Callable[[Sequence[Tensor]], Tensor],
        magnitude: Callable[[Sequence[Tensor]], Tensor],
        count: int,
        sources: Sequence[PointValues],
    ) -> PointValues:
        """A map, of so many terms a sum; ``magnitude`` is the map with absolute coefficients and constants."""
        factor = gamma_at(count + ROUNDINGS_BESIDE_SUM, self.unit)
        usual = min(
            factor, gamma_at(ROUNDINGS_BESIDE_SUM * math.ceil(math.sqrt(count)) + ROUNDINGS_BESIDE_SUM, self.unit)
        )
        rows = apply([torch.cat([source.value, *source.copies]) for source in sources])
        value, copies = rows[: len(sources[0].value)], rows[len(sources[0].value) :]
        sizes = [source.value.abs() for source in sources]
        wider = [size + source.error / factor for size, source in zip(sizes, sources, strict=True)]
        both = magnitude([torch.cat(pair) for pair in zip(sizes, wider, strict=True)])
        least = (count + ROUNDINGS_BESIDE_SUM) * self.underflow
        here, error = both[: len(value)], factor * both[len(value) :] + least
        copies = copies.reshape(self.copies, *value.shape)
        copies = copies + (usual * here + least) * self._signs(copies)
        return PointValues(value, _known(error), copies, any(source.jumps for source in sources))

    def stored(self, affine: Affine, sources: Sequence[PointValues], found: PointValues) -> PointValues:
        """The values of a map that is itself the result of rounded sums: what these have lost is in its errors."""
        usual = affine.uncertainty([source.value.abs() for source in sources])
        most = affine.uncertainty([source.value.abs() + source.error for source in sources])
        copies = found.copies + usual * self._signs(found.copies)
        return replace(found, error=_known(found.error + most), copies=copies)

    def apply_operator(self, op: str, z: PointValues) -> PointValues:
        """A nonlinear operator on its pre-activations."""
        operator = ELEMENTWISE[op]
        relaxation = operator.relaxation
        value, copies = relaxation.function(z.value), relaxation.function(z.copies)
        error = _image_error(relaxation, value, z.value, z.error)
        if relaxation.piecewise_linear:  # a kink may be near, and none of the few copies beyond it
            factor = tuned().agreement.spread_factor
            short = _image_error(relaxation, value, z.value, z.tolerance) / factor - _spread(value, copies)
            away = torch.where(copies == value, self._signs(copies), (copies - value).sign())
            copies = copies + short.clamp(min=0) * away
        if not relaxation.piecewise_linear and not operator.jumps:  # of jumps, a few disturbed copies do not tell
            rounded = gamma_at(ROUNDINGS_BESIDE_SUM, self.unit) * (value.abs() + (1.0 if operator.saturating else 0.0))
            rounded = rounded + operator.vanishing
            error, copies = error + rounded, copies + rounded * self._signs(copies)
        return PointValues(value, _known(error), copies, z.jumps or operator.jumps)

    def _signs(self, like: Tensor) -> Tensor:
        # On the processor, whatever the device: so that devices compare alike.
        drawn = torch.randint(0, 2, like.shape, generator=self.generator, dtype=torch.int8)
        return (2 * drawn - 1).to(like.device, like.dtype)


def _spread(value: Tensor, copies: Tensor) -> Tensor:
    """Largest distance of disturbed copies from the values, ``(N,)``, over all points."""
    return (copies - value).abs().amax((0, 1)) if len(value) and len(copies) else value.new_zeros(())


def _image_error(relaxation: Relaxation, value: Tensor, z: Tensor, error: Tensor) -> Tensor:
    """How far an operator's value can be where its operand is off by an error."""
    low, high = relaxation.image(z - error, z + error)
    return torch.maximum(high - value, value - low)


def _known(error: Tensor) -> Tensor:
    return error.nan_to_num(nan=torch.inf, posinf=torch.inf)


def terms_of_values(affine: Affine) -> int:
    """At most how many terms are added for one value of a map, its bias counted."""
    if isinstance(affine, DenseAffine):
        return 1 + sum(_widest(matrix) for matrix in affine.matrices)
    graph: Any = affine
    return 1 + sum(value_terms(node) for node in graph.linear.graph.nodes if node.op == "call_function")


def _widest(matrix: Tensor) -> int:
    """Most elements of a row that are not zero."""
    if not 0 < matrix.numel() <= tuned().problem.most_counted_elements:
        return matrix.shape[1]
    return int(torch.count_nonzero(matrix, 1).max())


def evaluate(
    program: Program, points: Tensor, error: Tensor, unit: float, copies: int | None = None
) -> tuple[PointValues, list[PointValues]]:
    """The features at points ``(B, n)`` that are given up to an error, and all layers' pre-activations before them.

    Computed in the program's precision on its device. The errors are those of two evaluations, this one and another
    that rounds to ``unit``.
    """
    arithmetic = Arithmetic.of(unit + unit_roundoff(program.dtype), copies)
    sources = {
        INPUT: arithmetic.start(points.to(program.device, program.dtype), error.to(program.device, program.dtype))
    }
    found: list[PointValues] = []
    for number, affine in enumerate(program.maps()):

        def magnitude(sizes: Sequence[Tensor], affine=affine) -> Tensor:  # type: ignore[no-untyped-def]
            return affine.radius(sizes) + affine.bias.abs()

        given = [sources[source] for source in affine.sources]
        found.append(
            arithmetic.stored(affine, given, arithmetic.affine(affine.apply, magnitude, terms_of_values(affine), given))
        )
        if number < len(program.layers):
            sources[number] = arithmetic.apply_operator(program.layers[number].op, found[-1])
    return found[-1], found[:-1]


def transposed_wrongly(program: Program) -> int | None:
    """The first map whose transpose, which bounds are made of, is not that of the map; None where all are.

    For a row r and values v of the sources, drawn at random, ``r . (M v)`` is ``(M^T r) . v``. The number of a map is
    that of its layer, or the number of layers for the features'.
    """
    sizes = {INPUT: program.num_inputs} | {n: layer.affine.size for n, layer in enumerate(program.layers)}
    generator = torch.Generator().manual_seed(0)
    drawn = {
        source: (0.5 + torch.rand(1, size, generator=generator)).to(program.device, program.dtype)
        for source, size in sizes.items()
    }
    wrong = (
        n for n, affine in enumerate(program.maps()) if not _transposes(affine, [drawn[s] for s in affine.sources])
    )
    return next(wrong, None)


def _transposes(affine: Affine, values: Sequence[Tensor]) -> bool:
    """Whether a map and its transpose agree on one row and values ``(1, size of source)``, up to rounding."""
    change = affine.change(values)
    drawn = torch.randint(0, 2, change.shape, generator=torch.Generator().manual_seed(0))
    row = (2 * drawn - 1).to(change)
    parts = affine.transpose(row.unsqueeze(1))
    back = sum_of([(part[:, 0] * value).sum() for part, value in zip(parts, values, strict=True)])
    count = terms_of_values(affine) + affine.size + sum(value.shape[1] for value in values)
    size = affine.radius([value.abs() for value in values]).sum()
    allowed = 2 * gamma_at(count, unit_roundoff(change.dtype)) * size
    return bool(((row * change).sum() - back).abs() <= allowed) or not bool(size.isfinite())
