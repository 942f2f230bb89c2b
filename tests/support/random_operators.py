"""Random models of one operator, drawn from the ONNX standard's own schemas: any version, attributes, and operands.

Nothing of the package under test takes part in making them. What onnxruntime does not run is drawn again, so every case
is a model with an answer; whether it is supported is for the package to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper, numpy_helper

Rng = np.random.Generator
OPSETS = range(7, 27)
SHAPES = [(2, 3), (1, 4), (3,), (1, 2, 3), (1, 2, 4, 4), (1, 4, 3, 3), (2, 2, 2), (1, 4, 2, 6)]
NUMBERS = [0.0, 1.0, -1.0, 0.5, -0.3, 2.0, 1e-3, 1e-30, 50.0, -50.0, 1e6, -1e6, 1e30, -3.4028235e38, 3.4028235e38]
SKIPPED = {
    "Loop", "Scan", "If", "SequenceMap", "Constant", "RandomNormal", "RandomUniform", "Bernoulli", "Multinomial",
    "RandomNormalLike", "RandomUniformLike", "Optional", "StringNormalizer", "TfIdfVectorizer", "ImageDecoder",
}  # fmt: skip
"""Operators that need subgraphs or text, or have no answer of their own."""
POSITIONS = {
    "axes", "axis", "shape", "indices", "index", "starts", "ends", "steps", "repeats", "k", "split", "pads", "sizes",
    "sequence_lens", "depth", "perm", "condition",
}  # fmt: skip
"""Names of operands and attributes that count places."""
WORDS = {
    "auto_pad": ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"],
    "mode": ["constant", "reflect", "edge", "wrap", "nearest", "linear", "cubic", "DCR", "CRD"],
    "approximate": ["none", "tanh"],
    "reduction": ["none", "add", "mul", "max", "min"],
    "direction": ["LEFT", "RIGHT", "forward"],
    "coordinate_transformation_mode": ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"],
    "nearest_mode": ["round_prefer_floor", "floor", "ceil", "round_prefer_ceil"],
    "equation": ["ij->ji", "ij->i", "ij,jk->ik", "...->...", "bij,bjk->bik", "i,i->"],
    "keep_aspect_ratio_policy": ["stretch", "not_larger", "not_smaller"],
}
"""Values of attributes that are text."""


@dataclass(frozen=True)
class OperatorCase:
    """A model of one operator that onnxruntime runs."""

    model: onnx.ModelProto
    description: str


def random_operator_case(rng: Rng) -> tuple[onnx.ModelProto, str]:
    """A model with the input ``x`` of type float32 or float64, whose one other node is a random operator, in words."""
    while True:
        case = _drawn(rng)
        if case is not None:
            return case.model, case.description


def schemas() -> list[str]:
    """Names of the operators that are drawn."""
    names = {schema.name for schema in defs.get_all_schemas() if schema.domain == "" and not schema.deprecated}
    return sorted(names - SKIPPED)


_NAMES = schemas()


def _drawn(rng: Rng) -> OperatorCase | None:
    """A case, or None where onnxruntime does not take what was drawn."""
    name, opset = str(rng.choice(_NAMES)), int(rng.choice(OPSETS))
    try:
        schema = defs.get_schema(name, max_inclusive_version=opset)
    except defs.SchemaError:
        return None
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    kind = TensorProto.DOUBLE if rng.random() < 0.15 else TensorProto.FLOAT
    operands, weights = _operands(rng, schema, shape, kind)
    attributes = _attributes(rng, schema, len(shape))
    outputs = ["y", *("" for _ in range(int(rng.random() < 0.1)))]
    node = helper.make_node(name, operands, outputs, **attributes)
    image = _image(node, opset, shape, kind, weights)
    if image is None or image.size > 512 or image.dtype.kind not in "f":
        return None
    kinds = helper.np_dtype_to_tensor_dtype(image.dtype)
    model = _model(node, opset, shape, kind, weights, helper.make_tensor_value_info("y", kinds, image.shape))
    given = {key: list(value.shape) if value.size > 8 else value.tolist() for key, value in weights.items()}
    return OperatorCase(
        model, f"{name}-{opset} of x{list(shape)}, operands {operands} {given}, attributes {attributes}"
    )


def _operands(
    rng: Rng, schema: defs.OpSchema, shape: tuple[int, ...], kind: int
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Names of the node's operands, of which one or more are the input, and the constants among them."""
    formal = list(schema.inputs)
    most = len(formal) if schema.max_input < 100 else int(rng.integers(1, 4))
    count = int(rng.integers(schema.min_input, max(schema.min_input, most) + 1))
    position = int(rng.integers(count)) if count and rng.random() < 0.25 else 0
    names, weights = [], {}
    for index in range(count):
        declared = formal[min(index, len(formal) - 1)]
        if index == position or (rng.random() < 0.1 and "float" in str(declared.types)):
            names.append("x")
        elif declared.option == defs.OpSchema.FormalParameterOption.Optional and rng.random() < 0.3:
            names.append("")
        else:
            names.append(f"w{index}")
            weights[names[-1]] = _weight(rng, declared, shape, kind)
    while names and not names[-1]:  # onnxruntime does not survive all of them
        names.pop()
    return names, weights


def _weight(rng: Rng, declared: Any, shape: tuple[int, ...], kind: int) -> NDArray[Any]:
    """A constant of a type and shape that the operand may have."""
    types = {str(entry) for entry in declared.types}
    floating = helper.tensor_dtype_to_np_dtype(kind)
    if declared.name.lower() in POSITIONS and "tensor(int64)" in types:
        size = int(rng.choice([0, 1, 1, len(shape), 2 * len(shape)]))
        values = rng.integers(-2, 4, size) if size else np.zeros(0)
        return values.astype(np.int64).reshape(() if size == 1 and rng.random() < 0.3 else (size,))
    if types == {"tensor(bool)"}:
        return rng.random(_related(rng, shape)) > 0.5
    if "tensor(float)" in types or "tensor(double)" in types:
        floating = np.dtype(np.float32) if "tensor(double)" not in types else floating
        related = _related(rng, shape)
        special = rng.random() < 0.3
        return (rng.choice(NUMBERS, related) if special else rng.normal(size=related)).astype(floating)
    return rng.integers(0, 3, _related(rng, shape)).astype(np.int64)


def _related(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that goes with that of the input in one way or another."""
    channels = shape[1] if len(shape) > 1 else shape[0]
    window = (2,) * max(len(shape) - 2, 0)
    options = [shape, (), (1,), shape[-1:], (channels,), shape[::-1], (shape[-1], 2), (2, channels, *window),
               (channels, 1, *window), (channels, 2, *window)]  # fmt: skip
    return options[int(rng.integers(len(options)))]


def _attributes(rng: Rng, schema: defs.OpSchema, rank: int) -> dict[str, Any]:
    """Values of the attributes that must be there, and of some of the others."""
    given = {}
    for name, attribute in schema.attributes.items():
        if not attribute.required and rng.random() < 0.5:
            continue
        value = _value(rng, name, attribute.type, rank)
        if value is not None:
            given[name] = value
    return given


def _value(rng: Rng, name: str, kind: Any, rank: int) -> Any:
    """A value of an attribute; None where there is none to draw."""
    kinds = defs.OpSchema.AttrType
    if kind == kinds.FLOAT:
        return float(rng.choice(NUMBERS))
    if kind == kinds.INT:
        if name in ("to", "stash_type", "softmax_precision", "dtype"):
            return int(rng.choice([TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16]))
        return int(rng.choice([0, 1, 1, 2, -1, 3]))
    if kind == kinds.STRING:
        return str(rng.choice(WORDS[name])) if name in WORDS else None
    if kind == kinds.INTS:
        if name == "perm":
            return rng.permutation(rank).tolist()
        if name == "axes":
            return sorted(rng.choice(rank, int(rng.integers(1, rank + 1)), replace=False).tolist())
        size = {"pads": 2}.get(name, 1) * max(rank - 2, 1)
        least = {"kernel_shape": 1, "strides": 1, "dilations": 1}.get(name, 0)
        return rng.integers(least, 4 if least else 2, size).tolist()
    return None


def _image(
    node: onnx.NodeProto, opset: int, shape: tuple[int, ...], kind: int, weights: dict[str, NDArray[Any]]
) -> NDArray[Any] | None:
    """What the node makes of ones; None where onnxruntime does not run it."""
    model = _model(node, opset, shape, kind, weights, onnx.ValueInfoProto(name="y"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).SerializeToString()
        session = onnxruntime.InferenceSession(inferred, options, providers=["CPUExecutionProvider"])
        ones = np.ones(shape, dtype=helper.tensor_dtype_to_np_dtype(kind))
        return np.asarray(session.run(["y"], {"x": ones})[0])
    except Exception:
        return None


def _model(
    node: onnx.NodeProto,
    opset: int,
    shape: tuple[int, ...],
    kind: int,
    weights: dict[str, NDArray[Any]],
    output: onnx.ValueInfoProto,
) -> onnx.ModelProto:
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph([node], "one", [helper.make_tensor_value_info("x", kind, shape)], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
