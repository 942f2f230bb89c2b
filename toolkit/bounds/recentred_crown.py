"""CROWN bounds of all neurons of one box in single precision, with magnitudes counted from a point of the box.

Activations of images are large beside what a small perturbation changes, and so is what rounding costs where magnitudes
are those of the activations: in deep convolutional networks bounds become useless. Everything is therefore a difference
here: with the values at the box's centre in double precision, ``z = z0 + W (s - s0)``, maps have no bias, a line
``a >= k z + d`` is ``a - a0 >= k (z - z0) + (k z0 + d - a0)``, and magnitudes are those of the differences. The passes
are those of `toolkit.bounds.backward`, on a program without biases.

Convolutions in double precision took four times as long on a processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from toolkit.bounds.backward import lines_of
from toolkit.bounds.backward_rounding import RunningErrors, map_error
from toolkit.bounds.bounder import NeuronQuestion, Stage, bounder
from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.crown import LayerPass, crown_bounds, tighten, tighten_rows
from toolkit.bounds.interval import Bounds, affine_interval, concatenate, inexact
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.affine import Affine, DenseAffine, GraphAffine
from toolkit.problem.program import INPUT, Program
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, gamma, outward


@bounder("crown", Stage.FIRST, suits=lambda question: True, cost=lambda question: question.unstable)
def by_crown(question: NeuronQuestion) -> Bounds | None:
    """CROWN of one box, of boxes that share their passes, or of each box on its own.

    In single precision it is around the box's centre; where there are more boxes than one, it is left to double.
    """
    program, box, known, check = question.program, question.box, question.known, question.check
    if question.exact is not None:
        centre = centre_of(question.exact, box) if len(box.lower) == 1 else None
        return None if centre is None else recentred_bounds(program, box, centre, check)
    if len(box.lower) == 1 or question.alike or question.stated:
        return crown_bounds(program, box, known, check)
    return tighten(program, box, known, HalfSpaces.none(box), check).bounds


@dataclass(frozen=True)
class CentreValues:
    """Values of a program at one point, ``(1, size)`` each, in double precision."""

    sources: dict[int, Tensor]
    """The input, by `INPUT`, and the activations of every layer, by its number."""
    values: list[Tensor]
    """Values of the affine map of every layer, its pre-activations."""
    errors: list[Tensor]
    """How far the values of the maps may be from the exact ones, by rounding."""


def centre_of(exact: Program, box: Bounds) -> CentreValues | None:
    """The values of a program in double precision at the centre of a box ``(1, n)``; None where some are not finite."""
    sources: dict[int, Tensor] = {INPUT: box.to(torch.float64).centre}
    values, errors = [], []
    for number, layer in enumerate(exact.layers):
        affine = layer.affine
        given = [sources[source] for source in affine.sources]
        reach = [part.abs() for part in given]
        values.append(affine.apply(given))
        unit = gamma(affine.terms + ROUNDINGS_BESIDE_SUM, torch.float64)
        errors.append(unit * (affine.radius(reach) + affine.bias.abs()) + affine.uncertainty(reach))
        sources[number] = RELAXATIONS[layer.op].function(values[-1])
    finite = all(bool(torch.isfinite(part).all()) for part in [*sources.values(), *values, *errors])
    return CentreValues(sources, values, errors) if finite else None


def without_biases(program: Program) -> Program:
    """The program whose maps have no bias, and nothing that a bias may have lost."""

    def linear(affine: Affine) -> Affine:
        zero = torch.zeros_like(affine.bias)
        assert isinstance(affine, DenseAffine | GraphAffine)
        return replace(affine, bias=zero, slack=zero)

    layers = tuple(replace(layer, affine=linear(layer.affine)) for layer in program.layers)
    return replace(program, layers=layers, features=linear(program.features), errors=None)


def recentred_bounds(
    program: Program, box: Bounds, centre: CentreValues, check: Callable[[], None] = lambda: None
) -> Bounds:
    """Pre-activation bounds ``(1, num_neurons)`` of a program in single precision, for one box ``(1, n)``."""
    plain, dtype = without_biases(program), program.dtype
    inner = _shifted(box, -centre.sources[INPUT], dtype)
    sources, layers, lines = {INPUT: inner}, list[Bounds](), list[RelaxationLines]()
    running = RunningErrors(plain, inner)
    for number, layer in enumerate(plain.layers):
        check()
        parts = [sources[source] for source in layer.affine.sources]
        found = affine_interval(layer.affine, parts)
        running.add(partial(_with_error, centre, number), layer.affine, parts)
        if layer.affine.sources != (INPUT,):
            layer_pass = LayerPass(plain.ending_at(number), running.up_to(number, []), lines)
            wanted = inexact(layer, _shifted(found, centre.values[number], dtype))
            found = tighten_rows(layer_pass, wanted, inner, found, check)
        layers.append(_shifted(found, centre.values[number], dtype, centre.errors[number]))
        image = Bounds(*RELAXATIONS[layer.op].image(layers[-1].lower, layers[-1].upper))
        sources[number] = _shifted(image, -centre.sources[number], dtype)
        lines.append(_shifted_lines(program, number, layers[-1], centre))
    return concatenate(layers, box)


def _shifted(bounds: Bounds, by: Tensor, dtype: torch.dtype, error: Tensor | float = 0.0) -> Bounds:
    """Bounds moved by numbers in double precision, which are exact up to an error, and rounded outward."""
    lower, upper = bounds.lower.double() + by, bounds.upper.double() + by
    size = torch.maximum(bounds.magnitude.double(), by.abs())
    lost = ROUNDINGS_BESIDE_SUM * torch.finfo(torch.float64).eps * size + error
    return Bounds(lower - lost, upper + lost).to(dtype)


def _with_error(centre: CentreValues, number: int, plain: Program, affine: Affine, sources: Sequence[Bounds]) -> Tensor:
    """What a coefficient of one on a layer's difference from its centre may lose, ``(1, size)``."""
    of_centre = (
        centre.errors[number] + ROUNDINGS_BESIDE_SUM * torch.finfo(torch.float64).eps * centre.values[number].abs()
    )
    return map_error(plain, affine, sources) + 2 * of_centre.to(plain.dtype)


def _shifted_lines(program: Program, number: int, bounds: Bounds, centre: CentreValues) -> RelaxationLines:
    """The lines of a layer's operator as lines of differences, with offsets rounded outward."""
    lines = lines_of(program.layers[number], bounds)
    value, activation = centre.values[number], centre.sources[number]

    def offset(slope: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        product = slope.double() * value
        total = product + given.double() - activation
        size = product.abs() + given.double().abs() + activation.abs()
        return total, ROUNDINGS_BESIDE_SUM * torch.finfo(torch.float64).eps * size

    below, lost_below = offset(lines.lower_slope, lines.lower_offset)
    above, lost_above = offset(lines.upper_slope, lines.upper_offset)
    low, high = outward(below - lost_below, above + lost_above, program.dtype)
    return RelaxationLines(lines.lower_slope, low, lines.upper_slope, high)
