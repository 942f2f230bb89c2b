"""The limit of one query: of time, or of the bounding passes that are counted in place of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from toolkit.tuning import tuned


class OutOfTime(Exception):  # noqa: N818 - not an error: the search ends undecided
    """The limit has passed."""


def always() -> bool:
    """Tell a clock to end work as soon as it may end."""
    return True


@dataclass
class PassCounter:
    """Bounding passes of a query so far: steps between two checks of its clock, each of them of one batch."""

    done: int = 0


@dataclass(frozen=True)
class Clock:
    """Counts from its creation; ``check`` is called between steps that take well under a second.

    Where passes are limited, each of them counts as a fixed time, whatever it takes: all turns and shares of the time
    are then the same on every machine, and so is what a query comes to in one process.
    """

    limit: float
    """Limit in seconds; where passes are limited, in the seconds that they count as."""
    start: float
    earliest: float = math.inf
    """Seconds from which on work may also end before the limit, between two rounds; each does one round at least."""
    ended: Callable[[], bool] = always
    """Whether work ends between two rounds, once ``earliest`` has passed."""
    passes: PassCounter = field(default_factory=PassCounter, compare=False)
    most_seconds: float | None = None
    """Where passes are limited, the seconds after which work ends all the same; None where time is."""

    @classmethod
    def started(cls, limit: float, spent: float = 0.0, passes: int = 0) -> Clock:
        """A clock with a limit in seconds that starts now, or so many seconds ago, or one of so many passes (not 0)."""
        start = time.perf_counter() - spent
        return cls(passes * tuned().strategy.pass_seconds, start, most_seconds=limit) if passes else cls(limit, start)

    @property
    def counts_passes(self) -> bool:
        """Whether passes are counted in place of time."""
        return self.most_seconds is not None

    @property
    def seconds(self) -> float:
        """Seconds since the start, by the machine's clock."""
        return time.perf_counter() - self.start

    @property
    def elapsed(self) -> float:
        """Seconds since the start, or those that the passes so far count as."""
        return self.seconds if not self.counts_passes else self.passes.done * tuned().strategy.pass_seconds

    @property
    def left(self) -> float:
        """Seconds left, negative when the limit has passed."""
        return -math.inf if self.overdue else self.limit - self.elapsed

    @property
    def seconds_left(self) -> float:
        """Seconds until work ends at the latest, by the machine's clock, whatever is counted."""
        return (self.limit if self.most_seconds is None else self.most_seconds) - self.seconds

    @property
    def overdue(self) -> bool:
        """Whether the time is over although passes are left."""
        return self.most_seconds is not None and self.seconds > self.most_seconds

    def part(self, share: float) -> Clock:
        """A clock that ends after a share of the time left."""
        return replace(self, limit=self.elapsed + share * max(self.left, 0.0))

    def soon(self, seconds: float) -> Clock:
        """A clock that ends after so many seconds, or with this one."""
        return replace(self, limit=min(self.elapsed + seconds, self.limit))

    def ending(self, earliest: float, ended: Callable[[], bool] = always) -> Clock:
        """A clock by which work ends between two rounds, so many seconds after the start, once it is told to."""
        return replace(self, earliest=earliest, ended=ended)

    def check(self) -> None:
        """Count a pass, and raise OutOfTime when the limit has passed."""
        self.passes.done += 1
        if self.left <= 0:
            raise OutOfTime

    def check_round(self) -> None:
        """Raise OutOfTime when the limit has passed, or the work was ended."""
        self.check()
        if self.elapsed > self.earliest and self.ended():
            raise OutOfTime
