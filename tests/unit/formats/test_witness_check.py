"""Witness files are accepted, credited and rejected as VNN-COMP's scorer of 2026 does."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import relu_net

from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.witness import replay, witness_text
from toolkit.formats.vnncomp.witness_check import Classification, classify, parse_witness
from toolkit.formats.vnnlib.read import parse_query

V1 = parse_query(
    "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)"
    "(assert (>= X_0 0.6)) (assert (<= X_0 1.0)) (assert (>= X_1 0.0)) (assert (<= X_1 0.0)) (assert (>= Y_1 0.6))"
)
V2 = parse_query(
    "(vnnlib-version <2.0>) (declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))"
    "(assert (>= X[0,0] 0.6)) (assert (<= X[0,0] 1.0)) (assert (== X[0,1] 0.0)) (assert (>= Y[0,1] 0.6))"
)
C = Classification


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return Session(load_model(relu_net(tmp_path_factory.mktemp("nets") / "net.onnx")))


def judge(session: Session, query: object, folder: Path, text: str | bytes, name: str = "w.counterexample") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return classify({"": session}, query, path)[0].value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((X_0  0.75)\n(X_1  0.0)\n(Y_0  0.75)\n(Y_1  0.75))", C.CORRECT),
        ("((X_0 0.75) (X_1 0) (Y_0 123) (Y_1 -5))", C.CORRECT),
        ("((X_0 0.75)\r\n(X_1 0.0))\r\n", C.CORRECT),
        ("( (X_0 0.75) (X_1 0.0) )", C.CORRECT),
        ("((X_0 0.75)(X_1 0.0))", C.CORRECT),
        ("((X_0 7.5e-1)\n(X_1 0.0))", C.CORRECT),
        ("((X_0 0.6)\n(X_1 0.0))", C.CORRECT),
        ("((X_0 0.75)\n(X_1 0.0))\n", C.CORRECT),
        ("((X_0 0.99)\n(X_1 0.00005))", C.CORRECT_UP_TO_TOLERANCE),
        ("((X_0 0.75)\n(X_1 -0.0002))", C.SPEC_NOT_VIOLATED),
        ("((X_0 0.5)\n(X_1 0.0))", C.SPEC_NOT_VIOLATED),
        ("((X_0 nan)\n(X_1 0.0))", C.SPEC_NOT_VIOLATED),
        ("sat\n((X_0 0.75)\n(X_1 0.0))", C.MALFORMED),
        ("((X_0\t0.75)\n(X_1 0.0))", C.MALFORMED),
        ("((X_1 0.0)\n(X_0 0.75))", C.MALFORMED),
        ("((Z_0 0.0)\n(X_0 0.75))", C.MALFORMED),
        ("((X_0 0.75 1)\n(X_1 0.0))", C.MALFORMED),
        ("((X_0 zero)\n(X_1 0.0))", C.MALFORMED),
        ("tensor([[0.75, 0.0]])", C.MALFORMED),
        (b"\xff\xfe\x00", C.MALFORMED),
        ("((X_0 0.75))", C.WRONG_SHAPE),
        ("((X_0 0.75) (X_1 0.0) (X_2 0.0))", C.WRONG_SHAPE),
        ("", C.MISSING),
    ],
)
def test_version_1(session: Session, tmp_path: Path, text: str, expected: Classification) -> None:
    assert judge(session, V1, tmp_path, text) == expected


GOOD = "X float32 [1,2]\n0.75\n0.0\nY float32 [1,2]\n0.75\n0.75\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, C.CORRECT),
        ("sat\n" + GOOD, C.CORRECT),
        (GOOD.replace("float32", "real"), C.CORRECT),
        (GOOD.replace("float32", "Real"), C.CORRECT),
        (GOOD.replace("[1,2]", "[1, 2]"), C.CORRECT),
        (GOOD.replace("\n", "\n\n"), C.CORRECT),
        (GOOD.replace("0.75\n0.75", "-3\n9e9"), C.CORRECT),
        (GOOD.replace("0.75\n0.0", "0.99995\n-0.00005"), C.CORRECT_UP_TO_TOLERANCE),
        (GOOD.replace("0.75\n0.0", "0.75\n0.0002"), C.SPEC_NOT_VIOLATED),
        (GOOD.replace("0.75\n0.0", "NaN\n0.0"), C.SPEC_NOT_VIOLATED),
        (GOOD.replace("[1,2]", "[2]"), C.MALFORMED),
        (GOOD.replace("float32", "float64"), C.MALFORMED),
        (GOOD.replace("Y float", "Z float"), C.MALFORMED),
        (GOOD.split("Y", maxsplit=1)[0], C.MALFORMED),
        (GOOD + "0.5\n", C.MALFORMED),
        (GOOD + "; done\n", C.MALFORMED),
        (GOOD.replace("0.75\n", "", 1), C.MALFORMED),
        (GOOD.replace("0.0\n", "zero\n"), C.MALFORMED),
        ("((X_0 0.75)\n(X_1 0.0))", C.MALFORMED),
        ("", C.MALFORMED),
        ("sat\n", C.MALFORMED),
    ],
)
def test_version_2(session: Session, tmp_path: Path, text: str, expected: Classification) -> None:
    assert judge(session, V2, tmp_path, text) == expected


def test_absent_and_compressed_files(session: Session, tmp_path: Path) -> None:
    assert classify({"": session}, V1, tmp_path / "none")[0] == C.MISSING
    packed = gzip.compress(b"((X_0 0.75)\n(X_1 0.0))")
    assert judge(session, V1, tmp_path, packed, "w.counterexample.gz") == C.CORRECT


def test_outputs_have_no_tolerance(session: Session, tmp_path: Path) -> None:
    strict = parse_query(
        "(vnnlib-version <2.0>) (declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))"
        "(assert (== X[0,1] 0.0)) (assert (> Y[0,1] 0.75))"
    )
    assert judge(session, strict, tmp_path, GOOD) == C.SPEC_NOT_VIOLATED


def test_unequal_inputs_need_a_distance_beyond_the_tolerance(session: Session, tmp_path: Path) -> None:
    query = parse_query(
        "(vnnlib-version <2.0>) (declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))"
        "(assert (!= X[0,0] X[0,1])) (assert (<= X[0,0] 0.75)) (assert (>= X[0,0] 0.76))"
    )
    assert judge(session, query, tmp_path, GOOD) == C.SPEC_NOT_VIOLATED


@pytest.mark.parametrize("query", [V1, V2])
def test_what_replay_accepts_is_correct(session: Session, tmp_path: Path, query: object) -> None:
    rng = np.random.default_rng(0)
    for point in rng.uniform([0.6, 0.0], [1.0, 0.0], size=(20, 2)):
        witness = replay({"": session}, query, point, np.array([0.6, 0.0]), np.array([1.0, 0.0]))  # type: ignore[arg-type]
        assert witness is not None
        text = witness_text(witness)
        assert judge(session, query, tmp_path, text) == C.CORRECT
        read = parse_witness(text, query)  # type: ignore[arg-type]
        for tensor, value in zip(witness.tensors, witness.values, strict=True):
            assert (read[tensor.name].reshape(-1) == value.reshape(-1)).all()


@given(st.text(alphabet="()XY_01.-e \nsatflo32[],", max_size=60))
def test_any_text_is_read_or_refused_with_one_line(text: str) -> None:
    for query in (V1, V2):
        try:
            parse_witness(text, query)
        except InputError as error:
            assert "\n" not in str(error)
