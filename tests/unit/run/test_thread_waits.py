"""Commands limit how long waiting threads of OpenMP spin, unless the user's environment does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from toolkit.run.thread_waits import CHOSEN_BY, spin_briefly
from toolkit.tuning import tuned


def test_threads_spin_briefly_unless_a_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == str(tuned().processes.spin_loops)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    spin_briefly()
    assert os.environ.pop("GOMP_SPINCOUNT") == "7"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_command_says_it_before_anything_with_threads_is_imported() -> None:
    code = """
import sys
import toolkit.cli as cli
cli.spin_briefly = lambda: print(sorted({"numpy", "torch"} & sys.modules.keys()))
cli.main(["--name"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "prunecert"]
