"""Runs that are killed (SIGKILL) in training, in pruning rounds and in verification end like one that was not."""

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
seeds = [0, 1]
[data]
name = "digits"
train = 200
[models.net]
architecture = "digits_conv"
channels = [4, 6]
hidden = [12]
[training]
loss = { name = "pgd", steps = 2 }
epochs = 8
batch = 50
optimizer = "adam"
learning_rate = 0.01
ramp = { start = 2, length = 4 }
milestones = [6]
checkpoint_seconds = 0
[[chains]]
name = "hydra"
model = "net"
method = { name = "hydra", epochs = 8 }
densities = [0.5]
controls = ["retrained", "random_masks"]
[specification]
epsilon = 0.03
images = 4
[verification]
timeout = 1000
passes = 100
attack_restarts = 2
attack_steps = 10
"""
NETWORKS, INSTANCES = 2 * 4, 2 * 4 * 4
PATIENCE = 600
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


def table(out: Path, name: str) -> list[dict[str, str]]:
    lines = csv.DictReader((out / name).read_text().splitlines())
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]


def answers(out: Path) -> dict[tuple[str, str], str]:
    return {(record.onnx, record.vnnlib): str(record.verdict) for record in journal.read(out / journal.NAME)}


def answered(out: Path) -> int:
    return len(journal.read(out / journal.NAME))


@pytest.mark.slow
def test_killed_runs_end_like_one_that_was_not(tmp_path: Path) -> None:
    """One is killed in training, scoring and verification, one between networks and twice in verification."""
    recipe, whole, first, second = (tmp_path / name for name in ("killed.toml", "whole", "first", "second"))
    recipe.write_text(RECIPE)
    assert run(["bench", str(recipe), "--out", str(whole), "--executor", "in-process"]) == 0

    cache = first / "cache"
    kill_when(recipe, first, lambda: count(cache, ".part") == 1)
    assert (count(cache, ".part"), count(cache, ".pt")) == (1, 0)
    kill_when(recipe, first, lambda: count(cache, ".scores") == 1)
    assert (count(cache, ".scores"), count(cache, ".pt"), count(cache, ".json")) == (1, 1, 1)
    kill_when(recipe, first, lambda: answered(first) > 0)
    assert 0 < answered(first) < INSTANCES

    cache = second / "cache"
    kill_when(recipe, second, lambda: count(cache, ".json") == 5)
    assert 5 <= count(cache, ".json") < NETWORKS
    assert not (second / "models.json").exists()
    kill_when(recipe, second, lambda: answered(second) > 0)
    known = answered(second)
    kill_when(recipe, second, lambda: answered(second) > known)
    assert known < answered(second) < INSTANCES

    for out in (first, second):
        assert start(recipe, out).wait(timeout=PATIENCE) == 0
        assert contents(out / "benchmark") == contents(whole / "benchmark")
        for name in ("summary.csv", "seeds.csv", "stability.csv", "unstable.csv"):
            assert table(out, name) == table(whole, name)
        assert answers(out) == answers(whole)
        assert len(answers(out)) == INSTANCES
        assert {path.suffix for path in (out / "cache").iterdir()} == {".pt", ".json"}


@pytest.mark.slow
def test_finished_networks_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without its list of networks, as after a kill, or with other limits takes them from the cache."""
    import toolkit.experiments.study_networks as networks

    recipe, out = tmp_path / "killed.toml", tmp_path / "out"
    recipe.write_text(RECIPE.replace("seeds = [0, 1]", "seed = 3").replace("epochs = 8", "epochs = 1"))
    arguments = ["bench", str(recipe), "--out", str(out), "--executor", "in-process"]
    assert run(arguments) == 0
    before, rows = contents(out / "benchmark"), table(out, "summary.csv")
    exported: list[str] = []
    really = networks._export
    monkeypatch.setattr(networks, "_export", lambda name, *others: exported.append(name) or really(name, *others))
    (out / "models.json").unlink()
    assert run(arguments) == 0
    assert exported == []
    assert (contents(out / "benchmark"), table(out, "summary.csv")) == (before, rows)
    recipe.write_text(recipe.read_text().replace("passes = 100", "passes = 101"))
    assert run(arguments) == 0
    assert exported == []
    changed = out / "benchmark" / "onnx" / "hydra-01.onnx"
    changed.write_bytes(changed.read_bytes()[:-1])
    (out / "models.json").unlink()
    assert run(arguments) == 0
    assert exported == ["hydra-01"]
    assert contents(out / "benchmark") == before
    recipe.write_text(recipe.read_text().replace("epsilon = 0.03", "epsilon = 0.04"))
    assert run(arguments) == 0
    assert sorted(exported[1:]) == ["hydra-01", "hydra-01-random_masks", "hydra-01-retrained", "net-dense"]
