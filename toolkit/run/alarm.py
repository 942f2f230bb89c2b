"""An end of work that does not look at its clock in time."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Overdue(BaseException):
    """Work was interrupted wherever it was.

    It is no `OutOfTime`, which may end a turn of a search and let another one go on from what is left: this one comes
    at any place, and what is left may be half of a change. Only what gives the whole query up may catch it.
    """


@contextmanager
def out_of_time_after(seconds: float) -> Iterator[None]:
    """Raise Overdue inside, wherever the work is, after so many seconds, or when an alarm around this one ends.

    A call into a library ends first. Nothing happens where the system has no such alarms, and outside of the main
    thread; processes that are forked inside have none.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Overdue

    if sys.platform == "win32":
        yield
        return
    try:
        before = signal.signal(signal.SIGALRM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    around, _ = signal.getitimer(signal.ITIMER_REAL)
    began = time.monotonic()
    try:
        _ring_after(min(seconds, around or seconds))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if around:
            _ring_after(around - (time.monotonic() - began))


def _ring_after(seconds: float) -> None:
    """Set the alarm, at once where the time has passed."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
