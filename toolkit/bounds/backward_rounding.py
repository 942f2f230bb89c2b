"""What rounding can change in a linear bound: the running error of a backward pass, by magnitudes.

A coefficient c on the value ``z = W s + b`` of a map is pushed back as ``c W`` on its sources s. What is computed there
is off by at most ``gamma(n) |c| |W|`` (`toolkit.problem.sum_rounding.gamma`), which is worth ``gamma(n) |c| . |W| |s|``
at the sources. So every value of a map has one number, its *error*: what a coefficient of one on it may lose on the way
to the sources, for the largest magnitudes that the sources take. The error of a bound is the sum of its coefficients'
magnitudes times these numbers: one product with a vector for each layer. The numbers hold what was stored rounded, too:
matrices in single precision, composed operators, merged neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds, map_interval, source_intervals
from toolkit.problem.affine import Affine, sum_of
from toolkit.problem.program import Program
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, MapErrors, gamma, long_terms

MOST_ATOMS = 32
"""Atoms of a conjunction whose weighted sum the features' errors allow for; sums of more have their own factors."""
UNKNOWN_ERROR_SHARE = 0.25
"""Share of the largest number from which on an error stands for one that is not known."""


def computed_errors(program: Program, box: Bounds, bounds: Bounds) -> MapErrors:
    """The errors of all maps for boxes ``(B, n)`` with neuron bounds ``(B, num_neurons)``, of batch B or 1."""
    layers = [bounds.of(layer.neurons) for layer in program.layers]
    pairs = [(affine, source_intervals(program, affine, box, layers)) for affine in program.maps()]
    maps = [map_error(program, *pair) for pair in pairs]
    # What a query's coefficients on the features lose where they are stored rounded, added up in a few terms.
    magnitude = map_interval(program, program.features, box, layers).magnitude
    of_atoms = _known(gamma(MOST_ATOMS + ROUNDINGS_BESIDE_SUM, program.dtype) * magnitude)
    features = _known(maps[-1] + of_atoms)
    underflow = sum_of([map_underflow(program, *pair) for pair in pairs])
    return MapErrors(maps[:-1], features, _known(underflow))


def shared_errors(program: Program, box: Bounds, bounds: Bounds) -> MapErrors | None:
    """Errors ``(1, size)`` that serve all boxes in these and all tighter bounds; None where these are not finite."""
    errors = computed_errors(program, box.around(), bounds.around())
    parts = [*errors.layers, errors.features, errors.underflow]
    return (
        errors
        if all(bool((part < UNKNOWN_ERROR_SHARE * torch.finfo(part.dtype).max).all()) for part in parts)
        else None
    )


def map_errors(program: Program, box: Bounds, bounds: Bounds) -> MapErrors:
    """The errors that a program carries along, which hold for all boxes of its problem; else those computed here."""
    return program.errors or computed_errors(program, box, bounds)


MapError = Callable[[Program, Affine, Sequence[Bounds]], Tensor]


@dataclass
class RunningErrors:
    """The errors of one layer's map after the other, as the bounds of the layers before become known."""

    program: Program
    box: Bounds
    found: list[Tensor] = field(default_factory=list)
    underflow: Tensor | float = 0.0
    """What underflow may add up to in all maps so far, ``(B, 1)``."""

    def up_to(self, number: int, layers: Sequence[Bounds]) -> MapErrors:
        """The errors of a pass that begins at a layer's values, with bounds of all layers before it."""
        if self.program.errors is not None:
            return self.program.errors.ending_at(number)
        while len(self.found) <= number:
            affine = self.program.layers[len(self.found)].affine
            self.add(map_error, affine, source_intervals(self.program, affine, self.box, layers))
        assert isinstance(self.underflow, Tensor)
        return MapErrors(self.found[:number], self.found[number], self.underflow)

    def add(self, error: MapError, affine: Affine, sources: Sequence[Bounds]) -> None:
        """Compute the error of the next layer's map by a function such as `map_error`, and keep it."""
        self.found.append(error(self.program, affine, sources))
        self.underflow = _known(self.underflow + map_underflow(self.program, affine, sources))


def map_error(program: Program, affine: Affine, sources: Sequence[Bounds]) -> Tensor:
    """The errors ``(B, size)`` of one map's values, given the intervals of its sources."""
    dtype, depth = program.dtype, len(program.layers)
    reach = [source.magnitude for source in sources]
    terms = affine.terms if program.stacks is None else max(affine.terms, program.num_neurons + program.num_inputs)
    tiny = torch.finfo(dtype).tiny
    total = sum(part.sum(1, keepdim=True) for part in reach)
    error = (
        gamma(terms + depth + ROUNDINGS_BESIDE_SUM, dtype) * affine.radius(reach)
        + affine.uncertainty(reach)
        + tiny * total
    )
    error = error + gamma(long_terms(affine.size, dtype) + 2 * depth + ROUNDINGS_BESIDE_SUM, dtype) * affine.bias.abs()
    # The product with the coefficients' magnitudes is a sum of as many terms as there are values.
    return _known(error * (1 + gamma(affine.size + ROUNDINGS_BESIDE_SUM, dtype)))


def _known(error: Tensor) -> Tensor:
    """Errors with the largest number in place of infinity and NaN, which times a coefficient of zero would give NaN."""
    largest = torch.finfo(error.dtype).max
    return error.nan_to_num(nan=largest, posinf=largest)


def map_underflow(program: Program, affine: Affine, sources: Sequence[Bounds]) -> Tensor:
    """What underflow may add up to where a map is met, ``(B, 1)``: each product loses less than the smallest normal
    number."""
    total = sum(source.magnitude.sum(1, keepdim=True) for source in sources) + affine.bias.abs().sum() + 1
    return _known(2 * torch.finfo(program.dtype).tiny * (affine.size + ROUNDINGS_BESIDE_SUM) * total)
