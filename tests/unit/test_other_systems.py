"""What a system lacks that is not Linux: imports, queries and runs do without it, and what they cannot do is told.

The system is pretended (``tests/support/pretended_system``): it shows which names the code asks for, and nothing about
what a real one does with the others.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, save
from random_queries import hard_query

ROOT = Path(__file__).parents[2]
PRETENDED = ROOT / "tests" / "support" / "pretended_system"
SYSTEMS = ("win32", "darwin")


def environment(system: str) -> dict[str, str]:
    path = os.pathsep.join([str(PRETENDED), str(ROOT), str(ROOT / "tests" / "support")])
    return os.environ | {"PYTHONPATH": path, "PRETENDED_SYSTEM": system, "OMP_NUM_THREADS": "1"}


def python(system: str, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", *arguments]
    return subprocess.run(
        command, env=environment(system), capture_output=True, text=True, timeout=seconds, check=False
    )


def prunecert(system: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return python(system, "-m", "toolkit.cli", *map(str, arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One instance that is sat and one that is unsat."""
    place = tmp_path_factory.mktemp("given") / "toy"
    place.mkdir()
    network = save(random_network("mlp", 0), place, "net.onnx")
    for number, radius in enumerate((0.05, 0.5)):
        (place / f"{number}.vnnlib").write_text(hard_query(network, np.random.default_rng(number), radius))
    (place / "instances.csv").write_text("net.onnx,0.vnnlib,30\nnet.onnx,1.vnnlib,30\n")
    return place


def verdicts(out: Path) -> list[str]:
    return sorted(row[4] for row in csv.reader((out / "results.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import resource", "no module resource on win32"),
        ("import os\nos.fork()", "os.fork: not on win32"),
        ("import signal\nsignal.SIGALRM", "signal.SIGALRM: not on win32"),
        ("from os import killpg", "cannot import name 'killpg'"),
        ("from pathlib import Path\nPath('/proc/self/stat').read_text()", "not on win32: '/proc/self/stat'"),
        ("import sys\nraise ValueError(sys.platform)", "ValueError: win32"),
    ],
)
def test_what_is_missing_is_seen(code: str, words: str) -> None:
    """The pretence itself: code of the package meets it, other code does not."""
    ended = python("win32", "-c", f"__package__ = 'toolkit'\n__name__ = 'toolkit.x'\n{code}")
    assert words in ended.stderr
    assert words not in python("win32", "-c", code).stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_everything_can_be_imported(system: str) -> None:
    code = (
        "import pkgutil, importlib, sys, prunecert, toolkit\n"
        "for found in pkgutil.walk_packages(toolkit.__path__, 'toolkit.'):\n"
        "    importlib.import_module(found.name)\n"
        "print(len([name for name in sys.modules if name.startswith('toolkit.')]))\n"
        "assert toolkit.cli.sys.platform != 'linux'\n"
    )
    ended = python(system, "-c", code)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 250


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_query_is_decided(system: str, folder: Path) -> None:
    found = []
    for number in (0, 1):
        ended = prunecert(system, "verify", folder / f"{number}.vnnlib", "--network", folder / "net.onnx")
        assert ended.returncode == 0, ended.stderr
        found.append(ended.stdout.splitlines()[0])
    assert sorted(found) == ["sat", "unsat"]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("executor", ["in-process", "processes"])
def test_a_benchmark_is_run(system: str, executor: str, folder: Path, tmp_path: Path) -> None:
    arguments = ["bench", folder, "--device", "cpu", "--out", tmp_path, "--executor", executor, "--workers", "2"]
    ended = prunecert(system, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert verdicts(tmp_path) == ["sat", "unsat"]
    again = prunecert(system, *arguments)
    assert (again.returncode, "2 of 2 instances are answered" in again.stdout) == (0, True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_certificates_are_written_and_checked(system: str, folder: Path, tmp_path: Path) -> None:
    columns = ["--variant", "proved:certified=true", "--variant", "plain"]
    ended = prunecert(system, "bench", folder, "--device", "cpu", "--out", tmp_path, *columns)
    assert ended.returncode == 0, ended.stderr
    assert verdicts(tmp_path / "proved") == verdicts(tmp_path / "plain") == ["sat", "unsat"]
    ended = prunecert(system, "check", tmp_path / "proved", "--jobs", "2")
    assert ended.returncode == 0, ended.stderr


BUSY = """
import sys, time
from pathlib import Path
from toolkit.bench.executors import ExecutorLimits
from toolkit.bench.job import InstanceJob, WorkerTask
from toolkit.bench.worker_processes import processes
from toolkit.settings import Settings

def ready():
    pass

def busy(job):
    import os
    Path(job.onnx).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    job = InstanceJob("k", "c", sys.argv[1], "s", (), Path("s"), Settings(timeout=float(sys.argv[2])))
    print(list(processes([job], WorkerTask(ready, busy), ExecutorLimits(grace=0.2))))
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_worker_that_is_late_is_ended(system: str, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    ended = python(system, str(tmp_path / "busy.py"), str(tmp_path / "pid"), "0.5")
    assert "stopped from outside" in ended.stdout, ended.stderr
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_worker_ends_with_what_started_it(system: str, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    command = [sys.executable, "-P", str(tmp_path / "busy.py"), str(tmp_path / "pid"), "500"]
    process = subprocess.Popen(command, env=environment(system), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "{folder}", "--memory-limit", "4"], "--memory-limit: Windows has no limit"),
        (["verify", "{folder}/0.vnnlib", "--network", "{folder}/net.onnx", "--memory-limit", "4"], "--memory-limit: "),
        (["bench", "{folder}", "--tool", "a=x {{network}} {{specification}} {{results}}"], "--tool a=x "),
    ],
)
def test_what_windows_has_not_is_told(arguments: list[str], words: str, folder: Path, tmp_path: Path) -> None:
    given = [argument.format(folder=folder) for argument in arguments]
    out = ["--out", tmp_path / "out"] if given[0] == "bench" else []
    ended = prunecert("win32", *given, *out)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"prunecert: {words}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
