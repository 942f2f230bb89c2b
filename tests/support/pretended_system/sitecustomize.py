"""Another operating system, as far as the code of this project can see: Python imports this when it starts.

``PRETENDED_SYSTEM`` is ``win32`` or ``darwin``. The packages ``toolkit`` and ``prunecert`` find ``sys.platform`` to be
that, names of ``os`` and ``signal`` and modules that the system lacks to be missing, and no file in ``/proc`` and
``/sys``. Libraries see the system as it is: theirs for the other one are not here. Started processes inherit all of it.
"""

from __future__ import annotations

import builtins
import os
import signal
import sys
from types import FrameType, ModuleType
from typing import Any

SYSTEM = os.environ["PRETENDED_SYSTEM"]
OURS = ("toolkit", "prunecert")
LINUX_ALONE = {
    "sched_getaffinity", "sched_setaffinity", "pipe2", "memfd_create", "splice", "copy_file_range", "posix_fadvise",
    "getrandom", "eventfd", "pidfd_open", "getxattr", "setxattr", "prlimit",
}  # fmt: skip
POSIX_ALONE = LINUX_ALONE | {
    "fork", "forkpty", "killpg", "getpgid", "getpgrp", "setpgid", "setpgrp", "getsid", "setsid", "getuid", "geteuid",
    "getgid", "getegid", "getgroups", "setuid", "setgid", "uname", "sysconf", "sysconf_names", "confstr", "pathconf",
    "nice", "getpriority", "setpriority", "getloadavg", "wait", "wait3", "wait4", "waitid", "WNOHANG", "WUNTRACED",
    "WIFEXITED", "WEXITSTATUS", "WIFSIGNALED", "WTERMSIG", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC",
    "O_SYNC", "O_DSYNC", "O_NOCTTY", "mkfifo", "mknod", "posix_spawn", "posix_spawnp", "chown", "fchown", "lchown",
    "fchdir", "statvfs", "fstatvfs", "pread", "pwrite", "readv", "writev", "sendfile", "register_at_fork", "openpty",
    "ttyname", "tcgetpgrp", "sync", "fdatasync", "lockf", "chroot", "ctermid", "sched_yield",
}  # fmt: skip
SIGNALS = {
    "SIGKILL", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGHUP", "SIGCHLD", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGQUIT",
    "SIGSTOP", "SIGCONT", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGXCPU", "SIGXFSZ", "SIGBUS", "SIGTRAP", "alarm", "pause",
    "setitimer", "getitimer", "ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF", "pthread_kill", "pthread_sigmask",
    "sigwait", "sigpending", "siginterrupt", "SIG_BLOCK", "SIG_UNBLOCK",
}  # fmt: skip
NO_MODULES = {"resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "readline", "spwd", "nis"}
ONLY_THERE = {"O_BINARY": 0, "O_NOINHERIT": 0}
"""What only Windows has in ``os``; without effect here."""


class PretendedModule(ModuleType):
    """A module without some of its names, and with others in their place."""

    def __init__(self, real: ModuleType, missing: set[str], others: dict[str, object]) -> None:
        super().__init__(real.__name__)
        self.__dict__["_parts"] = (real, missing, others)

    def __getattr__(self, name: str) -> Any:
        real, missing, others = self.__dict__["_parts"]
        if name in missing:
            raise AttributeError(f"{real.__name__}.{name}: not on {SYSTEM}")
        return others[name] if name in others else getattr(real, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["_parts"][0], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_parts"][0], name)


WINDOWS = SYSTEM == "win32"
PRETENDED = {
    "sys": PretendedModule(sys, set(), {"platform": SYSTEM}),
    "os": PretendedModule(os, POSIX_ALONE if WINDOWS else LINUX_ALONE, ONLY_THERE if WINDOWS else {}),
    "signal": PretendedModule(signal, SIGNALS if WINDOWS else set(), {}),
}
real_import = builtins.__import__


def pretended_import(
    name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
) -> ModuleType:
    package = (globals or {}).get("__package__") or (globals or {}).get("__name__") or ""
    if level == 0 and package.split(".")[0] in OURS:
        if WINDOWS and name in NO_MODULES:
            raise ModuleNotFoundError(f"no module {name} on {SYSTEM}", name=name)
        if name in PRETENDED:
            return PRETENDED[name]
    return real_import(name, globals, locals, fromlist, level)


def is_ours(frame: FrameType | None) -> bool:
    """Whether it is this project that opens a file, by the first frame that is not of the standard library."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "pathlib", "io", "codecs", "gzip", "__main__", "sitecustomize",
    ):  # fmt: skip
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in OURS


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).startswith(("/proc/", "/sys/")) and is_ours(sys._getframe(1)):
        raise FileNotFoundError(2, f"not on {SYSTEM}", str(arguments[0]))


builtins.__import__ = pretended_import
sys.addaudithook(watch)
