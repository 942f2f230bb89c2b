"""Without its last softmax a network gives the scores, in the order of what the softmax makes of them."""

from pathlib import Path

import numpy as np
import pytest
from small_models import load_text

from toolkit.formats.onnx.runtime import Session
from toolkit.formats.onnx.scores import without_softmax

TEXT = "main (float[{shape}] x) => (float[{shape}] y) {{ h = Neg(x) {last} }}"


@pytest.mark.parametrize(
    ("last", "shape", "opset"),
    [
        ("y = Softmax(h)", "1,4", 13),
        ("y = Softmax<axis = 1>(h)", "1,4", 11),
        ("y = Softmax<axis = 1>(h)", "1,2,2", 11),
        ("y = LogSoftmax<axis = -1>(h)", "1,4", 13),
    ],
)
def test_the_scores_are_in_the_same_order(last: str, shape: str, opset: int, tmp_path: Path) -> None:
    model = load_text(tmp_path / "net.onnx", TEXT.format(shape=shape, last=last), opset)
    scores = without_softmax(model)
    assert scores is not None
    assert [node.op_type for node in scores.proto.graph.node] == ["Neg"]
    point = np.array([0.3, -1.0, 2.0, 0.5])
    (before,) = Session(model).run([point])
    (after,) = Session(scores).run([point])
    assert after.flatten().tolist() == pytest.approx((-point).tolist())
    assert after.shape == before.shape
    assert (after.argsort(axis=None) == before.argsort(axis=None)).all()


@pytest.mark.parametrize(
    ("last", "shape"),
    [
        ("y = Relu(h)", "1,4"),
        ("y = Softmax<axis = 0>(h)", "1,4"),
        ("y = Softmax<axis = 2>(h)", "1,2,2"),
        ("s = Softmax(h) y = Neg(s)", "1,4"),
    ],
)
def test_other_ends_are_left(last: str, shape: str, tmp_path: Path) -> None:
    assert without_softmax(load_text(tmp_path / "net.onnx", TEXT.format(shape=shape, last=last), 13)) is None
