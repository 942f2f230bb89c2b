"""A run that is killed (SIGKILL) in training, in a pruning round and in verification ends like one that was not."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from toolkit.bench import journal
from toolkit.cli import run

ROOT = Path(__file__).parents[2]
RECIPE = """
name = "killed"
[data]
name = "digits"
train = 300
[models.net]
architecture = "digits_conv"
channels = [4, 6]
hidden = [12]
[training]
loss = { name = "pgd", steps = 2 }
epochs = 40
batch = 50
optimizer = "adam"
learning_rate = 0.01
ramp = { start = 2, length = 10 }
milestones = [20]
checkpoint_seconds = 0
[[chains]]
name = "hydra"
model = "net"
method = { name = "hydra", epochs = 20 }
densities = [0.5]
[specification]
epsilon = 0.03
images = 6
[verification]
timeout = 20
"""
PATIENCE = 120
"""Seconds until a run must have come to the place where it is killed."""


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "run_benchmark.py"), str(recipe), "--out", str(out)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as many as here, so that sums come out alike
    return subprocess.Popen(
        [*command, "--executor", "in-process"], cwd=ROOT, env=os.environ | threads, stdout=subprocess.DEVNULL
    )


def kill_when(recipe: Path, out: Path, reached: Callable[[], bool]) -> None:
    process = start(recipe, out)
    end = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -9


def count(folder: Path, suffix: str) -> int:
    return len(list(folder.glob(f"*{suffix}")))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(out: Path) -> list[dict[str, str]]:
    lines = csv.DictReader((out / "summary.csv").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "mean_seconds"} for line in lines]


@pytest.mark.slow
def test_a_run_killed_three_times_ends_like_one_that_was_not(tmp_path: Path) -> None:
    recipe, whole, killed = tmp_path / "killed.toml", tmp_path / "whole", tmp_path / "killed"
    recipe.write_text(RECIPE)
    assert run(["bench", str(recipe), "--out", str(whole), "--executor", "in-process"]) == 0
    cache = killed / "cache"

    kill_when(recipe, killed, lambda: count(cache, ".part") == 1)
    assert (count(cache, ".part"), count(cache, ".pt")) == (1, 0)

    kill_when(recipe, killed, lambda: count(cache, ".pt") == 1)
    assert count(cache, ".pt") == 1
    assert not (killed / "models.json").exists()

    kill_when(recipe, killed, lambda: len(journal.read(killed / journal.NAME)) > 0)
    assert (killed / "models.json").exists()
    assert 0 < len(journal.read(killed / journal.NAME)) < 12

    assert start(recipe, killed).wait(timeout=PATIENCE) == 0
    assert contents(killed / "benchmark") == contents(whole / "benchmark")
    assert table(killed) == table(whole)
    verdicts = [{(r.onnx, r.vnnlib): r.verdict for r in journal.read(out / journal.NAME)} for out in (killed, whole)]
    assert verdicts[0] == verdicts[1]
    assert {path.suffix for path in cache.iterdir()} == {".pt"}
