"""Networks without the probabilities at their end answer as they do with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from toolkit.formats.onnx.logits import without_probabilities
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.runtime import Session

POINTS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
ENDS = {
    "Softmax": (3, "p = Softmax(s)"),
    "Softmax of the last axis": (3, "q = Softmax<axis = 1>(s)\n p = Identity(q)"),
    "LogSoftmax": (3, "q = LogSoftmax<axis = -1>(s)\n p = Cast<to = 1>(q)"),
    "Sigmoid": (1, "p = Sigmoid(s)"),
    "a pair": (1, "q = Sigmoid(s)\n r = Sub(one, q)\n p = Concat<axis = 1>(r, q)"),
}


def _model(folder: Path, scores: int, end: str, outputs: int) -> OnnxModel:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        net (float[N, 3] x) => (float[N, {outputs}] p) <float[3, {scores}] w, float one = {{1}}, float two = {{2}}>
        {{ s = MatMul(x, w)
           {end} }}"""
    )
    weight = np.random.default_rng(1).normal(size=(3, scores)).astype(np.float32)
    proto.graph.initializer.insert(0, onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(proto, folder / "net.onnx")
    return load_model(folder / "net.onnx")


@pytest.mark.parametrize("name", ENDS)
def test_the_answer_stays(tmp_path: Path, name: str) -> None:
    scores, end = ENDS[name]
    outputs = 2 if name == "a pair" else scores
    model = _model(tmp_path, scores, end, outputs)
    short = without_probabilities(model)
    assert [node.op_type for node in short.proto.graph.node] == ["MatMul"]
    assert short.outputs[0].shape == (1, scores)
    onnx.checker.check_model(short.proto)
    [before], [after] = (Session(one).run_batch([POINTS]) for one in (model, short))
    if scores == 1:
        assert ((before[:, -1] > 0.5) == (after[:, 0] > 0)).all()
        assert len(set(after[:, 0] > 0)) == 2
    else:
        assert (before.argmax(1) == after.argmax(1)).all()
        assert not np.allclose(before, after)


@pytest.mark.parametrize(
    ("scores", "outputs", "end"),
    [
        (3, 3, "p = Relu(s)"),
        (3, 3, "p = Softmax<axis = 0>(s)"),
        (3, 3, "p = Sigmoid(s)"),
        (1, 2, "q = Sigmoid(s)\n r = Sub(two, q)\n p = Concat<axis = 1>(r, q)"),
        (1, 2, "q = Sigmoid(s)\n r = Sub(one, q)\n p = Concat<axis = 1>(q, r)"),
        (1, 2, "q = Relu(s)\n r = Sub(one, q)\n p = Concat<axis = 1>(r, q)"),
    ],
)
def test_other_ends_stay(tmp_path: Path, scores: int, outputs: int, end: str) -> None:
    model = _model(tmp_path, scores, end, outputs)
    assert without_probabilities(model) is model
