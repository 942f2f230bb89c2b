"""What happens during a search, for those who watch: progress, logs, statistics, certificates.

The search itself prints nothing; it tells its observers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class RootBounded:
    """The root bounds of a method are known; ``lower`` is the weakest case's bound."""

    method: str
    unstable: int
    lower: float
    open_cases: int


@dataclass(frozen=True)
class RoundDone:
    """One round of branch and bound: domains bounded in all, domains still open, the weakest bound, deepest path."""

    bounded: int
    open: int
    lower: float
    depth: int


@dataclass(frozen=True)
class MemoryShort:
    """The device ran out of memory; the batch is smaller from now on."""

    batch: int


@dataclass(frozen=True)
class NoBounds:
    """Nothing can be proved, for this reason; all that is left is to try points."""

    reason: str


Event = RootBounded | RoundDone | MemoryShort | NoBounds


class Observer(Protocol):
    """Anything that wants to know."""

    def __call__(self, event: Event) -> None:
        """Called once for every event, in order."""
