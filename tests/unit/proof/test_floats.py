"""Bounds on what evaluations in floating point may be off by: never exceeded, and what a certificate says of them."""

from __future__ import annotations

import itertools
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from node_models import model_of
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_check import (
    HEAD,
    Scribe,
    mutated,
    packed,
    raw,
    record_places,
    relu_network,
    specification,
)  # fmt: skip

from toolkit.proof.bounds import Model, fresh_bounds
from toolkit.proof.check import check
from toolkit.proof.floats import FloatErrors, unsuited
from toolkit.proof.network import load_network
from toolkit.proof.stream import RecordKind

UNIT = 2.0**-24
LEAST = 2.0**-126


def errors_of(path: Path, low, high) -> FloatErrors:
    """Errors in a box, of arrays ``(n,)``."""
    box = (np.asarray(end, float).reshape(1, -1) for end in (low, high))
    return FloatErrors(fresh_bounds(Model.of(load_network(path)), *box, []))


def bound(path: Path, low, high, functionals) -> np.ndarray:
    """What functionals of the outputs may be off by."""
    return errors_of(path, low, high).change(np.zeros((len(functionals), np.size(low))), np.asarray(functionals, float))


def exact_outputs(path: Path, x) -> list[Fraction]:
    model = Model.of(load_network(path), exact=True)
    point = np.array([[Fraction(float(value)) for value in np.ravel(x)]], object)
    return fresh_bounds(model, point, point, []).lower[model.network.output][0].tolist()


# Evaluations of layers ``(W, b)`` with ReLUs between them, ``z = x W + b``


def in_order(order):
    """A sum of products in float32, terms in this order, every operation rounded."""

    def total(w, x, b):
        terms = [*(w * x).astype(np.float32), b]
        acc = np.float32(0)
        for place in order(len(terms)):
            acc = np.float32(acc + terms[place])
        return acc

    return total


def in_halves(w, x, b):
    """A sum by halves of halves."""
    terms = np.append((w * x).astype(np.float32), b)
    while len(terms) > 1:
        terms = np.append(terms, np.zeros(len(terms) % 2, np.float32)).reshape(-1, 2)
        terms = (terms[:, 0] + terms[:, 1]).astype(np.float32)
    return terms[0]


def fused(w, x, b):
    """Each product added with one rounding."""
    acc = np.float64(b)
    for left, right in zip(w.astype(float), x.astype(float), strict=True):
        acc = np.float64(np.float32(left * right + acc))
    return np.float32(acc)


def flushed(w, x, b):
    """Numbers below the least normal one are zero, before and after each operation."""

    def flush(value):
        return np.where(np.abs(value) < LEAST, 0, value).astype(np.float32)

    acc = flush(b)
    for term in flush(flush(w) * flush(x)):
        acc = flush(acc + term)
    return acc


def evaluations(seed: int):
    rng = np.random.default_rng(seed)
    orders = {"forward": range, "backward": lambda n: range(n)[::-1], "shuffled": rng.permutation}
    return {name: in_order(order) for name, order in orders.items()} | {
        "halves": in_halves,
        "fused": fused,
        "flushed": flushed,
    }


def run_layers(layers, x, total):
    value = np.asarray(x, np.float32)
    for number, (weight, bias) in enumerate(layers):
        value = np.array([total(column, value, b) for column, b in zip(weight.T, bias, strict=True)], np.float32)
        if number < len(layers) - 1:
            value = np.maximum(value, np.float32(0))
    return value


def at_worst(layers, x, functional):
    """An evaluation, of which each operation is off by 2^-24 of its result, to where it moves a functional up."""
    slopes, values = [np.asarray(functional, float)], [np.asarray(x, float)]
    for weight, bias in layers:
        values.append(np.maximum(values[-1], 0 if len(values) > 1 else -np.inf) @ weight.astype(float) + bias)
    for number in range(len(layers) - 1, 0, -1):
        slopes.insert(0, (layers[number][0].astype(float) @ slopes[0]) * (values[number] > 0))
    value = np.asarray(x, float)
    for number, (weight, bias) in enumerate(layers):
        up = np.where(slopes[number] >= 0, UNIT, -UNIT)
        acc = np.zeros(weight.shape[1])
        for row, number_in in zip(weight.astype(float), value, strict=True):
            term = row * number_in
            both = (acc != 0) & (term != 0)  # what is added to zero is not rounded
            acc = acc + term * (1 + up * np.sign(term))
            acc = np.where(both, acc * (1 + up * np.sign(acc)), acc)
        acc = acc + bias
        acc = acc * (1 + up * np.sign(acc))
        value = np.maximum(acc, 0) if number < len(layers) - 1 else acc
    return value


def random_layers(rng, sizes, scale, cancelling):
    """Weights of very different sizes; cancelling ones come in pairs of opposite sign, nearly."""
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        weight = rng.normal(size=(inputs, outputs)) * 10.0 ** rng.uniform(-scale, scale, (inputs, outputs))
        if cancelling:
            half = inputs // 2
            weight[half : 2 * half] = -weight[:half] * (1 + rng.normal(size=(half, outputs)) * 1e-6)
        weight *= rng.random(weight.shape) < rng.choice([0.3, 1.0])
        layers.append((weight.astype(np.float32), (rng.normal(size=outputs) * 10.0**scale).astype(np.float32)))
    return layers


@pytest.mark.parametrize(("scale", "cancelling"), [(0, False), (0, True), (1.5, False), (1.5, True)])
@pytest.mark.parametrize("seed", range(3))
def test_no_evaluation_of_layers_is_further_off(tmp_path, seed, scale, cancelling):
    """In every order, fused, flushed, at worst, by onnxruntime and torch, against rational numbers."""
    rng = np.random.default_rng([seed, int(scale * 2), cancelling])
    layers = random_layers(rng, (6, 9, 8, 3), scale, cancelling)
    net = relu_network(tmp_path / "n.onnx", *layers)
    session = onnxruntime.InferenceSession(str(net), providers=["CPUExecutionProvider"])
    centre = rng.normal(size=6).astype(np.float32)
    radius = np.float32(10.0 ** -rng.integers(0, 6))
    functionals = np.array([[1, -1, 0], [0, 1, -1], [1, 0, 0], [-1, 0, 0]])
    room = bound(net, centre - radius, centre + radius, functionals)
    largest = 0.0
    for number in range(6):
        x = np.clip((centre + radius * rng.uniform(-1, 1, 6)).astype(np.float32), centre - radius, centre + radius)
        truth = exact_outputs(net, x)
        torched = torch.from_numpy(x)[None]
        for place, (weight, bias) in enumerate(layers):
            torched = torch.addmm(torch.from_numpy(bias), torched, torch.from_numpy(weight))
            torched = torched.relu() if place < len(layers) - 1 else torched
        found = [run_layers(layers, x, total) for total in evaluations(number).values()]
        found += [session.run(None, {"x": x[None]})[0][0], torched[0].numpy()]
        found += [at_worst(layers, x, functional) for functional in functionals]
        for outputs in found:
            off = [Fraction(float(value)) - true for value, true in zip(outputs, truth, strict=True)]
            for functional, limit in zip(functionals.tolist(), room.tolist(), strict=True):
                moved = abs(sum(factor * part for factor, part in zip(functional, off, strict=True)))
                assert moved <= Fraction(limit)
                largest = max(largest, float(moved) / limit)
    assert largest > 0.02 if scale == 0 and not cancelling else largest > 0


def test_the_bound_is_about_what_is_lost_at_worst(tmp_path):
    """Of positive numbers, nothing cancels: the bound is no more than twice what can happen."""
    rng = np.random.default_rng(0)
    layers = [(abs(w), abs(b)) for w, b in random_layers(rng, (8, 8, 2), 0, False)]
    net = relu_network(tmp_path / "n.onnx", *layers)
    x = np.ones(8, np.float32)
    room = bound(net, x, x, [[1, 0]])[0]
    off = Fraction(float(at_worst(layers, x, [1, 0])[0])) - exact_outputs(net, x)[0]
    assert room / 4 < off <= room


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all floats as doubles."""
    found = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in (*found.graph.input, *found.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in found.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    return found


def residual(rng, scale: float) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Normalisation, convolutions, folded factors, both poolings, a sum of two branches."""

    def normal(*shape, size=1.0):
        return (rng.normal(size=shape) * size).astype(np.float32)

    constants = {"m": normal(1, 2, 1, 1, size=scale), "d": abs(normal(1, 2, 1, 1)) + np.float32(0.1),
                 "w": normal(4, 2, 3, 3), "s": normal(4), "b": normal(4, size=scale), "mean": normal(4),
                 "v": abs(normal(4)), "f": normal(1, 4, 1, 1), "w2": normal(4, 4, 3, 3), "b2": normal(4),
                 "w3": normal(4, 3, size=scale), "b3": normal(3, size=scale), "back": np.array([1, 4])}  # fmt: skip
    nodes = [
        ("Sub", ["x", "m"], ["t0"], {}), ("Div", ["t0", "d"], ["t1"], {}),
        ("Conv", ["t1", "w"], ["c"], {"pads": [1, 1, 1, 1]}),
        ("BatchNormalization", ["c", "s", "b", "mean", "v"], ["n"], {}), ("Relu", ["n"], ["r"], {}),
        ("Conv", ["r", "w2", "b2"], ["c2"], {"pads": [1, 1, 1, 1]}), ("Mul", ["c2", "f"], ["c3"], {}),
        ("Add", ["c3", "r"], ["a"], {}), ("LeakyRelu", ["a"], ["l"], {"alpha": 0.1}),
        ("MaxPool", ["l"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("AveragePool", ["p"], ["q"], {"kernel_shape": [3, 3]}),
        ("Reshape", ["q", "back"], ["g"], {}), ("Gemm", ["g", "w3", "b3"], ["y"], {"alpha": 0.7}),
    ]  # fmt: skip
    return model_of(nodes, (1, 2, 6, 6), constants, opset=15), (1, 2, 6, 6)


@pytest.mark.parametrize("optimise", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_run_of_onnxruntime_is_further_off(tmp_path, seed, optimise):
    """Whatever it folds and fuses, against the standard's reference in double precision."""
    rng = np.random.default_rng(seed)
    model, shape = residual(rng, 10.0 ** rng.integers(-3, 5))
    net, reference = save(tmp_path / "n.onnx", model), ReferenceEvaluator(in_double(model))
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(net), options, providers=["CPUExecutionProvider"])
    centre, radius = rng.normal(size=shape), 10.0 ** -rng.integers(1, 6)
    room = bound(net, centre - radius, centre + radius, np.eye(3))
    assert np.isfinite(room).all()
    for _ in range(10):
        exact = rng.uniform(centre - radius, centre + radius)
        off = session.run(None, {"x": exact.astype(np.float32)})[0][0] - reference.run(None, {"x": exact})[0][0]
        assert (abs(off) <= room).all()
        assert (abs(off) > 0).any()


def test_underflow_is_accounted_for(tmp_path):
    """A tiny product is lost, and a large factor follows: 1e-20 x 1e-25 x 1e30 is 1e-15, or nothing."""
    layers = [(np.full((1, 1), factor, np.float32), np.zeros(1, np.float32)) for factor in (1e-25, 1e30)]
    net = relu_network(tmp_path / "n.onnx", *layers)
    x = np.array([1e-20], np.float32)
    lost = exact_outputs(net, x)[0] - Fraction(float(run_layers(layers, x, flushed)[0]))
    assert Fraction(5, 10**16) < lost <= bound(net, x, x, [[1]])[0]
    nodes = [("Mul", ["x", "a"], ["t"], {}), ("Mul", ["t", "b"], ["y"], {})]
    constants = {"a": np.float32(1e-25), "b": np.float32(1e30)}
    together = save(tmp_path / "m.onnx", model_of(nodes, (1, 1), constants))
    assert Fraction(5, 10**16) < lost <= bound(together, x, x, [[1]])[0]


def test_what_may_overflow_has_no_bound(tmp_path):
    layers = [(np.full((1, 1), 1e30, np.float32), np.zeros(1, np.float32)) for _ in range(2)]
    net = relu_network(tmp_path / "n.onnx", *layers)
    assert bound(net, [1.0], [1.0], [[1]])[0] == np.inf
    assert np.isfinite(bound(net, [1e-30], [1e-30], [[1]])[0])


def test_inputs_may_be_rounded(tmp_path):
    """A functional of inputs alone is off by their rounding, and doubles are rounded less."""
    for kind, unit in ((np.float32, UNIT), (np.float64, 2.0**-53)):
        net = relu_network(tmp_path / "n.onnx", (np.eye(2, dtype=kind), np.zeros(2, kind)))
        found = errors_of(net, [-3, 1], [2, 1]).change(np.array([[1.0, -2.0]]), np.zeros((1, 2)))[0]
        assert 5 * unit <= found <= 5.01 * unit


def test_the_numbers_of_the_page(tmp_path):
    """27 u for the two neurons of docs/certificate.md."""
    layers = [(np.array([[1, 1], [1, -1]], np.float32), np.zeros(2, np.float32)),
              (np.ones((2, 1), np.float32), np.zeros(1, np.float32))]  # fmt: skip
    nodes = [("MatMul", ["x", "w"], ["z"], {}), ("Relu", ["z"], ["a"], {}), ("MatMul", ["a", "v"], ["y"], {})]
    model = model_of(nodes, (1, 2), {"w": layers[0][0], "v": layers[1][0]})
    room = bound(save(tmp_path / "n.onnx", model), [-1, -1], [1, 1], [[1]])[0]
    assert 27 * UNIT < room < 27.01 * UNIT


UNSUITED = {
    "sigmoid": model_of([("Sigmoid", ["x"], ["y"], {})], (1, 2)),
    "softmax": model_of([("Softmax", ["x"], ["y"], {})], (1, 2)),
    "half": model_of([("Relu", ["x"], ["y"], {})], (1, 2), dtype=TensorProto.FLOAT16),
    "two types": model_of([("Add", ["x", "c"], ["y"], {})], (1, 2), {"c": np.ones(2)}),
    "constants": model_of([("Add", ["c", "c"], ["d"], {}), ("Add", ["x", "d"], ["y"], {})], (1, 2),
                          {"c": np.ones(2, np.float32)}),
    "variance": model_of([("BatchNormalization", ["x", "s", "s", "s", "v"], ["y"], {"epsilon": 1e-20})], (1, 2),
                         {"s": np.ones(2, np.float32), "v": np.full(2, 1e-30, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUITED)
def test_where_nothing_is_known_it_is_said(tmp_path, name):
    net = save(tmp_path / "n.onnx", UNSUITED[name])
    network = load_network(net)
    assert unsuited(network)
    spec = specification(tmp_path / "s.vnnlib", 2, 2, [(0, 1)] * 2, "(assert (>= X_0 2))")
    for kind in (*network.types, 1, 11):
        scribe = Scribe(net, spec)
        scribe.data.append(scribe.writer.floats(frozenset({kind})))
        outcome = scribe.check()
        assert outcome.status == "refuted" and "record 1" in outcome.message


# Certificates


def absorbing(folder: Path, large: float = 1e8) -> Path:
    """y = (x + large) - large, which is x, or what single precision leaves of it."""
    nodes = [("Add", ["x", "b"], ["t"], {}), ("Sub", ["t", "b"], ["z"], {}), ("Relu", ["z"], ["y"], {})]
    return save(folder / "n.onnx", model_of(nodes, (1, 1), {"b": np.float32(large)}))


def certificate(net: Path, spec: Path, floats: bool) -> Scribe:
    scribe = Scribe(net, spec)
    if floats:
        scribe.data.append(scribe.writer.floats(load_network(net).types))
    scribe.refute([scribe.case(0)], [{0: 1.0}])
    return scribe


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("large", [1.0, 2.0**20, 1e8])
def test_what_holds_for_real_numbers_alone_is_not_accepted(tmp_path, large, exact):
    """x in [1, 2] is at least 0.5 in real numbers; x + 1e8 - 1e8 is 0 in floats."""
    net = absorbing(tmp_path, large)
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(1, 2)], "(assert (<= Y_0 0.5))")
    session = onnxruntime.InferenceSession(str(net), providers=["CPUExecutionProvider"])
    violated = session.run(None, {"x": np.array([[1.25]], np.float32)})[0][0, 0] <= 0.5
    assert violated == (large == 1e8)
    plain, stated = (certificate(net, spec, floats).check(exact=exact) for floats in (False, True))
    assert plain.status == "checked" and not plain.floats
    assert (stated.status, stated.floats) == (("refuted", False) if violated else ("checked", True))


def test_room_is_of_the_network_in_the_file_whatever_is_equal(tmp_path):
    """An `EQUAL` record changes what is bounded, not what is evaluated."""
    from toolkit.proof.identities import Multiples

    first, second = np.array([[1, 2]], np.float32), np.array([[2], [-1]], np.float32) * np.float32(2**24)
    net = relu_network(tmp_path / "n.onnx", (first, np.zeros(2, np.float32)), (second, np.ones(1, np.float32)))
    # 2 relu(x) - relu(2 x) is 0 in real numbers; what cancels there has been rounded
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(-1, 1)], "(assert (<= Y_0 0.5))")
    for floats in (False, True):
        scribe = Scribe(net, spec)
        if floats:
            scribe.data.append(scribe.writer.floats(load_network(net).types))
        stated = Multiples(np.array([1]), np.array([0]), np.array([2.0]))
        scribe.data.append(scribe.writer.equal(1, stated))
        scribe.refute([scribe.case(0)], [{0: 1.0}])
        assert scribe.check().status == ("refuted" if floats else "checked")


@pytest.mark.parametrize("large", [1.0, 1e8])
def test_what_all_cases_have_in_common_needs_no_atoms(tmp_path, large):
    """It has bounds of real numbers; the atoms of cases have their room."""
    net = absorbing(tmp_path, large)
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(1, 2)], "(assert (or (<= Y_0 0.5) (<= Y_0 0.4)))")
    scribe = Scribe(net, spec)
    scribe.data.append(scribe.writer.floats(load_network(net).types))
    common = scribe.case(2)
    scribe.bound([common], "z", [0], [0])
    contexts = [scribe.case(number, common) for number in (0, 1)]
    scribe.refute(contexts, [{0: 1.0}, {0: 1.0}])
    assert scribe.check().status == ("refuted" if large == 1e8 else "checked")


@pytest.mark.parametrize("wrong", ["later", "twice", "type", "longer", "shorter"])
def test_the_record_has_its_place(tmp_path, wrong):
    net = absorbing(tmp_path, 1.0)
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(1, 2)], "(assert (<= Y_0 0.5))")
    good = raw(b"".join([*(scribe := certificate(net, spec, True)).data, scribe.writer.end()]))
    (_, start), (_, end), *_ = record_places(good)
    record = bytes(good[start:end])
    payload = {"type": struct.pack("<I", 11), "longer": record[HEAD.size :] + b"\0", "shorter": b"\1"}.get(wrong)
    changed = record if payload is None else HEAD.pack(RecordKind.FLOATS, len(payload)) + payload
    third = record_places(good)[2][1]
    rest = good[end:third] + (record if wrong == "later" else b"") + good[third:]
    middle = {"later": b"", "twice": record + record}.get(wrong, changed)
    path = tmp_path / "certificate"
    path.write_bytes(packed(good))
    assert check(net, spec, path).floats
    path.write_bytes(packed(bytes(good[:start]) + middle + bytes(rest)))
    assert check(net, spec, path).status == "refuted"


@pytest.mark.parametrize("seed", range(2))
def test_no_mutation_makes_it_a_statement_about_floats(tmp_path, seed):
    """What floats violate is accepted of real numbers alone, whatever is done to the certificate."""
    net = absorbing(tmp_path)
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(1, 2)], "(assert (<= Y_0 0.5))")
    scribe = certificate(net, spec, True)
    good, rng, seen = raw(b"".join([*scribe.data, scribe.writer.end()])), np.random.default_rng(seed), set()
    path = tmp_path / "certificate"
    for _ in range(150):
        path.write_bytes(packed(mutated(rng, good)))
        outcome = check(net, spec, path)
        seen.add(outcome.status)
        assert outcome.status != "checked" or not outcome.floats
    assert {"refuted", "checked"} <= seen
