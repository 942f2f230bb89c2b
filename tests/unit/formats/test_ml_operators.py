"""scikit-learn's operators: written with those of the standard they compute what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.classifier import load_classifier
from toolkit.formats.onnx.ml_operators import ML_DOMAIN, RULES, without_ml_operators
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import verify_files

FEATURES = 3
COEFFICIENTS = [0.5, -1.0, 2.0, -0.25, 1.5, 0.75]
NODES = {
    "scaler": ("Scaler", {"offset": [0.5, -1.0, 2.0], "scale": [2.0, 0.5, -1.0]}),
    "scaler of one number": ("Scaler", {"offset": [0.5], "scale": [3.0]}),
    "norm L1": ("Normalizer", {"norm": "L1"}),
    "norm L2": ("Normalizer", {"norm": "L2"}),
    "norm MAX": ("Normalizer", {"norm": "MAX"}),
    "regression": ("LinearRegressor", {"coefficients": COEFFICIENTS, "intercepts": [0.1, -0.2], "targets": 2}),
    "imputer": ("Imputer", {"imputed_value_floats": [9.0], "replaced_value_float": float("nan")}),
}
CLASSIFIER = {"coefficients": COEFFICIENTS, "intercepts": [0.1, -0.2], "classlabels_strings": ["no", "yes"]}


def model_of(
    nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], opset: int = 17, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, ["batch", FEATURES])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ML_DOMAIN, 1)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], outputs), opset_imports=opsets, ir_version=8)


def saved(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def tensor(name: str, width: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", width])


def same(path: Path, rows: np.ndarray) -> bool:
    """Whether the model in the file, written with standard operators, computes the same of all rows."""
    model = load_model(path)
    plain = without_ml_operators(model)
    assert {node.domain for node in plain.proto.graph.node} == {""}
    onnx.checker.check_model(plain.proto)
    return all(
        np.allclose(one, other, rtol=1e-5, atol=1e-6)
        for one, other in zip(Session(model).run_batch([rows]), Session(plain).run_batch([rows]), strict=True)
    )


def test_every_rule_is_tried() -> None:
    others = {"LinearClassifier", "ArrayFeatureExtractor", "FeatureVectorizer"}
    assert {op_type for op_type, _ in NODES.values()} | others == set(RULES)


@pytest.mark.parametrize("opset", [11, 17, 21])
@pytest.mark.parametrize("case", NODES)
def test_a_rule_computes_what_onnxruntime_computes(tmp_path: Path, case: str, opset: int) -> None:
    op_type, attributes = NODES[case]
    width = 2 if op_type == "LinearRegressor" else FEATURES
    node = helper.make_node(op_type, ["x"], ["y"], domain=ML_DOMAIN, **attributes)
    path = saved(tmp_path / "net.onnx", model_of([node], [tensor("y", width)], opset))
    assert same(path, np.random.default_rng(0).normal(0, 3, (50, FEATURES)))


@pytest.mark.parametrize("case", ["scaler", "norm L1", "norm L2"])
def test_rules_take_double_precision(tmp_path: Path, case: str) -> None:
    op_type, attributes = NODES[case]
    node = helper.make_node(op_type, ["x"], ["y"], domain=ML_DOMAIN, **attributes)
    path = saved(tmp_path / "net.onnx", model_of([node], [tensor("y", FEATURES)], kind=TensorProto.DOUBLE))
    assert same(path, np.random.default_rng(0).normal(0, 3, (20, FEATURES)))


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_scores_of_a_linear_classifier(tmp_path: Path, transform: str) -> None:
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "y"], domain=ML_DOMAIN, post_transform=transform, **CLASSIFIER
    )
    path = saved(tmp_path / "net.onnx", model_of([node], [tensor("y", 2)]))
    assert same(path, np.random.default_rng(0).normal(0, 1, (50, FEATURES)))


REFUSED = {
    "a label": ("LinearClassifier", ["label", "y"], CLASSIFIER, "its label is read"),
    "one row for two classes": ("LinearClassifier", ["", "y"], {**CLASSIFIER, "intercepts": [0.5]}, "do not make"),
    "probit": ("LinearClassifier", ["", "y"], {**CLASSIFIER, "post_transform": "PROBIT"}, "PROBIT is not supported"),
    "a number replaced": ("Imputer", ["y"], {"imputed_value_floats": [9.0]}, "it replaces a number"),
    "trees": ("TreeEnsembleRegressor", ["y"], {}, "as far as they are affine"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_rule_is_refused(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op_type, names, attributes, reason = REFUSED[case]
    node = helper.make_node(op_type, ["x"], names, domain=ML_DOMAIN, **attributes)
    outputs = [tensor("y", 2)] + [tensor("label", 1, TensorProto.STRING)] * ("label" in names)
    model = load_model(saved(tmp_path / "net.onnx", model_of([node], outputs)))
    monkeypatch.setattr("toolkit.formats.onnx.ml_operators._operand_types", lambda *_: {"x": (TensorProto.FLOAT, 2)})
    with pytest.raises(UnsupportedError, match=reason):
        without_ml_operators(model)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1)])
def test_columns_are_taken_by_their_numbers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    node = helper.make_node("ArrayFeatureExtractor", ["x", "columns"], ["y"], domain=ML_DOMAIN)
    model = model_of([node], [tensor("y", 4)])
    columns = np.array([2, 0, 0, 1]).reshape(shape)
    model.graph.initializer.append(onnx.numpy_helper.from_array(columns, "columns"))
    assert same(saved(tmp_path / "net.onnx", model), np.random.default_rng(0).normal(0, 1, (20, FEATURES)))


def of_features(kinds: list[int], opset: int = 17, widths: tuple[int, ...] = (1, 1, 1)) -> onnx.ModelProto:
    """A network of one input for each feature, as a data frame is exported."""
    names = ["a", "b (cm)", "c"]
    nodes = [
        helper.make_node("FeatureVectorizer", names, ["v"], domain=ML_DOMAIN, inputdimensions=list(widths)),
        helper.make_node("Scaler", ["v"], ["y"], domain=ML_DOMAIN, **NODES["scaler"][1]),
    ]
    model = model_of(nodes, [tensor("y", FEATURES)], opset)
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in zip(names, kinds, strict=True)
    )
    return model


@pytest.mark.parametrize("opset", [11, 13, 21])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_features_of_an_input_each_become_one_input(tmp_path: Path, opset: int, kind: int) -> None:
    """The joined network computes of a row what onnxruntime computes of the file and the row's features."""
    path = saved(tmp_path / "net.onnx", of_features([kind] * 3, opset))
    found = load_classifier(path)
    assert found.features == ("a", "b (cm)", "c")
    assert found.input.shape == (1, 3)
    assert found.input.batched
    rows = np.random.default_rng(0).normal(0, 1, (20, FEATURES))
    [ours] = Session(found.model).run_batch([rows])
    [theirs] = Session(load_model(path)).run_batch(list(np.split(rows, 3, axis=1)))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (of_features([TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT]), "b .cm. int64"),
        (of_features([TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.STRING]), "'c' holds text"),
        (of_features([TensorProto.FLOAT] * 3, widths=(1, 2, 0)), "one feature each"),
    ],
    ids=["whole numbers", "text", "widths"],
)
def test_features_that_cannot_be_joined_are_told(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        load_classifier(saved(tmp_path / "net.onnx", model))


SURE = {**CLASSIFIER, "intercepts": [1.0, -1.0]}


def pipeline(outputs: list[onnx.ValueInfoProto], *more: onnx.NodeProto) -> onnx.ModelProto:
    """A scaler, a norm and a linear classifier, with what follows."""
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain=ML_DOMAIN, **NODES["scaler"][1]),
        helper.make_node("Normalizer", ["s"], ["n"], domain=ML_DOMAIN, norm="L2"),
        helper.make_node("LinearClassifier", ["n"], ["label", "p"], domain=ML_DOMAIN, post_transform="SOFTMAX", **SURE),
        *more,
    ]
    return model_of(nodes, outputs)


def specification(path: Path, outputs: str, low: float, high: float) -> Path:
    lines = [f"(declare-const X_{k} Real)" for k in range(FEATURES)] + [
        "(declare-const Y_0 Real)(declare-const Y_1 Real)"
    ]
    lines += [f"(assert (>= X_{k} {low}))(assert (<= X_{k} {high}))" for k in range(FEATURES)]
    path.write_text("\n".join([*lines, f"(assert {outputs})"]))
    return path


@pytest.mark.parametrize(("atom", "verdict"), [("(>= Y_0 Y_1)", Verdict.SAT), ("(>= Y_1 Y_0)", Verdict.UNSAT)])
def test_a_pipeline_is_decided_and_agrees_with_onnxruntime(tmp_path: Path, atom: str, verdict: Verdict) -> None:
    """A proof passes the comparison of every tensor with onnxruntime's on the file as it is."""
    net = saved(tmp_path / "net.onnx", pipeline([tensor("p", 2)]))
    [scores] = Session(load_model(net)).run([np.full(FEATURES, 1.0)])
    assert scores[0, 0] > scores[0, 1]
    spec = specification(tmp_path / "spec.vnnlib", atom, 0.9995, 1.0005)
    result = verify_files({"": net}, spec, Settings(timeout=300))
    assert (result.verdict, result.reason) == (verdict, "")


def test_the_map_of_an_export_is_set_aside(tmp_path: Path) -> None:
    node = helper.make_node("Normalizer", ["p"], ["q"], domain=ML_DOMAIN, norm="L1")
    zipped = helper.make_node("ZipMap", ["q"], ["maps"], domain=ML_DOMAIN, classlabels_strings=["no", "yes"])
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [None])
    maps = helper.make_value_info(
        "maps",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        ),
    )
    net = saved(tmp_path / "net.onnx", pipeline([label, maps], node, zipped))
    with pytest.raises(UnsupportedError, match="prunecert certify"):
        load_model(net)
    found = load_classifier(net)
    assert found.class_names == ("no", "yes")
    assert [info.declared_shape for info in found.model.outputs] == [(None, 2)]
    assert found.model.proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert not {"Normalizer", "ZipMap"} & {node.op_type for node in found.model.proto.graph.node}
    assert {entry.domain for entry in found.model.proto.opset_import} == {""}
    plain = saved(tmp_path / "plain.onnx", pipeline([tensor("q", 2)], node))
    rows = np.random.default_rng(0).normal(0, 2, (40, FEATURES))
    [scores], [reference] = Session(found.model).run_batch([rows]), Session(load_model(plain)).run_batch([rows])
    assert np.allclose(scores, reference, atol=1e-6)
    assert (scores.argmax(1) == reference.argmax(1)).all()


def test_one_output_of_several_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["first"]),
        helper.make_node("Sigmoid", ["x"], ["second"]),
        helper.make_node("ArgMax", ["x"], ["third"], axis=1),
    ]
    outputs = [tensor("first", 3), tensor("second", 3), tensor("third", 1, TensorProto.INT64)]
    net = saved(tmp_path / "net.onnx", model_of(nodes, outputs))
    with pytest.raises(InputError, match="--output-name"):
        load_classifier(net)
    with pytest.raises(UnsupportedError, match="int64"):
        load_classifier(net, "third")
    found = load_classifier(net, "second")
    assert [node.op_type for node in found.model.proto.graph.node] == ["Sigmoid"]
    assert found.ends_in_sigmoid
    assert not load_classifier(net, "first").ends_in_sigmoid


def test_a_plain_classifier_keeps_its_bytes(tmp_path: Path) -> None:
    net = saved(tmp_path / "net.onnx", model_of([helper.make_node("Relu", ["x"], ["y"])], [tensor("y", 3)]))
    found = load_classifier(net)
    assert (found.model.data, found.remarks) == (net.read_bytes(), ())


@pytest.mark.parametrize(
    ("kind", "advice"), [(TensorProto.BFLOAT16, "in float32"), (TensorProto.UINT8, "from where on")]
)
def test_inputs_of_other_types_are_refused_with_what_to_do(tmp_path: Path, kind: int, advice: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    net = saved(tmp_path / "net.onnx", model_of([node], [tensor("y", 3, kind)], kind=kind))
    with pytest.raises(UnsupportedError, match=f"has element type .*{advice}"):
        load_classifier(net)


def test_an_operator_that_onnxruntime_lacks_for_a_type_is_told_with_what_to_do(tmp_path: Path) -> None:
    weight = helper.make_node("ConstantOfShape", ["shape"], ["w"], value=helper.make_tensor("v", 11, [1], [1.0]))
    model = model_of(
        [weight, helper.make_node("Conv", ["x", "w"], ["y"])],
        [tensor("y", 1, TensorProto.DOUBLE)],
        17,
        TensorProto.DOUBLE,
    )
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 1, 4, 4]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 1, 4, 4]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 1, 1]), "shape"))
    with pytest.raises(UnsupportedError, match=r"cannot load the model .*for float32"):
        Session(load_model(saved(tmp_path / "net.onnx", model)))


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (helper.make_node("Not", ["x"], ["y"]), "raw_scores"),
        (helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=1), "recurrent layers"),
        (helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=1), "recurrent layers"),
        (helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"]), "quantise statically in QDQ form"),
        (helper.make_node("MatMulInteger", ["x", "w"], ["y"]), "quantise statically in QDQ form"),
        (helper.make_node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "s", "z"], ["y"]), "in QDQ form"),
        (helper.make_node("QuantizeLinear", ["x", "s"], ["y"], domain="com.microsoft"), "operator set 21"),
        (helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], domain=ML_DOMAIN), "decision trees"),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_what_cannot_be_bounded_is_refused_with_the_reason(tmp_path: Path, node: onnx.NodeProto, reason: str) -> None:
    net = saved(tmp_path / "net.onnx", model_of([node], [tensor("y", 3)]))
    with pytest.raises(UnsupportedError, match=reason):
        load_classifier(net)
