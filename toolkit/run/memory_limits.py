"""Memory that a process may still take, and limits on it; needs no torch.

What counts is the tightest of what the system has free, what the control groups (containers, batch systems) of this
process leave, and its own resource limits. Windows has neither of the latter: there memory is not limited, an option
that asks for a limit is an error, and what is free is assumed.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import InputError
from toolkit.tuning import tuned

if sys.platform != "win32":
    import resource

    LIMITED = resource.RLIMIT_DATA
    """What a limit limits: private memory that can be written to. Address space (RLIMIT_AS) would also count what
    libraries only reserve, which for CUDA is many times the memory of a machine."""

GIB = 1 << 30
REFUSALS = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "bad allocation", "bad_alloc",
    "failed to allocate memory", "out of memory", "failed to map segment",
)  # fmt: skip
"""What libraries without an exception of their own for it say where an allocation was refused."""


def available(root: Path = Path("/")) -> int:
    """Bytes that this process may still take; ``root`` is where the system's files are."""
    return max(0, min([_of_system(root), *_of_groups(root), *_of_limits(root)]))


def _of_system(root: Path) -> int:
    facts = _table(root / "proc/meminfo")
    if "MemAvailable" in facts:
        return facts["MemAvailable"]
    if sys.platform != "win32":
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):  # macOS does not say how many pages are free
            pass
    return tuned().memory.assumed_free_bytes


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group that this process is in leaves, of both versions; memory that holds files is free."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            base, most, used, cache = root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            most, used, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        folder = base / path.lstrip("/")
        # A container sees its own group as the root, whatever its path is outside.
        for group in [folder, *folder.parents]:
            if group.is_relative_to(base) and (limit := _number(group / most)) is not None:
                files = _table(group / "memory.stat").get(cache, 0)
                yield limit - max(0, (_number(group / used) or 0) - files)


def _of_limits(root: Path) -> list[int]:
    """What this process's resource limits leave."""
    found: list[int] = []
    if sys.platform != "win32":
        status = _table(root / "proc/self/status")
        for limit, used in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                found.append(soft - status.get(used, 0))
    return found


def limit_memory(amount: int) -> None:
    """Let this process, and each that is forked from it, take so many bytes in all; 0 is no limit.

    An allocation beyond it fails as on a machine that has no more. Nothing is limited on Windows.
    """
    if sys.platform != "win32" and amount:
        _, hard = resource.getrlimit(LIMITED)
        resource.setrlimit(LIMITED, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


@contextmanager
def shared_limit(processes: int) -> Iterator[None]:
    """Where memory is limited, so many processes that are forked inside share what is left of it."""
    if sys.platform == "win32":
        yield
    else:
        soft, hard = resource.getrlimit(LIMITED)
        if soft != resource.RLIM_INFINITY:
            used = _table(Path("/proc/self/status")).get("VmData", 0)
            resource.setrlimit(LIMITED, (used + max(0, soft - used) // processes, hard))
        try:
            yield
        finally:
            resource.setrlimit(LIMITED, (soft, hard))


def in_bytes(gib: float | None) -> int:
    """A limit of so many GiB in bytes; 0 for None. Raises InputError where the system has no such limits."""
    if gib is not None and sys.platform == "win32":
        raise InputError("--memory-limit: Windows has no limit on the memory of a process; leave it out")
    return 0 if gib is None else math.floor(gib * GIB)


def refused(error: BaseException) -> bool:
    """Whether an error says that an allocation was refused."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, Exception) and any(refusal in text for refusal in REFUSALS)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _table(path: Path) -> dict[str, int]:
    """A file of lines ``name value`` or ``name: value kB``, in bytes."""
    found = {}
    for line in _text(path).splitlines():
        name, *words = line.split() or [""]
        if words and words[0].isdigit():
            found[name.rstrip(":")] = int(words[0]) << (10 if words[1:] == ["kB"] else 0)
    return found
