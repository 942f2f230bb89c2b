"""What the verifier does with each operator of a normalised network, told without torch.

The verifier's own table (`toolkit.problem.ops`) speaks of torch operators; this one speaks of the operators that
`toolkit.formats.onnx_normalise` emits, so that a network can be judged before anything heavy is loaded. A test runs
every row through the verifier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import onnx

from toolkit.formats.onnx_normalise import Normalised


class Handling(StrEnum):
    """How the verifier treats an operator."""

    AFFINE = "affine"
    PIECEWISE = "piecewise linear"
    RELAXED = "relaxation"


OneVariable = "one operand may depend on the input"
FirstOnly = "only the first operand may depend on the input"
ConstantCondition = "the condition must not depend on the input"

CONDITIONS: dict[str, Callable[[list[bool]], bool]] = {
    "": lambda variable: True,
    OneVariable: lambda variable: sum(variable) <= 1,
    FirstOnly: lambda variable: not any(variable[1:]),
    ConstantCondition: lambda variable: not variable[0],
}


@dataclass(frozen=True)
class Rule:
    """How an operator is handled, under which condition, and what it is called in ONNX files."""

    handling: Handling
    condition: str = ""
    onnx_names: tuple[str, ...] = ()


_MOVING = Rule(Handling.AFFINE)
TABLE: dict[str, Rule] = {
    "Output": _MOVING,
    "View": Rule(Handling.AFFINE, onnx_names=("Flatten", "Reshape", "Squeeze", "Unsqueeze")),
    "Expand": _MOVING,
    "Tile": _MOVING,
    "Slice": Rule(Handling.AFFINE, onnx_names=("Slice", "Split")),
    "Rows": Rule(Handling.AFFINE, FirstOnly, ("Gather",)),
    "AxisMatMul": Rule(Handling.AFFINE, onnx_names=("CumSum", "Resize", "Upsample")),
    "Pad": _MOVING,
    "Plus": Rule(Handling.AFFINE, onnx_names=("Mean", "Sum")),
    "Add": _MOVING,
    "Sub": _MOVING,
    "Neg": _MOVING,
    "Concat": _MOVING,
    "Transpose": _MOVING,
    "ReduceSum": _MOVING,
    "ReduceMean": Rule(Handling.AFFINE, onnx_names=("GlobalAveragePool", "ReduceMean")),
    "AveragePool": _MOVING,
    "BatchNormalization": Rule(Handling.AFFINE, FirstOnly),
    "Conv": Rule(Handling.AFFINE, FirstOnly),
    "ConvTranspose": Rule(Handling.AFFINE, FirstOnly),
    "Gemm": Rule(Handling.AFFINE, FirstOnly),
    "MatMul": Rule(Handling.AFFINE, OneVariable),
    "Mul": Rule(Handling.AFFINE, OneVariable),
    "Div": Rule(Handling.AFFINE, FirstOnly),
    "Where": Rule(Handling.AFFINE, ConstantCondition),
    "Relu": Rule(Handling.PIECEWISE),
    "LeakyRelu": Rule(Handling.PIECEWISE),
    "PRelu": Rule(Handling.PIECEWISE, FirstOnly),
    "Abs": Rule(Handling.PIECEWISE),
    "Clip": Rule(Handling.PIECEWISE),
    "Maximum": Rule(Handling.PIECEWISE, onnx_names=("Max",)),
    "Minimum": Rule(Handling.PIECEWISE, onnx_names=("Min",)),
    "MaxPool": Rule(Handling.PIECEWISE),
    "ReduceMax": Rule(Handling.PIECEWISE, onnx_names=("GlobalMaxPool", "ReduceMax")),
    "Sigmoid": Rule(Handling.RELAXED),
    "Tanh": Rule(Handling.RELAXED),
}

EVALUATED = ("Cast", "Constant", "ConstantOfShape", "Dropout", "Identity", "Range", "Shape", "Size")
"""Operators of ONNX that vanish when shapes are concrete."""


@dataclass(frozen=True)
class OperatorRow:
    """One kind of operator in a network."""

    op_type: str
    count: int
    neurons: int
    """Elements of the results of all its nodes."""
    handling: str
    supported: bool


def operator_rows(normalised: Normalised) -> list[OperatorRow]:
    """The operators of a network by kind, in the order of their first use."""
    count: Counter[str] = Counter()
    neurons: Counter[str] = Counter()
    problems: dict[str, str] = {}
    for node in normalised.proto.graph.node:
        if node.op_type == "Output":
            continue
        count[node.op_type] += 1
        neurons[node.op_type] += normalised.facts.size(node.output[0])
        problem = _problem(node, normalised)
        if problem:
            problems.setdefault(node.op_type, problem)
    return [
        OperatorRow(op, number, neurons[op], problems.get(op) or TABLE[op].handling.value, op not in problems)
        for op, number in count.items()
    ]


def _problem(node: onnx.NodeProto, normalised: Normalised) -> str:
    """Why the verifier cannot bound a node; empty when it can."""
    rule = TABLE.get(node.op_type)
    if rule is None:
        return "no bounding rule"
    constants = {tensor.name for tensor in normalised.proto.graph.initializer}
    variable = [name not in constants for name in node.input if name]
    return "" if CONDITIONS[rule.condition](variable) else f"no bounding rule: {rule.condition}"


def onnx_operators() -> list[str]:
    """Names in ONNX of the operators that can be bounded or evaluated, sorted."""
    names = {name for op, rule in TABLE.items() for name in rule.onnx_names or (op,)}
    return sorted((names | set(EVALUATED)) - {"Output"})
