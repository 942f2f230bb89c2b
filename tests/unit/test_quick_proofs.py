"""Quick proofs are positive finite bounds for every case on every box, and end in time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_models import load_text, relu_net, save_text

import toolkit
from toolkit.certificates.quick_certificate import certificate
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.proof.check import main
from toolkit.quick_proof import TooLarge, quick_proof, read_question, refute
from toolkit.run.clock import Clock

BOX = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 -1.0)) (assert (<= X_0 1.0)) (assert (>= X_1 -1.0)) (assert (<= X_1 1.0))"""


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    """y_0 = |x_0 + x_1|, y_1 = |x_0 - x_1|: their sum is at most 2."""
    return load_model(relu_net(tmp_path / "net.onnx"))


def light(model: OnnxModel, condition: str, seconds: float = 20.0) -> bool:
    query = parse_query(f"{BOX} (assert {condition})")
    return quick_proof(query, compile_cases(query), model, Clock.started(seconds)) is not None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(>= Y_0 2.01)", True),
        ("(>= Y_0 1.99)", False),
        ("(<= (+ Y_0 Y_1) -0.01)", True),
        ("(>= (+ Y_0 Y_1) 2.1)", True),
        ("(>= (+ Y_0 Y_1) 1.9)", False),
        ("(or (>= Y_0 2.1) (>= Y_1 2.1))", True),
        ("(or (>= Y_0 2.1) (>= Y_1 1.9))", False),
        ("(and (>= Y_0 1.8) (>= Y_1 1.8))", True),
        ("(or (and (<= X_0 0.0) (>= Y_0 2.1)) (and (>= X_0 0.5) (<= X_1 0.2) (>= (- Y_0 Y_1) 1.0)))", True),
        ("(or (and (<= X_0 0.0) (>= Y_0 2.1)) (and (>= X_0 0.5) (<= X_1 0.8) (>= (- Y_0 Y_1) 1.0)))", False),
        ("(and (>= Y_0 X_0) (<= Y_0 (- X_1 1.9)))", True),
        ("(<= X_0 0.0)", False),
    ],
)
def test_what_is_proved(model: OnnxModel, condition: str, expected: bool) -> None:
    assert light(model, condition, 20.0 if expected else 0.3) is expected


def test_a_bound_of_zero_is_no_proof(model: OnnxModel) -> None:
    assert not light(model, "(< (+ Y_0 Y_1) 0.0)", 0.3)


def test_products_are_left_to_others(model: OnnxModel) -> None:
    assert not light(model, "(>= (* X_0 Y_0) 5.0)")


def test_operators_that_are_not_read_are_left_to_others(tmp_path: Path) -> None:
    model = load_text(tmp_path / "net.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Softmax(x) }")
    assert not light(model, "(>= Y_0 1.5)")


def test_large_networks_are_left_to_others(tmp_path: Path, tune: Callable[..., None]) -> None:
    text = "main (float[1,2] x) => (float[1,2] y) { h = MatMul(x, v) r = Relu(h) y = MatMul(r, w) }"
    wide = np.ones((2, 3000), dtype=np.float32)
    model = load_text(tmp_path / "net.onnx", text, v=wide, w=wide.T.copy())
    query = parse_query(f"{BOX} (assert (>= Y_0 1e9))")
    question = read_question(query, compile_cases(query), model)
    tune(quick_proof={"most_multiplications": 100_000})
    with pytest.raises(TooLarge, match="large network"):
        refute(question, Clock.started(20))


def test_many_open_neurons_are_left_to_others(model: OnnxModel, tune: Callable[..., None]) -> None:
    """Unless they are affordable, passes are not begun."""
    assert light(model, "(>= Y_0 2.01)")
    tune(quick_proof={"most_multiplications": 10})
    assert not light(model, "(>= Y_0 2.01)")


def test_weights_that_are_not_finite_prove_nothing(tmp_path: Path) -> None:
    text = "main (float[1,2] x) => (float[1,2] y) { h = MatMul(x, w) y = Relu(h) }"
    for weight in (np.inf, np.nan):
        model = load_text(tmp_path / "net.onnx", text, w=np.full((2, 2), weight, dtype=np.float32))
        with np.errstate(all="ignore"):
            assert not light(model, "(<= Y_0 -1.0)")


def test_it_ends_in_time(model: OnnxModel) -> None:
    began = time.perf_counter()
    assert not light(model, "(<= (+ Y_0 Y_1) 0.00000001)", 0.2)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh"])
def test_a_small_network_is_decided_before_torch_is_imported(activation: str, tmp_path: Path) -> None:
    """y = f(x_0 + x_1) - f(x_0 - x_1), twice: at most 4 whatever f."""
    text = f"main (float[1,2] x) => (float[1,2] y) {{ h = MatMul(x, v) r = {activation}(h) y = MatMul(r, w) }}"
    first, second = np.array([[1, 1], [1, -1]], dtype=np.float32), np.array([[1, 1], [-1, -1]], dtype=np.float32)
    network = save_text(tmp_path / "net.onnx", text, v=first, w=second)
    (tmp_path / "query.vnnlib").write_text(f"{BOX} (assert (>= Y_0 4.01))")
    code = f"""import sys
from pathlib import Path
from toolkit.settings import Settings
from toolkit.verify import load_networks, read_query, verify
query = read_query(Path({str(tmp_path / "query.vnnlib")!r}))
result = verify(load_networks({{"": Path({str(network)!r})}}), query, Settings(device="cpu"))
print(result.verdict.value, result.statistics.decided_by, "torch" in sys.modules)"""
    root = str(Path(toolkit.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == ["unsat", "light-crown", "False"], done.stderr


@pytest.mark.parametrize(
    "condition",
    [
        "(>= Y_0 2.01)",
        "(>= (+ Y_0 Y_1) 2.1)",
        "(or (>= Y_0 2.1) (and (>= Y_1 2.1) (<= X_0 0.5)))",
        "(or (and (<= X_0 0.0) (>= Y_0 2.1)) (and (>= X_0 0.5) (<= X_1 0.2) (>= (- Y_0 Y_1) 1.0)) (<= X_1 -2.0))",
        "(<= X_0 -2.0)",
    ],
)
def test_a_quick_proof_has_a_certificate(
    condition: str, model: OnnxModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the checker says of it, and that it does so of another certificate only where that is about this query."""
    spec, proof = tmp_path / "query.vnnlib", tmp_path / "proof"
    spec.write_text(f"{BOX} (assert {condition})")
    data = certificate(model.path, spec, 20.0)
    assert data is not None
    proof.write_bytes(data)
    assert main([str(model.path), str(spec), str(proof)]) == 0
    assert capsys.readouterr().out.startswith("checked")
    spec.write_text(f"{BOX} (assert (>= Y_0 2.02))")
    assert main([str(model.path), str(spec), str(proof)]) == 1


def test_what_is_open_has_no_certificate(model: OnnxModel, tmp_path: Path) -> None:
    (tmp_path / "query.vnnlib").write_text(f"{BOX} (assert (>= Y_0 1.99))")
    assert certificate(model.path, tmp_path / "query.vnnlib", 0.3) is None
