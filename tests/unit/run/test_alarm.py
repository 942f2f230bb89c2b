"""Work that never looks at its clock ends all the same."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from toolkit.run.alarm import Overdue, out_of_time_after
from toolkit.run.clock import OutOfTime


def test_work_without_checks_is_interrupted() -> None:
    start = time.monotonic()
    with pytest.raises(Overdue), out_of_time_after(0.05):
        while time.monotonic() - start < 20:
            pass
    assert time.monotonic() - start < 10


def test_no_turn_of_a_search_goes_on_from_work_that_was_interrupted() -> None:
    """A turn that is out of time leaves a search for another to go on with; an interrupted one may leave half."""
    start = time.monotonic()
    with pytest.raises(Overdue), out_of_time_after(0.05):
        try:
            while time.monotonic() - start < 20:
                pass
        except (OutOfTime, Exception):
            pytest.fail("taken for the end of a turn")


def test_nothing_is_left_of_an_alarm_that_was_not_needed() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with out_of_time_after(0.05):
        pass
    assert signal.getsignal(signal.SIGALRM) == before
    time.sleep(0.1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_other_threads_have_no_alarm() -> None:
    done: list[bool] = []

    def work() -> None:
        with out_of_time_after(0.001):
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_an_alarm_inside_of_another_leaves_that_one_as_it_was() -> None:
    start = time.monotonic()
    with pytest.raises(Overdue), out_of_time_after(0.3):
        with pytest.raises(Overdue), out_of_time_after(0.05):
            time.sleep(20)
        with out_of_time_after(20):
            pass
        time.sleep(20)
    assert 0.2 < time.monotonic() - start < 10


def test_an_alarm_inside_of_a_shorter_one_is_no_later() -> None:
    start = time.monotonic()
    with pytest.raises(Overdue), out_of_time_after(0.05), out_of_time_after(20):
        time.sleep(20)
    assert time.monotonic() - start < 10
