"""Warm a worker up: decide one tiny query, so that no instance pays for what torch loads on first use.

The first trace imports hundreds of modules of torch, and the first kernel on a GPU sets up the device: seconds that say
nothing about an instance.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from toolkit.result import Result
from toolkit.settings import Settings

SPEC = """(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (<= X_0 1.0))
(assert (>= X_0 -1.0))
(assert (<= Y_0 -0.25))
"""


def warm_up() -> Result:
    """Prove that ``relu(x) - relu(0.9 x)`` is above -0.25, which takes every phase up to branch and bound."""
    from toolkit.verify import verify_files

    with tempfile.TemporaryDirectory() as folder:
        network, spec = Path(folder) / "warmup.onnx", Path(folder) / "warmup.vnnlib"
        onnx.save(_network(), network)
        spec.write_text(SPEC, encoding="utf-8")
        return verify_files({"": network}, spec, Settings(timeout=60, strategy="relu"))


def _network() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("x", "y")]
    weights = [
        helper.make_tensor("copies", TensorProto.FLOAT, [1, 2], [1.0, 0.9]),
        helper.make_tensor("difference", TensorProto.FLOAT, [2, 1], [1.0, -1.0]),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "copies"], ["twice"]),
        helper.make_node("Relu", ["twice"], ["active"]),
        helper.make_node("MatMul", ["active", "difference"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "warmup", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
