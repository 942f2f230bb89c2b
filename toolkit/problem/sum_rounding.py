"""What rounding can do to sums: the factors. `toolkit.problem.sum_lengths` has how many terms sums have.

A sum of n products, in whatever order and with whatever blocks a library adds it up, is off by at most
``n u / (1 - n u)`` times the sum of the terms' magnitudes (Higham, Accuracy and Stability of Numerical Algorithms,
2002, section 3.1). Magnitudes are therefore carried along with every sum, through composed operators too: what has
cancelled is no measure of what was lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MapErrors:
    """What a coefficient of one on the value of each map may lose by rounding, ``(B, size)`` each; B may be 1."""

    layers: Sequence[Tensor]
    features: Tensor
    underflow: Tensor
    """What products that underflow may add up to in one pass, ``(B, 1)``."""

    def select(self, index: Tensor) -> MapErrors:
        """The errors of some batch rows; what all share stays shared."""

        def part(tensor: Tensor) -> Tensor:
            return tensor if len(tensor) == 1 else tensor.index_select(0, index)

        return MapErrors([part(layer) for layer in self.layers], part(self.features), part(self.underflow))

    def ending_at(self, number: int) -> MapErrors:
        """The errors of passes that begin at a layer's pre-activations, which take the place of the features."""
        return MapErrors(self.layers[:number], self.layers[number], self.underflow)


ROUNDINGS_BESIDE_SUM = 8
"""Operations on a number beside the sum that it is part of, with room: a centre and a radius and their difference, a
line's slope, a multiplier, the map's stored element, an elementary function."""
MOST_LOST = 0.5
"""Share of the magnitudes beyond which nothing is known of a sum: the factor's denominator is far from zero below."""
SMALL_LOSS = 2.0**-6
"""Share of the magnitudes up to which the rounding of a bound on an error is a small part of the bound itself."""
ERROR_OF_ERROR_BOUND = 2.0**-4
"""Share that is added to a bound on an error up to `SMALL_LOSS`: more than it loses by being computed itself, in two
sums as long as the one that it is about."""


def gamma(terms: int, dtype: torch.dtype) -> float:
    """The relative error of a sum of so many products, with room for a bound that is computed in this precision, too.

    Infinite where so many terms can lose everything.
    """
    lost = terms * torch.finfo(dtype).eps / 2
    lost *= 1 + ERROR_OF_ERROR_BOUND if lost <= SMALL_LOSS else 2
    return lost / (1 - lost) if lost < MOST_LOST else math.inf


def gamma_at(terms: int, unit: float) -> float:
    """The relative error of a sum of so many terms, each operation with this one: ``n u / (1 - n u)``, or infinite."""
    return terms * unit / (1 - terms * unit) if terms * unit < 1 else math.inf


def unit_roundoff(dtype: torch.dtype) -> float:
    """Relative error of one operation."""
    return torch.finfo(dtype).eps / 2


BLOCKED_SUM_TERMS = 1 << 10
"""Terms of a sum of single precision from which on it is added up in blocks: a hundredth of a percent."""
BLOCK_TERMS = 64
"""Terms of one block of such a sum, and of one block of the blocks' sums."""


def long_terms(count: int, dtype: torch.dtype) -> int:
    """Roundings that a term of a sum can meet, where long ones in single precision are added up by `added_up`."""
    if dtype != torch.float32 or count <= BLOCKED_SUM_TERMS:
        return count
    met = 0
    while count > BLOCK_TERMS:
        met, count = met + BLOCK_TERMS, -(-count // BLOCK_TERMS)
    return met + count


def added_up(terms: Tensor) -> Tensor:
    """Sums over the last axis, the long ones in blocks and these in blocks again: `long_terms` has the roundings."""
    count = terms.shape[-1]
    if long_terms(count, terms.dtype) == count:
        return terms.sum(-1)
    while terms.shape[-1] > BLOCK_TERMS:
        whole = terms.shape[-1] // BLOCK_TERMS * BLOCK_TERMS
        blocks = terms[..., :whole].unflatten(-1, (-1, BLOCK_TERMS)).sum(-1)
        rest = terms[..., whole:].sum(-1, keepdim=True)
        terms = torch.cat([blocks, rest], -1) if whole < terms.shape[-1] else blocks
    return terms.sum(-1)


def rounded_up(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Magnitudes in another precision that are no smaller; zeros stay zeros."""
    rounded = values.to(dtype)
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.to(values.dtype) < values, above, rounded)


def outward(lower: Tensor, upper: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Intervals in another precision that contain the given ones."""
    low, high = lower.to(dtype), upper.to(dtype)
    below, above = torch.full_like(low, -torch.inf), torch.full_like(high, torch.inf)
    low = torch.where(low.to(lower.dtype) > lower, torch.nextafter(low, below), low)
    high = torch.where(high.to(upper.dtype) < upper, torch.nextafter(high, above), high)
    return low, high
