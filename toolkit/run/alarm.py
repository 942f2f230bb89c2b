"""An end of work that does not look at its clock in time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from toolkit.run.clock import OutOfTime


@contextmanager
def out_of_time_after(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside, wherever the work is, after so many seconds.

    A call into a library ends first. Nothing happens where the system has no such alarms, and outside of the main
    thread; processes that are forked inside have none.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    try:
        before = signal.signal(signal.SIGALRM, interrupt)
    except (AttributeError, ValueError):  # not POSIX; not the main thread
        yield
        return
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
