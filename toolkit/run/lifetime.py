"""Processes that end with the one that started them, whatever ends it: a kill, a closed terminal, a crash."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from toolkit.tuning import tuned

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

DIE_WITH_PARENT = 1
"""The option of Linux's ``prctl`` (``PR_SET_PDEATHSIG``) that has a process killed when its parent ends."""
SAFE_PATH = "PYTHONSAFEPATH"
"""Keeps Python from looking for modules in the folder that it is started in."""


def die_with(parent: int) -> None:
    """Have this process end when ``parent``, which forked it, does, or at once if that has happened."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this process asked
        os._exit(1)


def die_with_spawner() -> None:
    """``die_with`` for a process that `multiprocessing` started; nothing in any other."""
    from multiprocessing import parent_process  # slow to import, and commands that must start fast do without

    spawner = parent_process()
    if spawner is None or spawner.pid is None:
        return
    if sys.platform == "linux":
        die_with(spawner.pid)
    else:  # a number tells Windows nothing: the process above this one may be a launcher of Python's, and gone for long
        threading.Thread(target=_end_after, args=(spawner,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(tuned().processes.seconds_between_parent_checks)
    os._exit(1)


def _end_after(spawner: BaseProcess) -> None:
    spawner.join()
    os._exit(1)


@contextmanager
def safe_path() -> Iterator[None]:
    """Python processes started inside look for modules where this one does, never in the current folder first."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before
