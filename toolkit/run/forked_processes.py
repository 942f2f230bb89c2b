"""Work done side by side in forked processes: on small tensors a processor's cores are of use to it only like that.

A fork has everything at once that its parent has, without a byte being sent; what it comes to goes back through a pipe.
Nothing depends on a fork: one that is lost, or late, only means that its work is still to be done. It runs one thread,
as threads do not survive a fork, and must leave alone what has threads of its own, like sessions of onnxruntime.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Generic, NoReturn, TypeVar

import torch

from toolkit.run.clock import Clock
from toolkit.run.lifetime import die_with
from toolkit.run.memory_limits import shared_limit
from toolkit.run.threads import one_thread
from toolkit.tuning import tuned

T = TypeVar("T")


def cores(device: torch.device, wanted: int) -> int:
    """How many processes may work for this one: as many as are wanted, or (0) as torch has threads, up to a limit.

    One on a GPU, whose contexts do not survive a fork, and where systems have none or it is not safe.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return 1
    return wanted or min(tuned().processes.most, torch.get_num_threads())


def worth_starting(seconds: float) -> int:
    """How many processes are worth their start for work of so many seconds: two at least."""
    limits = tuned().processes
    return max(2, int(limits.forking_time_share * seconds / limits.seconds_to_fork))


class SharedFlag:
    """A byte that a process shares with those forked from it: raised by one, seen by all."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def put_up(self) -> None:
        """Raise the flag; it stays up."""
        self._byte[0] = 1

    @property
    def is_up(self) -> bool:
        """Whether some process raised it."""
        return bool(self._byte[0])


def side_by_side(works: Sequence[Callable[[], T]], clock: Clock) -> list[T | None]:
    """What the works return: the first one's in this process, while each of the others has a process of its own.

    None for a process that the system had no room for or that was lost, or is not back `ProcessTuning.seconds_late`
    after this one, or shortly after the clock's limit. What the first raises is raised; the others are ended then.
    Where memory is limited, they share what is left of it.
    """
    if len(works) == 1:
        return [works[0]()]
    forks: list[Fork[T] | ForkRefused] = []
    try:
        with shared_limit(len(works)):
            forks += map(_fork, works[1:])
            with one_thread():
                first = works[0]()
        limits = tuned().processes
        late = limits.seconds_late_after_limit
        return [first, *(fork.result(min(limits.seconds_late, max(clock.left, 0.0) + late)) for fork in forks)]
    finally:
        for fork in forks:
            fork.end()


@dataclass(frozen=True)
class Fork(Generic[T]):
    """A forked process as its parent sees it."""

    pid: int
    connection: Connection

    def result(self, patience: float) -> T | None:
        """What it sends within so many seconds, or None."""
        with suppress(EOFError, OSError):
            if self.connection.poll(patience):
                back: T = pickle.loads(self.connection.recv_bytes())
                return back
        return None

    def end(self) -> None:
        """Kill it, unless it has ended, and leave nothing behind."""
        self.connection.close()
        if sys.platform != "win32":  # where there is none
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class ForkRefused:
    """A process that the system had no room for, or does not have."""

    def result(self, _patience: float) -> None:
        """Nothing came of it."""

    def end(self) -> None:
        """There is nothing to end."""


def _fork(work: Callable[[], T]) -> Fork[T] | ForkRefused:
    if sys.platform == "win32":
        return ForkRefused()
    # `multiprocessing` itself lets no daemon have children, and the benchmark runner's workers are daemons.
    try:
        ours, theirs = Pipe(duplex=False)
    except OSError:  # too many open files
        return ForkRefused()
    parent = os.getpid()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the module's docstring has the answer
            pid = os.fork()
    except OSError:  # too many processes, or too little memory for one more
        ours.close()
        theirs.close()
        return ForkRefused()
    if not pid:
        _serve(work, theirs, parent)
    theirs.close()
    return Fork(pid, ours)


def _serve(work: Callable[[], object], connection: Connection, parent: int) -> NoReturn:
    """What a forked process does. Nothing of its parent's is closed or written to on the way out."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        die_with(parent)
        torch.set_num_threads(1)
        connection.send_bytes(pickle.dumps(work(), protocol=pickle.HIGHEST_PROTOCOL))
        code = 0
    except BaseException:  # the parent still has the work to do, and finds out what the matter is
        pass
    finally:
        os._exit(code)
