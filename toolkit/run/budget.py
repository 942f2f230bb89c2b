"""What a search or an attack is given to work with, and only passes on: time, a judge of points, observers, a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolkit.run.clock import Clock
from toolkit.run.events import Observer, silent

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Budget:
    """Until when work goes on, who judges the points that it finds, and whom it tells."""

    clock: Clock
    accept: Callable[[Tensor, int], bool]
    """Replays a candidate input, ``(n,)``, of a region; true when it is a witness, which ends all work."""
    observer: Observer = silent
    seed: int = 0
    """Seed of all random numbers."""

    def within(self, clock: Clock) -> Budget:
        """The budget with another clock."""
        return replace(self, clock=clock)
