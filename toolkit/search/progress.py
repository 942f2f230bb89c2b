"""What a search has done so far, and what it came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class SearchProgress:
    """Counters of one search."""

    rounds: int = 0
    bounded: int = 0
    depth: int = 0

    weakest: float = -float("inf")
    stalled: int = 0
    """Rounds since the weakest bound of all open domains last rose."""

    def count(self, bounded: int, depth: int) -> None:
        """One more round, with so many domains that are so deep at most."""
        self.rounds += 1
        self.bounded += bounded
        self.depth = max(self.depth, depth)

    def watch(self, weakest: float) -> None:
        """The weakest bound after a round."""
        self.stalled = 0 if weakest > self.weakest else self.stalled + 1
        self.weakest = max(weakest, self.weakest)

    def with_parts(self, parts: Sequence[SearchProgress]) -> SearchProgress:
        """Where a search is after parts of it went on from here, each on its own."""
        return SearchProgress(
            rounds=max(part.rounds for part in parts),
            bounded=self.bounded + sum(part.bounded - self.bounded for part in parts),
            depth=max(part.depth for part in parts),
            weakest=min(part.weakest for part in parts),
            stalled=min(part.stalled for part in parts),
        )


@dataclass(frozen=True)
class SearchOutcome:
    """What the search found: a witness was accepted, everything is proved, or neither, with the reason."""

    witness: bool
    proved: bool
    reason: str = ""
