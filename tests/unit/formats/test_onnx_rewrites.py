"""Operators that are rewritten on import compute what onnxruntime does, and are bounded from both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from programs import points_in
from small_models import load_text, node_model

from toolkit.bounds.crown import bound_features, crown_bounds
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.onnx.torch_import import check_import, import_module
from toolkit.problem.compile import bind_module
from toolkit.problem.operator_survey import survey
from toolkit.problem.program import build_program
from toolkit.problem.trace import trace


def _slope(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(-0.5, 1.5, shape).astype(np.float32)


def _pool(kernel: list[int], pads: list[int], **attributes: Any) -> onnx.NodeProto:
    if pads:
        attributes["pads"] = pads
    return onnx.helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=kernel, **attributes)


PRELU = onnx.helper.make_node("PRelu", ["x", "slope"], ["y"])
IMAGE, ODD = (1, 2, 4, 4), (1, 1, 5, 6)
MODELS: dict[str, tuple[onnx.NodeProto, tuple[int, ...], dict[str, np.ndarray]]] = {
    "slope of the last axis": (PRELU, (1, 4), {"slope": _slope(4)}),
    "slope of the last axis, as many channels": (PRELU, (1, 4, 2, 4), {"slope": _slope(4)}),
    "slope of each channel": (PRELU, IMAGE, {"slope": _slope(2, 1, 1)}),
    "slope of each channel, with a batch": (PRELU, IMAGE, {"slope": _slope(1, 2, 1, 1)}),
    "slope of each element": (PRELU, IMAGE, {"slope": _slope(2, 4, 4)}),
    "one slope": (PRELU, IMAGE, {"slope": _slope(1)}),
    "padded at the end": (_pool([2, 2], [0, 0, 1, 1], strides=[2, 2]), ODD, {}),
    "padded at the beginning": (_pool([2, 2], [1, 1, 0, 0], strides=[2, 2]), ODD, {}),
    "padded on one axis": (_pool([3, 2], [0, 0, 2, 0]), ODD, {}),
    "padded both ways": (_pool([3, 3], [1, 0, 2, 1], strides=[2, 1]), ODD, {}),
    "padded over half a window": (_pool([3, 3], [2, 2, 2, 2]), ODD, {}),
    "padding that no window reaches": (_pool([2, 2], [0, 0, 1, 1], strides=[3, 3]), ODD, {}),
    "padded, rounded up": (_pool([3, 3], [0, 1, 1, 0], strides=[2, 2], ceil_mode=1), (1, 1, 6, 6), {}),
    "padded, rounded up to a window that is dropped": (
        _pool([2, 2], [0, 0, 1, 1], strides=[4, 4], ceil_mode=1),
        (1, 1, 4, 4),
        {},
    ),
    "of one axis": (_pool([2], [], strides=[2]), (1, 2, 5), {}),
    "padded, of one axis": (_pool([3], [1, 2], strides=[2]), (1, 2, 5), {}),
    "padded and wide": (_pool([2, 3], [0, 1, 1, 1], strides=[2, 3]), (1, 2, 3, 7), {}),
    "padded automatically": (_pool([2, 3], [], auto_pad="SAME_UPPER", strides=[2, 2]), ODD, {}),
    "padded automatically below": (_pool([2, 2], [], auto_pad="SAME_LOWER"), ODD, {}),
    "padded evenly": (_pool([3, 3], [1, 1, 1, 1], strides=[2, 2]), ODD, {}),
}


def _model(path: Path, name: str) -> OnnxModel:
    node, shape, operands = MODELS[name]
    return node_model(path, node, 13, shape, **operands)


@pytest.mark.parametrize("name", MODELS)
def test_imported_as_onnxruntime_runs_it(tmp_path: Path, name: str) -> None:
    model = _model(tmp_path / "net.onnx", name)
    size = model.inputs[0].size
    module = import_module(model)
    # Negative inputs alone tell padding with zeros from padding that does not count.
    for low, high in ((-2.0, 2.0), (-2.0, -1.0)):
        assert check_import(model, module, (np.full(size, low), np.full(size, high)))


@pytest.mark.parametrize("name", MODELS)
def test_bounds_are_finite_and_contain_the_outputs(tmp_path: Path, name: str) -> None:
    model = _model(tmp_path / "net.onnx", name)
    session = Session(model)
    box = Bounds(torch.full((1, model.inputs[0].size), -2.0), torch.full((1, model.inputs[0].size), 1.0))
    points = points_in(box, 8).numpy()
    outputs = torch.from_numpy(np.stack([session.run_undeclared([point])[0].reshape(-1) for point in points]))
    for bounds in _output_bounds(model, box):
        assert bounds.lower.isfinite().all() and bounds.upper.isfinite().all()
        assert (bounds.lower <= outputs + 1e-5).all() and (outputs <= bounds.upper + 1e-5).all()


def _output_bounds(model: OnnxModel, box: Bounds) -> list[Bounds]:
    """Interval and backward bounds of all outputs."""
    module, shape = import_module(model), model.inputs[0].shape
    graph = trace(lambda x: module(x.reshape(shape))[0].reshape(-1), [torch.zeros(model.inputs[0].size)])
    program = build_program(graph, torch.float32)
    rows = torch.eye(program.features.size).unsqueeze(0)
    neurons = crown_bounds(program, box)
    lower, negated = (bound_features(program, sign * rows, box, neurons)[1] for sign in (1, -1))
    return [interval_bounds(program, box)[1], Bounds(lower, -negated)]


def test_prelu_has_one_neuron_an_element(tmp_path: Path) -> None:
    model = _model(tmp_path / "net.onnx", "slope of each element")
    module = import_module(model)
    program = build_program(trace(lambda x: module(x)[0], [torch.rand(model.inputs[0].shape)]))
    assert program.num_neurons == 32


def test_prelu_with_a_computed_slope_is_a_product(tmp_path: Path) -> None:
    text = "main (float[1,3] x, float[1,3] s) => (float[1,3] y) { y = PRelu(x, s) }"
    model = load_text(tmp_path / "net.onnx", text)
    assert check_import(model, import_module(model), (np.full(6, -1.0), np.full(6, 1.0)))
    [row] = survey(bind_module(model)).rows
    assert (row.op_type, row.handling, row.supported) == ("PRelu", "relaxation", True)


def test_padding_with_gaps_is_refused_when_it_is_bounded(tmp_path: Path) -> None:
    """A window with gaps may step over the edge, so that repeating it would be wrong."""
    node = _pool([2, 2], [1, 1, 0, 0], dilations=[2, 2])
    model = node_model(tmp_path / "net.onnx", node, 13, ODD)
    module = import_module(model)
    assert check_import(model, module)
    with pytest.raises(UnsupportedError, match="dilation"):
        trace(lambda x: module(x)[0], [torch.rand(ODD)])


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_padding_of_the_last_axis_alone(tmp_path: Path, mode: str) -> None:
    node = onnx.helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    pads = np.array([0, 0, 0, 1, 0, 0, 0, 2])
    model = node_model(tmp_path / "net.onnx", node, 13, IMAGE, pads=pads)
    assert check_import(model, import_module(model))
