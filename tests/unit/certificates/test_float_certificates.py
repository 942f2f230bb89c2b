"""Answers about every evaluation of a network in floating point, with the certificates that a search writes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_networks import NetworkBuilder, save
from test_written_certificates import kinds, posed, written

from toolkit.certificates.quick_certificate import certificate
from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import compile_cases
from toolkit.proof.check import CHECKED, check
from toolkit.proof.stream import RecordKind
from toolkit.quick_proof import quick_proof
from toolkit.result import Verdict
from toolkit.run.clock import Clock


def absorbing(folder: Path, large: float) -> Path:
    """y = relu(x0 + x1 + M) - M with a large M."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    there = builder.op("Gemm", "x", builder.constant(np.ones((2, 1))), builder.constant(np.array([large])))
    back = builder.op("Gemm", builder.op("Relu", there), builder.constant(np.ones((1, 1))),
                      builder.constant(np.array([-large])))  # fmt: skip
    return save(builder.model(back, 1), folder)


def question(folder: Path, threshold: float, version: str = "1") -> Path:
    """Whether y is at most so much where x is in [1, 2]."""
    path = folder / f"{threshold}.vnnlib"
    if version == "1":
        names = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0"))
        ends = "".join(f"(assert (>= X_{i} 1.0))(assert (<= X_{i} 2.0))" for i in (0, 1))
        path.write_text(f"{names}{ends}(assert (<= Y_0 {threshold}))")
    else:
        ends = "".join(f"(assert (>= X[0,{i}] 1.0))\n(assert (<= X[0,{i}] 2.0))\n" for i in (0, 1))
        path.write_text(f"(vnnlib-version <2.0>)\n(declare-network f (declare-input X float32 [1,2])"
                        f" (declare-output Y float32 [1,1]))\n{ends}(assert (<= Y[0,0] {threshold}))\n")  # fmt: skip
    return path


@pytest.mark.parametrize("version", ["1", "2.0"])
def test_it_is_asked_for_or_declared(tmp_path: Path, version: str) -> None:
    """y is 2 to 4; with M = 2^20 an evaluation is within an eighth or two of that."""
    network, option = absorbing(tmp_path, 2.0**20), {"float_execution": True} if version == "1" else {}
    far, near = question(tmp_path, 1.0, version), question(tmp_path, 1.9, version)
    result, path = written(network, far, certified=True, **option)
    assert result.verdict is Verdict.UNSAT and result.statistics.certificate == CHECKED
    assert check(network, far, path).floats and kinds(path)[RecordKind.FLOATS] == 1
    result, _ = written(network, near, certified=True, attack_restarts=0, **option)
    assert result.verdict is Verdict.UNKNOWN and "rounding" in result.reason
    real = {"real_semantics": True} if version == "2.0" else {}
    result, path = written(network, near, certified=True, **real)
    assert result.verdict is Verdict.UNSAT and not check(network, near, path).floats


def test_what_an_evaluation_violates_is_never_unsat(tmp_path: Path) -> None:
    """With M = 1e8 nothing is left of x, and y is 0."""
    network, specification = absorbing(tmp_path, 1e8), question(tmp_path, 0.5)
    for certified in (False, True):
        result, _ = written(network, specification, float_execution=True, certified=certified)
        assert result.verdict is not Verdict.UNSAT


@pytest.mark.parametrize("family", ["mlp", "residual", "convolutional"])
def test_the_checker_accepts_searches_with_room(tmp_path: Path, family: str) -> None:
    """The search leaves as much room as the checker asks for."""
    accepted = 0
    for seed in range(3):
        network, specification = posed(tmp_path, family, seed)
        result, path = written(network, specification, float_execution=True)
        if result.verdict is Verdict.UNSAT:
            outcome = check(network, specification, path)
            assert not result.reason and outcome.status == CHECKED and outcome.floats, outcome.message
            accepted += 1
    assert accepted >= 1


def test_what_has_no_bound_is_said(tmp_path: Path) -> None:
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    network = save(builder.model(builder.op("Sigmoid", builder.dense("x", 2, 1)), 1), tmp_path)
    result, _ = written(network, question(tmp_path, -0.5), float_execution=True, timeout=5.0)
    assert result.verdict is Verdict.UNKNOWN and "sigmoid" in result.reason


def test_semantics_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--float-execution"):
        written(absorbing(tmp_path, 1.0), question(tmp_path, 1.0), float_execution=True, real_semantics=True)


def test_quick_proofs_leave_the_room(tmp_path: Path) -> None:
    """What is proved before torch is imported, and its certificate: far from what rounding can change, and near."""
    network = absorbing(tmp_path, 2.0**20)
    for threshold, far in ((1.0, True), (1.9, False)):
        specification, path = question(tmp_path, threshold), tmp_path / "quick"
        query = read_query(specification)
        cases, clock = compile_cases(query), Clock.started(60.0)
        assert quick_proof(query, cases, load_model(network), clock) is not None
        assert (quick_proof(query, cases, load_model(network), clock, floats=True) is not None) == far
        assert certificate(network, specification, 60.0) is not None
        found = certificate(network, specification, 60.0, floats=True)
        assert (found is not None) == far
        if found is not None:
            path.write_bytes(found)
            outcome = check(network, specification, path)
            assert outcome.status == CHECKED and outcome.floats
