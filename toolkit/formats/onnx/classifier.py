"""A classifier as exporters write it, as a network with one output of scores; no torch.

Exports of scikit-learn have a label beside the probabilities, and these as a sequence of maps (``ZipMap``); other
networks have several outputs. What is asked about is one tensor of numbers, one for each class, or a single logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.dependence import live_nodes, operands
from toolkit.formats.onnx.joined_inputs import with_one_input
from toolkit.formats.onnx.ml_operators import ML_DOMAIN, without_ml_operators
from toolkit.formats.onnx.model_file import ModelFile, OnnxModel, TensorInfo, load_proto, model_of
from toolkit.formats.onnx.operators import check_inputs, check_operators
from toolkit.formats.onnx.runtime import expose
from toolkit.ops import ONNX

FLOATS = frozenset({"float16", "float32", "float64"})


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network of one input whose only output are scores."""

    model: OnnxModel
    """The network with scores as its only output; the file's own graph where that is so already."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in the order of the scores, where the file has them."""
    remarks: tuple[str, ...] = ()
    """Messages about outputs that were left out and operators that were replaced."""
    features: tuple[str, ...] = ()
    """Names of the features in their order, of a file that has an input for each."""

    @property
    def input(self) -> TensorInfo:
        """The input, of one sample."""
        return self.model.inputs[0]

    @property
    def num_scores(self) -> int:
        """Number of scores: of classes, or 1 for a single logit."""
        return self.model.outputs[0].size

    @property
    def ends_in_sigmoid(self) -> bool:
        """Whether the scores are results of a sigmoid, so that a single one is a probability."""
        maker = _maker(self.model, self.model.outputs[0].name)
        while maker is not None and maker.op_type in ONNX and ONNX[maker.op_type].same_elements:
            maker = _maker(self.model, maker.input[0])
        return maker is not None and maker.op_type == "Sigmoid"


def load_classifier(path: Path, output: str | None = None) -> Classifier:
    """The network with the output of this name, or with its only output of floating-point numbers.

    Raises InputError and UnsupportedError where there is no such output, for several inputs, and for operators that
    are known to have no bounds.
    """
    file, features = with_one_input(load_proto(path))
    names = _class_names(file.proto)
    joined = [f"its {len(features)} inputs joined to one: {', '.join(features)}"] if features else []
    model, remarks = _with_tensors(file)
    check_inputs(model)
    model, chosen = _with_one_output(model, output)
    if len(model.inputs) != 1:
        raise UnsupportedError(
            f"{path}: has {len(model.inputs)} inputs ({', '.join(info.name for info in model.inputs)}); export it with "
            "one that has all features"
        )
    check_operators(model)
    model, plain = _plain(model)
    return Classifier(model, names, (*joined, *remarks, *chosen, *plain), features)


def _with_tensors(file: ModelFile) -> tuple[OnnxModel, list[str]]:
    """The model with the operands of each ``ZipMap``, tensors, as outputs in place of its maps."""
    sources = {node.output[0]: node.input[0] for node in file.proto.graph.node if node.op_type == "ZipMap"}
    zipped = [value for value in file.proto.graph.output if value.name in sources]
    if not zipped:
        return model_of(file), []
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    for value in zipped:
        proto.graph.output.remove(value)
    _keep_live(proto, [sources[value.name] for value in zipped])
    model = model_of(replace(file, proto=proto, data=proto.SerializeToString()))
    model = _declared(expose(model, [sources[value.name] for value in zipped]))
    return model, [f"ZipMap set aside: what it reads stands for {', '.join(value.name for value in zipped)}"]


def _declared(model: OnnxModel) -> OnnxModel:
    """The model with type and shape of every output in its graph; leading dimensions are open where the input's is."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for value, info in zip(proto.graph.output, model.outputs, strict=True):
        if not value.type.tensor_type.elem_type:
            shape: list[str | int | None] = (
                ["batch", *info.shape[1:]] if model.inputs[0].batched and info.shape else list(info.shape)
            )
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(info.dtype))
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))
    outputs = tuple(
        replace(info, declared_shape=(None, *info.shape[1:])) if model.inputs[0].batched and info.shape else info
        for info in model.outputs
    )
    return replace(model, proto=proto, data=proto.SerializeToString(), outputs=outputs)


def _with_one_output(model: OnnxModel, wanted: str | None) -> tuple[OnnxModel, list[str]]:
    """The model with no output but the one that is asked about, and remarks on the outputs that are left out."""
    names = [info.name for info in model.outputs]
    if wanted is not None and wanted not in names:
        raise InputError(f"{model.path}: no output {wanted!r}; it has {', '.join(names)}")
    chosen = [info for info in model.outputs if (info.name == wanted if wanted else info.dtype in FLOATS)]
    if len(chosen) != 1:
        few = "several outputs of numbers" if chosen else "no output of floating-point numbers among its outputs"
        raise InputError(
            f"{model.path}: has {few}, {', '.join(names)}; say which one has the scores of all classes with "
            "--output-name NAME; of scikit-learn's classifiers, to_onnx(..., options={'zipmap': False}) makes one"
        )
    [kept] = chosen
    if kept.dtype not in FLOATS:
        raise UnsupportedError(f"{model.path}: its output {kept.name!r} is of type {kept.dtype}, not of floats")
    if len(names) == 1:
        return model, []
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for value in [value for value in proto.graph.output if value.name != kept.name]:
        proto.graph.output.remove(value)
    _keep_live(proto)
    others = ", ".join(name for name in names if name != kept.name)
    left = replace(model, proto=proto, data=proto.SerializeToString(), outputs=(kept,))
    return left, [f"the scores are the output {kept.name}; {others} set aside"]


def _plain(model: OnnxModel) -> tuple[OnnxModel, list[str]]:
    """The model in operators of the standard; a last division by the row's norm is left out."""
    model, remarks = _without_last_normaliser(model)
    plain = without_ml_operators(model)
    if plain is not model:
        remarks = [*remarks, f"operators of {ML_DOMAIN} written with those of the standard"]
        used = {entry.domain for entry in plain.proto.opset_import if entry.domain != ML_DOMAIN}
        for entry in [entry for entry in plain.proto.opset_import if entry.domain not in used]:
            plain.proto.opset_import.remove(entry)
        plain = replace(plain, data=plain.proto.SerializeToString())
    return plain, remarks


def _without_last_normaliser(model: OnnxModel) -> tuple[OnnxModel, list[str]]:
    """Scores before their division by one norm, L1 or L2: they are in the order of the quotients.

    Where the norm is zero all scores are, and onnxruntime leaves them so; a single score is no matter of order.
    """
    [output] = model.outputs
    last = _maker(model, output.name)
    while last is not None and last.op_type == "Identity":
        last = _maker(model, last.input[0])
    if last is None or last.domain != ML_DOMAIN or last.op_type != "Normalizer":
        return model, []
    norm = next((entry.s for entry in last.attribute if entry.name == "norm"), b"MAX")
    if norm not in (b"L1", b"L2") or len(output.shape) != 2 or output.size == 1:
        return model, []
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.output[0].name = last.input[0]
    _keep_live(proto)
    scores = replace(output, name=last.input[0])
    left = replace(model, proto=proto, data=proto.SerializeToString(), outputs=(scores,))
    return left, ["a last Normalizer left out, which keeps the order of the scores"]


def _maker(model: OnnxModel, name: str) -> onnx.NodeProto | None:
    """The node that a tensor comes from; None for an input or a weight."""
    return next((node for node in model.proto.graph.node if name in node.output), None)


def _keep_live(proto: onnx.ModelProto, more: Sequence[str] = ()) -> None:
    """Drop the nodes and weights that neither outputs nor the tensors ``more`` depend on."""
    outputs = {value.name for value in proto.graph.output} | set(more)
    nodes = live_nodes(proto.graph.node, outputs)
    needed = {name for node in nodes for name in operands(node)} | outputs
    weights = [tensor for tensor in proto.graph.initializer if tensor.name in needed]
    del proto.graph.node[:], proto.graph.initializer[:], proto.graph.value_info[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(weights)


def _class_names(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the classes in the file: of a ``ZipMap``, a classifier, or the table that labels are looked up in."""
    for names in _named(proto.graph):
        if names:
            return tuple(names)
    return ()


def _named(graph: onnx.GraphProto) -> Iterator[list[str]]:
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.domain != ML_DOMAIN:
            continue
        for entry in node.attribute:
            if entry.name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
                yield [text.decode() for text in entry.strings] or [str(number) for number in entry.ints]
        if node.op_type == "ArrayFeatureExtractor" and node.input[0] in tables:
            values = onnx.numpy_helper.to_array(tables[node.input[0]]).reshape(-1)
            yield [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]
