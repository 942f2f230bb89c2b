"""Which tensors hold the integers of quantised activations, and what may be done with them.

They are traced as floating-point numbers, so that only operators which leave every element as it is may take them:
arithmetic in eight or sixteen bits overflows.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import STANDARD, record
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.probe import TensorFacts


def check_quantised(model: OnnxModel, facts: TensorFacts) -> None:
    """Raise UnsupportedError, naming the node, where integers of quantised activations are not only moved about."""
    integers: set[str] = set()
    for node in facts.nodes:
        varying = [name for name in node.output if name and name not in facts.constants]
        if node.op_type == "QuantizeLinear" and node.domain in STANDARD and varying:
            integers.update(varying)
        elif integers.intersection(node.input):
            integers.update(_moved(node, facts, varying))
    outputs = [info.name for info in model.outputs if info.name in integers]
    if outputs:
        raise UnsupportedError(f"{facts.path}: the output {outputs[0]!r} has integers of a quantised tensor; let the "
                               "network end with DequantizeLinear")  # fmt: skip


def _moved(node: onnx.NodeProto, facts: TensorFacts, results: Iterable[str]) -> Iterable[str]:
    """Results of a node that are such integers again."""
    if record(node).picks:
        return results
    leaves = node.domain in STANDARD and node.op_type in {"DequantizeLinear", "Cast", "CastLike"}
    if leaves and all(facts.values[name].dtype.kind == "f" for name in results):
        return ()
    raise UnsupportedError(f"{facts.where(node)}: not supported for the integers of a quantised tensor; put "
                           "DequantizeLinear before it")  # fmt: skip
