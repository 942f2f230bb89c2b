"""The time limit of one query."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace


class OutOfTime(Exception):  # noqa: N818 - not an error: the search ends with the verdict `timeout`
    """The time limit has passed."""


def always() -> bool:
    """Ends work as soon as it may end."""
    return True


@dataclass(frozen=True)
class Clock:
    """Counts from its creation; ``check`` is called between steps that take well under a second."""

    limit: float
    start: float
    earliest: float = math.inf
    """From when on work may also end before the limit, between two rounds, so that each that begins gets somewhere."""
    ended: Callable[[], bool] = always
    """Whether it does."""

    @classmethod
    def started(cls, limit: float, spent: float = 0.0) -> Clock:
        """A clock with a limit in seconds that starts now, or so many seconds ago."""
        return cls(limit, time.perf_counter() - spent)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def left(self) -> float:
        """Seconds left, negative when the limit has passed."""
        return self.limit - self.elapsed

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
        """Raise OutOfTime when the limit has passed."""
        if self.left <= 0:
            raise OutOfTime

    def check_round(self) -> None:
        """Raise OutOfTime when the limit has passed, or the work was ended."""
        self.check()
        if self.elapsed > self.earliest and self.ended():
            raise OutOfTime
