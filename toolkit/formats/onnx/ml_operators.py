"""Operators of ``ai.onnx.ml``, in which scikit-learn's models are exported, as operators of the ONNX standard.

A rule writes what onnxruntime computes, up to rounding, for one row or several: ``Scaler``, ``Normalizer``,
``LinearClassifier`` (its scores), ``LinearRegressor``, ``ArrayFeatureExtractor``, ``FeatureVectorizer`` of single
features, and ``Imputer`` where it replaces NaN alone, which no finite input has. Names of results stay, so that every
tensor can be compared with the file's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import describe, live_nodes
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session

ML_DOMAIN = "ai.onnx.ml"
OPSET_WITHOUT_ANY = 13
"""Version of the standard's operators for a file that has none of them."""
AXES_ARE_OPERANDS = 18
"""Version from which on a reduction takes its axes as an operand."""


@dataclass
class MlNode:
    """A node of the domain, what is known of its operand, and the standard nodes that stand for it."""

    node: onnx.NodeProto
    where: str
    opset: int
    dtype: int
    """Element type of its first operand, a number of ``onnx.TensorProto``."""
    rank: int
    """Dimensions of its first operand."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    @property
    def x(self) -> str:
        """Name of the first operand."""
        return self.node.input[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute; text is decoded."""
        found = next((entry for entry in self.node.attribute if entry.name == name), None)
        value = default if found is None else onnx.helper.get_attribute_value(found)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, value: NDArray[Any]) -> str:
        """Name of a new constant."""
        name = f"{self.node.output[0] or self.node.output[1]}/{self.node.op_type}_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(value, name))
        return name

    def emit(self, op_type: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node of the standard; returns the name of its result."""
        output = output or f"{self.node.output[0] or self.node.output[1]}/{op_type}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op_type, list(inputs), [output], name=output, **attributes))
        return output

    def in_float32(self, name: str) -> str:
        """A tensor of the first operand's type, as float32."""
        return name if self.dtype == onnx.TensorProto.FLOAT else self.emit("Cast", [name], to=onnx.TensorProto.FLOAT)

    def refuse(self, reason: str) -> UnsupportedError:
        """The error that names file and node."""
        return UnsupportedError(f"{self.where}: {reason}")


Rule = Callable[[MlNode], None]
RULES: dict[str, Rule] = {}
"""How a node is written with operators of the standard, by operator."""


_NO_RULE = f"operators of the domain {ML_DOMAIN!r} are supported as far as they are affine or norms of rows"


def _rule(op_type: str) -> Callable[[Rule], Rule]:
    def keep(function: Rule) -> Rule:
        RULES[op_type] = function
        return function

    return keep


def without_ml_operators(model: OnnxModel) -> OnnxModel:
    """The model with standard operators in place of those of ``ai.onnx.ml`` that its outputs need.

    The model itself where it has none. Raises UnsupportedError for an operator or a form of one that has no rule.
    """
    nodes = live_nodes(model.proto.graph.node, [info.name for info in model.outputs])
    if not any(node.domain == ML_DOMAIN for node in nodes):
        return model
    for node in nodes:
        if node.domain == ML_DOMAIN and node.op_type not in RULES:
            raise UnsupportedError(f"{describe(model.path, model.opset, node)}: {_NO_RULE}")
    operands = _operand_types(model, nodes)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if not any(entry.domain in {"", "ai.onnx"} for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("", OPSET_WITHOUT_ANY))
    opset = next(entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"})
    del proto.graph.node[:]
    del proto.graph.value_info[:]
    used = {name for node in nodes for name in node.input} | {info.name for info in model.outputs}
    for node in nodes:
        if node.domain != ML_DOMAIN:
            proto.graph.node.append(node)
            continue
        written = _written(node, model, operands, opset, used)
        proto.graph.node.extend(written.nodes)
        proto.graph.initializer.extend(written.initializers)
    return replace(model, proto=proto, data=proto.SerializeToString())


def _operand_types(model: OnnxModel, nodes: Sequence[onnx.NodeProto]) -> dict[str, tuple[int, int]]:
    """Element type and rank of what nodes of the domain read first, learnt by running the model once."""
    names = sorted({node.input[0] for node in nodes if node.domain == ML_DOMAIN})
    given = {info.name: np.zeros(info.shape, info.dtype) for info in model.inputs}
    computed = [name for name in names if name not in given]
    values = Session(model, hidden=computed, optimise=False).run_undeclared(list(given.values()))
    given |= dict(zip(computed, values[len(model.outputs) :], strict=True))
    return {name: (onnx.helper.np_dtype_to_tensor_dtype(given[name].dtype), given[name].ndim) for name in names}


def _written(
    node: onnx.NodeProto, model: OnnxModel, operands: dict[str, tuple[int, int]], opset: int, used: set[str]
) -> MlNode:
    """The node with its standard nodes."""
    where = describe(model.path, model.opset, node)
    dtype, rank = operands.get(node.input[0], (0, 0))
    if dtype not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE) or rank not in (1, 2):
        raise UnsupportedError(f"{where}: supported for rows of float32 or float64 only")
    if node.op_type == "LinearClassifier" and node.output[0] in used:
        raise UnsupportedError(f"{where}: its label is read; only scores can be bounded, of an output of their own")
    written = MlNode(node, where, opset, dtype, rank)
    RULES[node.op_type](written)
    return written


@_rule("Scaler")
def _scaler(ml: MlNode) -> None:
    """``(x - offset) * scale`` in the type of x, as float32."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(ml.dtype)
    offset, scale = (np.array(ml.attribute(name, ()), dtype=np.float32).astype(kind) for name in ("offset", "scale"))
    if not offset.size or offset.size != scale.size:
        raise ml.refuse(f"offset has {offset.size} numbers, scale {scale.size}")
    centred = ml.emit("Sub", [ml.x, ml.constant(offset)])
    if ml.dtype == onnx.TensorProto.FLOAT:
        ml.emit("Mul", [centred, ml.constant(scale)], ml.node.output[0])
        return
    scaled = ml.emit("Mul", [centred, ml.constant(scale)])
    ml.emit("Cast", [scaled], ml.node.output[0], to=onnx.TensorProto.FLOAT)


@_rule("Normalizer")
def _normalizer(ml: MlNode) -> None:
    """Each row divided by its norm; where onnxruntime leaves a row of norm 0 as it is, a quotient has no bounds."""
    norms = {"L1": "ReduceL1", "L2": "ReduceL2", "MAX": "ReduceMax"}
    norm, axis = ml.attribute("norm", "MAX"), ml.rank - 1
    if norm not in norms:
        raise ml.refuse(f"no norm {norm!r}")
    x = ml.in_float32(ml.x)
    if ml.opset < AXES_ARE_OPERANDS:
        length = ml.emit(norms[norm], [x], axes=[axis], keepdims=1)
    else:
        length = ml.emit(norms[norm], [x, ml.constant(np.array([axis], dtype=np.int64))], keepdims=1)
    ml.emit("Div", [x, length], ml.node.output[0])


@_rule("LinearClassifier")
def _linear_classifier(ml: MlNode) -> None:
    """The scores, of one column for each class; their label has no bounds."""
    after = {"NONE": "Identity", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
    names = ml.attribute("classlabels_ints") or ml.attribute("classlabels_strings") or ()
    transform = ml.attribute("post_transform", "NONE")
    if transform not in after:
        raise ml.refuse(f"post_transform {transform} is not supported")
    scores = _linear(ml, len(names))
    axis = {"axis": 1} if transform == "SOFTMAX" else {}
    ml.emit(after[transform], [scores], ml.node.output[1], **axis)


@_rule("LinearRegressor")
def _linear_regressor(ml: MlNode) -> None:
    """A linear map."""
    if ml.attribute("post_transform", "NONE") != "NONE":
        raise ml.refuse("supported without post_transform only")
    ml.emit("Identity", [_linear(ml, ml.attribute("targets", 1))], ml.node.output[0])


@_rule("Imputer")
def _imputer(ml: MlNode) -> None:
    """The identity, where only NaN is replaced: all inputs that are asked about are finite."""
    if not math.isnan(ml.attribute("replaced_value_float", 0.0)):
        raise ml.refuse("it replaces a number; only the replacement of NaN is supported")
    ml.emit("Identity", [ml.x], ml.node.output[0])


@_rule("ArrayFeatureExtractor")
def _array_feature_extractor(ml: MlNode) -> None:
    """Columns by their numbers."""
    if ml.rank != 2:
        raise ml.refuse("supported for rows of features only")
    columns = ml.emit("Reshape", [ml.node.input[1], ml.constant(np.array([-1], dtype=np.int64))])
    ml.emit("Gather", [ml.x, columns], ml.node.output[0], axis=1)


@_rule("FeatureVectorizer")
def _feature_vectorizer(ml: MlNode) -> None:
    """Single features side by side, as float32; onnxruntime cuts and fills operands whose width is another."""
    if ml.rank != 2 or list(ml.attribute("inputdimensions", ())) != [1] * len(ml.node.input):
        raise ml.refuse("supported for operands of one feature each only")
    columns = [ml.emit("Cast", [name], to=onnx.TensorProto.FLOAT) for name in ml.node.input]
    ml.emit("Concat", columns, ml.node.output[0], axis=1)


def _linear(ml: MlNode, rows: int) -> str:
    """Emit ``x W^T + b`` for coefficients of ``rows`` rows, row after row."""
    weights = np.array(ml.attribute("coefficients", ()), dtype=np.float32)
    bias = np.array(ml.attribute("intercepts") or np.zeros(rows), dtype=np.float32)
    if ml.rank != 2 or not rows or weights.size % rows or bias.size != rows:
        raise ml.refuse(f"{weights.size} coefficients and {bias.size} intercepts do not make {rows} rows")
    operands = [ml.in_float32(ml.x), ml.constant(weights.reshape(rows, -1)), ml.constant(bias)]
    return ml.emit("Gemm", operands, transB=1)
