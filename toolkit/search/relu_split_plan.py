"""How branch and bound over ReLU phases is run."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toolkit.bounds.dual_ascent import Schedule

MOST_ASCENT_STEPS = 40
"""Steps of the ascent beyond which more are not tried."""


@dataclass(frozen=True)
class PhaseSearchPlan:
    """The parameters of one search."""

    schedule: Schedule
    batch: int
    """Most domains bounded at once."""
    max_domains: int
    candidates: int = 3
    """Neurons that the filter chooses from."""
    clipped: int = 0
    """Neurons of every open domain that are bounded again where it may have violations."""

    def more_thorough(self) -> PhaseSearchPlan:
        """Twice the steps for each domain, up to a limit: what helps where splits alone do not raise the bound.

        A domain that no input satisfies is only recognised when its split multipliers have grown large.
        """
        iterations = max(self.schedule.iterations, min(2 * self.schedule.iterations, MOST_ASCENT_STEPS))
        return replace(self, schedule=replace(self.schedule, iterations=iterations))
