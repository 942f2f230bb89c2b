"""Which model stands for which network, and that declarations and models fit."""

from pathlib import Path

import pytest
from small_models import load_text, relu_net

from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.vnncomp.model_binding import bind, check_binding
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import parse_query


def query(*networks: str) -> Query:
    """Networks named f, g... given the rest of their declarations; each with inputs and outputs of two elements."""
    declared = [
        f"(declare-network {name} {relation} (declare-input X{name} float32 [1,2])"
        f" (declare-output Y{name} float32 [1,2]))"
        for name, relation in zip("fgh", networks, strict=False)
    ]
    return parse_query(f"(vnnlib-version <2.0>) {' '.join(declared)} (assert (>= Xf[0,0] 0.0))")


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return load_model(relu_net(tmp_path / "net.onnx"))


def test_names() -> None:
    assert bind(query(""), {"": 1}) == {"f": 1}
    assert bind(query(""), {"f": 1}) == {"f": 1}
    assert bind(query("", "(equal-to f)"), {"": 1}) == {"f": 1, "g": 1}
    assert bind(query("", "(equal-to f)"), {"f": 1, "g": 2}) == {"f": 1, "g": 2}
    assert bind(query("", "(isomorphic-to f)"), {"f": 1, "g": 2}) == {"f": 1, "g": 2}


@pytest.mark.parametrize(
    ("networks", "given", "what"),
    [
        (("", ""), {"": 1}, "NAME=PATH"),
        (("", ""), {"f": 1}, "--network g=PATH"),
        (("", "(isomorphic-to f)"), {"f": 1}, "--network g=PATH"),
        (("",), {"f": 1, "h": 2}, "no network 'h'"),
        (("",), {}, "--network f=PATH"),
    ],
)
def test_too_few_and_too_many(networks: tuple[str, ...], given: dict[str, int], what: str) -> None:
    with pytest.raises(InputError, match=what):
        bind(query(*networks), given)


def test_what_fits(model: OnnxModel) -> None:
    check_binding(query(""), {"f": model})
    check_binding(query("", "(equal-to f)"), {"f": model, "g": model})
    declared = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)"
    check_binding(parse_query(f"{declared} (assert (>= X_0 0.0))"), {"N": model})


def test_integers_are_real_numbers_as_outputs_only(tmp_path: Path) -> None:
    declared = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)"
    counts = load_text(
        tmp_path / "counts.onnx", "main (float[1,2] x) => (int64[1] y) { y = ArgMax<axis=1,keepdims=0>(x) }"
    )
    check_binding(parse_query(f"{declared} (assert (>= X_0 0.0))"), {"N": counts})
    takes = load_text(
        tmp_path / "takes.onnx", "main (int64[1,2] x) => (int64[1] y) { y = ArgMax<axis=1,keepdims=0>(x) }"
    )
    with pytest.raises(InputError, match="element type int64"):
        check_binding(parse_query(f"{declared} (assert (>= X_0 0.0))"), {"N": takes})


@pytest.mark.parametrize(
    ("graph", "what"),
    [
        ("main (float[1,3] x) => (float[1,3] y) { y = Relu(x) }", r"input 'x' has shape \[1, 3\]"),
        ("main (float[2,1] x) => (float[1,2] y) { y = Transpose(x) }", None),
        ("main (float[1,2] x) => (float[1,1] y) { y = ReduceSum(x) }", r"output 'y' has shape \[1, 1\]"),
        ("main (double[1,2] x) => (double[1,2] y) { y = Relu(x) }", "element type float64"),
        ("main (float[1,2] x, float[1,2] z) => (float[1,2] y) { y = Add(x, z) }", "2 inputs"),
        ("main (float[1,2] x) => (float[1,2] y, float[1,2] z) { y = Relu(x) z = Relu(y) }", "2 outputs"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, graph: str, what: str | None) -> None:
    model = load_text(tmp_path / "net.onnx", graph)
    if what is None:
        check_binding(query(""), {"f": model})
        return
    with pytest.raises(InputError, match=what) as error:
        check_binding(query(""), {"f": model})
    assert "\n" not in str(error.value)


def test_equal_networks_share_one_model(tmp_path: Path, model: OnnxModel) -> None:
    other = load_text(tmp_path / "other.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Relu(x) }")
    with pytest.raises(InputError, match="equal-to"):
        check_binding(query("", "(equal-to f)"), {"f": model, "g": other})


def test_what_version_1_cannot_say_is_told(tmp_path: Path) -> None:
    graph = "main (float[1,1] a, float[1,1] b) => (float[1,1] y) { y = Add(a, b) }"
    two = load_text(tmp_path / "two.onnx", graph)
    declared = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)"
    with pytest.raises(InputError, match=r"2 inputs, .*version 2\.0 declares each"):
        check_binding(parse_query(f"{declared} (assert (>= X_0 0.0))"), {"N": two})
