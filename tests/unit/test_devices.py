"""GPUs by name, dealt in turn, without torch and without any GPU."""

from __future__ import annotations

import os

import pytest

from toolkit.devices import take_gpu, visible_gpus


@pytest.mark.parametrize(
    ("told", "names"), [("", []), ("0", ["0"]), ("0,3", ["0", "3"]), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])]
)
def test_names_of_the_environment(monkeypatch: pytest.MonkeyPatch, told: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible_gpus() == names


@pytest.mark.parametrize(
    ("told", "index", "left"), [("0,3", 0, "0"), ("0,3", 3, "3"), ("7", 1, "7"), ("", 1, ""), ("a,b,c", 2, "c")]
)
def test_gpus_are_dealt_in_turn(monkeypatch: pytest.MonkeyPatch, told: str, index: int, left: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    take_gpu(index)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left
