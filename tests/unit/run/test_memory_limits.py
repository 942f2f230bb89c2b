"""Memory that a process may take: the tightest of what system, control groups and limits leave."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.run.memory_limits import GIB, available, in_bytes, refused, shared_limit

ROOT = Path(__file__).parents[3]
FREE = 10 * GIB
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def system(root: Path, groups: str, files: dict[str, int | str]) -> Path:
    """A system of 10 GiB of free memory, with its control groups."""
    everything = {
        "proc/meminfo": f"MemTotal: 99999999999 kB\nMemAvailable: {FREE >> 10} kB\n",
        "proc/self/cgroup": groups,
    }
    for name, content in (everything | {f"sys/fs/cgroup/{name}": str(value) for name, value in files.items()}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


V2 = "0::/batch/job"
V1 = "5:cpu,cpuacct:/x\n4:memory:/batch/job\n0::/"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (V2, {}, FREE),
        (V2, {"batch/job/memory.max": "max", "batch/job/memory.current": 5}, FREE),
        (V2, {"batch/job/memory.max": 3 * GIB, "batch/job/memory.current": GIB}, 2 * GIB),
        (V2, {"batch/memory.max": 2 * GIB, "batch/memory.current": GIB, "batch/job/memory.max": 3 * GIB}, GIB),
        (V2, {"memory.max": 2 * GIB, "memory.current": GIB}, GIB),  # a container, whose own group is the root
        (V2, {"batch/job/memory.max": 3 * GIB, "batch/job/memory.current": 2 * GIB,
              "batch/job/memory.stat": f"anon 7\ninactive_file {GIB}"}, 2 * GIB),
        (V2, {"batch/job/memory.max": GIB, "batch/job/memory.current": 2 * GIB}, 0),
        (V2, {"batch/job/memory.max": 99 * GIB, "batch/job/memory.current": 0}, FREE),
        (V1, {"memory/batch/job/memory.limit_in_bytes": 3 * GIB, "memory/batch/job/memory.usage_in_bytes": GIB},
         2 * GIB),
        (V1, {"memory/memory.limit_in_bytes": 3 * GIB, "memory/memory.usage_in_bytes": 2 * GIB,
              "memory/memory.stat": f"total_inactive_file {GIB}"}, 2 * GIB),
        (V1, {"memory/batch/job/memory.limit_in_bytes": (1 << 63) - 4096}, FREE),
        ("nonsense\n\n:::::\n", {}, FREE),
    ],
)  # fmt: skip
def test_control_groups_count(tmp_path: Path, groups: str, files: dict[str, int | str], expected: int) -> None:
    assert available(system(tmp_path, groups, files)) == expected


def test_random_hierarchies_leave_what_their_tightest_group_does(tmp_path: Path) -> None:
    rng = random.Random(0)
    for trial in range(30):
        names = [f"g{level}" for level in range(rng.randrange(1, 5))]
        files: dict[str, int | str] = {}
        left = [FREE]
        for level in range(len(names) + 1):
            if rng.random() < 0.6:
                limit, used = rng.randrange(1, 20 * GIB), rng.randrange(0, 5 * GIB)
                group = "/".join(names[:level])
                files |= {f"{group}/memory.max": limit, f"{group}/memory.current": used}
                left.append(max(0, limit - used))
        root = system(tmp_path / str(trial), f"0::/{'/'.join(names)}", files)
        assert available(root) == min(left)


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return done.stdout.strip()


def test_a_limit_is_what_is_left_and_holds() -> None:
    code = "import numpy as np\nfrom toolkit.run.memory_limits import *\nlimit_memory(GIB)\nprint(available() <= GIB)\n"
    code += "try: np.ones(GIB)\nexcept MemoryError: print('refused')"
    assert python(code).split() == ["True", "refused"]


def test_no_limit_is_none() -> None:
    code = "import resource as r\nfrom toolkit.run.memory_limits import *\nlimit_memory(0)\n"
    assert python(code + "print(r.getrlimit(LIMITED)[0])") == "-1"


def test_forks_share_what_is_left_of_a_limit() -> None:
    code = "from toolkit.run.memory_limits import *\nlimit_memory(4 * GIB)\nbefore = available()\n"
    code += "with shared_limit(4): print(before / available())\nprint(available() / before)"
    inside, after = map(float, python(code).split())
    assert inside == pytest.approx(4, rel=0.05)
    assert after == pytest.approx(1, rel=0.05)


def test_without_a_limit_nothing_is_shared() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with shared_limit(3):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("x"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : std::bad_alloc"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyboardInterrupt("out of memory"), False),
    ],
)
def test_refusals_are_told_by_type_or_text(error: BaseException, expected: bool) -> None:
    assert refused(error) == expected


def test_units() -> None:
    assert (in_bytes(None), in_bytes(0.5), in_bytes(2)) == (0, GIB // 2, 2 * GIB)
