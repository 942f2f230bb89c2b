"""Work in a process of its own: its limit holds and its end is told, whatever it does, and nothing is left running."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.run import forked_query as module
from toolkit.run.forked_query import (
    ProcessCrashed,
    ProcessLimits,
    ProcessOverdue,
    can_fork,
    note_start,
    run_forked,
    seconds_passed,
)
from toolkit.tuning import tuned

ROOT = Path(__file__).parents[3]
FREE = ProcessLimits(60.0)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children() -> set[str]:
    """Children of this process, ended ones that nobody waited for included."""
    return {pid for thread in Path("/proc/self/task").iterdir() for pid in (thread / "children").read_text().split()}


@pytest.fixture(autouse=True)
def forking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork although other tests may have loaded libraries with threads: the work here uses none of them."""
    monkeypatch.setattr(module, "can_fork", lambda: True)
    before = children()
    yield
    assert children() <= before


def endless() -> None:
    while True:
        pass


def holding_the_lock() -> None:
    """Minutes in one call that lets no other thread of Python run, nor a handler of signals."""
    re.match("(a+)+$", "a" * 40 + "b")


def fork_and_wait() -> None:
    if not os.fork():
        time.sleep(60)
    time.sleep(60)


@pytest.mark.parametrize("value", [None, 3, b"x" * (5 << 20), {"a": [1.5, "b"]}])
def test_what_the_work_returns(value: object) -> None:
    assert run_forked(lambda: (value, os.getpid() != os_id), FREE) == (value, True)


os_id = os.getpid()


def test_arrays_come_back() -> None:
    assert np.array_equal(run_forked(lambda: np.arange(10**6), FREE), np.arange(10**6))


@pytest.mark.parametrize("error", [InputError("a: b"), KeyError("k"), MemoryError("m"), KeyboardInterrupt()])
def test_what_the_work_raises(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        run_forked(fail, FREE)
    assert raised.value.args == error.args
    assert "in fail" in "".join(raised.value.__notes__)  # the traceback of the other process


def test_an_error_that_cannot_be_sent_is_told() -> None:
    class LocalError(Exception):
        pass

    def fail() -> None:
        raise LocalError("why")

    with pytest.raises(RuntimeError, match="LocalError: why"):
        run_forked(fail, FREE)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGKILL, signal.SIGBUS])
def test_a_crash_is_told_with_its_signal(number: signal.Signals) -> None:
    def crash() -> None:
        faulthandler.disable()  # of pytest: it would write a traceback
        os.kill(os.getpid(), number)

    with pytest.raises(ProcessCrashed, match=number.name):
        run_forked(crash, FREE)


def test_an_exit_is_told_with_its_code() -> None:
    with pytest.raises(ProcessCrashed, match="exit code 7"):
        run_forked(lambda: os._exit(7), FREE)


@pytest.mark.parametrize("work", [endless, holding_the_lock, fork_and_wait, lambda: time.sleep(60)])
@pytest.mark.parametrize("seconds", [0.3, -5.0])
def test_the_time_limit_holds_whatever_the_work_does(work: Callable[[], object], seconds: float) -> None:
    began = time.monotonic()
    with pytest.raises(ProcessOverdue):
        run_forked(work, ProcessLimits(seconds))
    assert time.monotonic() - began < max(seconds, 0) + tuned().processes.grace_seconds + 1.0


def test_no_limit_is_too_large() -> None:
    assert run_forked(lambda: 1, ProcessLimits(float("inf"))) == 1
    assert run_forked(lambda: 2, ProcessLimits(1e300)) == 2


def test_what_was_printed_before_is_not_printed_twice() -> None:
    code = "import sys; from toolkit.run.forked_query import run_forked, ProcessLimits; sys.stdout.write('once ');"
    code += "print(run_forked(lambda: print('inside', end=' ') or 5, ProcessLimits(9)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert (done.stdout, done.stderr) == ("once 5\n", "inside ")


def test_what_is_printed_inside_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    run_forked(lambda: os.write(1, b"solver says hello\n"), FREE)
    assert tuple(capfd.readouterr()) == ("", "solver says hello\n")


def test_memory_beyond_the_limit_is_refused_inside_only() -> None:
    with pytest.raises(MemoryError):
        run_forked(lambda: np.ones(1 << 28).sum(), ProcessLimits(60.0, 1 << 30))
    assert run_forked(lambda: np.ones(1 << 20).sum(), ProcessLimits(60.0, 1 << 30)) == 1 << 20
    assert np.ones(1 << 28, dtype=np.int8).sum(dtype=np.int64) == 1 << 28


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("error", [BlockingIOError(11, "no process"), OSError(12, "no memory")])
def test_where_a_fork_is_refused_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse() -> int:
        raise error

    monkeypatch.setattr(os, "fork", refuse)
    before = open_files()
    assert run_forked(os.getpid, FREE) == os.getpid()
    assert open_files() == before


def test_no_fork_beside_threads_and_libraries_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, present in (("torch", True), ("torch", False)):
        if present:
            monkeypatch.setitem(sys.modules, name, object())
            assert not can_fork()
        else:
            monkeypatch.delitem(sys.modules, name)
    assert can_fork() == (threading.active_count() == 1)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert not can_fork()
    stop.set()
    thread.join()


def parent_of_sleepers(tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process whose work, with a process forked from it, would take a minute; and the ids of both."""
    names = tmp_path / "ids"
    code = f"""
import os, time
from toolkit.run.forked_query import run_forked, ProcessLimits
from toolkit.run.lifetime import die_with
def work():
    mine = os.getpid()
    if not os.fork():
        die_with(mine)
        open({str(names)!r}, "w").write(f"{{mine}} {{os.getpid()}} ")
        time.sleep(60)
    time.sleep(60)
run_forked(work, ProcessLimits(100))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while not names.exists() or not names.read_text().endswith(" "):
        assert parent.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    return parent, [int(word) for word in names.read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    parent, pids = parent_of_sleepers(tmp_path)
    assert all(is_running(pid) for pid in pids)
    parent.send_signal(number)
    parent.wait(10)
    end = time.monotonic() + 5
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(is_running(pid) for pid in pids)


def test_time_counts_from_the_start_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.STARTED, raising=False)
    assert seconds_passed() == 0.0
    for written in ("{:.3f}", "{:.3f}x"):
        monkeypatch.setenv(module.STARTED, written.format(time.time() - 7))
        assert seconds_passed() == (0.0 if "x" in written else pytest.approx(7, abs=1))
    monkeypatch.setenv(module.STARTED, f"{time.time() - 7:.3f}".replace(".", ","))
    assert seconds_passed() == pytest.approx(7, abs=1)
    note_start()
    assert 0 < seconds_passed() < 24 * 3600
