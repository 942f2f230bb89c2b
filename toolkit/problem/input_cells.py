"""Inputs that a network only reads rounded: of all their values, one a step is enough.

A quantised network rounds ``z = slope x + offset`` before anything else is done with an input x. So what it computes
depends on the integer alone, and every integer k has a representative: the x of the box nearest to where z is k. A
box of the search may be shrunk to the representatives in it; one without any needs no proof. Where two steps meet, no
box would ever be small enough to have one value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.ops.relaxation import allowance
from toolkit.problem.affine import Affine
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program

ROUNDED = "round"
"""Name of the operator."""
MOST_STEP_ERROR = 2.0**-8
"""Most by which z may be off: far less than the half of a step that a representative is away from the step's ends."""
NEAR = 2 * MOST_STEP_ERROR
"""Distance of z from an integer within which a point counts as its representative."""


@dataclass(frozen=True)
class InputCells:
    """Which inputs are only read rounded, and how: ``z = slope x + offset``; all ``(n,)``."""

    rounded: Tensor
    """Booleans; of other inputs, slope and offset are 1 and 0."""
    slope: Tensor
    offset: Tensor

    def around_representatives(
        self, lower: Tensor, upper: Tensor, first: Tensor, last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Corners of boxes around their representatives, and which boxes have none for some input, ``(B,)``.

        All ``(B, n)``: corners of parts of boxes from ``first`` to ``last``.
        """
        low = self._least(lower, first, last)
        # Mirrored, with rounding odd, the largest representative is the least one.
        high = -replace(self, offset=-self.offset)._least(-upper, -last, -first)
        empty = ((low > high) & self.rounded).any(1)
        lower, upper = torch.where(self.rounded, low, lower), torch.where(self.rounded, high, upper)
        return lower, torch.maximum(lower, upper), empty

    def _least(self, lower: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """The least representatives that are at least ``lower``, in a box from ``first`` to ``last``; ``(B, n)`` each.

        At the ends of that box they may be nearer to its inside than where z is an integer.
        """
        z = self.slope * lower + self.offset
        whole = torch.where(lower == first, torch.round(z - MOST_STEP_ERROR), torch.ceil(z - NEAR))
        at = (whole - self.offset) / self.slope
        return torch.where(lower == first, torch.maximum(at, first), at).minimum(last)


def input_cells(problem: Problem) -> InputCells | None:
    """How the program of a problem reads its inputs; None where it rounds none of them first."""
    program = problem.program
    layers = [layer for layer in program.layers if layer.op == ROUNDED and layer.affine.sources == (INPUT,)]
    if not layers:
        return None
    affine, matrix = layers[0].affine, _matrix(layers[0].affine)
    read = matrix != 0
    first = read.to(torch.int8).argmax(0)  # a neuron that reads each input
    slope, offset = matrix.gather(0, first.unsqueeze(0))[0], affine.bias[first]
    alone = (read.sum(1) == 1) & (_error(problem, affine, matrix) <= MOST_STEP_ERROR)
    alike = alone.unsqueeze(1) & (matrix == slope) & (affine.bias.unsqueeze(1) == offset)
    rounded = read.any(0) & ~(read & ~alike).any(0) & (slope > 0) & ~_read_otherwise(program, affine)
    if not bool(rounded.any()):
        return None
    return InputCells(rounded, torch.where(rounded, slope, 1.0), torch.where(rounded, offset, 0.0))


def _matrix(affine: Affine) -> Tensor:
    """Coefficients of a map on the inputs, ``(size, n)``."""
    parts = affine.select(torch.arange(affine.size, device=affine.bias.device))
    return parts[affine.sources.index(INPUT)][0]


def _error(problem: Problem, affine: Affine, matrix: Tensor) -> Tensor:
    """How far computed values of a map of the inputs may be from exact ones, ``(size,)``."""
    reach = torch.maximum(problem.lower.abs(), problem.upper.abs()).amax(0, keepdim=True)
    return affine.uncertainty([reach])[0] + allowance(reach[0] @ matrix.abs().T + affine.bias.abs())


def _read_otherwise(program: Program, affine: Affine) -> Tensor:
    """Inputs that other maps read than the given one, ``(n,)``."""
    read = torch.zeros(program.num_inputs, dtype=torch.bool, device=program.device)
    for other in program.maps():
        if other is not affine and INPUT in other.sources:
            read = read | (_matrix(other) != 0).any(0)
    return read
