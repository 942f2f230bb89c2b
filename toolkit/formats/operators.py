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


FirstOnly = "only the first operand may depend on the input"
ConstantCondition = "the condition must not depend on the input"
KnownExponent = "the exponent must be an integer or 0.5"

Condition = Callable[[onnx.NodeProto, list[bool]], bool]
"""Of a node, and of which of its operands depend on the input."""


def _known_exponent(node: onnx.NodeProto, variable: list[bool]) -> bool:
    exponent = next(attribute.f for attribute in node.attribute if attribute.name == "exponent")
    return exponent.is_integer() or abs(exponent) == 0.5


CONDITIONS: dict[str, Condition] = {
    "": lambda node, variable: True,
    FirstOnly: lambda node, variable: not any(variable[1:]),
    ConstantCondition: lambda node, variable: not variable[0],
    KnownExponent: _known_exponent,
}


def _two_vary(variable: list[bool]) -> bool:
    return sum(variable) > 1


def _second_varies(variable: list[bool]) -> bool:
    return variable[1]


@dataclass(frozen=True)
class Rule:
    """How an operator is handled, under which condition, and what it is called in ONNX files."""

    handling: Handling
    condition: str = ""
    onnx_names: tuple[str, ...] = ()
    product: Callable[[list[bool]], bool] = lambda variable: False
    """Of which operands depend on the input: whether the node multiplies several of them, and is relaxed."""

    def handling_of(self, variable: list[bool]) -> Handling:
        """How a node with these operands is handled."""
        return Handling.RELAXED if self.product(variable) else self.handling


_MOVING = Rule(Handling.AFFINE)
_SMOOTH = Rule(Handling.RELAXED)
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
    "MatMul": Rule(Handling.AFFINE, product=_two_vary),
    "Mul": Rule(Handling.AFFINE, product=_two_vary),
    "Div": Rule(Handling.AFFINE, product=_second_varies),
    "Where": Rule(Handling.AFFINE, ConstantCondition),
    "Relu": Rule(Handling.PIECEWISE),
    "LeakyRelu": Rule(Handling.PIECEWISE),
    "PRelu": Rule(Handling.PIECEWISE, product=_second_varies),
    "Abs": Rule(Handling.PIECEWISE),
    "Clip": Rule(Handling.PIECEWISE),
    "Maximum": Rule(Handling.PIECEWISE, onnx_names=("Max",)),
    "Minimum": Rule(Handling.PIECEWISE, onnx_names=("Min",)),
    "MaxPool": Rule(Handling.PIECEWISE),
    "ReduceMax": Rule(Handling.PIECEWISE, onnx_names=("GlobalMaxPool", "ReduceMax")),
    "Sigmoid": _SMOOTH,
    "Tanh": _SMOOTH,
    "Erf": _SMOOTH,
    "Atan": _SMOOTH,
    "Exp": _SMOOTH,
    "Log": _SMOOTH,
    "Sqrt": _SMOOTH,
    "Reciprocal": _SMOOTH,
    "Power": Rule(Handling.RELAXED, KnownExponent, ("Pow",)),
    "Sin": _SMOOTH,
    "Cos": _SMOOTH,
    "Softplus": _SMOOTH,
    "Elu": _SMOOTH,
    "Selu": _SMOOTH,
    "Softsign": _SMOOTH,
    "HardSigmoid": Rule(Handling.PIECEWISE),
    "HardSwish": _SMOOTH,
    "Softmax": _SMOOTH,
    "LogSoftmax": _SMOOTH,
    "LayerNormalization": Rule(Handling.RELAXED, FirstOnly),
    "InstanceNormalization": Rule(Handling.RELAXED, FirstOnly),
    "ReduceProd": _SMOOTH,
    "ReduceL1": Rule(Handling.PIECEWISE),
    "ReduceMin": Rule(Handling.PIECEWISE),
    "ReduceL2": _SMOOTH,
    "ReduceSumSquare": _SMOOTH,
    "ReduceLogSum": _SMOOTH,
    "ReduceLogSumExp": _SMOOTH,
    "Sign": _SMOOTH,
    "Floor": _SMOOTH,
    "Ceil": _SMOOTH,
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
    handling: dict[str, str] = {}
    problems: dict[str, str] = {}
    for node in normalised.proto.graph.node:
        if node.op_type == "Output":
            continue
        count[node.op_type] += 1
        neurons[node.op_type] += normalised.facts.size(node.output[0])
        variable = _variable(node, normalised)
        problem = _problem(node, variable)
        if problem:
            problems.setdefault(node.op_type, problem)
        elif handling.get(node.op_type) != Handling.RELAXED:
            handling[node.op_type] = TABLE[node.op_type].handling_of(variable)
    return [
        OperatorRow(op, number, neurons[op], problems.get(op) or handling[op], op not in problems)
        for op, number in count.items()
    ]


def _variable(node: onnx.NodeProto, normalised: Normalised) -> list[bool]:
    """Which operands depend on the input."""
    constants = {tensor.name for tensor in normalised.proto.graph.initializer}
    return [name not in constants for name in node.input if name]


def _problem(node: onnx.NodeProto, variable: list[bool]) -> str:
    """Why the verifier cannot bound a node; empty when it can."""
    rule = TABLE.get(node.op_type)
    if rule is None:
        return "no bounding rule"
    return "" if CONDITIONS[rule.condition](node, variable) else f"no bounding rule: {rule.condition}"


def onnx_operators() -> list[str]:
    """Names in ONNX of the operators that can be bounded or evaluated, sorted."""
    names = {name for op, rule in TABLE.items() for name in rule.onnx_names or (op,)}
    return sorted((names | set(EVALUATED)) - {"Output"})
