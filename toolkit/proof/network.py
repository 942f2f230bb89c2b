"""A reader of ONNX of its own: the network as a list of steps over flat vectors of numbers in double precision.

A step is affine (`AffineStep`), applies one function to every element (`Activation`), or takes maxima over windows
(`MaxStep`). Shapes are static; a leading dimension that is left open is one. Constants are the numbers of the file:
every float type of ONNX that is read here has its numbers among the doubles. What is computed from constants is exact,
or known up to a relative error (`LinearMap.slack`), or refused. A node is refused that is not known with all of its
attributes.

What the network means is its value in real numbers: no rounding, no overflow, whatever types the file declares.
"""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from toolkit.proof.linear_maps import Array, BlockMatrix, Convolution, LinearMap, Pick, Window


class UnreadableError(Exception):
    """A network, a specification or a certificate that cannot be read, with the place and the reason."""


@dataclass(frozen=True)
class AffineStep:
    """``value = sum of maps of sources + bias``."""

    value: int
    terms: tuple[tuple[int, LinearMap], ...]
    bias: Array | None = None
    room: Array | float = 0
    """What the bias may be off by."""


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
    """For each output a number of the softmax that it comes from (before which it is given here), or -1."""
    input_sizes: list[int]
    output_sizes: list[int]
    digest: bytes = b""
    """Of the file, unpacked, and of the external data that it names."""
    types: frozenset[int] = frozenset()
    """Element types of inputs and constants, and `UNDEFINED` where nothing is known of how an evaluation rounds."""
    loose: frozenset[int] = frozenset()
    """Values that are sums of what cancels, which intervals do not see."""


@dataclass(frozen=True)
class Computed:
    """A tensor that depends on the input: a value and a shape; ``groups`` after a softmax."""

    value: int
    shape: tuple[int, ...]
    groups: Array | None = None


Operand = Computed | Array


@contextmanager
def readable(place: Path | str) -> Iterator[None]:
    """Raises UnreadableError, which names the place, in place of whatever a malformed one makes of what reads it."""
    try:
        yield
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(f"{place}: {error.strerror or error}") from None
    except Exception as error:
        raise UnreadableError(f"{place}: {type(error).__name__}: {error}") from None


def unpacked(path: Path) -> bytes:
    """The bytes of a file, which may be gzip. Raises UnreadableError."""
    with readable(path):
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def load_network(path: Path) -> ProofNetwork:
    """Read a file. Raises UnreadableError."""
    data = unpacked(path)
    with readable(path):
        return read_network(onnx.ModelProto.FromString(data), path, hashlib.sha256(data))


def read_network(model: onnx.ModelProto, path: Path, digest: Any) -> ProofNetwork:
    """Read a model, whose external data lie beside ``path``; ``digest`` goes on with these. Raises UnreadableError."""
    with readable(path):
        reader = GraphReader(model, path)
        network = reader.network()
    for name in sorted(reader.external):
        digest.update(name.encode() + b"\0" + reader.external[name])
    return replace(network, digest=digest.digest())


FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.UINT8}
LARGEST_INTEGER = 2**53
OLDEST, NEWEST = 7, 25
DOMAINS = {"", "ai.onnx"}


@dataclass
class NodeView:
    """A node with its operands and attributes, each attribute fetched at most once."""

    reader: GraphReader
    proto: onnx.NodeProto
    label: str
    op: str
    inputs: list[Operand | None]
    attributes: dict[str, Any]
    outputs: list[str]

    def fail(self, reason: str) -> UnreadableError:
        """The error that names the node."""
        return UnreadableError(f"node {self.label} ({self.op}): {reason}")

    def require(self, true: bool, reason: str) -> None:
        """Refuse the node unless a condition holds."""
        if not true:
            raise self.fail(reason)

    def get(self, name: str, default: Any = None) -> Any:
        """Take an attribute out: what is left at the end was not understood."""
        return self.attributes.pop(name, default)

    def given(self, position: int) -> Operand | None:
        """An operand; None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def operand(self, position: int = 0) -> Operand:
        """An operand that has to be there, and not to come from a softmax."""
        operand = self.given(position)
        if operand is None or (isinstance(operand, Computed) and operand.groups is not None):
            raise self.fail(f"operand {position} is missing, or a softmax, which is only read as the last operator")
        return operand

    def computed(self, position: int = 0) -> Computed:
        """An operand that has to depend on the input."""
        operand = self.operand(position)
        if not isinstance(operand, Computed):
            raise self.fail(f"operand {position} has to depend on the input of the network")
        return operand

    def constant(self, position: int) -> Array | None:
        """An operand that has to be constant; None where it is left out."""
        operand = self.given(position)
        if isinstance(operand, Computed):
            raise self.fail(f"operand {position} depends on the input of the network")
        return operand

    def doubles(self, position: int) -> Array:
        """A constant operand as finite doubles, exactly."""
        constant = self.constant(position)
        if constant is None or not np.isfinite(constant).all() or (
            constant.dtype.kind == "i" and np.abs(constant).max(initial=0) > LARGEST_INTEGER
        ):  # fmt: skip
            raise self.fail("a constant is missing, not finite, or too large an integer")
        return constant.astype(np.float64, copy=False)

    def integers(self, position: int, name: str = "") -> list[int] | None:
        """A list of integers, an attribute in old versions and an operand in new ones."""
        given = self.get(name)
        given = self.constant(position) if given is None else given
        numbers = [] if given is None else np.ravel(given).tolist()
        self.require(all(int(number) == number for number in numbers), "a number is no integer")
        return None if given is None else [int(number) for number in numbers]

    @property
    def rank(self) -> int:
        """The number of axes of the first operand."""
        return len(self.operand().shape)

    def axes(self, given: Sequence[int] | None) -> tuple[int, ...]:
        """Axes, none of them negative or twice; all where none are given."""
        given = range(self.rank) if given is None else given
        found = tuple(axis + self.rank if axis < 0 else axis for axis in given)
        self.require(len(set(found)) == len(found) and all(0 <= axis < self.rank for axis in found), "no such axes")
        return found


Handler = Callable[[NodeView], Operand | list[Operand]]
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
        self.types: set[int] = set()
        opsets = {entry.version for entry in model.opset_import if entry.domain in DOMAINS}
        if len(opsets) != 1 or not OLDEST <= min(opsets) <= NEWEST or model.functions or self.graph.sparse_initializer:
            raise UnreadableError(f"{path}: opset {sorted(opsets)}, local functions or sparse initializers")
        self.opset = opsets.pop()

    # Steps

    def new(self, shape: tuple[int, ...]) -> Computed:
        """A value without a step so far."""
        self.sizes.append(math.prod(shape))
        return Computed(len(self.sizes) - 1, shape)

    def affine(self, terms: Sequence[tuple[int, LinearMap]], shape: tuple[int, ...], bias: Any = None) -> Computed:
        """A new affine step."""
        result = self.new(shape)
        self.steps.append(AffineStep(result.value, tuple(terms), bias))
        return result

    def linear(self, x: Computed, linear: LinearMap, shape: tuple[int, ...]) -> Computed:
        """A step with one map."""
        return self.affine([(x.value, linear)], shape)

    def shift(self, x: Computed, constant: Array) -> Computed:
        """A tensor plus a constant. Where it is from an affine step without one, the two become one step."""
        bias = np.broadcast_to(constant, x.shape).ravel()
        step = next((step for step in reversed(self.steps) if step.value == x.value), None)
        if isinstance(step, AffineStep) and step.bias is None:
            return self.affine(step.terms, x.shape, bias)
        return self.affine([(x.value, LinearMap(len(bias), len(bias)))], x.shape, bias)

    def scaled(self, x: Computed, factors: Any, slack: float = 0) -> Computed:
        """A tensor times a constant, which is known up to the relative error ``slack``."""
        size, each = self.sizes[x.value], np.broadcast_to(factors, x.shape).ravel()
        if (each == 1).all() and not slack:
            return x
        return self.linear(x, Pick(size, size, np.arange(size), each, slack=slack), x.shape)

    def positions(self, x: Computed) -> Array:
        """The flat position of each element of a tensor."""
        return np.arange(self.sizes[x.value]).reshape(x.shape)

    def pick(self, x: Computed, source: Array) -> Computed:
        """Elements of a tensor: an array of flat positions, -1 for a zero."""
        flat, size = source.ravel(), self.sizes[x.value]
        if len(flat) == size and np.array_equal(flat, np.arange(size)):
            return Computed(x.value, source.shape)
        return self.linear(x, Pick(size, len(flat), flat), source.shape)

    def joined(self, tensors: Sequence[Computed]) -> Computed:
        """The elements of several tensors, one tensor after the other."""
        sizes = [self.sizes[tensor.value] for tensor in tensors]
        own, total = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
        places = np.concatenate([np.arange(size) for size in sizes])
        picks = [Pick(size, total, np.where(own == number, places, -1)) for number, size in enumerate(sizes)]
        terms = [(tensor.value, pick) for tensor, pick in zip(tensors, picks, strict=True)]
        return self.affine(terms, (total,)) if len(tensors) > 1 else Computed(tensors[0].value, (total,))

    def activation(self, x: Computed, name: str, *parameters: float) -> Computed:
        """A step for a function of every element."""
        result = self.new(x.shape)
        self.steps.append(Activation(result.value, x.value, name, parameters))
        return result

    # The graph

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The numbers of a constant, floats as doubles."""
        if tensor.data_type not in FLOATS | INTEGERS:
            raise UnreadableError(f"constant {tensor.name!r} has a type that is not read")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            name = {entry.key: entry.value for entry in tensor.external_data}["location"]
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise UnreadableError(f"constant {tensor.name!r}: external data at {name!r}")
            if name not in self.external:
                self.external[name] = hashlib.sha256((self.path.parent / name).read_bytes()).digest()
        self.types |= {tensor.data_type} & FLOATS
        found = numpy_helper.to_array(tensor, str(self.path.parent))
        return found.astype(np.float64 if tensor.data_type in FLOATS else np.int64)

    def define(self, name: str, operand: Operand) -> None:
        """Give a tensor its name, once."""
        if name in self.tensors:
            raise UnreadableError(f"{self.path}: tensor {name!r} is defined twice")
        self.tensors[name] = operand

    def _inputs(self) -> list[int]:
        """Value 0 and the tensors of the graph's inputs, which are parts of it; the sizes of these."""
        shapes = {}
        for entry in self.graph.input:
            if entry.name not in self.tensors:
                sizes = [max(dim.dim_value, 0) for dim in entry.type.tensor_type.shape.dim]
                shapes[entry.name] = tuple(size or 1 if axis == 0 else size for axis, size in enumerate(sizes))
                self.types.add(entry.type.tensor_type.elem_type)
                if not self.types <= FLOATS or math.prod(shapes[entry.name]) == 0:
                    raise UnreadableError(f"{self.path}: input {entry.name!r} has no floats or no static shape")
        counts = [math.prod(shape) for shape in shapes.values()]
        everything, start = self.new((sum(counts),)), 0
        for (name, shape), count in zip(shapes.items(), counts, strict=True):
            self.define(name, self.pick(everything, np.arange(start, start + count).reshape(shape)))
            start += count
        return counts

    def node(self, node: onnx.NodeProto, number: int) -> None:
        """Read one node of the graph: its outputs become constants or values."""
        values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        attributes = {name: self.array(v) if isinstance(v, onnx.TensorProto) else v for name, v in values.items()}
        label = repr(node.name or (node.output[0] if node.output else number))
        missing = [name for name in node.input if name and name not in self.tensors]
        operands = [self.tensors[name] if name else None for name in node.input if name not in missing]
        view = NodeView(self, node, label, node.op_type, operands, attributes, list(node.output))
        read = HANDLERS.get(node.op_type) if node.domain in DOMAINS else None
        if read is None or missing:
            raise view.fail(f"reads {missing}, which nothing gives" if missing else "the operator is not known")
        results = read(view)
        view.require(not view.attributes, f"attributes that are not understood: {', '.join(sorted(view.attributes))}")
        for name, result in zip(node.output, results if isinstance(results, list) else [results], strict=False):
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
        found = [output for output in outputs if isinstance(output, Computed)]
        if not outputs or len(found) < len(outputs):
            raise UnreadableError(f"{self.path}: an output does not depend on the input")
        output = self.joined(found).value
        steps = needed(self.steps, {output})
        read = {step.source for step in steps if not isinstance(step, AffineStep)}
        names = {name: t.value for name, t in self.tensors.items() if isinstance(t, Computed) and t.value in read}
        sizes = [self.sizes[entry.value] for entry in found]
        compared = [np.full(math.prod(x.shape), -1) if x.groups is None else x.groups for x in found]
        types, groups = frozenset(self.types), np.concatenate(compared)
        return ProofNetwork(self.sizes, steps, names, output, groups, counts, sizes, types=types)


def sources(step: Step) -> list[int]:
    """The values that a step reads."""
    return [source for source, _ in step.terms] if isinstance(step, AffineStep) else [step.source]


def needed(steps: Sequence[Step], values: set[int]) -> list[Step]:
    """The steps that values depend on."""
    found = []
    for step in reversed(steps):
        if step.value in values:
            values = values | set(sources(step))
            found.append(step)
    return found[::-1]


OPERATIONS = {"Add": Fraction.__add__, "Sub": Fraction.__sub__, "Mul": Fraction.__mul__, "Div": Fraction.__truediv__}


def exactly(node: NodeView, operation: str, a: Array, b: Array) -> Array:
    """A sum, difference, product or quotient of constants, where it is a double. Raises UnreadableError otherwise."""
    left, right = np.broadcast_arrays(a, b)
    possible = left.size <= 1 << 20 and (operation != "Div" or (a.dtype.kind != "i" and bool(right.all())))
    node.require(possible, "such a quotient, or so large a computation, of constants is not read")
    pairs = zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
    exact = [OPERATIONS[operation](Fraction(x), Fraction(y)) for x, y in pairs]
    found = [float(number) for number in exact]
    same = all(Fraction(number) == truth for number, truth in zip(found, exact, strict=True))
    node.require(same, "the result of this computation with constants is no double")
    both = a.dtype.kind == b.dtype.kind == "i"
    node.require(not both or all(abs(number) <= LARGEST_INTEGER for number in exact), "an integer is too large")
    node.reader.types |= set() if both else {onnx.TensorProto.UNDEFINED}  # for an evaluation may round them
    return np.array(found, np.float64).astype(np.int64 if both else np.float64).reshape(left.shape)


# Elementwise operators


@handler("Constant")
def _constant(node: NodeView) -> Operand:
    kinds = ("value", "value_int", "value_ints", "value_float", "value_floats")
    given = [(kind, value) for kind in kinds if (value := node.get(kind)) is not None]
    node.require(len(given) == 1, "a constant of this kind is not read")
    [(kind, value)] = given
    return value if kind == "value" else np.array(value, np.int64 if "int" in kind else np.float64)


@handler("Identity", "Dropout")
def _identity(node: NodeView) -> Operand:
    node.get("ratio"), node.get("seed")
    training, operand = node.constant(2), node.given(0)
    if operand is None or (training is not None and training.any()) or (node.op == "Dropout" and any(node.outputs[1:])):
        raise node.fail("an operand is missing, or it is dropout while training, or its mask")
    return operand


@handler("Shape")
def _shape(node: NodeView) -> Operand:
    return np.array(node.operand().shape, np.int64)[slice(node.get("start", 0), node.get("end"))]


ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "Relu": ("bend", (0.0,)),
    "Abs": ("bend", (-1.0,)),
    "Sigmoid": ("tanh", (0.5, 0.5, 0.5)),
    "Tanh": ("tanh", (1.0, 1.0, 0.0)),
}


@handler("LeakyRelu", *ACTIVATIONS)
def _activation(node: NodeView) -> Operand:
    name, parameters = ACTIVATIONS.get(node.op) or ("bend", (node.get("alpha", float(np.float32(0.01))),))
    return node.reader.activation(node.computed(), name, *parameters)


@handler("Clip")
def _clip(node: NodeView) -> Operand:
    ends = []
    for position, name, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = node.get(name) if node.reader.opset < 11 else node.constant(position)
        ends.append(default if given is None else float(np.asarray(given).reshape(())))
    node.require(ends[0] <= ends[1] and math.inf not in (ends[0], -ends[1]), "the ends of the range are not in order")
    return node.reader.activation(node.computed(), "clip", *ends)


@handler("Softmax", "LogSoftmax")
def _softmax(node: NodeView) -> Operand:
    x, separate = node.computed(), node.reader.opset >= 13
    axis = node.axes([node.get("axis", -1 if separate else 1)])[0]
    last = axis + 1 if separate else len(x.shape)
    kept = tuple(1 if axis <= number < last else size for number, size in enumerate(x.shape))
    groups = np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), x.shape).ravel()
    # no other softmax is read when there are as many tensors
    return Computed(x.value, x.shape, groups + (len(node.reader.tensors) << 32))


@handler("Neg")
def _neg(node: NodeView) -> Operand:
    x = node.operand()
    return node.reader.scaled(x, -1.0) if isinstance(x, Computed) else -x


@handler("Add", "Sub", "Mul", "Div")
def _arithmetic(node: NodeView) -> Operand:
    reader, a, b = node.reader, node.operand(0), node.operand(1)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return exactly(node, node.op, a, b)
    shape, linear = np.broadcast_shapes(a.shape, b.shape), node.op in {"Add", "Sub"}
    # tensors that depend on the input, repeated along the axes in which the other operand is longer
    wide = [reader.pick(x, np.broadcast_to(reader.positions(x), shape)) for x in (a, b) if isinstance(x, Computed)]
    size = math.prod(shape)
    if len(wide) == 2:
        node.require(linear, "both operands depend on the input of the network")
        same = LinearMap(size, size)
        second = same if node.op == "Add" else Pick(size, size, np.arange(size), np.full(1, -1.0))
        return reader.affine([(wide[0].value, same), (wide[1].value, second)], shape)
    [x], first = wide, isinstance(a, Computed)
    constant = node.doubles(1 if first else 0)
    if node.op == "Mul":
        return reader.scaled(x, constant)
    if node.op == "Div":
        node.require(first and bool(constant.all()), "division by zero, or by a value that depends on the input")
        return reader.scaled(x, 1 / constant, 2.0**-52)
    minus = node.op == "Sub"
    return reader.shift(x if first or not minus else reader.scaled(x, -1.0), -constant if minus and first else constant)


# Operators that move elements


@handler("Reshape", "Flatten", "Transpose")
def _laid_out(node: NodeView) -> Operand:
    x, shape = node.operand(), node.integers(1, "shape") or []
    places = node.reader.positions(x) if isinstance(x, Computed) else x
    if node.op == "Reshape":
        keep = not node.get("allowzero", 0)
        places = places.reshape([x.shape[axis] if size == 0 and keep else size for axis, size in enumerate(shape)])
    elif node.op == "Flatten":
        axis = node.get("axis", 1)
        node.require(-node.rank <= axis <= node.rank, "no such axis")
        places = places.reshape(math.prod(x.shape[:axis]), -1)
    else:
        places = np.transpose(places, node.get("perm"))
    return node.reader.pick(x, places) if isinstance(x, Computed) else places


def referenced(node: NodeView, arrays: Sequence[Array | None]) -> list[Array]:
    """What the standard's reference implementation of a node makes of operands, None for one that is left out."""
    from onnx.reference import ReferenceEvaluator  # which takes a quarter of a second

    names = [str(number) if array is not None else "" for number, array in enumerate(arrays)]
    alone = onnx.helper.make_node(node.op, names, [name or f"_{n}" for n, name in enumerate(node.outputs)])
    known = onnx.defs.get_schema(node.op, node.reader.opset).attributes
    alone.attribute.extend(e for e in node.proto.attribute if e.name in known and e.name in node.attributes)
    node.attributes = {name: value for name, value in node.attributes.items() if name not in known}
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if name}
    with readable(f"node {node.label} ({node.op})"):
        found: Any = ReferenceEvaluator(alone, opsets={"": node.reader.opset}).run(None, feeds)
    return found


@handler("Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Expand", "Tile", "DepthToSpace", "SpaceToDepth")
def _moved(node: NodeView) -> list[Operand]:
    x, others = node.operand(), [node.constant(position) for position in range(1, len(node.inputs))]
    if node.op == "Slice" and len(others) > 3 and others[0] is not None and others[3] is not None:
        inside = (others[3] > 0) | (others[0] >= -min(x.shape, default=0))
        node.require(bool(inside.all()), "a slice begins before the first element")
    found = referenced(node, [node.reader.positions(x) if isinstance(x, Computed) else x, *others])
    return [node.reader.pick(x, part) if isinstance(x, Computed) else part for part in found]


@handler("Pad")
def _pad(node: NodeView) -> Operand:
    x, filling = node.computed(), node.get("value", 0.0)
    value = float(filling if node.constant(2) is None else node.doubles(2).reshape(()))
    node.require(node.attributes.get("mode") != b"wrap", "wrapping pads are not read")
    arrays = [node.reader.positions(x) + 1, node.constant(1), None, node.constant(3)]
    [places] = referenced(node, arrays[: len(node.inputs)])
    padded = node.reader.pick(x, places - 1)
    return node.reader.shift(padded, np.where(places > 0, 0.0, value)) if value and not places.all() else padded


@handler("Concat")
def _concat(node: NodeView) -> Operand:
    parts, axis = [node.operand(position) for position in range(len(node.inputs))], node.axes([node.get("axis")])[0]
    computed = [part for part in parts if isinstance(part, Computed)]
    if not computed:
        return np.concatenate([np.asarray(part) for part in parts], axis)
    places, constants, first = [], [], 0
    for position, part in enumerate(parts):
        moving = isinstance(part, Computed)
        places.append(node.reader.positions(part) + first if isinstance(part, Computed) else np.full(part.shape, -1))
        constants.append(np.zeros(part.shape) if moving else node.doubles(position))
        first += math.prod(part.shape) if moving else 0
    result = node.reader.pick(node.reader.joined(computed), np.concatenate(places, axis))
    return result if len(computed) == len(parts) else node.reader.shift(result, np.concatenate(constants, axis))


# Sums of products


@handler("ReduceSum", "ReduceMean", "GlobalAveragePool")
def _reduce(node: NodeView) -> Operand:
    x, keep, given = node.computed(), node.get("keepdims", 1), node.integers(1, "axes")
    if node.get("noop_with_empty_axes", 0) and not given:
        return x
    axes = tuple(range(2, node.rank)) if node.op == "GlobalAveragePool" else node.axes(given or None)
    kept = [axis for axis in range(node.rank) if axis not in axes]
    count, rest = math.prod(x.shape[axis] for axis in axes), math.prod(x.shape[axis] for axis in kept)
    last = node.reader.pick(x, np.transpose(node.reader.positions(x), [*kept, *axes]))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes)
    result = node.reader.linear(last, BlockMatrix(count * rest, rest, np.ones((count, 1)), rest), shape)
    return result if node.op == "ReduceSum" or count == 1 else node.reader.scaled(result, 1 / count, 2.0**-52)


@handler("MatMul")
def _matmul(node: NodeView) -> Operand:
    first = isinstance(node.given(0), Computed)
    x, matrix = node.computed(0 if first else 1), node.doubles(1 if first else 0)
    plain = matrix.ndim == 2 and len(x.shape) >= 1 + (not first)
    node.require(plain, "the constant operand is no matrix, or the other one is a vector on the right")
    return _product(node, x, matrix) if first else _swapped(node, _product(node, _swapped(node, x), matrix.T))


def _swapped(node: NodeView, x: Computed) -> Computed:
    """A tensor with its last two axes exchanged."""
    return node.reader.pick(x, np.swapaxes(node.reader.positions(x), -1, -2))


def _product(node: NodeView, x: Computed, matrix: Array) -> Computed:
    """A tensor times a constant matrix."""
    node.require(x.shape[-1] == matrix.shape[0], "the sizes do not match")
    blocks, shape = math.prod(x.shape[:-1]), (*x.shape[:-1], matrix.shape[1])
    linear = BlockMatrix(blocks * matrix.shape[0], math.prod(shape), np.ascontiguousarray(matrix), blocks)
    return node.reader.linear(x, linear, shape)


@handler("Gemm")
def _gemm(node: NodeView) -> Operand:
    x, matrix = node.computed(), node.doubles(1)
    alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
    x = _swapped(node, x) if node.get("transA", 0) else x
    matrix = matrix.T if node.get("transB", 0) else matrix
    node.require(len(x.shape) == matrix.ndim == 2, "the operands are no matrices")
    result = node.reader.scaled(_product(node, x, matrix), alpha)
    if node.constant(2) is None or beta == 0:
        return result
    bias = node.doubles(2)
    return node.reader.shift(result, bias if beta == 1 else exactly(node, "Mul", bias, np.array(beta)))


@handler("BatchNormalization")
def _batch_normalization(node: NodeView) -> Operand:
    x, reader = node.computed(), node.reader
    shape = (1, -1, *[1] * (node.rank - 2))
    scale, shift, mean, variance = (node.doubles(position).reshape(shape) for position in range(1, 5))
    _, epsilon = node.get("momentum"), node.get("epsilon", float(np.float32(1e-5)))
    plain = not node.get("training_mode", 0) and node.get("spatial", 1) == 1 and not any(node.outputs[1:])
    node.require(plain, "only inference is read")
    positive = epsilon >= 0 and (variance >= 0).all() and (variance + epsilon > 0).all()
    node.require(bool(positive), "the variance is not positive")
    # a number that underflows in a variance as small as this may change the quotient
    reader.types |= {onnx.TensorProto.UNDEFINED} if (variance + epsilon < 2.0**-40).any() else set()
    factors = scale / np.sqrt(variance + epsilon)
    return reader.shift(reader.scaled(reader.shift(x, -mean), factors, 2.0**-50), shift)


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


def _weights(node: NodeView, x: Computed, axis: int, groups: int) -> Array:
    """The weights of a convolution, whose given axis is over the channels of x or of one group of them."""
    weight, channels = node.doubles(1), x.shape[1] // (groups if axis == 1 else 1)
    kernel = list(node.get("kernel_shape") or weight.shape[2:])
    fits = weight.ndim == len(x.shape) and weight.shape[axis] == channels and kernel == list(weight.shape[2:])
    whole = groups > 0 and x.shape[1] % groups == 0 and weight.shape[0] % groups == 0
    node.require(fits and whole, "the sizes do not match, or kernel_shape is not that of the weights")
    return weight


def _with_bias(node: NodeView, x: Computed) -> Computed:
    """A tensor plus operand 2, one number for each channel."""
    if node.constant(2) is None:
        return x
    return node.reader.shift(x, node.doubles(2).reshape(1, x.shape[1], *[1] * (len(x.shape) - 2)))


@handler("Conv")
def _conv(node: NodeView) -> Operand:
    x, groups = node.computed(), node.get("group", 1)
    weight = _weights(node, x, 1, groups)
    window = _window(node, x.shape[2:], weight.shape[2:])
    shape = (x.shape[0], weight.shape[0], *window.out)
    linear = Convolution(math.prod(x.shape), math.prod(shape), weight, window, groups, x.shape[0])
    return _with_bias(node, node.reader.linear(x, linear, shape))


@handler("ConvTranspose")
def _conv_transpose(node: NodeView) -> Operand:
    x, groups, axes = node.computed(), node.get("group", 1), node.rank - 2
    node.require(node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET", "automatic padding is not read")
    weight = _weights(node, x, 0, groups)
    extra, strides = node.get("output_padding") or [0] * axes, node.attributes.get("strides") or [1] * axes
    dilations, pads = node.attributes.get("dilations") or [1] * axes, node.attributes.get("pads") or [0] * 2 * axes
    sizes = [
        (size - 1) * strides[a] + dilations[a] * (kernel - 1) + 1 - pads[a] - pads[a + axes] + extra[a]
        for a, (size, kernel) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True))
    ]
    window = _window(node, tuple(sizes), weight.shape[2:])
    node.require(min(sizes, default=1) >= 1 and window.out == x.shape[2:], "these windows are not read")
    shape = (x.shape[0], weight.shape[1] * groups, *sizes)
    linear = Convolution(math.prod(x.shape), math.prod(shape), weight, window, groups, x.shape[0], turned=True)
    return _with_bias(node, node.reader.linear(x, linear, shape))


def _pool(node: NodeView, x: Computed) -> Window:
    """The window of a pool. ``ceil_mode`` is read where it changes nothing."""
    window = _window(node, x.shape[2:], node.get("kernel_shape"))
    sizes = zip(window.padded, window.kernel, window.strides, window.dilations, strict=True)
    cut = node.get("ceil_mode", 0) and any((size - d * (k - 1) - 1) % s for size, k, s, d in sizes)
    node.require(not cut, "windows that are cut off at the end are not read")
    return window


@handler("AveragePool")
def _average_pool(node: NodeView) -> Operand:
    x, everything = node.computed(), node.get("count_include_pad", 0)
    window, channels = _pool(node, x), x.shape[1]
    shape, weight = (x.shape[0], channels, *window.out), np.ones((channels, 1, *window.kernel))
    linear = Convolution(math.prod(x.shape), math.prod(shape), weight, window, channels, x.shape[0])
    count = np.full(shape, float(math.prod(window.kernel)))
    count = count if everything else linear.forward(np.ones((1, linear.inputs))).reshape(shape)
    node.require(bool(count.all()), "a window has no elements")
    return node.reader.scaled(node.reader.linear(x, linear, shape), 1 / count, 2.0**-52)


@handler("MaxPool")
def _max_pool(node: NodeView) -> Operand:
    x, reader = node.computed(), node.reader
    node.require(not node.get("storage_order", 0) and not any(node.outputs[1:]), "indices of maxima are not read")
    window = _pool(node, x)
    padded = np.pad(reader.positions(x), [(0, 0), (0, 0), *window.pads], constant_values=-1)
    windows = np.stack([padded[(slice(None), slice(None), *place)].ravel() for _, place in window.taps()], 1)
    node.require(not (windows < 0).all(1).any(), "a window has no elements")
    result = reader.new((*x.shape[:2], *window.out))
    reader.steps.append(MaxStep(result.value, x.value, windows))
    return result
