"""Work in forked processes: done once each, by processes that are gone afterwards, and no loss but of time."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from toolkit.run import forked_processes
from toolkit.run.clock import Clock
from toolkit.run.forked_processes import SharedFlag, cores, side_by_side, worth_starting
from toolkit.tuning import tuned

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

LONG = 60.0
CLOCK = Clock.started(1e6)


def told(value: object) -> Callable[[], tuple[int, object]]:
    return lambda: (os.getpid(), value)


def killed() -> tuple[int, object]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def failing() -> tuple[int, object]:
    raise RuntimeError("no")


def sleeping() -> tuple[int, object]:
    time.sleep(LONG)
    return 0, None


def children() -> set[str]:
    """Children of this process, ended ones that nobody waited for included."""
    return {pid for thread in Path("/proc/self/task").iterdir() for pid in (thread / "children").read_text().split()}


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def test_every_work_has_a_process_and_the_first_has_this_one() -> None:
    tensor = torch.arange(5.0)
    back = side_by_side([told(0), told(tensor), told("third")], CLOCK)
    assert [pair is not None for pair in back] == [True] * 3
    pids = [pair[0] for pair in back if pair]
    assert pids[0] == os.getpid()
    assert len(set(pids)) == 3
    assert torch.equal(back[1][1], tensor)  # type: ignore[index, arg-type]
    assert back[2][1] == "third"  # type: ignore[index]


def test_tensors_that_threads_computed_are_computed_in_forks_too() -> None:
    """OpenMP's threads do not survive a fork: a process that waited for them would not come back."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    matrix = torch.rand(600, 600, generator=torch.Generator().manual_seed(0))
    product = matrix @ matrix
    wide = (matrix.sin() + 1).sum()
    back = side_by_side([lambda: (matrix @ matrix, wide), lambda: (matrix @ matrix, (matrix.sin() + 1).sum())], CLOCK)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    for pair in back:
        assert pair is not None
        torch.testing.assert_close(pair[0], product)
        torch.testing.assert_close(pair[1], wide)


@pytest.mark.parametrize("lost", [killed, failing])
def test_a_lost_process_is_none(lost: Callable[[], tuple[int, object]]) -> None:
    back = side_by_side([told(1), lost, told(3)], CLOCK)
    assert back[1] is None
    assert back[0] == (os.getpid(), 1)
    assert back[2] is not None
    assert back[2][1] == 3


@pytest.mark.parametrize("error", [BlockingIOError(11, "no process"), OSError(12, "no memory")])
@pytest.mark.parametrize("allowed", [0, 1])
def test_a_process_that_is_refused_is_none(monkeypatch: pytest.MonkeyPatch, error: OSError, allowed: int) -> None:
    forks, fork = [0], os.fork

    def refusing() -> int:
        forks[0] += 1
        if forks[0] > allowed:
            raise error
        return fork()

    monkeypatch.setattr(os, "fork", refusing)
    back = side_by_side([told(1), told(2), told(3)], CLOCK)
    assert [pair is not None for pair in back] == [True, allowed == 1, False]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_pipe_that_is_refused_is_a_process_less(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(duplex: bool) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(forked_processes, "Pipe", refuse)
    assert side_by_side([told(1), told(2)], CLOCK)[1] is None


def test_a_late_process_is_not_waited_for() -> None:
    began = time.monotonic()
    assert side_by_side([told(1), sleeping], Clock.started(0.2))[1] is None
    assert time.monotonic() - began < LONG / 2


def test_what_the_first_work_raises_ends_the_others() -> None:
    with pytest.raises(RuntimeError, match="no"):
        side_by_side([failing, sleeping], CLOCK)


def test_a_flag_is_seen_by_all() -> None:
    flag = SharedFlag()
    assert not flag.is_up
    side_by_side([told(1), lambda: (0, flag.put_up())], CLOCK)
    assert flag.is_up


def test_short_work_is_worth_few_processes() -> None:
    assert worth_starting(0.0) == 2
    assert 2 < worth_starting(1.0) < 10
    assert worth_starting(10.0) > 16


def test_as_many_processes_as_threads_and_one_on_a_gpu() -> None:
    cpu = torch.device("cpu")
    assert cores(cpu, 0) == min(tuned().processes.most, torch.get_num_threads())
    assert cores(cpu, 3) == 3
    assert cores(torch.device("cuda"), 3) == 1
