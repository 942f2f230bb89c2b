"""The time limit of one query."""

from __future__ import annotations

import time
from dataclasses import dataclass


class OutOfTime(Exception):  # noqa: N818 - not an error: the search ends with the verdict `timeout`
    """The time limit has passed."""


@dataclass(frozen=True)
class Clock:
    """Counts from its creation; ``check`` is called between steps that take well under a second."""

    limit: float
    start: float

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
        return Clock(self.elapsed + share * max(self.left, 0.0), self.start)

    def soon(self, seconds: float) -> Clock:
        """A clock that ends after so many seconds, or with this one."""
        return Clock(min(self.elapsed + seconds, self.limit), self.start)

    def check(self) -> None:
        """Raise OutOfTime when the limit has passed."""
        if self.left <= 0:
            raise OutOfTime
