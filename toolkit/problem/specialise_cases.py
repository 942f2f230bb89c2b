"""Problems of many regions taken apart by what is fixed in each: products with a fixed factor are affine.

A network may multiply some of its inputs, a mask for instance, with activations. One specification then asks about many
boxes in which the mask is fixed, at several values. For the regions that share its value it is a constant of the
program, which `toolkit.problem.merge_neurons` makes smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.compile import Problem
from toolkit.problem.matrix_errors import MatrixWithErrors
from toolkit.problem.merge_neurons import merge_neurons
from toolkit.problem.program import INPUT, Program
from toolkit.tuning import tuned

PIECEWISE_LINEAR = ("relu",)


@dataclass(frozen=True)
class ProblemPart:
    """Some cases of a problem, as a problem of their own."""

    problem: Problem
    regions: Tensor
    """Number of each of its regions in the whole problem, ``(R',)``."""
    unmerged: Problem
    """The part's cases about the network as it was compiled, without merged neurons."""


def specialised(problem: Problem) -> Iterator[ProblemPart]:
    """The parts of a problem, one after the other, with their neurons merged; one part where nothing is gained."""
    columns = _fixed_factors(problem)
    values, part = _groups(problem.lower[:, columns])
    if len(values) > tuned().problem.most_parts:
        yield merged_whole(problem)
        return
    for number, value in enumerate(values):
        regions = (part == number).nonzero().squeeze(1)
        if not torch.isin(problem.region, regions).any():
            continue
        program = merged(substitute(problem.program, columns, value))
        restricted = _restricted(problem, regions)
        yield ProblemPart(replace(restricted, program=program), regions, restricted)


def merged_whole(problem: Problem) -> ProblemPart:
    """The whole problem as one part, with its neurons merged."""
    return ProblemPart(replace(problem, program=merged(problem.program)), torch.arange(len(problem.lower)), problem)


def merged(program: Program) -> Program:
    """The program with its neurons merged: made once, for all the queries that share the program."""
    if not program.merged:
        program.merged.append(merge_neurons(program))
    return program.merged[0]


def _groups(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows, and which of them each row is."""
    if not rows.shape[1]:
        return rows[:1], torch.zeros(len(rows), dtype=torch.int64)
    values, number = torch.unique(rows, dim=0, return_inverse=True)
    return values, number


def _fixed_factors(problem: Problem) -> Tensor:
    """Inputs that feed nonlinear, not piecewise linear operators directly, and are fixed in every region."""
    layers = [layer for layer in problem.program.layers if layer.op not in PIECEWISE_LINEAR]
    used = torch.zeros(problem.program.num_inputs, dtype=torch.bool)
    for affine in (layer.affine for layer in layers if isinstance(layer.affine, DenseAffine)):
        for source, matrix in zip(affine.sources, affine.matrices, strict=True):
            if source == INPUT:
                used |= (matrix != 0).any(0)
    return (used & (problem.lower == problem.upper).all(0)).nonzero().squeeze(1)


def substitute(program: Program, columns: Tensor, values: Tensor) -> Program:
    """The program with some inputs replaced by constants; the inputs stay, and nothing depends on them."""
    if not len(columns):
        return program

    def replaced(affine: Affine) -> Affine:
        if not isinstance(affine, DenseAffine) or INPUT not in affine.sources:
            return affine
        position = affine.sources.index(INPUT)
        matrix = affine.matrices[position]
        rest = matrix.index_fill(1, columns, 0.0)
        matrices = (*affine.matrices[:position], rest, *affine.matrices[position + 1 :])
        errors = affine.element_errors()
        fixed = MatrixWithErrors(matrix[:, columns], None if errors is None else errors[position][:, columns])
        bias = MatrixWithErrors(affine.bias, affine.slack).plus(fixed.times(MatrixWithErrors(values)))
        return replace(affine, matrices=matrices, bias=bias.value, slack=bias.error)

    layers = tuple(replace(layer, affine=replaced(layer.affine)) for layer in program.layers)
    return replace(program, layers=layers, features=replaced(program.features), rational=None)


def _restricted(problem: Problem, regions: Tensor) -> Problem:
    """The cases of some regions, which are numbered anew."""
    number = torch.full((len(problem.lower),), -1)
    number[regions] = torch.arange(len(regions))
    region = number[problem.region]
    cases = region >= 0
    lower, upper = problem.lower[regions], problem.upper[regions]
    return replace(problem, lower=lower, upper=upper, region=region[cases], rows=problem.rows[cases])
