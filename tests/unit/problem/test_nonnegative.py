"""What cannot be negative is known from the operators; where a value may be undefined nothing is proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import load_text

from toolkit.formats.onnx.torch_import import import_module
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.trace import trace
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

SETTINGS = Settings(timeout=2.0, device="cpu", attack_restarts=2, attack_steps=5)
NONNEGATIVE = {
    "sum of squares": "s = Mul(x, x) z = ReduceSum(s)",
    "norm": "z = ReduceSumSquare(x)",
    "variance": "m = ReduceMean(x) c = Sub(x, m) s = Pow(c, two) v = ReduceMean(s) z = Add(v, half)",
    "weighted squares": "s = Mul(x, x) h = Mul(half, s) q = Relu(x) z = Add(h, q)",
    "exponential": "e = Exp(x) z = Div(e, two)",
}
ANY = {
    "input": "z = Identity(x)",
    "difference": "s = Mul(x, x) z = Sub(s, half)",
    "negative weight": "s = Mul(x, x) n = Neg(half) z = Mul(s, n)",
    "matrix": "q = Relu(x) z = MatMul(q, w)",
}


@pytest.mark.parametrize("name", [*NONNEGATIVE, *ANY])
def test_roots_of_what_cannot_be_negative(tmp_path: Path, name: str) -> None:
    body = (NONNEGATIVE | ANY)[name]
    weights = {"half": np.float32(0.5), "two": np.float32(2), "w": np.eye(2, dtype=np.float32) - 0.5}
    text = f"main (float[2,2] x) => (float[?,?] y) {{ {body} r = Sqrt(z) l = Log(z) y = Add(r, l) }}"
    arrays = {key: np.asarray(value, dtype=np.float32) for key, value in weights.items()}
    module = import_module(load_text(tmp_path / "net.onnx", text, 13, **arrays))
    graph = trace(lambda x: module(x)[0], [torch.rand(2, 2)])
    found = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert ("prunecert.sqrt_from_zero.default" in found) == (name in NONNEGATIVE)
    assert ("prunecert.log_from_zero.default" in found) == (name in NONNEGATIVE)


PARTIAL = {
    "root": "s = Sqrt(x)",
    "logarithm": "s = Log(x)",
    "reciprocal": "s = Reciprocal(x)",
    "half power": "h = Constant<value_float = 0.5>() s = Pow(x, h)",
    "negative power": "h = Constant<value_float = -1.0>() s = Pow(x, h)",
}


@pytest.mark.parametrize("name", PARTIAL)
@pytest.mark.parametrize("low", [-0.5, 0.25])
def test_what_cancels_proves_nothing_where_it_may_be_undefined(tmp_path: Path, name: str, low: float) -> None:
    """y = x + s - s, which is not a number where s is none."""
    text = f"main (float[1,1] x) => (float[1,1] y) {{ {PARTIAL[name]} d = Sub(s, s) y = Add(x, d) }}"
    load_text(tmp_path / "net.onnx", text)
    query = parse_query(
        f"(declare-const X_0 Real) (declare-const Y_0 Real)"
        f"(assert (>= X_0 {low})) (assert (<= X_0 1.0)) (assert (>= Y_0 2.0))"
    )
    result = verify(load_networks({"": tmp_path / "net.onnx"}), query, SETTINGS)
    assert (result.verdict == Verdict.UNSAT) == (low > 0), result


def test_distances_are_still_proved(tmp_path: Path) -> None:
    """The root of a sum of squares whose bounds reach zero is at least zero."""
    load_text(tmp_path / "net.onnx", "main (float[1,2] x) => (float[1,1] y) { y = ReduceL2<axes = [1]>(x) }")
    text = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)"
    text += "".join(f"(assert (>= X_{k} -1.0)) (assert (<= X_{k} 1.0))" for k in range(2)) + "(assert (<= Y_0 -0.1))"
    result = verify(load_networks({"": tmp_path / "net.onnx"}), parse_query(text), SETTINGS)
    assert result.verdict == Verdict.UNSAT
