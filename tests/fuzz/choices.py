"""The draws of one random case: taken from a seed, or from a list, so that any case can be repeated and made smaller.

A case is made by nothing but numbers below a count, each drawn when it is needed. The list of them is the case: a
shorter list, or smaller numbers, are a simpler case, whatever kind of case it is. So 0 always stands for the simplest
choice, and a list that ends early goes on with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

MOST = 5_000
"""Draws of one case at most: what takes more is not small."""


class TooLong(Exception):  # noqa: N818 - not an error: the case is given up
    """A case took more draws than one may."""


class Choices:
    """Draws from a generator, or from a list of earlier draws and zeros after its end."""

    def __init__(self, generator: np.random.Generator | None, given: Sequence[int] = ()) -> None:
        self._generator, self._given = generator, given
        self.taken: list[int] = []
        """All draws so far."""

    def below(self, count: int) -> int:
        """A number of ``0 .. count - 1``; a given one that is too large becomes the largest."""
        number = len(self.taken)
        if number >= MOST:
            raise TooLong
        if number < len(self._given):
            value = min(self._given[number], count - 1)
        else:
            value = 0 if self._generator is None else int(self._generator.integers(count))
        self.taken.append(value)
        return value

    def between(self, low: int, high: int) -> int:
        """A number of ``low .. high``; ``low`` is the simplest."""
        return low + self.below(high - low + 1)

    def of(self, options: Sequence[T]) -> T:
        """One of some options, of which the first is the simplest."""
        return options[self.below(len(options))]

    def chance(self, share: float) -> bool:
        """True in such a share of cases; False is the simpler."""
        return self.below(1000) >= 1000 - round(1000 * share)

    def signed(self, most: int) -> int:
        """A number of ``-most .. most``; those near 0 are simpler."""
        drawn = self.below(2 * most + 1)
        return (drawn + 1) // 2 * (1 if drawn % 2 else -1)

    def seed(self) -> int:
        """The seed of a generator, for arrays that are too large to be drawn element by element."""
        return self.below(1 << 16)


def from_seed(seed: int, number: int) -> Choices:
    """The draws of case ``number`` of a campaign with this seed."""
    return Choices(np.random.default_rng(np.random.SeedSequence((seed, number))))


def again(taken: Sequence[int]) -> Choices:
    """The draws of an earlier case."""
    return Choices(None, taken)
