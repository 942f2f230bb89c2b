"""Element types whose arithmetic is not verified, and what may be done with their tensors all the same.

In half precision every operation rounds, by up to 0.05 % or 0.4 % of its result. In single and double precision the
verifier takes a network for what it computes with real numbers, and its conversions to a narrower type for roundings.
Values in half precision may be moved, compared and converted.

Integers of quantised activations are traced as floating-point numbers, so that only operators which leave every element
as it is may take them: arithmetic in eight or sixteen bits overflows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import STANDARD, record
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.probe import TensorFacts

HALF = {"float16", "bfloat16"}


def check_precision(facts: TensorFacts) -> None:
    """Raise UnsupportedError, naming the node, where values that depend on the input are computed in half precision."""
    for node in facts.nodes:
        results = [name for name in node.output if name and name not in facts.constants]
        halves = [kind for name in results if (kind := _type(facts.values[name])) in HALF]
        if halves and not record(node).exact:
            raise UnsupportedError(f"{facts.where(node)}: computes in {halves[0]}, where every operation rounds; "
                                   "verify the network in float32")  # fmt: skip


def _type(value: Any) -> str:
    """Element type of a tensor, or of the first of a sequence of them."""
    first = value if isinstance(value, np.ndarray) else next(iter(value or ()), None)
    return "" if first is None else str(first.dtype.name)


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
