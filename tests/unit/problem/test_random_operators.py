"""Operators of the ONNX standard at random: refused, or compiled and bounded as onnxruntime computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from operator_checks import fault_of
from random_operators import random_operator_case, schemas

PER_TEST = 8


@pytest.mark.parametrize("block", range(10))
def test_a_random_operator_is_refused_or_right(tmp_path: Path, block: int) -> None:
    supported = 0
    for seed in range(block * PER_TEST, (block + 1) * PER_TEST):
        rng = np.random.default_rng(seed)
        model, description = random_operator_case(rng)
        fault = fault_of(model, tmp_path, rng)
        assert not fault, f"seed {seed}: {description}: {fault}"
        supported += fault == ""
    assert supported  # most of what is drawn is supported


def test_operators_are_drawn_from_the_whole_standard() -> None:
    assert len(schemas()) > 150
    drawn = {random_operator_case(np.random.default_rng(seed))[1].split("-")[0] for seed in range(40)}
    assert len(drawn) > 15


def test_a_wrong_program_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generators = (np.random.default_rng(seed) for seed in range(20))
    model, rng = next(
        (model, rng)
        for rng in generators
        for model, _ in [random_operator_case(rng)]
        if fault_of(model, tmp_path, rng) == ""
    )
    monkeypatch.setattr(
        "operator_checks.evaluate", lambda program, points: np.full((len(points), program.features.size), 1e9)
    )
    assert fault_of(model, tmp_path, rng)
