"""Operators of the ONNX standard at random: refused, or compiled and bounded as onnxruntime computes them, and as
`inspect` says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from operator_checks import fault_of
from random_operators import random_operator_case, schemas

from toolkit.errors import ToolkitError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.operators import check_operators
from toolkit.problem.compile import bind_module
from toolkit.problem.operator_survey import survey

PER_TEST = 8


def promised(path: Path) -> bool:
    """Whether a model is said to have bounds: by `inspect`, and by the records of its operators alone."""
    try:
        model = load_model(path)
        check_operators(model)
        return not survey(bind_module(model)).reason
    except ToolkitError:
        return False


@pytest.mark.parametrize("block", range(10))
def test_a_random_operator_is_refused_or_right(tmp_path: Path, block: int) -> None:
    supported = 0
    for seed in range(block * PER_TEST, (block + 1) * PER_TEST):
        rng = np.random.default_rng(seed)
        model, description = random_operator_case(rng)
        fault = fault_of(model, tmp_path, rng)
        assert not fault, f"seed {seed}: {description}: {fault}"
        assert promised(tmp_path / "net.onnx") == (fault == ""), f"seed {seed}: {description}"
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
