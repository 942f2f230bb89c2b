"""Replay: `sat` only for inputs whose rounded values make the query true, in the box, in both text formats."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import load_text, relu_net

from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.witness import Witness, open_sessions, replay, round_into, witness_text
from toolkit.formats.vnnlib.read import parse_query

FLOAT32 = np.dtype(np.float32)


def v1(*assertions: str) -> str:
    declared = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    return "\n".join([*declared, *(f"(assert {assertion})" for assertion in assertions)])


def v2(*assertions: str, dtype: str = "float32") -> str:
    header = (
        f"(vnnlib-version <2.0>) (declare-network N (declare-input X {dtype} [1,2]) (declare-output Y {dtype} [1,2]))"
    )
    return "\n".join([header, *(f"(assert {assertion})" for assertion in assertions)])


BOX = ("(<= X_0 3.0)", "(>= X_0 1.0)", "(<= X_1 1.0)", "(>= X_1 0.0)")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(load_model(relu_net(tmp_path / "net.onnx")))


def test_replay_computes_the_outputs(session: Session) -> None:
    query = parse_query(v1(*BOX, "(>= Y_1 2.0)"))
    witness = replay({"": session}, query, np.array([3.0, 0.5]))
    assert isinstance(witness, Witness)
    assert [value.tolist() for value in witness.values] == [[[3.0, 0.5]], [[3.5, 2.5]]]
    assert witness.inputs.tolist() == [3.0, 0.5]
    assert witness.values[0].dtype == np.float32


@pytest.mark.parametrize("point", [[1.5, 0.5], [3.5, 0.0], [np.nan, 0.5], [np.inf, 0.0]])
def test_no_witness_outside_the_formula(session: Session, point: list[float]) -> None:
    query = parse_query(v1(*BOX, "(>= Y_1 2.0)"))
    assert replay({"": session}, query, np.array(point)) is None


@pytest.mark.parametrize(("comparison", "expected"), [(">=", True), (">", False), ("<=", True), ("<", False)])
def test_strict_stays_strict(session: Session, comparison: str, expected: bool) -> None:
    query = parse_query(v2("(== X[0,0] 2.0)", "(== X[0,1] 1.0)", f"({comparison} Y[0,0] 3.0)"))
    assert (replay({"N": session}, query, np.array([2.0, 1.0])) is not None) == expected


def test_rounding_stays_in_the_box(session: Session) -> None:
    """The float32 nearest to the corner 0.1 lies above it; the witness must not."""
    lower, upper = np.array([0.0, 0.0]), np.array([0.1, 0.7])
    query = parse_query(v1("(>= X_0 0.0)", "(<= X_0 0.1)", "(>= X_1 0.0)", "(<= X_1 0.7)", "(>= Y_0 0.5)"))
    assert float(np.float32(0.1)) > 0.1
    assert replay({"": session}, query, upper) is None
    witness = replay({"": session}, query, upper, lower, upper)
    assert witness is not None
    assert (witness.inputs <= upper).all()
    assert witness.inputs[0] == np.nextafter(np.float32(0.1), np.float32(0))


@pytest.mark.parametrize("text", [v1, v2])
def test_points_that_no_float_represents(session: Session, text: object) -> None:
    """An input fixed to 0.1 gets the float32 nearest to it: there is no better one, and the scorer agrees."""
    if text is v1:
        query = parse_query(v1("(>= X_0 0.1)", "(<= X_0 0.1)", "(>= X_1 0.0)", "(<= X_1 1.0)", "(>= Y_0 1.0)"))
    else:
        query = parse_query(v2("(== X[0,0] 0.1)", "(>= X[0,1] 0.0)", "(<= X[0,1] 1.0)", "(>= Y[0,0] 1.0)"))
    box = np.array([0.1, 0.0]), np.array([0.1, 1.0])
    witness = replay({"": session}, query, np.array([0.1, 0.95]), *box)
    assert witness is not None
    assert witness.inputs[0] == float(np.float32(0.1))
    assert replay({"": session}, query, np.array([0.1, 0.85]), *box) is None


def test_outputs_are_not_given_the_benefit_of_rounding(tmp_path: Path) -> None:
    """y = float32(0.1) is above 0.1, so `y <= 0.1` is false in real arithmetic."""
    text = "main (float[1,2] x) => (float[1,2] y) { z = Sub(x, x) y = Add(z, c) }"
    session = Session(load_text(tmp_path / "net.onnx", text, c=np.float32([0.1, 0.1])))
    for query in (parse_query(v1(*BOX, "(<= Y_0 0.1)")), parse_query(v2("(>= X[0,0] 0.0)", "(<= Y[0,0] 0.1)"))):
        assert replay({"": session}, query, np.array([1.0, 0.0])) is None
    query = parse_query(v2("(>= X[0,0] 0.0)", "(> Y[0,0] 0.1)"))
    assert replay({"": session}, query, np.array([1.0, 0.0])) is None  # false in float32


def test_infinite_outputs_are_no_witness(tmp_path: Path) -> None:
    session = Session(load_text(tmp_path / "net.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Reciprocal(x) }"))
    query = parse_query(v1("(>= X_0 0.0)", "(<= X_0 1.0)", "(>= X_1 1.0)", "(<= X_1 1.0)", "(>= Y_0 0.5)"))
    assert replay({"": session}, query, np.array([0.0, 1.0])) is None
    assert replay({"": session}, query, np.array([0.5, 1.0])) is not None


TWO = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [1,2]) (declare-output Y_f real [1,2]))
(declare-network g (equal-to f) (declare-input X_g real [1,2]) (declare-output Y_g real [1,2]))
(assert (<= X_f[0,0] X_g[0,0])) (assert (== X_f[0,1] X_g[0,1])) (assert (< Y_f[0,0] Y_g[0,0]))"""


def test_two_networks(tmp_path: Path) -> None:
    model = load_model(relu_net(tmp_path / "net.onnx"))
    query = parse_query(TWO)
    sessions = open_sessions({"f": model}, query)
    assert sessions["f"] is sessions["g"]
    witness = replay(sessions, query, np.array([1.0, 2.0, 3.0, 2.0]))
    assert witness is not None
    assert [value.reshape(-1).tolist() for value in witness.values] == [[1, 2], [3, 1], [3, 2], [5, 1]]
    assert replay(sessions, query, np.array([3.0, 2.0, 1.0, 2.0])) is None
    headers = [line for line in witness_text(witness).splitlines() if "[" in line]
    assert headers == [f"{name} real [1,2]" for name in ("X_f", "Y_f", "X_g", "Y_g")]


def test_hidden_tensors(tmp_path: Path) -> None:
    query = parse_query(
        '(vnnlib-version <2.0>) (declare-network N (declare-input X float32 [1,2]) (declare-hidden H float32 [1,4] "h")'
        " (declare-output Y float32 [1,2])) (assert (<= H[0,2] -3.0))"
    )
    sessions = open_sessions({"": load_model(relu_net(tmp_path / "net.onnx"))}, query)
    witness = replay(sessions, query, np.array([2.0, 5.0]))
    assert witness is not None
    assert witness.values[1].tolist() == [[7.0, 7.0, -3.0, 3.0]]
    assert replay(sessions, query, np.array([5.0, 2.0])) is None


def test_double_and_integer_types(tmp_path: Path) -> None:
    double = load_text(tmp_path / "d.onnx", "main (double[1,2] x) => (double[1,2] y) { y = Identity(x) }")
    witness = replay({"": Session(double)}, parse_query(v1(*BOX)), np.array([1.1, 0.1]))
    assert witness is not None
    assert witness.values[0].dtype == np.float64
    assert witness.inputs.tolist() == [1.1, 0.1]
    whole = load_text(tmp_path / "i.onnx", "main (int64[1,2] x) => (int64[1,2] y) { y = Add(x, x) }")
    query = parse_query(
        "(vnnlib-version <2.0>) (declare-network N (declare-input X int64 [1,2]) (declare-output Y int64 [1,2]))"
        "(assert (>= Y[0,0] 4))"
    )
    witness = replay({"": Session(whole)}, query, np.array([1.8, 0.2]), np.array([0.0, 0.0]), np.array([2.5, 0.0]))
    assert witness is not None
    assert witness_text(witness) == "X int64 [1,2]\n2\n0\nY int64 [1,2]\n4\n0\n"


def test_missing_and_unknown_networks(session: Session) -> None:
    with pytest.raises(InputError, match="--network g"):
        replay({"f": session}, parse_query(TWO.replace("(equal-to f) ", "")), np.zeros(4))
    with pytest.raises(InputError, match="no network 'h'"):
        replay({"h": session}, parse_query(TWO), np.zeros(4))


def test_text_of_version_1(session: Session) -> None:
    witness = replay({"": session}, parse_query(v1(*BOX)), np.array([1.1, 0.1]))
    assert witness is not None
    text = witness_text(witness)
    numbers = [float(number) for number in re.findall(r"\([XY]_\d ([^)]+)\)", text)]
    assert text.startswith("((X_0 1.1")
    assert text.endswith("))\n")
    assert numbers == [float(entry) for value in witness.values for entry in value.reshape(-1)]


FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=5))
def test_round_into_is_nearest_inside(rows: list[tuple[float, float, float]]) -> None:
    values, one, other = (np.array(column) for column in zip(*rows, strict=True))
    lower, upper = np.minimum(one, other), np.maximum(one, other)
    rounded, real = round_into(values, lower, upper, FLOAT32)
    assert ((lower <= real) & (real <= upper)).all()
    inside = (lower <= rounded.astype(float)) & (rounded.astype(float) <= upper)
    assert (real[inside] == rounded[inside]).all()
    # Where the rounded value is outside, no float32 is inside.
    least = lower.astype(np.float32)
    least = np.where(least < lower, np.nextafter(least, np.float32(np.inf)), least)
    assert (least[~inside].astype(float) > upper[~inside]).all()
    assert (np.abs(rounded - np.clip(values, lower, upper)) <= 2 * np.spacing(np.abs(rounded))).all()
