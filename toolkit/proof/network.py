"""A reader of ONNX of its own: the network as a list of steps over flat vectors of numbers in double precision.

A step is affine (`AffineStep`), applies one function to every element (`Activation`), or takes maxima over windows
(`MaxStep`). Shapes are static; a leading dimension that is left open is one. Constants are the numbers of the file:
every float type of ONNX that is read here has its numbers among the doubles. What is computed from constants is exact,
or known up to a relative error (`Scale`), or refused. A node is refused that is not known with all of its attributes.

What the network means is its value in real numbers: no rounding, no overflow, whatever types the file declares.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from toolkit.proof.linear_maps import (
    Array,
    BlockMatrix,
    Convolution,
    LinearMap,
    Pick,
    Scale,
    Transposed,
    Window,
)


class UnreadableError(Exception):
    """A network, a specification or a certificate that cannot be read, with the place and the reason."""


@dataclass(frozen=True)
class AffineStep:
    """``value = sum of maps of sources + bias``."""

    value: int
    terms: tuple[tuple[int, LinearMap], ...]
    bias: Array | None = None


@dataclass(frozen=True)
class Activation:
    """One function for every element: ``bend`` (max or min of z and a z), ``clip`` (to [a, b]), ``tanh``.

    ``tanh`` stands for ``offset + height tanh(scale z)``, which the sigmoid is, too.
    """

    value: int
    source: int
    name: str
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class MaxStep:
    """Element i is the greatest of the source's elements ``windows[i]``; -1 stands for none."""

    value: int
    source: int
    windows: Array


Step = AffineStep | Activation | MaxStep


@dataclass(frozen=True)
class ProofNetwork:
    """A network as steps. Value 0 is all inputs, one after the other; ``output`` all outputs.

    ``names`` has the values that a nonlinear step reads under their names in the file: what a certificate may speak of.
    """

    sizes: list[int]
    steps: list[Step]
    names: dict[str, int]
    output: int
    compared: Array
    """For each output the number of the softmax that it comes from (before which it is given here), or -1."""
    input_sizes: list[int]
    output_sizes: list[int]
    digest: bytes = b""
    """Of the file, unpacked, and of the external data that it names."""


@dataclass(frozen=True)
class Computed:
    """A tensor that depends on the input: a value and a shape; ``groups`` after a softmax."""

    value: int
    shape: tuple[int, ...]
    groups: Array | None = None


Operand = Computed | Array


def unpacked(path: Path) -> bytes:
    """The bytes of a file, which may be gzip. Raises UnreadableError."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, ValueError) as error:
        raise UnreadableError(f"{path}: {error}") from None


def load_network(path: Path) -> ProofNetwork:
    """Read a file. Raises UnreadableError."""
    data = unpacked(path)
    try:
        model = onnx.ModelProto.FromString(data)
        reader = GraphReader(model, path)
        network = reader.network()
    except UnreadableError:
        raise
    except Exception as error:  # whatever a malformed file makes of numpy or protobuf
        raise UnreadableError(f"{path}: {type(error).__name__}: {error}") from None
    digest = hashlib.sha256(data)
    for name in sorted(reader.external):
        digest.update(name.encode() + b"\0" + hashlib.sha256(reader.external[name]).digest())
    return ProofNetwork(**{**vars(network), "digest": digest.digest()})


FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.UINT8}
LARGEST_INTEGER = 2**53
OLDEST, NEWEST = 7, 25


@dataclass
class NodeView:
    """A node with its operands and attributes, each attribute fetched at most once."""

    label: str
    op: str
    inputs: list[Operand | None]
    attributes: dict[str, Any]
    opset: int
    outputs: list[str] = field(default_factory=list)

    def fail(self, reason: str) -> UnreadableError:
        """The error that names the node."""
        return UnreadableError(f"node {self.label} ({self.op}): {reason}")

    def get(self, name: str, default: Any = None) -> Any:
        """Take an attribute out: what is left at the end was not understood."""
        return self.attributes.pop(name, default)

    def constant(self, position: int) -> Array | None:
        """An operand that has to be constant; None where it is left out."""
        operand = self.inputs[position] if position < len(self.inputs) else None
        if isinstance(operand, Computed):
            raise self.fail(f"operand {position} depends on the input of the network")
        return operand

    def integers(self, position: int, name: str) -> list[int] | None:
        """A list of integers, an attribute in old versions and an operand in new ones."""
        given = self.get(name)
        if given is None and (operand := self.constant(position)) is not None:
            given = operand.ravel().tolist()
        return None if given is None else [whole(self, number) for number in np.ravel(given).tolist()]

    def computed(self, position: int = 0) -> Computed:
        """An operand that has to depend on the input."""
        operand = self.inputs[position] if position < len(self.inputs) else None
        if not isinstance(operand, Computed) or operand.groups is not None:
            raise self.fail(f"operand {position} has to depend on the input of the network, and not on a softmax")
        return operand


def whole(node: NodeView, number: Any) -> int:
    """An integer that is one."""
    if int(number) != number:
        raise node.fail(f"{number} is no integer")
    return int(number)


Handler = Callable[["GraphReader", NodeView], Sequence[Operand]]
HANDLERS: dict[str, Handler] = {}


def handler(*names: str) -> Callable[[Handler], Handler]:
    """Register the reader of some operators."""

    def register(function: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, function))
        return function

    return register


class GraphReader:
    """Walks over the nodes of a graph and collects steps."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self.path, self.graph = path, model.graph
        self.sizes: list[int] = []
        self.steps: list[Step] = []
        self.tensors: dict[str, Operand] = {}
        self.external: dict[str, bytes] = {}
        opsets = {entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}}
        if len(opsets) != 1 or not OLDEST <= min(opsets) <= NEWEST or model.functions or self.graph.sparse_initializer:
            raise UnreadableError(f"{path}: opset {sorted(opsets)}, local functions or sparse initializers")
        self.opset = opsets.pop()

    # Steps

    def new(self, size: int) -> int:
        """A value without a step so far."""
        self.sizes.append(size)
        return len(self.sizes) - 1

    def affine(self, terms: Sequence[tuple[int, LinearMap]], bias: Array | None = None) -> int:
        """A new affine step; its value."""
        value = self.new(terms[0][1].outputs)
        self.steps.append(AffineStep(value, tuple(terms), bias))
        return value

    def linear(self, source: int, linear: LinearMap) -> int:
        """A step with one map."""
        return self.affine([(source, linear)])

    def shift(self, source: int, bias: Array) -> int:
        """A step that adds a constant. Where the source is a map without one, the two become one step."""
        step = next((step for step in reversed(self.steps) if step.value == source), None)
        if isinstance(step, AffineStep) and step.bias is None:
            return self.affine(step.terms, bias)
        return self.affine([(source, LinearMap(len(bias), len(bias)))], bias)

    def pick(self, x: Computed, source: Array) -> Computed:
        """Elements of a tensor: an array of flat positions, -1 for a zero."""
        flat = source.ravel()
        if len(flat) == self.sizes[x.value] and np.array_equal(flat, np.arange(len(flat))):
            return Computed(x.value, source.shape)
        return Computed(self.linear(x.value, Pick(self.sizes[x.value], len(flat), flat)), source.shape)

    def structural(self, operand: Operand | None, function: Callable[[Array], Array], node: NodeView) -> Operand:
        """An operator that only moves elements, on constants or on positions."""
        if operand is None:
            raise node.fail("an operand is missing")
        if not isinstance(operand, Computed):
            return function(operand)
        if operand.groups is not None:
            raise node.fail("a softmax is only understood as the last operator")
        return self.pick(operand, function(np.arange(self.sizes[operand.value]).reshape(operand.shape)))

    def activation(self, x: Computed, name: str, *parameters: float) -> Computed:
        """A step for a function of every element."""
        value = self.new(self.sizes[x.value])
        self.steps.append(Activation(value, x.value, name, parameters))
        return Computed(value, x.shape)

    # The graph

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The numbers of a constant, floats as doubles."""
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = self._loaded(tensor)
        if tensor.data_type in FLOATS:
            return numpy_helper.to_array(tensor).astype(np.float64)
        if tensor.data_type in INTEGERS:
            return numpy_helper.to_array(tensor).astype(np.int64)
        raise UnreadableError(f"constant {tensor.name!r} has a type that is not read")

    def _loaded(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """A tensor with the bytes that lie in a file beside the model."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise UnreadableError(f"constant {tensor.name!r}: external data at {name!r}")
        if name not in self.external:
            self.external[name] = (self.path.parent / name).read_bytes()
        content, start = self.external[name], int(entries.get("offset", 0))
        length = int(entries.get("length", len(content) - start))
        if not 0 <= start <= start + length <= len(content):
            raise UnreadableError(f"constant {tensor.name!r}: external data is too short")
        copy = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        copy.raw_data = content[start : start + length]
        return copy

    def define(self, name: str, operand: Operand) -> None:
        """Give a tensor its name, once."""
        if name in self.tensors:
            raise UnreadableError(f"{self.path}: tensor {name!r} is defined twice")
        self.tensors[name] = operand

    def _inputs(self) -> list[int]:
        """Value 0 and the tensors of the graph's inputs, which are parts of it."""
        shapes = {}
        for entry in self.graph.input:
            if entry.name not in self.tensors:
                sizes = [max(dim.dim_value, 0) for dim in entry.type.tensor_type.shape.dim]
                shapes[entry.name] = tuple(size or 1 if axis == 0 else size for axis, size in enumerate(sizes))
                if entry.type.tensor_type.elem_type not in FLOATS or math.prod(shapes[entry.name]) == 0:
                    raise UnreadableError(f"{self.path}: input {entry.name!r} has no floats or no static shape")
        counts = [math.prod(shape) for shape in shapes.values()]
        whole_input, start = self.new(sum(counts)), 0
        for (name, shape), count in zip(shapes.items(), counts, strict=True):
            everything = Computed(whole_input, (sum(counts),))
            self.define(name, self.pick(everything, np.arange(start, start + count).reshape(shape)))
            start += count
        return counts

    def node(self, node: onnx.NodeProto, number: int) -> None:
        """Read one node of the graph: its outputs become constants or values."""
        attributes = {}
        for entry in node.attribute:
            value = onnx.helper.get_attribute_value(entry)
            attributes[entry.name] = self.array(value) if isinstance(value, onnx.TensorProto) else value
        label = repr(node.name or (node.output[0] if node.output else number))
        missing = [name for name in node.input if name and name not in self.tensors]
        operands = [self.tensors[name] if name else None for name in node.input if name not in missing]
        view = NodeView(label, node.op_type, operands, attributes, self.opset, list(node.output))
        read = HANDLERS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        if read is None or missing:
            raise view.fail(f"reads {missing}, which nothing gives" if missing else "the operator is not known")
        results = list(read(self, view))
        if view.attributes:
            raise view.fail(f"attributes that are not understood: {', '.join(sorted(view.attributes))}")
        for name, result in zip(node.output, results, strict=False):
            if name:
                self.define(name, result)

    def network(self) -> ProofNetwork:
        """The whole graph, without the steps that nothing needs."""
        for tensor in self.graph.initializer:
            self.define(tensor.name, self.array(tensor))
        counts = self._inputs()
        for number, node in enumerate(self.graph.node):
            self.node(node, number)
        outputs = [self.tensors.get(entry.name) for entry in self.graph.output]
        if not outputs or not all(isinstance(output, Computed) for output in outputs):
            raise UnreadableError(f"{self.path}: an output does not depend on the input")
        found = [output for output in outputs if isinstance(output, Computed)]
        output = found[0].value if len(found) == 1 else concatenated(self, found)
        needed, steps = {output, 0}, []
        for step in reversed(self.steps):
            if step.value in needed:
                needed |= set(sources(step))
                steps.append(step)
        read = {step.source for step in steps if not isinstance(step, AffineStep)}
        names = {name: t.value for name, t in self.tensors.items() if isinstance(t, Computed) and t.value in read}
        sizes = [self.sizes[entry.value] for entry in found]
        return ProofNetwork(self.sizes, steps[::-1], names, output, _compared(found, sizes), counts, sizes)


def sources(step: Step) -> list[int]:
    """The values that a step reads."""
    return [source for source, _ in step.terms] if isinstance(step, AffineStep) else [step.source]


def _compared(outputs: Sequence[Computed], sizes: Sequence[int]) -> Array:
    """The numbers of the softmax of all outputs, different for different tensors."""
    parts, first = [], 0
    for output, size in zip(outputs, sizes, strict=True):
        parts.append(np.full(size, -1) if output.groups is None else output.groups + first)
        first += size
    return np.concatenate(parts)


def concatenated(reader: GraphReader, tensors: Sequence[Computed]) -> int:
    """The elements of several tensors, one tensor after the other."""
    total, start, terms = sum(reader.sizes[tensor.value] for tensor in tensors), 0, []
    for tensor in tensors:
        size = reader.sizes[tensor.value]
        source = np.full(total, -1)
        source[start : start + size] = np.arange(size)
        terms.append((tensor.value, Pick(size, total, source)))
        start += size
    return reader.affine(terms)


def exactly(node: NodeView, a: Array, b: Array) -> Array:
    """A sum, difference, product or quotient of constants, where it is a double. Raises UnreadableError otherwise."""
    left, right = np.broadcast_arrays(a, b)
    if left.size > 1 << 20 or (node.op == "Div" and (a.dtype.kind == "i" or not right.all())):
        raise node.fail("such a quotient, or so large a computation, of constants is not read")
    operation = {"Add": Fraction.__add__, "Sub": Fraction.__sub__, "Mul": Fraction.__mul__, "Div": Fraction.__truediv__}
    pairs = zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
    exact = [operation[node.op](Fraction(x), Fraction(y)) for x, y in pairs]
    found = [float(number) for number in exact]
    if any(Fraction(number) != truth for number, truth in zip(found, exact, strict=True)):
        raise node.fail("the result of this computation with constants is no double")
    both = a.dtype.kind == b.dtype.kind == "i"
    if both and any(abs(number) > LARGEST_INTEGER for number in exact):
        raise node.fail("an integer is too large")
    return np.array(found, np.float64).astype(np.int64 if both else np.float64).reshape(left.shape)


def doubles(node: NodeView, constant: Array | None) -> Array:
    """A constant as finite doubles, exactly."""
    if constant is None or not np.isfinite(constant).all() or (
        constant.dtype.kind == "i" and np.abs(constant).max(initial=0) > LARGEST_INTEGER
    ):  # fmt: skip
        raise node.fail("a constant is missing, not finite, or too large an integer")
    return constant.astype(np.float64)


# Elementwise operators


@handler("Constant")
def _constant(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float64, "value_floats": np.float64}
    if (value := node.get("value")) is not None:
        return [value]
    for name, kind in kinds.items():
        if (value := node.get(name)) is not None:
            return [np.array(value, kind)]
    raise node.fail("a constant of this kind is not read")


@handler("Identity", "Dropout")
def _identity(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    node.get("ratio"), node.get("seed")
    training = node.constant(2)
    if (training is not None and training.any()) or (node.op == "Dropout" and any(node.outputs[1:])):
        raise node.fail("dropout while training, or its mask, is not read")
    if node.inputs[0] is None:
        raise node.fail("an operand is missing")
    return [node.inputs[0]]


@handler("Shape")
def _shape(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    operand = node.inputs[0]
    if operand is None:
        raise node.fail("an operand is missing")
    return [np.array(operand.shape, np.int64)[slice(node.get("start", 0), node.get("end"))]]


TANH_FORMS = {"Sigmoid": (0.5, 0.5, 0.5), "Tanh": (1.0, 1.0, 0.0)}


@handler("Relu", "Abs", "LeakyRelu", "Sigmoid", "Tanh")
def _activation(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    if node.op in TANH_FORMS:
        return [reader.activation(node.computed(), "tanh", *TANH_FORMS[node.op])]
    slopes = {"Relu": 0.0, "Abs": -1.0}
    slope = slopes[node.op] if node.op in slopes else node.get("alpha", float(np.float32(0.01)))
    return [reader.activation(node.computed(), "bend", slope)]


@handler("Clip")
def _clip(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    ends = []
    for position, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = node.get(name) if node.opset < 11 else node.constant(position)
        ends.append(default if given is None else float(np.asarray(given).reshape(())))
    if not ends[0] <= ends[1] or math.inf in (ends[0], -ends[1]):
        raise node.fail("the ends of the range are not in order")
    return [reader.activation(node.computed(), "clip", *ends)]


@handler("Softmax", "LogSoftmax")
def _softmax(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x = node.computed()
    axis = node.get("axis", 1 if node.opset < 13 else -1)
    axis += len(x.shape) if axis < 0 else 0
    if not 0 <= axis < len(x.shape):
        raise node.fail("no such axis")
    last = axis + 1 if node.opset >= 13 else len(x.shape)
    kept = tuple(1 if axis <= number < last else size for number, size in enumerate(x.shape))
    groups = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), x.shape).ravel()
    return [Computed(x.value, x.shape, groups)]


def _scaled(reader: GraphReader, x: Computed, factors: Array, slack: float = 0) -> Computed:
    """A tensor times a constant of its shape."""
    size = reader.sizes[x.value]
    if (factors == 1).all() and not slack:
        return x
    return Computed(reader.linear(x.value, Scale(size, size, factors.ravel(), slack)), x.shape)


def _widened(reader: GraphReader, x: Computed, shape: tuple[int, ...]) -> Computed:
    """A tensor repeated along the axes in which another operand is longer."""
    return reader.pick(x, np.broadcast_to(np.arange(reader.sizes[x.value]).reshape(x.shape), shape))


@handler("Neg")
def _neg(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    if isinstance(node.inputs[0], np.ndarray):
        return [-node.inputs[0]]
    x = node.computed()
    return [_scaled(reader, x, np.full(reader.sizes[x.value], -1.0))]


@handler("Add", "Sub", "Mul", "Div")
def _arithmetic(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    a, b = node.inputs
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return [exactly(node, a, b)]
    if a is None or b is None or any(isinstance(x, Computed) and x.groups is not None for x in (a, b)):
        raise node.fail("an operand is missing or comes from a softmax")
    shape = np.broadcast_shapes(a.shape, b.shape)
    if isinstance(a, Computed) and isinstance(b, Computed):
        if node.op in {"Mul", "Div"}:
            raise node.fail("both operands depend on the input of the network")
        left, right = _widened(reader, a, shape), _widened(reader, b, shape)
        size = reader.sizes[left.value]
        same = LinearMap(size, size)
        second = same if node.op == "Add" else Scale(size, size, np.full(size, -1.0))
        return [Computed(reader.affine([(left.value, same), (right.value, second)]), shape)]
    constant = np.broadcast_to(doubles(node, node.constant(1 if isinstance(a, Computed) else 0)), shape)
    x = _widened(reader, a if isinstance(a, Computed) else node.computed(1), shape)
    if node.op == "Mul":
        return [_scaled(reader, x, constant)]
    if node.op == "Div":
        if isinstance(b, Computed) or not constant.all():
            raise node.fail("division by zero, or by a value that depends on the input")
        return [_scaled(reader, x, 1 / constant, 2.0**-52)]
    if node.op == "Sub" and isinstance(b, Computed):
        x = _scaled(reader, x, np.full(shape, -1.0))
    bias = constant if node.op == "Add" or isinstance(b, Computed) else -constant
    return [Computed(reader.shift(x.value, bias.ravel()), shape)]


# Operators that move elements


def _axes(node: NodeView, axes: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes, none of them negative or twice; all where none are given."""
    found = tuple(axis + rank if axis < 0 else axis for axis in (range(rank) if axes is None else axes))
    if len(set(found)) < len(found) or not all(0 <= axis < rank for axis in found):
        raise node.fail("no such axes")
    return found


def _rank(node: NodeView) -> int:
    return len(node.inputs[0].shape) if node.inputs and node.inputs[0] is not None else 0


@handler("Reshape")
def _reshape(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    shape, keep = node.integers(1, "shape") or [], not node.get("allowzero", 0)

    def reshape(x: Array) -> Array:
        return x.reshape([x.shape[axis] if size == 0 and keep else size for axis, size in enumerate(shape)])

    return [reader.structural(node.inputs[0], reshape, node)]


@handler("Flatten")
def _flatten(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    axis, rank = node.get("axis", 1), _rank(node)
    axis += rank if axis < 0 else 0
    if not 0 <= axis <= rank:
        raise node.fail("no such axis")
    return [reader.structural(node.inputs[0], lambda x: x.reshape(math.prod(x.shape[:axis]), -1), node)]


@handler("Transpose")
def _transpose(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    order = node.get("perm")
    return [reader.structural(node.inputs[0], lambda x: np.transpose(x, order), node)]


@handler("Squeeze")
def _squeeze(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    given = node.integers(1, "axes")
    axes = None if given is None else _axes(node, given, _rank(node))
    return [reader.structural(node.inputs[0], lambda x: np.squeeze(x, axes), node)]


@handler("Unsqueeze")
def _unsqueeze(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    given = node.integers(1, "axes") or []
    axes = _axes(node, given, _rank(node) + len(given))
    return [reader.structural(node.inputs[0], lambda x: np.expand_dims(x, axes), node)]


@handler("Slice")
def _slice(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    old = node.opset < 10
    starts, ends = (node.get("starts"), node.get("ends")) if old else (node.integers(1, ""), node.integers(2, ""))
    axes = node.get("axes") if old else node.integers(3, "")
    steps = None if old else node.integers(4, "")
    if starts is None or ends is None:
        raise node.fail("an operand is missing")
    axes = _axes(node, list(range(len(starts))) if axes is None else axes, _rank(node))
    steps = [1] * len(starts) if steps is None else steps

    def cut(x: Array) -> Array:
        places = [slice(None)] * x.ndim
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            size = x.shape[axis]
            first, last = (start + size if start < 0 else start), (end + size if end < 0 else end)
            if step > 0:
                places[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
            else:
                first, last = min(max(first, 0), size - 1), min(max(last, -1), size - 1)
                places[axis] = slice(first, None if last == -1 else last, step)
        return x[tuple(places)]

    return [reader.structural(node.inputs[0], cut, node)]


@handler("Gather")
def _gather(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    axis, indices = node.get("axis", 0), node.constant(1)
    if indices is None or indices.dtype.kind != "i":
        raise node.fail("the indices are no integers")
    return [reader.structural(node.inputs[0], lambda x: np.take(x, indices, axis), node)]


@handler("Split")
def _split(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    axis, sizes, rank = node.get("axis", 0), node.integers(1, "split"), _rank(node)
    axis = _axes(node, [axis], rank)[0]
    length = node.inputs[0].shape[axis] if node.inputs[0] is not None else 0
    parts = node.get("num_outputs", len(node.outputs))
    if sizes is None:
        each = -(-length // parts)
        sizes = [max(0, min(each, length - each * part)) for part in range(parts)]
    if sum(sizes) != length or min(sizes) < 0 or len(sizes) < len(node.outputs):
        raise node.fail("the parts do not add up")
    ends = pairwise(np.cumsum([0, *sizes]).tolist())
    return [
        reader.structural(node.inputs[0], partial(np.take, indices=np.arange(*part), axis=axis), node) for part in ends
    ]


@handler("Pad")
def _pad(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    if node.get("mode", b"constant") != b"constant":
        raise node.fail("only constant padding is read")
    pads, filling = node.integers(1, "pads"), node.constant(2)
    value = float(node.get("value", 0.0) if filling is None else doubles(node, filling).reshape(()))
    axes = _axes(node, node.integers(3, "axes"), _rank(node))
    if pads is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0 or not math.isfinite(value):
        raise node.fail("these pads are not read")
    widths = [(0, 0)] * _rank(node)
    for number, axis in enumerate(axes):
        widths[axis] = (pads[number], pads[number + len(axes)])
    x = node.computed()
    places = np.pad(np.arange(reader.sizes[x.value]).reshape(x.shape), widths, constant_values=-1)
    padded = reader.pick(x, places)
    if value and (places < 0).any():
        return [Computed(reader.shift(padded.value, np.where(places.ravel() < 0, value, 0.0)), padded.shape)]
    return [padded]


@handler("Concat")
def _concat(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    parts = [part for part in node.inputs if part is not None]
    axis = _axes(node, [node.get("axis")], _rank(node))[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        return [np.concatenate([np.asarray(part) for part in parts], axis)]
    if any(isinstance(part, Computed) and part.groups is not None for part in parts):
        raise node.fail("a softmax is only understood as the last operator")
    terms, bias = [], None
    for number, part in enumerate(parts):
        inner = np.arange(math.prod(part.shape)).reshape(part.shape) if isinstance(part, Computed) else None
        places = np.concatenate([
            inner if inner is not None and other == number else np.full(piece.shape, -1)
            for other, piece in enumerate(parts)
        ], axis)  # fmt: skip
        if isinstance(part, Computed):
            terms.append((part.value, Pick(reader.sizes[part.value], places.size, places.ravel())))
        else:
            filled = [doubles(node, part) if other == number else np.zeros(piece.shape)
                      for other, piece in enumerate(parts)]  # fmt: skip
            bias = np.concatenate(filled, axis).ravel() + (0 if bias is None else bias)
        shape = places.shape
    return [Computed(reader.affine(terms, bias), shape)]


# Sums of products


@handler("ReduceSum", "ReduceMean")
def _reduce(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x, keep = node.computed(), node.get("keepdims", 1)
    given = node.integers(1, "axes")
    if node.get("noop_with_empty_axes", 0) and not given:
        return [x]
    return [_reduced(reader, x, _axes(node, given or None, len(x.shape)), bool(keep), node.op == "ReduceMean")]


def _reduced(reader: GraphReader, x: Computed, axes: tuple[int, ...], keep: bool, mean: bool) -> Computed:
    """The sum or the mean over some axes."""
    kept = [axis for axis in range(len(x.shape)) if axis not in axes]
    order = [*kept, *axes]
    count, rest = math.prod(x.shape[axis] for axis in axes), math.prod(x.shape[axis] for axis in kept)
    last = reader.pick(x, np.transpose(np.arange(reader.sizes[x.value]).reshape(x.shape), order))
    value = reader.linear(last.value, BlockMatrix(count * rest, rest, np.ones((count, 1)), rest))
    sizes = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
    result = Computed(value, tuple(sizes))
    return _scaled(reader, result, np.full(rest, 1 / count), 2.0**-52) if mean and count > 1 else result


@handler("GlobalAveragePool")
def _global_average_pool(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x = node.computed()
    return [_reduced(reader, x, tuple(range(2, len(x.shape))), True, True)]


@handler("MatMul")
def _matmul(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    first = isinstance(node.inputs[0], Computed)
    x, matrix = node.computed(0 if first else 1), doubles(node, node.constant(1 if first else 0))
    if matrix.ndim != 2 or len(x.shape) < 1 + (not first):
        raise node.fail("the constant operand is no matrix, or the other one is a vector on the right")
    if x.shape[-1 if first else -2] != matrix.shape[0 if first else 1]:
        raise node.fail("the sizes do not match")
    if first:
        return [_product(reader, x, matrix)]
    return [_swapped(reader, _product(reader, _swapped(reader, x), matrix.T))]


def _swapped(reader: GraphReader, x: Computed) -> Computed:
    """A tensor with its last two axes exchanged."""
    return reader.pick(x, np.swapaxes(np.arange(reader.sizes[x.value]).reshape(x.shape), -1, -2))


def _product(reader: GraphReader, x: Computed, matrix: Array) -> Computed:
    """A tensor times a constant matrix."""
    blocks = math.prod(x.shape[:-1])
    linear = BlockMatrix(blocks * matrix.shape[0], blocks * matrix.shape[1], np.ascontiguousarray(matrix), blocks)
    return Computed(reader.linear(x.value, linear), (*x.shape[:-1], matrix.shape[1]))


@handler("Gemm")
def _gemm(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x, matrix = node.computed(), doubles(node, node.constant(1))
    alpha, beta, constant = node.get("alpha", 1.0), node.get("beta", 1.0), node.constant(2)
    x = _swapped(reader, x) if node.get("transA", 0) else x
    matrix = matrix.T if node.get("transB", 0) else matrix
    if len(x.shape) != 2 or matrix.ndim != 2 or x.shape[1] != matrix.shape[0]:
        raise node.fail("the sizes do not match")
    result = _product(reader, x, matrix)
    result = _scaled(reader, result, np.full(math.prod(result.shape), float(alpha)))
    if constant is None or beta == 0:
        return [result]
    times = NodeView(node.label, "Mul", [], {}, node.opset)
    bias = doubles(node, constant) if beta == 1 else exactly(times, doubles(node, constant), np.array(float(beta)))
    return [Computed(reader.shift(result.value, np.broadcast_to(bias, result.shape).ravel()), result.shape)]


@handler("BatchNormalization")
def _batch_normalization(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x = node.computed()
    scale, shift, mean, variance = (doubles(node, node.constant(position)) for position in range(1, 5))
    node.get("momentum")
    epsilon = node.get("epsilon", float(np.float32(1e-5)))
    if node.get("training_mode", 0) or node.get("spatial", 1) != 1 or any(node.outputs[1:]):
        raise node.fail("only inference is read")
    if not epsilon >= 0 or not (variance >= 0).all() or not (variance + epsilon > 0).all():
        raise node.fail("the variance is not positive")
    shape = (1, -1, *[1] * (len(x.shape) - 2))
    parts = [
        np.broadcast_to(part.reshape(shape), x.shape) for part in (-mean, scale / np.sqrt(variance + epsilon), shift)
    ]
    centred = Computed(reader.shift(x.value, parts[0].ravel()), x.shape)
    return [Computed(reader.shift(_scaled(reader, centred, parts[1], 2.0**-50).value, parts[2].ravel()), x.shape)]


def _window(node: NodeView, shape: tuple[int, ...], kernel: Sequence[int]) -> Window:
    """The window of a convolution or a pool over these axes."""
    axes = len(shape)
    strides, dilations = node.get("strides") or [1] * axes, node.get("dilations") or [1] * axes
    pads, auto = node.get("pads") or [0] * 2 * axes, node.get("auto_pad", b"NOTSET")
    given = [(pads[axis], pads[axis + axes]) for axis in range(axes)]
    if auto in {b"SAME_UPPER", b"SAME_LOWER"}:
        sizes = zip(shape, kernel, strides, dilations, strict=True)
        total = [max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0) for size, k, s, d in sizes]
        given = [(t // 2, t - t // 2) if auto == b"SAME_UPPER" else (t - t // 2, t // 2) for t in total]
    elif auto not in {b"NOTSET", b"VALID", b""} or (auto == b"VALID" and any(pads)):
        raise node.fail("this padding is not read")
    window = Window(tuple(shape), tuple(kernel), tuple(strides), tuple(given), tuple(dilations))
    if min([*strides, *dilations, *kernel, *window.out], default=1) < 1 or min(map(min, given), default=0) < 0:
        raise node.fail("these windows are not read")
    return window


@handler("Conv")
def _conv(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x, weight, groups = node.computed(), doubles(node, node.constant(1)), node.get("group", 1)
    if list(node.get("kernel_shape") or weight.shape[2:]) != list(weight.shape[2:]):
        raise node.fail("kernel_shape is not that of the weights")
    if len(x.shape) != weight.ndim or x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise node.fail("the sizes do not match")
    window = _window(node, x.shape[2:], weight.shape[2:])
    shape = (x.shape[0], weight.shape[0], *window.out)
    linear = Convolution(math.prod(x.shape), math.prod(shape), weight, window, groups, x.shape[0])
    return [_with_bias(reader, node, Computed(reader.linear(x.value, linear), shape))]


def _with_bias(reader: GraphReader, node: NodeView, x: Computed) -> Computed:
    """A tensor plus operand 2, one number for each channel."""
    if (bias := node.constant(2)) is None:
        return x
    channels = doubles(node, bias).reshape(1, x.shape[1], *[1] * (len(x.shape) - 2))
    return Computed(reader.shift(x.value, np.broadcast_to(channels, x.shape).ravel()), x.shape)


@handler("ConvTranspose")
def _conv_transpose(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x, weight, groups = node.computed(), doubles(node, node.constant(1)), node.get("group", 1)
    kernel, axes = weight.shape[2:], len(x.shape) - 2
    extra, strides = node.get("output_padding") or [0] * axes, node.attributes.get("strides") or [1] * axes
    dilations, pads = node.attributes.get("dilations") or [1] * axes, node.attributes.get("pads") or [0] * 2 * axes
    if (
        list(node.get("kernel_shape") or kernel) != list(kernel)
        or node.attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
    ):
        raise node.fail("kernel_shape is not that of the weights, or the padding is automatic")
    if len(x.shape) != weight.ndim or x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise node.fail("the sizes do not match")
    sizes = [
        (x.shape[2 + a] - 1) * strides[a] + dilations[a] * (kernel[a] - 1) + 1 - pads[a] - pads[a + axes] + extra[a]
        for a in range(axes)
    ]
    window = _window(node, tuple(sizes), kernel)
    if min(sizes) < 1 or window.out != x.shape[2:]:
        raise node.fail("these windows are not read")
    shape = (x.shape[0], weight.shape[1] * groups, *sizes)
    inner = Convolution(math.prod(shape), math.prod(x.shape), weight, window, groups, x.shape[0])
    value = reader.linear(x.value, Transposed(inner.outputs, inner.inputs, inner))
    return [_with_bias(reader, node, Computed(value, shape))]


def _pool(node: NodeView, x: Computed) -> Window:
    """The window of a pool. ``ceil_mode`` is read where it changes nothing."""
    ceil = node.get("ceil_mode", 0)
    window = _window(node, x.shape[2:], node.get("kernel_shape"))
    sizes = zip(window.padded, window.kernel, window.strides, window.dilations, strict=True)
    if ceil and any((size - d * (k - 1) - 1) % s for size, k, s, d in sizes):
        raise node.fail("windows that are cut off at the end are not read")
    return window


@handler("AveragePool")
def _average_pool(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x, everything = node.computed(), node.get("count_include_pad", 0)
    window, channels = _pool(node, x), x.shape[1]
    shape = (x.shape[0], channels, *window.out)
    weight = np.ones((channels, 1, *window.kernel))
    linear = Convolution(math.prod(x.shape), math.prod(shape), weight, window, channels, x.shape[0])
    count = linear.forward(np.ones((1, linear.inputs)))[0]
    if everything:
        count = np.full_like(count, math.prod(window.kernel))
    if not count.all():
        raise node.fail("a window has no elements")
    return [_scaled(reader, Computed(reader.linear(x.value, linear), shape), 1 / count, 2.0**-52)]


@handler("MaxPool")
def _max_pool(reader: GraphReader, node: NodeView) -> Sequence[Operand]:
    x = node.computed()
    if node.get("storage_order", 0) or any(node.outputs[1:]):
        raise node.fail("indices of maxima are not read")
    window = _pool(node, x)
    places = np.arange(reader.sizes[x.value]).reshape(x.shape)
    padded = np.pad(places, [(0, 0), (0, 0), *window.pads], constant_values=-1)
    taps = [padded[(slice(None), slice(None), *place)].ravel() for _, place in window.taps()]
    windows = np.stack(taps, 1)
    if (windows < 0).all(1).any():
        raise node.fail("a window has no elements")
    value = reader.new(len(windows))
    reader.steps.append(MaxStep(value, x.value, windows))
    return [Computed(value, (x.shape[0], x.shape[1], *window.out))]
