"""Random ONNX graphs on vectors, with an evaluator of their own: in rational numbers, or with hundreds of bits.

Each operator is one function that draws its attributes, writes its ONNX nodes, and returns what it does to numbers that
may be of any type. Constants are written in the graph's element type, and the evaluator takes them as written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import onnx
from choices import Choices
from exact_reference import BITS, CLOSE
from kinds import Unsuited
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from random_networks import NetworkBuilder

Array = NDArray[Any]
Step = Callable[..., Array]
"""Values ``(P, n)`` of a result for those of its operands."""
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}
MOST = 9
"""Elements of one tensor at most."""


class Typed(NetworkBuilder):
    """A graph in one element type and one version of the operators, whose constants can be read back."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "float32", opset: int = 13) -> None:
        super().__init__(np.random.default_rng(0), shape)
        self.dtype, self.opset = dtype, opset

    def constant(self, values: Array) -> str:
        """A constant tensor; floats are rounded to the element type."""
        values = values.astype(self.dtype) if values.dtype.kind == "f" else values
        self.constants.append(numpy_helper.from_array(values, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def numbers(self, values: Array) -> tuple[str, Array]:
        """A constant, and what is written of it, as doubles."""
        values = np.asarray(values, dtype=np.float64)
        return self.constant(values), values.astype(self.dtype).astype(np.float64)

    def integers(self, *values: int) -> str:
        """A constant vector of integers."""
        return self.constant(np.array(values, dtype=np.int64))

    def finished(self, output: str, size: int) -> onnx.ModelProto:
        """The model, of one input ``x`` and one flat output."""
        kind = TYPES[self.dtype]
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", kind, self.input_shape)],
            [helper.make_tensor_value_info(output, kind, (1, size))],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


@dataclass(frozen=True)
class Value:
    """A tensor ``(1, size)`` of the graph."""

    name: str
    size: int


@dataclass(frozen=True)
class Made:
    """What an operator made: the tensor, and its values from those of its operands."""

    value: Value
    step: Step


@dataclass
class Draft:
    """A graph under construction: the builder, and the tensors so far with how they come about."""

    choices: Choices
    build: Typed
    values: list[Value]
    steps: list[tuple[tuple[int, ...], Step]]
    exact: bool = True
    """Whether all operators so far keep rational numbers."""
    rounded: bool = False
    """Whether some operator rounds to a narrower type: what is bounded then is not what is computed."""

    def weights(self, *shape: int) -> Array:
        """Small multiples of an eighth."""
        flat = [self.choices.signed(16) / 8 for _ in range(int(np.prod(shape)))]
        return np.array(flat).reshape(shape)

    def any(self) -> int:
        """One of the tensors; the last is the simplest."""
        return len(self.values) - 1 - self.choices.below(len(self.values))

    def close(self, number: int) -> int:
        """One of the tensors that have as many elements as another, or one."""
        size = self.values[number].size
        return self.choices.of([n for n, v in reversed(list(enumerate(self.values))) if v.size in (size, 1)])

    def op(self, kind: str, *names: str, **attributes: object) -> str:
        """The result of a node."""
        return self.build.op(kind, *names, **attributes)


Operator = Callable[[Draft], tuple[tuple[int, ...], Made]]
"""Adds one operator: its operands, and what it made."""
LINEAR: list[Operator] = []
KINKED: list[Operator] = []
SMOOTH: list[Operator] = []


def operator(table: list[Operator]) -> Callable[[Operator], Operator]:
    """Register an operator in a table."""

    def register(function: Operator) -> Operator:
        table.append(function)
        return function

    return register


def each(function: Callable[[Any], Any]) -> Step:
    """A function of single numbers as one of arrays."""
    return lambda *values: np.frompyfunc(function, len(values), 1)(*np.broadcast_arrays(*values))


class Rational(Fraction):
    """A fraction that may be added to mpmath's numbers, and multiplied with them."""

    def _mpmath_(self, precision: int, rounding: str) -> Any:
        return mpmath.mpf(self.numerator) / self.denominator


def rational(values: Array) -> Array:
    """Doubles as fractions."""
    return np.frompyfunc(lambda v: Rational(float(v)), 1, 1)(values)


# --- affine ---------------------------------------------------------------------------------------------------------


@operator(LINEAR)
def gemm(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x, size = draft.any(), draft.choices.between(1, 4)
    weight, w = draft.build.numbers(draft.weights(size, draft.values[x].size))
    bias, b = draft.build.numbers(draft.weights(size))
    if draft.choices.chance(0.5):
        turned = draft.build.constant(w.T.copy())
        name = draft.op("Add", draft.op("MatMul", draft.values[x].name, turned), bias)
    else:
        name = draft.op("Gemm", draft.values[x].name, weight, bias, transB=1)
    return (x,), Made(Value(name, size), lambda v: np.dot(v, rational(w).T) + rational(b))


@operator(LINEAR)
def addition(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    y, kind = draft.close(x), draft.choices.of(("Add", "Sub"))
    name = draft.op(kind, draft.values[x].name, draft.values[y].name)
    sign = 1 if kind == "Add" else -1
    return (x, y), Made(Value(name, draft.values[x].size), lambda v, w: v + sign * w)


@operator(LINEAR)
def factor(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    size = draft.values[x].size
    scale, s = draft.build.numbers(draft.weights(draft.choices.of((size, 1))))
    shift, t = draft.build.numbers(draft.weights(size))
    name = draft.op("Sub", shift, draft.op("Mul", scale, draft.values[x].name))
    return (x,), Made(Value(name, size), lambda v: rational(t) - v * rational(s))


@operator(LINEAR)
def where(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    size = draft.values[x].size
    mask = np.array([draft.choices.chance(0.5) for _ in range(size)])
    other, o = draft.build.numbers(draft.weights(draft.choices.of((size, 1))))
    condition, first = draft.build.constant(mask), draft.choices.chance(0.5)
    names = (draft.values[x].name, other) if first else (other, draft.values[x].name)
    name = draft.op("Where", condition, *names)
    return (x,), Made(Value(name, size), lambda v: np.where(mask == first, v, rational(o)))


@operator(LINEAR)
def concat(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x, y = draft.any(), draft.any()
    size = draft.values[x].size + draft.values[y].size
    if size > MOST:
        raise Unsuited
    name = draft.op("Concat", draft.values[x].name, draft.values[y].name, axis=draft.choices.of((1, -1)))
    return (x, y), Made(Value(name, size), lambda v, w: np.concatenate([v, w], 1))


@operator(LINEAR)
def piece(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    size = draft.values[x].size
    if draft.choices.chance(0.5):
        picked = [draft.choices.below(size) for _ in range(draft.choices.between(1, 3))]
        name = draft.op("Gather", draft.values[x].name, draft.build.integers(*picked), axis=1)
        return (x,), Made(Value(name, len(picked)), lambda v: v[:, picked])
    cut = slice(draft.choices.below(size), size, draft.choices.of((1, 2)))
    limits = [draft.build.integers(n) for n in (cut.start, draft.choices.of((cut.stop, 1 << 40)), 1, cut.step)]
    return (x,), Made(
        Value(draft.op("Slice", draft.values[x].name, *limits), len(range(*cut.indices(size)))), lambda v: v[:, cut]
    )


@operator(LINEAR)
def pad(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    before, after = draft.choices.below(2), draft.choices.below(3)
    o = draft.weights(1)
    scalar = draft.build.constant(o[0]) if draft.choices.chance(0.7) else ""
    number = Rational(float(o[0])) if scalar else Rational(0)
    size = draft.values[x].size + before + after
    if size > MOST:
        raise Unsuited
    pads = draft.build.integers(0, before, 0, after)
    name = draft.op("Pad", draft.values[x].name, pads, *([scalar] if scalar else []))
    widths = ((0, 0), (before, after))
    return (x,), Made(Value(name, size), lambda v: np.pad(v, widths, constant_values=number))


@operator(LINEAR)
def sum_of(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    size, kind = draft.values[x].size, draft.choices.of(("ReduceSum", "ReduceMean"))
    operands = [draft.values[x].name]
    attributes: dict[str, object] = {"keepdims": 1}
    axes = draft.choices.of(([1], [-1], None))
    by_input = draft.build.opset >= (13 if kind == "ReduceSum" else 18)
    if axes and by_input:
        operands.append(draft.build.integers(*axes))
    elif axes:
        attributes["axes"] = axes
    if not axes and by_input and draft.choices.chance(0.5):
        return (x,), Made(Value(draft.op(kind, *operands, noop_with_empty_axes=1, **attributes), size), lambda v: v)
    divisor = 1 if kind == "ReduceSum" else size
    return (x,), Made(Value(draft.op(kind, *operands, **attributes), 1), lambda v: v.sum(1, keepdims=True) / divisor)


@operator(LINEAR)
def turned(draft: Draft) -> tuple[tuple[int, ...], Made]:
    """Through a matrix and its transpose: the elements in another order."""
    x = draft.any()
    size = draft.values[x].size
    rows = next((n for n in (2, 3) if size % n == 0), 1)
    matrix = draft.op("Reshape", draft.values[x].name, draft.build.integers(1, rows, -1))
    back = draft.op("Reshape", draft.op("Transpose", matrix, perm=[0, 2, 1]), draft.build.integers(1, size))
    order = np.arange(size).reshape(rows, -1).T.reshape(-1)
    return (x,), Made(Value(back, size), lambda v: v[:, order])


# --- piecewise linear -----------------------------------------------------------------------------------------------


def single(kind: str, function: Callable[[Any], Any], **attributes: object) -> Operator:
    """An operator of one tensor, element by element."""

    def made(draft: Draft) -> tuple[tuple[int, ...], Made]:
        x = draft.any()
        name = draft.op(kind, draft.values[x].name, **attributes)
        return (x,), Made(Value(name, draft.values[x].size), each(function))

    return made


KINKED += [
    single("Relu", lambda z: max(z, 0)),
    single("Relu", lambda z: max(z, 0)),
    single("Abs", abs),
    single("Neg", lambda z: -z),
    single("LeakyRelu", lambda z: max(z, z * Rational(float(np.float32(0.01))))),
    single("LeakyRelu", lambda z: max(z, z * Rational(float(np.float32(0.1)))), alpha=0.1),
    single("LeakyRelu", lambda z: 2 * z if z < 0 else z, alpha=2.0),
    single("ThresholdedRelu", lambda z: z if z > 1 else Rational(0)),
    single("HardSigmoid", lambda z: min(max(z / 4 + Rational(1, 2), Rational(0)), Rational(1)), alpha=0.25),
]


@operator(KINKED)
def clip(draft: Draft) -> tuple[tuple[int, ...], Made]:
    """With both limits or one, the largest numbers for a limit, and limits in the wrong order: all become the upper."""
    x = draft.any()
    dtype = np.dtype(draft.build.dtype)
    far = [float(np.finfo(dtype).max), np.inf]
    low = draft.choices.of((-0.5, 0.0, None, *(-v for v in far), 0.75))
    high = draft.choices.of((0.5, 1.25, None, *far, -0.25))
    names = [draft.build.constant(np.array(v)) if v is not None else "" for v in (low, high)]
    while names and not names[-1]:
        names.pop()
    name = draft.op("Clip", draft.values[x].name, *names)
    bottom, top = (None if v is None or np.isinf(v) else Rational(v) for v in (low, high))

    def clipped(z: Any) -> Any:
        z = z if bottom is None else max(z, bottom)
        return z if top is None else min(z, top)

    return (x,), Made(Value(name, draft.values[x].size), each(clipped))


@operator(KINKED)
def extreme(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    kind, choose = draft.choices.of((("Max", max), ("Min", min)))
    if draft.choices.chance(0.5):
        y = draft.close(x)
        name = draft.op(kind, draft.values[x].name, draft.values[y].name)
        return (x, y), Made(Value(name, draft.values[x].size), each(choose))
    other, o = draft.build.numbers(draft.weights(draft.values[x].size))
    name = draft.op(kind, draft.values[x].name, other)
    return (x,), Made(Value(name, draft.values[x].size), lambda v: each(choose)(v, rational(o)))


@operator(KINKED)
def prelu(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    slope, s = draft.build.numbers(draft.weights(draft.values[x].size))
    name = draft.op("PRelu", draft.values[x].name, slope)
    return (x,), Made(
        Value(name, draft.values[x].size), lambda v: each(lambda z, k: z if z >= 0 else z * k)(v, rational(s))
    )


@operator(KINKED)
def pool(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    size = draft.values[x].size
    if size < 2:
        raise Unsuited
    image = draft.op("Reshape", draft.values[x].name, draft.build.integers(1, 1, 1, size))
    stride = draft.choices.of((1, 2))
    found = draft.op("MaxPool", image, kernel_shape=[1, 2], strides=[1, stride])
    starts = range(0, size - 1, stride)
    name = draft.op("Flatten", found)
    return (x,), Made(
        Value(name, len(starts)), lambda v: np.stack([np.maximum(v[:, n], v[:, n + 1]) for n in starts], 1)
    )


@operator(KINKED)
def cast(draft: Draft) -> tuple[tuple[int, ...], Made]:
    """To a narrower float and back: a rounding, of numbers that need one."""
    x = draft.any()
    scale, s = draft.build.numbers(np.array([draft.choices.of((1 / 3, 0.1, 1.7))]))
    scaled = draft.op("Mul", draft.values[x].name, scale)
    kind = draft.choices.of((TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE))
    back = draft.op("Cast", draft.op("Cast", scaled, to=kind), to=TYPES[draft.build.dtype])
    draft.rounded |= kind == TensorProto.FLOAT16

    def step(v: Array) -> Array:
        v = v * rational(s)
        if kind == TensorProto.DOUBLE:
            return v
        single = v.astype(np.float64)
        if not (np.abs(single) < 6e4).all():
            raise Unsuited
        return each(type(v.reshape(-1)[0]))(single.astype(np.float16).astype(np.float64))

    return (x,), Made(Value(back, draft.values[x].size), step)


# --- smooth ---------------------------------------------------------------------------------------------------------


def as_mp(z: Any) -> Any:
    """A fraction as mpmath's number."""
    return mpmath.mpf(z.numerator) / z.denominator if isinstance(z, Fraction) else mpmath.mpf(z)


def curve(kind: str, function: Callable[[Any], Any], **attributes: object) -> Operator:
    """A smooth operator of one tensor."""
    return single(kind, lambda z: function(as_mp(z)), **attributes)


SMOOTH += [
    curve("Sigmoid", CLOSE["sigmoid"]),
    curve("Tanh", CLOSE["tanh"]),
    curve("Erf", CLOSE["erf"]),
    curve("Atan", CLOSE["atan"]),
    curve("Sin", CLOSE["sin"]),
    curve("Softplus", CLOSE["softplus"]),
    curve("Exp", CLOSE["exp"]),
    curve("Elu", lambda z: z if z > 0 else CLOSE["exp"](z) - 1),
]


@operator(SMOOTH)
def product(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    y = draft.close(x)
    name = draft.op("Mul", draft.values[x].name, draft.values[y].name)
    return (x, y), Made(Value(name, draft.values[x].size), lambda v, w: v * w)


@operator(SMOOTH)
def quotient(draft: Draft) -> tuple[tuple[int, ...], Made]:
    """By one and a square."""
    x = draft.any()
    y = draft.close(x)
    one, _ = draft.build.numbers(np.ones(1))
    below = draft.op("Add", draft.op("Mul", draft.values[y].name, draft.values[y].name), one)
    name = draft.op("Div", draft.values[x].name, below)
    return (x, y), Made(Value(name, draft.values[x].size), lambda v, w: v / (w * w + 1))


@operator(SMOOTH)
def softmax(draft: Draft) -> tuple[tuple[int, ...], Made]:
    x = draft.any()
    name = draft.op("Softmax", draft.values[x].name, axis=draft.choices.of((1, -1)))

    def step(v: Array) -> Array:
        powers = each(lambda z: CLOSE["exp"](as_mp(z)))(v - v.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    return (x,), Made(Value(name, draft.values[x].size), step)


@operator(SMOOTH)
def normalisation(draft: Draft) -> tuple[tuple[int, ...], Made]:
    """Mean and variance of each of two channels, by the default axes or by others."""
    x = draft.any()
    size = draft.values[x].size
    channels = 2 if size % 2 == 0 else 1
    if size // channels < 2 or draft.build.dtype == "float64":
        raise Unsuited
    image = draft.op("Reshape", draft.values[x].name, draft.build.integers(1, channels, 1, -1))
    axes = draft.choices.of((None, [0, 1, 2, 3], [0, 2, 3]))
    found = draft.op("MeanVarianceNormalization", image, **({"axes": axes} if axes else {}))
    groups = 1 if axes == [0, 1, 2, 3] else channels
    epsilon = as_mp(Rational(1, 10**9))

    def step(v: Array) -> Array:
        rows = each(as_mp)(v).reshape(len(v), groups, -1)
        mean = rows.sum(2, keepdims=True) / rows.shape[2]
        variance = (rows * rows).sum(2, keepdims=True) / rows.shape[2] - mean * mean
        if any(0 <= spread < 1e-3 for spread in variance.reshape(-1)):
            raise Unsuited
        return ((rows - mean) / (np.frompyfunc(mpmath.sqrt, 1, 1)(variance) + epsilon)).reshape(v.shape)

    return (x,), Made(Value(draft.op("Flatten", found), size), step)


# --- graphs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomGraph:
    """A finished graph: the model, and what it comes to."""

    model: onnx.ModelProto
    inputs: int
    outputs: int
    steps: Sequence[tuple[tuple[int, ...], Step]]
    exact: bool
    rounded: bool

    def values(self, points: Array) -> Array:
        """Outputs ``(P, m)`` at points ``(P, n)`` of doubles: the nearest doubles. Raises Unsuited where none are."""
        with mpmath.workprec(BITS):
            values = [rational(points) if self.exact else each(mpmath.mpf)(points)]
            for operands, step in self.steps:
                values.append(step(*(values[number] for number in operands)))
            found = np.array([[float(v) for v in row] for row in values[-1]])
        if not np.isfinite(found).all():
            raise Unsuited
        return found


def random_graph(choices: Choices, smooth: bool, dtype: str = "float32") -> RandomGraph:
    """A graph of a few operators, each of which reads any tensors before it; the last is a dense layer."""
    inputs = choices.between(1, 4)
    build = Typed((1, inputs), dtype, choices.of((13, 17, 18)))
    draft = Draft(choices, build, [Value("x", inputs)], [])
    tables = [LINEAR, KINKED, *([SMOOTH] if smooth else [])]
    for _ in range(choices.between(1, 6)):
        table = choices.of(tables)
        draft.exact &= table is not SMOOTH
        _add(draft, choices.of(table))
    _add(draft, gemm)
    size = draft.values[-1].size
    return RandomGraph(
        build.finished(draft.values[-1].name, size), inputs, size, draft.steps, draft.exact, draft.rounded
    )


def _add(draft: Draft, added: Operator) -> None:
    operands, made = added(draft)
    draft.values.append(made.value)
    draft.steps.append((operands, made.step))
