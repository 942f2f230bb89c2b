"""How branch and bound over ReLU phases is run."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.bounds.ascent import Schedule


@dataclass(frozen=True)
class SearchPlan:
    """The parameters of one search."""

    schedule: Schedule
    batch: int
    """Most domains bounded at once."""
    max_domains: int
    scores: tuple[str, ...] = ("babsr", "gap")
    candidates: int = 3
    """Neurons that each score nominates for the filter."""
    rebound: bool = False
    """Whether every domain's neuron bounds are computed anew."""

    @property
    def price(self) -> int:
        """Passes over the network that bounding one domain takes."""
        return 2 * (self.schedule.iterations + 1)
