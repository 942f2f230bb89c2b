# ruff: noqa: N802 - functions are named as the ONNX operators that they compute
"""An exact answer to small queries: a mixed-integer program made from the ONNX graph, solved by HiGHS.

It shares no code with the package: it has its own interpreter of ONNX operators. A tensor is an array of affine
expressions over the program's variables, ``(*shape, VARIABLES + 1)`` with the constant last; affine operators compute
with these arrays, and each piecewise-linear operator adds a variable and its big-M constraints.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import highspy
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from random_queries import QueryCase

VARIABLES = 200
TOLERANCE = 1e-9
Array = NDArray[np.float64]


class MixedProgram:
    """Variables with bounds, some of them integers, and rows ``expression <= 0``."""

    def __init__(self) -> None:
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[bool] = []
        self.rows: list[Array] = []

    def variable(self, lower: float, upper: float, integer: bool = False) -> Array:
        """A new variable as an expression."""
        expression = np.zeros(VARIABLES + 1)
        expression[len(self.lower)] = 1.0
        self.lower.append(lower)
        self.upper.append(upper)
        self.integer.append(integer)
        return expression

    def at_most_zero(self, expression: Array) -> None:
        """Require ``expression <= 0``."""
        self.rows.append(expression)

    def range(self, expression: Array) -> tuple[float, float]:
        """Interval of an expression over the variables' bounds."""
        count = len(self.lower)
        row, low, high = expression[:count], np.array(self.lower), np.array(self.upper)
        positive, negative = np.maximum(row, 0), np.minimum(row, 0)
        constant = expression[-1]
        return (
            float(positive @ low + negative @ high + constant),
            float(positive @ high + negative @ low + constant),
        )

    def maximum(self, a: Array, b: Array) -> Array:
        """``max(a, b)``: a variable above both and, by one switch, at most one of them."""
        (a_low, a_high), (b_low, b_high) = self.range(a), self.range(b)
        if a_low >= b_high:
            return a
        if b_low >= a_high:
            return b
        result = self.variable(max(a_low, b_low), max(a_high, b_high))
        switch = self.variable(0, 1, integer=True)
        self.at_most_zero(a - result)
        self.at_most_zero(b - result)
        # switch = 1: result <= a; switch = 0: result <= b.
        self.at_most_zero(result - a - (b_high - a_low) * (constant(1.0) - switch))
        self.at_most_zero(result - b - (a_high - b_low) * switch)
        return result

    def minimise(self, objectives: list[Array]) -> tuple[float, Array]:
        """The least possible maximum of some expressions, and the variables' values there."""
        low = min(self.range(objective)[0] for objective in objectives)
        high = max(self.range(objective)[1] for objective in objectives)
        # An epigraph variable of this solve alone, placed after all others.
        count = len(self.lower)
        top = constant(0.0)
        top[count] = 1.0
        rows = [*self.rows, *(objective - top for objective in objectives)]
        solver = _solver(rows, [*self.lower, low], [*self.upper, high], [*self.integer, False], count)
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"the solver stopped with {solver.getModelStatus()}")
        values = np.array(solver.getSolution().col_value)
        return float(values[count]), values[:count]


def constant(value: float) -> Array:
    """A constant expression."""
    expression = np.zeros(VARIABLES + 1)
    expression[-1] = value
    return expression


def _solver(rows: list[Array], lower: list[float], upper: list[float], integer: list[bool], goal: int) -> highspy.Highs:
    count = len(lower)
    matrix = np.array(rows)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count, len(rows)
    lp.col_cost_ = np.eye(count)[goal]
    lp.col_lower_, lp.col_upper_ = np.array(lower), np.array(upper)
    lp.row_lower_, lp.row_upper_ = np.full(len(rows), -highspy.kHighsInf), -matrix[:, -1]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.arange(len(rows) + 1) * count
    lp.a_matrix_.index_ = np.tile(np.arange(count), len(rows))
    lp.a_matrix_.value_ = matrix[:, :count].reshape(-1)
    kinds = highspy.HighsVarType
    lp.integrality_ = [kinds.kInteger if flag else kinds.kContinuous for flag in integer]
    solver = highspy.Highs()
    solver.silent()
    for option in ("mip_feasibility_tolerance", "primal_feasibility_tolerance", "mip_rel_gap", "mip_abs_gap"):
        solver.setOptionValue(option, TOLERANCE)
    solver.passModel(lp)
    return solver


# --- the interpreter ----------------------------------------------------------------------------------------------

Operator = Callable[..., Array]
OPERATORS: dict[str, Operator] = {}
"""ONNX operator -> function of (program, expressions or constants, attributes)."""


def operator(function: Operator) -> Operator:
    """Register the function for the ONNX operator of its name."""
    OPERATORS[function.__name__] = function
    return function


def lift(values: Array) -> Array:
    """A constant tensor as expressions."""
    result = np.zeros((*values.shape, VARIABLES + 1))
    result[..., -1] = values
    return result


def elementwise(function: Callable[..., Array], *tensors: Array) -> Array:
    """Apply a function of expressions to each element of tensors of one shape (after broadcasting)."""
    shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    flat = [np.broadcast_to(tensor, shape).reshape(-1, VARIABLES + 1) for tensor in tensors]
    return np.stack([function(*row) for row in zip(*flat, strict=True)]).reshape(shape)


def contract(x: Array, matrix: Array) -> Array:
    """``x @ matrix`` for expressions ``(..., n)`` and numbers ``(n, m)``."""
    return np.einsum("...nv,nm->...mv", x, matrix)


@operator
def Gemm(program: MixedProgram, x: Array, weight: Array, bias: Array, transB: int = 0) -> Array:
    return contract(x, weight.T if transB else weight) + lift(bias)


@operator
def MatMul(program: MixedProgram, x: Array, weight: Array) -> Array:
    return contract(x, weight)


def _as_expression(program: MixedProgram, value: Array) -> Array:
    return value if value.shape and value.shape[-1] == VARIABLES + 1 else lift(value)


@operator
def Add(program: MixedProgram, a: Array, b: Array) -> Array:
    return _as_expression(program, a) + _as_expression(program, b)


@operator
def Sub(program: MixedProgram, a: Array, b: Array) -> Array:
    return _as_expression(program, a) - _as_expression(program, b)


@operator
def Mul(program: MixedProgram, x: Array, factor: Array) -> Array:
    return x * factor[..., None]


@operator
def Neg(program: MixedProgram, x: Array) -> Array:
    return -x


@operator
def Relu(program: MixedProgram, x: Array) -> Array:
    return elementwise(lambda z: program.maximum(z, constant(0.0)), x)


@operator
def LeakyRelu(program: MixedProgram, x: Array, alpha: float = 0.01) -> Array:
    return elementwise(lambda z: program.maximum(z, alpha * z), x)


@operator
def PRelu(program: MixedProgram, x: Array, slope: Array) -> Array:
    # max(z, s z) for every slope below one.
    return elementwise(program.maximum, x, x * slope[..., None])


@operator
def Abs(program: MixedProgram, x: Array) -> Array:
    return elementwise(lambda z: program.maximum(z, -z), x)


@operator
def Max(program: MixedProgram, a: Array, b: Array) -> Array:
    return elementwise(program.maximum, _as_expression(program, a), _as_expression(program, b))


@operator
def Min(program: MixedProgram, a: Array, b: Array) -> Array:
    return -Max(program, -_as_expression(program, a), -_as_expression(program, b))


@operator
def Clip(program: MixedProgram, x: Array, low: Array, high: Array) -> Array:
    return Min(program, Max(program, x, np.broadcast_to(low, x.shape[:-1])), np.broadcast_to(high, x.shape[:-1]))


@operator
def BatchNormalization(
    program: MixedProgram, x: Array, scale: Array, shift: Array, mean: Array, variance: Array, epsilon: float = 1e-5
) -> Array:
    shape = (1, -1, *[1] * (x.ndim - 3))
    factor = scale / np.sqrt(variance + epsilon)
    return x * factor.reshape(*shape, 1) + lift((shift - mean * factor).reshape(shape))


def _windows(
    x: Array, kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int, int, int]
) -> list[list[list[tuple[int, int, int, int]]]]:
    """For each output position, the entries ``(row, column, kernel row, kernel column)`` inside the image."""
    height, width = x.shape[2:4]
    rows = (height + pads[0] + pads[2] - kernel[0]) // strides[0] + 1
    columns = (width + pads[1] + pads[3] - kernel[1]) // strides[1] + 1
    return [[_inside(i, j, kernel, strides, pads, (height, width)) for j in range(columns)] for i in range(rows)]


def _inside(i: int, j: int, kernel: Any, strides: Any, pads: Any, size: Any) -> list[tuple[int, int, int, int]]:
    positions = (
        (i * strides[0] - pads[0] + a, j * strides[1] - pads[1] + b, a, b)
        for a, b in itertools.product(range(kernel[0]), range(kernel[1]))
    )
    return [p for p in positions if 0 <= p[0] < size[0] and 0 <= p[1] < size[1]]


@operator
def Conv(
    program: MixedProgram, x: Array, weight: Array, bias: Array, kernel_shape: Any, strides: Any = (1, 1),
    pads: Any = (0, 0, 0, 0),
) -> Array:  # fmt: skip
    windows = _windows(x, kernel_shape, strides, pads)
    result = np.zeros((1, len(weight), len(windows), len(windows[0]), VARIABLES + 1))
    for i, row in enumerate(windows):
        for j, window in enumerate(row):
            for r, c, a, b in window:
                result[0, :, i, j] += np.einsum("oc,cv->ov", weight[:, :, a, b], x[0, :, r, c])
    return result + lift(bias.reshape(1, -1, 1, 1))


@operator
def MaxPool(
    program: MixedProgram, x: Array, kernel_shape: Any, strides: Any = (1, 1), pads: Any = (0, 0, 0, 0)
) -> Array:
    windows = _windows(x, kernel_shape, strides, pads)
    result = np.zeros((*x.shape[:2], len(windows), len(windows[0]), VARIABLES + 1))
    for channel, (i, row) in itertools.product(range(x.shape[1]), enumerate(windows)):
        for j, window in enumerate(row):
            value = x[0, channel, window[0][0], window[0][1]]
            for r, c, _, _ in window[1:]:
                value = program.maximum(value, x[0, channel, r, c])
            result[0, channel, i, j] = value
    return result


@operator
def AveragePool(program: MixedProgram, x: Array, kernel_shape: Any, strides: Any = (1, 1)) -> Array:
    windows = _windows(x, kernel_shape, strides, (0, 0, 0, 0))
    means = [[np.mean([x[0, :, r, c] for r, c, _, _ in window], axis=0) for window in row] for row in windows]
    return np.array(means).transpose(2, 0, 1, 3)[None]


@operator
def Flatten(program: MixedProgram, x: Array) -> Array:
    return x.reshape(x.shape[0], -1, VARIABLES + 1)


@operator
def Reshape(program: MixedProgram, x: Array, shape: Array) -> Array:
    return x.reshape(*shape.astype(int), VARIABLES + 1)


@operator
def Transpose(program: MixedProgram, x: Array, perm: Any) -> Array:
    return x.transpose(*perm, len(perm))


@operator
def Concat(program: MixedProgram, *parts: Array, axis: int) -> Array:
    return np.concatenate(parts, axis=axis)


@operator
def Slice(program: MixedProgram, x: Array, starts: Array, ends: Array, axes: Array) -> Array:
    for start, end, axis in zip(starts.astype(int), ends.astype(int), axes.astype(int), strict=True):
        x = x.take(range(start, min(end, x.shape[axis])), axis=axis)
    return x


@operator
def Pad(program: MixedProgram, x: Array, pads: Array) -> Array:
    before, after = np.split(pads.astype(int), 2)
    return np.pad(x, [*zip(before, after, strict=True), (0, 0)])


@operator
def ReduceMean(program: MixedProgram, x: Array, axes: Any, keepdims: int = 1) -> Array:
    return x.mean(axis=tuple(axes), keepdims=bool(keepdims))


def outputs_of(program: MixedProgram, model: onnx.ModelProto, inputs: Array) -> Array:
    """Expressions of the model's flat output for those of its flat input."""
    values = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    (declared,) = model.graph.input
    shape = [dim.dim_value for dim in declared.type.tensor_type.shape.dim]
    values[declared.name] = inputs.reshape(*shape, VARIABLES + 1)
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        values[node.output[0]] = OPERATORS[node.op_type](program, *(values[n] for n in node.input), **attributes)
    return values[model.graph.output[0].name].reshape(-1, VARIABLES + 1)


def optimum(model: onnx.ModelProto, case: QueryCase) -> tuple[float, Array]:
    """The least value of the case's largest atom over its box, and an input where it is attained."""
    program = MixedProgram()
    x = np.stack([program.variable(low, high) for low, high in zip(case.lower, case.upper, strict=True)])
    y = outputs_of(program, model, x)
    atoms = np.einsum("kn,nv->kv", case.on_x, x) + np.einsum("km,mv->kv", case.on_y, y)
    atoms[:, -1] += case.constant
    value, solution = program.minimise(list(atoms))
    return value, solution[: len(case.lower)]
