"""Elements that are multiples of others: what the checker accepts is true of the numbers in the file, exactly."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.certificates.equal_elements import stated_tensors
from toolkit.certificates.writer import CertificateWriter, references
from toolkit.proof.bounds import Model, fresh_bounds, is_rational
from toolkit.proof.check import CheckOutcome, check
from toolkit.proof.formula import load_formula
from toolkit.proof.identities import Multiples, are_multiples, exact_rows, merged, quantum
from toolkit.proof.linear_maps import BlockMatrix
from toolkit.proof.network import AffineStep, ProofNetwork, load_network
from toolkit.proof.stream import LinearRows

Node = tuple[str, list[str], str]


def network(path: Path, nodes: list[Node], constants: dict[str, np.ndarray], inputs: int, outputs: int) -> Path:
    """A graph from ``x`` to ``y``; a node is its operator, operands and result."""
    made = [helper.make_node(kind, operands, [result]) for kind, operands, result in nodes]
    kind = TensorProto.DOUBLE if any(c.dtype == np.float64 for c in constants.values()) else TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(*end) for end in (("x", kind, [1, inputs]), ("y", kind, [1, outputs]))]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(made, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def one_layer(path: Path, weight: np.ndarray, bias: np.ndarray, activation: str = "Relu") -> Path:
    """The tensor ``z = x weight + bias``, its activation, and the sum of that."""
    last = np.ones((weight.shape[1], 1), weight.dtype)
    nodes = [("Gemm", ["x", "w", "b"], "z"), (activation, ["z"], "a"), ("MatMul", ["a", "v"], "y")]
    return network(path, nodes, {"w": weight, "b": bias, "v": last}, len(weight), 1)


def stated(*triples: tuple[int, int, float]) -> Multiples:
    elements, models, factors = zip(*triples, strict=True)
    return Multiples(np.array(elements), np.array(models), np.array(factors, float))


def accepted(net: Path, tensor: str, *triples: tuple[int, int, float]) -> list[bool]:
    """Which multiples the checker takes for true."""
    known = load_network(net)
    return are_multiples(known, known.names[tensor], stated(*triples)).tolist()


WEIGHT = np.array([[0.3, -0.3, 0.6, 0.3, 0.7], [1.7, -1.7, 3.4, 1.7, 1.7]], np.float32)
BIAS = np.array([0.1, -0.1, 0.2, 0.2, 0.1], np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rows_with_their_bias_decide(tmp_path: Path, kind: type) -> None:
    """Element 3 has another bias, element 4 one other weight."""
    net = one_layer(tmp_path / "n.onnx", WEIGHT.astype(kind), BIAS.astype(kind))
    true = [(1, 0, -1.0), (2, 0, 2.0), (0, 1, -1.0), (1, 2, -0.5), (0, 2, 0.5)]
    assert accepted(net, "z", *true) == [True] * len(true)
    false = [(1, 0, 1.0), (2, 0, -2.0), (2, 0, 4.0), (2, 0, 0.5), (3, 0, 1.0), (4, 0, 1.0), (3, 1, -1.0), (2, 4, 2.0)]
    assert accepted(net, "z", *false) == [False] * len(false)


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_one_unit_in_the_last_place_is_a_difference(tmp_path: Path, part: str, kind: type) -> None:
    weight, bias = WEIGHT.astype(kind), BIAS.astype(kind)
    changed = weight[0] if part == "weight" else bias
    changed[1] = np.nextafter(changed[1], kind(0))
    net = one_layer(tmp_path / "n.onnx", weight, bias)
    assert accepted(net, "z", (1, 0, -1.0), (2, 0, 2.0)) == [False, True]


@pytest.mark.parametrize("tiny", [5e-324, 1.5e-323, 1e-310])
def test_numbers_that_underflow_are_not_taken_for_equal(tmp_path: Path, tiny: float) -> None:
    """Half of an odd number of the least units is no double: what it is rounded to is no multiple."""
    weight = np.array([[tiny, 2 * tiny, np.rint(tiny / 2 / 5e-324) * 5e-324]])
    net = one_layer(tmp_path / "n.onnx", weight, np.zeros(3))
    odd = (tiny / 5e-324) % 2 == 1
    assert accepted(net, "z", (1, 0, 2.0), (0, 1, 0.5), (2, 0, 0.5)) == [True, True, not odd]
    assert accepted(net, "z", (0, 1, 2.0**-600), (0, 1, 2.0**1000)) == [False, False]


def test_terms_of_two_sources_both_count(tmp_path: Path) -> None:
    """``z = x W + relu(x) V``: elements 0 and 1 agree in both terms, 2 in the first one, 3 in the second."""
    w = np.array([[1.5, -3.0, 1.5, 0.5]], np.float32)
    v = np.array([[0.7, -1.4, 0.5, 0.7]], np.float32)
    nodes = [("Relu", ["x"], "r"), ("MatMul", ["x", "w"], "p"), ("MatMul", ["r", "v"], "q"), ("Add", ["p", "q"], "z"),
             ("Relu", ["z"], "a"), ("MatMul", ["a", "u"], "y")]  # fmt: skip
    net = network(tmp_path / "n.onnx", nodes, {"w": w, "v": v, "u": np.ones((4, 1), np.float32)}, 1, 1)
    assert accepted(net, "z", (1, 0, -2.0), (2, 0, 1.0), (3, 0, 1.0), (1, 2, -2.0)) == [True, False, False, False]


def test_nothing_is_concluded_through_a_nonlinear_step(tmp_path: Path) -> None:
    """``relu(x)`` and ``relu(2 x)`` are multiples, and where x > 0 so are x and relu(x): not by affine steps."""
    nodes = [("MatMul", ["x", "w"], "p"), ("Relu", ["p"], "r"), ("Concat", ["r", "x"], "c"), ("Relu", ["c"], "a"),
             ("MatMul", ["a", "u"], "y")]  # fmt: skip
    constants = {"w": np.array([[1.0, 2.0]], np.float32), "u": np.ones((3, 1), np.float32)}
    made = network(tmp_path / "n.onnx", nodes, constants, 1, 1)
    model = onnx.load(made)
    model.graph.node[2].attribute.append(helper.make_attribute("axis", 1))
    onnx.save(model, made)
    assert accepted(made, "c", (1, 0, 2.0), (2, 0, 1.0)) == [False, False]
    first = load_network(made)
    known = merged(first, first.names["p"], stated((1, 0, 2.0)))
    assert are_multiples(known, known.names["c"], stated((1, 0, 2.0), (2, 0, 1.0))).tolist() == [True, False]


def test_factors_that_are_rounded_themselves_are_no_proof(tmp_path: Path) -> None:
    """Division by three, and batch normalisation: what is stored as equal need not be."""
    nodes = [("MatMul", ["x", "w"], "p"), ("Div", ["p", "d"], "z"), ("Relu", ["z"], "a"), ("MatMul", ["a", "v"], "y")]
    for divisor, status in ((3.0, False), (4.0, False)):
        constants = {"w": np.array([[1, 2]], np.float32), "d": np.array(divisor, np.float32),
                     "v": np.ones((2, 1), np.float32)}  # fmt: skip
        assert accepted(network(tmp_path / "n.onnx", nodes, constants, 1, 1), "z", (1, 0, 2.0)) == [status]


def test_sums_that_are_rounded_are_no_proof(tmp_path: Path) -> None:
    """``2^53 + 1 - 2^53`` is 0 in doubles, and 1. Small whole numbers add up exactly."""
    for large, status in ((2.0**53, False), (2.0**20, True)):
        first = np.array([[large, 1.0, -large, 1.0]])  # of one input
        second = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # z0 = 1 x in both
        nodes = [("MatMul", ["x", "w"], "p"), ("MatMul", ["p", "s"], "z"), ("Relu", ["z"], "a"),
                 ("MatMul", ["a", "v"], "y")]  # fmt: skip
        constants = {"w": first, "s": second, "v": np.ones((2, 1))}
        assert accepted(network(tmp_path / "n.onnx", nodes, constants, 1, 1), "z", (1, 0, 1.0)) == [status]


def test_the_largest_power_of_two_that_divides() -> None:
    numbers = np.array([[6.0, 0.0, 20.0], [0.375, -(2.0**60), 1.0], [0.0, 0.0, 0.0], [5e-324, 1.0, 1.0]])
    assert quantum(numbers).tolist() == [2.0, 0.125, np.inf, 5e-324]


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_exact_where_it_is_said(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(4, 40))
    a = np.ldexp(rng.integers(-(2**bits), 2**bits, (30, 6)).astype(float), rng.integers(-20, 20, (30, 1)))
    a[rng.random(a.shape) < 0.5] = 0
    linear = BlockMatrix(4, 6, np.ldexp(rng.integers(-(2**bits), 2**bits, (4, 6)).astype(float), -30))
    product = linear.adjoint(a)
    for row, found, sure in zip(a, product, exact_rows(a, linear, product), strict=True):
        true = [sum(Fraction(x) * Fraction(w) for x, w in zip(row, weights, strict=True)) for weights in linear.matrix]
        assert not sure or [Fraction(x) for x in found] == true
        assert sure or bits > 20


# The whole statement


class CancellingNetwork:
    """``y = f(z) - f(s z) / |s|`` with one case that is refuted without a split, once the elements are multiples.

    For a ReLU, y is 0 where the factor s is positive, and z where it is negative. ``q`` is a tensor behind these.
    """

    def __init__(self, folder: Path, activation: str = "Relu", factor: float = -1.0) -> None:
        self.folder = folder
        weight = np.array([[0.75, 0.75 * factor], [0.5, 0.5 * factor]], np.float32)
        bias = np.array([0.25, 0.25 * factor], np.float32)
        nodes = [("Gemm", ["x", "w", "b"], "z"), (activation, ["z"], "a"), ("MatMul", ["a", "v"], "d"),
                 ("MatMul", ["a", "t"], "q"), ("Relu", ["q"], "h"), ("MatMul", ["h", "u"], "k"),
                 ("Add", ["d", "k"], "y")]  # fmt: skip
        constants = {"w": weight, "b": bias, "v": np.array([[1], [-1 / abs(factor)]], np.float32),
                     "t": np.array([[1, -1], [-1, 1]], np.float32), "u": np.zeros((2, 1), np.float32)}  # fmt: skip
        self.net = network(folder / "n.onnx", nodes, constants, 2, 1)
        self.spec = folder / "s.vnnlib"
        atom = "(>= (+ Y_0 (* -0.75 X_0) (* -0.5 X_1)) 0.26)" if factor < 0 else "(>= Y_0 0.01)"
        self.spec.write_text(
            "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)"
            f"(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1))) (assert {atom})"
        )

    def check(self, *multiples: Multiples, tensor: str = "z", late: bool = False, **more: bool) -> CheckOutcome:
        """The verdict on a certificate with these multiples and one leaf."""
        known = load_network(self.net)
        writer = CertificateWriter(known.digest, load_formula(self.spec).digest, list(known.names))
        data, number = [writer.header()], {"": 0, **writer.tensors}[tensor]
        equal = [lambda part=part: writer.equal(number, part) for part in multiples]
        if not late:
            data += [write() for write in equal]
        context, record = writer.case(0)
        data.append(record)
        if late:
            data += [write() for write in equal]
        none = references([{}])
        data.append(writer.refute(LinearRows(False, np.array([context]), [0], references([{0: 1.0}]), none, none)))
        path = self.folder / "certificate"
        path.write_bytes(b"".join([*data, writer.end()]))
        return check(self.net, self.spec, path, **more)


@pytest.mark.parametrize("exact", [False, True])
def test_what_cancels_is_bounded_without_relaxation(tmp_path: Path, exact: bool) -> None:
    """``relu(z) - relu(-z) - z`` is 0; that this is so must be stated."""
    cancelling = CancellingNetwork(tmp_path)
    assert cancelling.check(exact=exact).status == "refuted"
    assert cancelling.check(stated((1, 0, -1.0)), exact=exact).status == "checked"
    assert cancelling.check(stated((0, 1, -1.0)), exact=exact).status == "checked"


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("factor", [4.0, 0.5])
def test_positive_multiples_cancel(tmp_path: Path, exact: bool, factor: float) -> None:
    cancelling = CancellingNetwork(tmp_path, factor=factor)
    assert cancelling.check(stated((1, 0, factor)), exact=exact).status == "checked"
    assert cancelling.check(stated((1, 0, 1 / factor)), exact=exact).status == "refuted"
    assert cancelling.check(stated((1, 0, -factor)), exact=exact).status == "refuted"


WRONG = {
    "another sign": (1, 0, 1.0),
    "another factor": (1, 0, -2.0),
    "no power of two": (1, 0, -3.0),
    "zero": (1, 0, 0.0),
    "infinite": (1, 0, -np.inf),
    "no number": (1, 0, np.nan),
    "itself": (1, 1, 1.0),
    "no element": (2, 0, -1.0),
    "no other element": (1, 2, -1.0),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_false_statements_are_refused(tmp_path: Path, wrong: tuple[int, int, float]) -> None:
    outcome = CancellingNetwork(tmp_path).check(stated(wrong))
    assert outcome.status == "refuted" and outcome.message.startswith("record 1:")


def test_a_statement_has_its_place(tmp_path: Path) -> None:
    cancelling, true = CancellingNetwork(tmp_path), stated((1, 0, -1.0))
    assert "a case has begun" in cancelling.check(true, late=True).message
    assert cancelling.check(stated((1, 0, -1.0), (1, 0, -1.0))).status == "refuted"  # twice
    assert cancelling.check(stated((1, 0, -1.0), (0, 1, -1.0))).status == "refuted"  # each the other's model
    assert cancelling.check(true, true).status == "refuted"  # what is left has one element
    for tensor in ("q", ""):
        assert cancelling.check(true, tensor=tensor).status == "refuted"


@pytest.mark.parametrize(("activation", "factor", "status"), [
    ("Tanh", 1.0, True), ("Tanh", -1.0, False), ("Sigmoid", 2.0, False), ("LeakyRelu", 1.0, True),
    ("LeakyRelu", 2.0, False), ("Abs", -1.0, False), ("Abs", 1.0, True), ("Relu", 0.5, True),
])  # fmt: skip
def test_which_operators_make_multiples_of_multiples(
    tmp_path: Path, activation: str, factor: float, status: bool
) -> None:
    cancelling = CancellingNetwork(tmp_path, activation, factor)
    refused = "does not allow" in cancelling.check(stated((1, 0, factor))).message
    assert refused == (not status)


def test_all_readers_of_the_tensor_are_seen(tmp_path: Path) -> None:
    """A second activation, or a maximum, of the tensor: refused."""
    weight = np.array([[1.0, -1.0]], np.float32)
    for second in ("Tanh", "MaxPool"):
        nodes = [("MatMul", ["x", "w"], "z"), ("Relu", ["z"], "a"), (second, ["z"], "t"), ("Add", ["a", "t"], "s"),
                 ("MatMul", ["s", "v"], "y")]  # fmt: skip
        if second == "MaxPool":
            nodes[2:4] = [("Unsqueeze", ["z", "one"], "z3"), ("MaxPool", ["z3"], "m3"), ("Squeeze", ["m3", "one"], "m"),
                          ("Add", ["a", "m"], "s")]  # fmt: skip
        constants = {"w": weight, "v": np.ones((2, 1), np.float32), "one": np.array([1])}
        path = network(tmp_path / "n.onnx", nodes, constants, 1, 1)
        model = onnx.load(path)
        for node in model.graph.node:
            if node.op_type == "MaxPool":
                node.attribute.append(helper.make_attribute("kernel_shape", [1]))
        onnx.save(model, path)
        (tmp_path / "s.vnnlib").write_text("(declare-const X_0 Real) (declare-const Y_0 Real) (assert (>= X_0 -1))"
                                           "(assert (<= X_0 1)) (assert (>= Y_0 9))")  # fmt: skip
        known = load_network(path)
        writer = CertificateWriter(known.digest, load_formula(tmp_path / "s.vnnlib").digest, list(known.names))
        record = writer.equal(writer.tensors["z"], stated((1, 0, -1.0)))
        (tmp_path / "c").write_bytes(writer.header() + record + writer.end())
        outcome = check(path, tmp_path / "s.vnnlib", tmp_path / "c")
        assert outcome.status == "refuted" and "does not allow" in outcome.message


# Networks with many of them


def doubled_network(rng: np.random.Generator, path: Path, exact: bool = False) -> Path:
    """Dense layers in whose tensors most elements are multiples of others, some only by earlier ones."""
    sizes, nodes, constants, name = [2, 6, 5, 1], list[Node](), dict[str, np.ndarray](), "x"
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        few = max(1, outputs // 2)
        values = rng.integers(-8, 9, (inputs + 1, few)).astype(np.float32) / (4 if exact else np.float32(3.7))
        model = np.append(np.arange(few), rng.integers(0, few, outputs - few))
        factor = np.append(np.ones(few), rng.choice([1.0, -1.0, 2.0, -0.25], outputs - few)).astype(np.float32)
        order = rng.permutation(outputs)
        whole = (values[:, model] * factor)[:, order]
        constants |= {f"w{number}": whole[:-1], f"b{number}": whole[-1]}
        last = number == len(sizes) - 2
        nodes.append(("Gemm", [name, f"w{number}", f"b{number}"], "y" if last else f"z{number}"))
        if not last:
            nodes.append(("Relu", [f"z{number}"], f"a{number}"))
            name = f"a{number}"
    return network(path, nodes, constants, 2, 1)


def values_of(known: ProofNetwork, points: np.ndarray) -> np.ndarray:
    """The output at points, in rationals."""
    model = Model.of(known, exact=True)
    places = np.array([[Fraction(x) for x in point] for point in points.tolist()], object)
    output = fresh_bounds(model, places, places, []).lower[known.output]
    assert is_rational(output).all()
    return output


@pytest.mark.parametrize("seed", range(6))
def test_the_merged_network_is_the_same_function(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = load_network(doubled_network(rng, tmp_path / "n.onnx"))
    found = list(stated_tensors(net))
    small = found[-1].after
    assert {tensor.name for tensor in found} == {"z0", "z1"}
    assert [len(tensor.multiples.elements) for tensor in found] >= [3, 3]
    points = rng.uniform(-2, 2, (8, 2))
    assert (values_of(net, points) == values_of(small, points)).all()
    box = np.full((1, 2), -1.0), np.full((1, 2), 1.0)
    after = fresh_bounds(Model.of(small), *box, [])
    for point in points / 2:
        assert after.lower[net.output][0, 0] <= values_of(net, point[None])[0, 0] <= after.upper[net.output][0, 0]


def composed(known: ProofNetwork, value: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and bias of a tensor behind affine steps alone, in rationals."""
    steps = {step.value: step for step in known.steps}
    if value == 0:
        return np.array([[Fraction(int(i == j)) for j in range(known.sizes[0])] for i in range(known.sizes[0])]), 0
    step = steps[value]
    assert isinstance(step, AffineStep)
    [(source, linear)] = step.terms
    rows, bias = composed(known, source)
    matrix = np.frompyfunc(Fraction, 1, 1)(linear.adjoint(np.eye(linear.outputs)))
    own = 0 if step.bias is None else np.frompyfunc(Fraction, 1, 1)(step.bias)
    return matrix @ rows, matrix @ (bias if isinstance(bias, np.ndarray) else np.zeros(linear.inputs, int)) + own


@pytest.mark.parametrize("seed", range(12))
def test_no_false_multiple_is_accepted_behind_several_layers(tmp_path: Path, seed: int) -> None:
    """All pairs and factors of small networks of two affine layers, by exact arithmetic."""
    rng = np.random.default_rng(seed)
    scale = [1.0, 0.1, 1e-9, 2.0**40][seed % 4]
    first = rng.integers(-2, 3, (2, 4)).astype(float) * scale
    second = rng.integers(-1, 2, (4, 6)).astype(float)
    bias = rng.integers(-1, 2, 6).astype(float)
    if seed % 3 == 0:
        first[rng.integers(2), rng.integers(4)] += np.spacing(scale)
    nodes = [("MatMul", ["x", "w"], "p"), ("Gemm", ["p", "s", "b"], "z"), ("Relu", ["z"], "a"),
             ("MatMul", ["a", "v"], "y")]  # fmt: skip
    constants = {"w": first, "s": second, "b": bias, "v": np.ones((6, 1))}
    known = load_network(network(tmp_path / "n.onnx", nodes, constants, 2, 1))
    rows, shift = composed(known, known.names["z"])
    whole = np.concatenate([rows, np.asarray(shift).reshape(-1, 1)], 1)
    triples = [(i, j, s) for i in range(6) for j in range(6) if i != j for s in (1.0, -1.0, 2.0, -2.0, 0.5)]
    true = [bool((whole[i] == Fraction(s) * whole[j]).all()) for i, j, s in triples]
    found = are_multiples(known, known.names["z"], stated(*triples)).tolist()
    assert not any(said and not holds for said, holds in zip(found, true, strict=True))
    if scale == 1.0 and seed % 3:
        assert found == true


def test_a_tensor_that_cancels_altogether_can_still_be_named(tmp_path: Path) -> None:
    """Of ``relu(z) - relu(-z)``, which is behind every later tensor, nothing needs the ReLU."""
    cancelling = CancellingNetwork(tmp_path)
    known = load_network(cancelling.net)
    small = merged(known, known.names["z"], stated((1, 0, -1.0)))
    both = merged(small, small.names["q"], stated((1, 0, -1.0)))
    assert both.names.keys() == {"z", "q"}
    box = np.full((1, 2), -1.0), np.full((1, 2), 1.0)
    bounds = fresh_bounds(Model.of(both), *box, [])
    assert all(value in bounds.lower for value in both.names.values())
    assert replace(both, names={}).output == known.output
    assert cancelling.check(stated((1, 0, -1.0))).status == "checked"
