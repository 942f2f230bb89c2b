"""The onnxruntime wrapper: types, shapes, batches, hidden tensors, errors."""

from pathlib import Path

import numpy as np
import pytest
from small_models import load_text, relu_net

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session, close, expose


def test_run_casts_and_reshapes(tmp_path: Path) -> None:
    session = Session(load_model(relu_net(tmp_path / "net.onnx")))
    (y,) = session.run([np.array([2.0, 5.0])])
    assert y.dtype == np.float32
    assert y.tolist() == [[7.0, 3.0]]


def test_wrong_number_and_size(tmp_path: Path) -> None:
    session = Session(load_model(relu_net(tmp_path / "net.onnx")))
    with pytest.raises(InputError, match="takes 1 inputs, got 2"):
        session.run([np.zeros(2), np.zeros(2)])
    with pytest.raises(InputError, match="has 2 elements, got 3"):
        session.run([np.zeros(3)])


@pytest.mark.parametrize("batch", ["N", "1"])
def test_run_batch(tmp_path: Path, batch: str) -> None:
    session = Session(load_model(relu_net(tmp_path / "net.onnx", batch)))
    assert session.batched == (batch == "N")
    (y,) = session.run_batch([np.array([[1.0, 2.0], [4.0, 1.0], [0.0, 0.0]])])
    assert y.tolist() == [[3.0, 1.0], [5.0, 3.0], [0.0, 0.0]]


def test_open_batch_that_the_graph_does_not_keep(tmp_path: Path) -> None:
    text = """main (float[N,2] x) => (float[M,1] y) {
        shape = Constant<value = int64[2] {1, 2}>()  flat = Reshape(x, shape)
        axes = Constant<value = int64[1] {1}>()  y = ReduceSum(flat, axes)
    }"""
    session = Session(load_text(tmp_path / "net.onnx", text))
    (y,) = session.run_batch([np.array([[1.0, 2.0], [4.0, 1.0]])])
    assert y.tolist() == [[3.0], [5.0]]


def test_hidden_tensors(tmp_path: Path) -> None:
    model = load_model(relu_net(tmp_path / "net.onnx"))
    y, r, h = Session(model, hidden=["r", "h"]).run([np.array([2.0, 5.0])])
    assert h.tolist() == [[7.0, 7.0, -3.0, 3.0]]
    assert r.tolist() == [[7.0, 7.0, 0.0, 3.0]]
    assert y.tolist() == [[7.0, 3.0]]
    with pytest.raises(InputError, match="'nope'"):
        Session(model, hidden=["nope"])


def test_expose(tmp_path: Path) -> None:
    model = expose(load_model(relu_net(tmp_path / "net.onnx")), ["h"])
    assert [(info.name, info.dtype, info.shape) for info in model.outputs[1:]] == [("h", "float32", (1, 4))]
    assert Session(model).run([np.array([2.0, 5.0])])[1].tolist() == [[7.0, 7.0, -3.0, 3.0]]


def test_models_that_cannot_run(tmp_path: Path) -> None:
    model = load_text(tmp_path / "net.onnx", "main (float[2] x) => (float[2] y) { y = NoSuchOperator(x) }")
    with pytest.raises(UnsupportedError, match="NoSuchOperator") as error:
        Session(model)
    assert "\n" not in str(error.value)
    model = load_text(
        tmp_path / "net.onnx",
        "main (float[2] x, int64[1] s) => (float[N] y) { y = Reshape(x, s) }",
    )
    with pytest.raises(InputError, match="onnxruntime failed"):
        Session(model).run([np.zeros(2), np.array([3])])


def test_close() -> None:
    reference = np.array([1000.0, 1e-6], dtype=np.float32)
    assert close(reference + np.float32(1e-3), reference)
    assert not close(reference * 1.01, reference)
    assert not close(np.array([1.0, np.nan], dtype=np.float32), np.array([1.0, 0.0], dtype=np.float32))
    assert close(np.array([1, 2]), np.array([1, 2]))
    assert not close(np.array([1, 2]), np.array([1, 3]))
