"""Batches for models whose files fix the leading dimension, where samples stay apart."""

from pathlib import Path

import numpy as np
import pytest
from small_models import load_text, relu_net

from toolkit.formats.onnx.batching import batch_session
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session

FLAT = """main (float[1,2,2] x) => (float[1,2] y) {{ {shape} flat = Reshape(x, shape)  y = MatMul(flat, w) }}"""
CONSTANT = "shape = Constant<value = int64[2] {1, -1}>()"
POINTS = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, -1.0]])


def test_a_fixed_dimension_is_opened(tmp_path: Path) -> None:
    session = batch_session(Session(load_model(relu_net(tmp_path / "net.onnx", "1")), hidden=["r"]))
    assert session.batched
    y, r = session.run_batch([np.array([[1.0, 2.0], [4.0, 1.0], [0.0, 0.0]])])
    assert y.tolist() == [[3.0, 1.0], [5.0, 3.0], [0.0, 0.0]]
    assert r.shape == (3, 4)


def test_an_open_one_is_left_as_it_is(tmp_path: Path) -> None:
    session = Session(load_model(relu_net(tmp_path / "net.onnx", "N")))
    assert batch_session(session) is session


@pytest.mark.parametrize("shape", [CONSTANT, ""])
def test_a_reshape_that_names_the_one(tmp_path: Path, shape: str) -> None:
    weights = {"w": np.arange(8, dtype=np.float32).reshape(4, 2)}
    if not shape:
        weights["shape"] = np.array([1, 4], dtype=np.int64)  # type: ignore[assignment]
    session = batch_session(Session(load_text(tmp_path / "net.onnx", FLAT.format(shape=shape), **weights)))
    assert session.batched
    (y,) = session.run_batch([POINTS])
    assert y.tolist() == (POINTS @ weights["w"]).tolist()


@pytest.mark.parametrize(
    "body",
    ["y = Softmax<axis = 0>(x)", "m = ReduceMax<keepdims = 1>(x) y = Add(x, m)", "y = Transpose<perm = [1, 0]>(x)"],
)
def test_samples_that_would_not_stay_apart(tmp_path: Path, body: str) -> None:
    shape = "2,1" if "Transpose" in body else "1,2"
    session = Session(load_text(tmp_path / "net.onnx", f"main (float[1,2] x) => (float[{shape}] y) {{ {body} }}"))
    assert batch_session(session) is session
    (y,) = session.run_batch([POINTS[:, :2]])
    assert np.array_equal(y, np.concatenate([session.run([point])[0].reshape(1, 2) for point in POINTS[:, :2]]))
