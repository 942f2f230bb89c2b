"""The checker of certificates: what it accepts is true, whatever is done to a certificate."""

from __future__ import annotations

import ast
import struct
import sys
import zlib
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from certificate_prover import CertificateProver
from onnx import TensorProto, helper, numpy_helper

import toolkit.proof
from toolkit.certificates.writer import CertificateWriter, references
from toolkit.proof.bounds import Model, fresh_bounds
from toolkit.proof.check import check, check_match, main
from toolkit.proof.formula import load_formula
from toolkit.proof.network import UnreadableError, load_network
from toolkit.proof.stream import HEAD, MAGIC, LinearRows, RecordKind

ROOT = Path(toolkit.proof.__file__).parent


def test_the_checker_stands_alone() -> None:
    """Imports of numpy, onnx, the standard library and this folder, and nothing else."""
    files = sorted(ROOT.glob("*.py"))
    allowed = {"numpy", "onnx", *sys.stdlib_module_names}
    names = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names.add(node.module or "")
    assert len(files) >= 6 and {"numpy", "onnx", "toolkit.proof.bounds"} <= names
    assert not {name for name in names if name.split(".")[0] not in allowed and not name.startswith("toolkit.proof.")}
    assert not list(ROOT.rglob("*/*.py"))


def test_the_checker_can_be_read_in_one_sitting() -> None:
    """At most 2,000 lines that are neither blank nor comments nor docstrings."""
    count = 0
    for path in ROOT.glob("*.py"):
        tree = ast.parse(path.read_text())
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
        described = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
        lines = enumerate(path.read_text().splitlines(), 1)
        count += sum(bool(line.split("#")[0].strip()) and number not in described for number, line in lines)
    assert 1000 < count <= 2000


def relu_network(path: Path, *layers: tuple[np.ndarray, np.ndarray], last: str = "") -> Path:
    """Gemm and ReLU in turn; ``z0, z1, ..`` are the tensors before the ReLUs."""
    nodes, constants, name = [], [], "x"
    for number, (weight, bias) in enumerate(layers):
        final = number == len(layers) - 1
        out = ("y" if not last else "logits") if final else f"z{number}"
        constants += [numpy_helper.from_array(np.asarray(weight), f"w{number}"),
                      numpy_helper.from_array(np.asarray(bias), f"b{number}")]  # fmt: skip
        nodes.append(helper.make_node("Gemm", [name, f"w{number}", f"b{number}"], [out]))
        if not final:
            nodes.append(helper.make_node("Relu", [out], [f"a{number}"]))
            name = f"a{number}"
    if last:
        nodes.append(helper.make_node(last, ["logits"], ["y"]))
    kind = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("float64"): TensorProto.DOUBLE}[
        np.asarray(layers[0][0]).dtype
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, [1, len(layers[0][0])])],
        [helper.make_tensor_value_info("y", kind, [1, len(layers[-1][1])])], constants,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def specification(path: Path, inputs: int, outputs: int, ends: list[tuple[object, object]], *assertions: str) -> Path:
    """A specification with a box."""
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)] + [
        f"(declare-const Y_{i} Real)" for i in range(outputs)
    ]
    for number, (low, high) in enumerate(ends):
        lines += [f"(assert (>= X_{number} {low}))", f"(assert (<= X_{number} {high}))"]
    path.write_text("\n".join([*lines, *assertions]) + "\n")
    return path


@pytest.fixture
def absolute(tmp_path: Path):
    """``y = relu(x) + relu(-x)`` on [-1, 1], of which y < 0.5 - ... needs a split: y <= -0.001 has no point."""
    one = np.ones((1, 1), np.float32)
    net = relu_network(
        tmp_path / "abs.onnx",
        (np.array([[1, -1]], np.float32), np.zeros(2, np.float32)),
        (np.array([[1], [1]], np.float32), np.zeros(1, np.float32)),
        (one, np.array([0], np.float32)),
        (one, np.array([0], np.float32)),
    )
    return net, specification(tmp_path / "abs.vnnlib", 1, 1, [(-1, 1)], "(assert (<= Y_0 -0.001))")


class Scribe:
    """A certificate written by hand, record after record."""

    def __init__(self, net: Path, spec: Path) -> None:
        network = load_network(net)
        self.writer = CertificateWriter(network.digest, load_formula(spec).digest, list(network.names))
        self.data, self.folder = [self.writer.header()], net.parent
        self.net, self.spec = net, spec

    def case(self, number: int, above: int | None = None) -> int:
        context, record = self.writer.case(number, above)
        self.data.append(record)
        return context

    def split(self, context: int, tensor: str, index: int, point: float) -> list[int]:
        tensors = {"": 0, **self.writer.tensors}
        children, record = self.writer.split([context], [tensors[tensor]], [index], [point])
        self.data.append(record)
        return children[0].tolist()

    def rows(self, contexts, atoms=(), splits=(), halves=(), slots=None, **more):
        count = len(contexts)
        parts = [references(list(part) or [{}] * count) for part in (atoms, splits, halves)]
        more["tensor"] = {"": 0, **self.writer.tensors}[more.get("tensor", "")]
        fresh = more.pop("fresh", False)
        return LinearRows(fresh, np.array(contexts), np.array(slots or [0] * count), *parts, **more)

    def refute(self, contexts, atoms, **more) -> None:
        self.data.append(self.writer.refute(self.rows(contexts, atoms, **more)))

    def bound(self, contexts, tensor, indices, upper, **more) -> None:
        rows = self.rows(contexts, tensor=tensor, indices=np.array(indices), upper=np.array(upper), **more)
        self.data.append(self.writer.bound(rows))

    def half_space(self, contexts, atoms, **more) -> list[int]:
        numbers, record = self.writer.half_space(self.rows(contexts, atoms, **more))
        self.data.append(record)
        return numbers.tolist()

    def check(self, end: bool = True, **more):
        packer = self.writer._packer
        self.writer._packer = packer.copy()  # more may be written after this check
        data = [*self.data, self.writer.end() if end else self.writer.flush()]
        self.writer._packer = packer
        path = self.folder / "certificate"
        path.write_bytes(b"".join(data))
        return check(self.net, self.spec, path, **more)


@pytest.mark.parametrize("exact", [False, True])
def test_phases(absolute, exact):
    """The absolute value needs one split: slopes that are fit for one side only are not enough for both."""
    scribe = Scribe(*absolute)
    root = scribe.case(0)
    below, above = scribe.split(root, "z0", 0, 0.0)
    scribe.refute([below], [{0: 1.0}])
    scribe.refute([above], [{0: 1.0}], splits=[{above: 1.0}])
    assert scribe.check(exact=exact).status == "checked"


def test_a_proof_is_missing(absolute):
    scribe = Scribe(*absolute)
    below, above = scribe.split(scribe.case(0), "", 0, 0.0)
    assert scribe.check().status == "incomplete"
    scribe.refute([below], [{0: 1.0}], fresh=True)
    outcome = scribe.check()
    assert outcome.status == "incomplete" and f"open: {above}" in outcome.message
    scribe.refute([above], [{0: 1.0}], fresh=True)
    assert scribe.check(end=False).status == "checked"


def test_bounds_and_half_spaces_stay_in_their_context(tmp_path):
    """``relu(x0 + x1 - 1)`` below a half-space: with it there is a proof, outside of its context none."""
    net = relu_network(
        tmp_path / "n.onnx",
        (np.array([[1, 0], [1, 1]], np.float32), np.array([-1, 0], np.float32)),
        (np.array([[1, 0], [0, 1]], np.float32), np.zeros(2, np.float32)),
    )
    # Y_1 = relu(x1), Y_0 = relu(x0 + x1 - 1): Y_0 <= 0.25 and x0 >= 1 leave x1 <= 0.25
    spec = specification(tmp_path / "s.vnnlib", 2, 2, [(0, 1), (0, 1)], "(assert (>= X_0 1))",
                         "(assert (<= Y_0 0.25))", "(assert (>= Y_1 0.5))")  # fmt: skip
    for inside in (True, False):
        scribe = Scribe(net, spec)
        below, above = scribe.split(scribe.case(0), "", 1, 0.4)
        scribe.refute([below], [{1: 1.0}])
        (half,) = scribe.half_space([above], [{0: 1.0}])
        context = above
        if not inside:
            context = below
        scribe.refute([context], [{1: 1.0}], halves=[{half: 1.0}])
        assert scribe.check().status == ("checked" if inside else "refuted")
    scribe = Scribe(net, spec)
    root = scribe.case(0)
    scribe.bound([root], "", [1], [1], atoms=[{0: 1.0}])  # x1 <= 0.25, by the atom
    scribe.refute([root], [{1: 1.0}], fresh=True)
    assert scribe.check().status == "checked"
    scribe = Scribe(net, spec)
    below, above = scribe.split(scribe.case(0), "", 1, 0.4)
    scribe.bound([above], "", [1], [1], atoms=[{0: 1.0}])
    scribe.refute([above], [{}])  # the bound crosses the half
    scribe.refute([below], [{0: 1.0}])  # the wrong atom
    assert scribe.check().status == "refuted"


def test_slopes(tmp_path):
    """``relu(x) - x / 2 >= -0.6`` on [-1, 1]: any slope does; ``> -0.01`` needs the slope one half."""
    net = relu_network(
        tmp_path / "n.onnx",
        (np.array([[1, 1]], np.float32), np.array([0, 2], np.float32)),
        (np.array([[1], [-0.5]], np.float32), np.array([1], np.float32)),
    )
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(-1, 1)], "(assert (<= Y_0 -0.01))")
    for byte, status in ((127, "checked"), (0, "refuted"), (254, "refuted"), (255, "refuted")):
        scribe = Scribe(net, spec)
        root = scribe.case(0)
        scribe.data.append(scribe.writer.slopes(1, {"z0": np.array([byte, 255])}))
        scribe.refute([root], [{0: 1.0}], slots=[1])
        assert scribe.check().status == status
        assert scribe.check(exact=True).status == status


@pytest.mark.parametrize("exact", [False, True])
def test_what_all_cases_have_in_common_is_proved_once(tmp_path, exact):
    """x - 2 relu(x) - relu(-x) <= 0 needs a split: stated as a bound of a neuron for two cases, if it is proved."""
    net = relu_network(
        tmp_path / "n.onnx",
        (np.array([[1, -1, 1]], np.float32), np.array([0, 0, 2], np.float32)),
        (np.array([[-2], [-1], [1]], np.float32), np.array([-2.1], np.float32)),
        (np.array([[1]], np.float32), np.zeros(1, np.float32)),
    )
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(-1, 1)], "(assert (or (>= Y_0 0.2) (>= (* 2 Y_0) 0.3)))")
    for kind in ("whole", "half", "beyond", "waiting", "without", "twice", "not common"):
        scribe = Scribe(net, spec)
        common = scribe.case(2)
        within, beyond = scribe.split(common, "z1", 0, -0.05)
        halves = scribe.split(beyond, "", 0, 0.0)[: 1 if kind == "half" else 2]
        scribe.refute(halves, [{}] * len(halves), splits=[{beyond: 1.0}] * len(halves), fresh=True)
        scribe.data.append(scribe.writer.recompute(within, anew=False))
        if kind == "waiting":
            scribe.refute([within], [{}])
        if kind == "twice":
            scribe.case(2)
        above = {"beyond": beyond, "without": None}.get(kind, within)
        cases = [scribe.case(0, above), scribe.case(1, common if kind == "not common" else above)]
        scribe.refute(cases, [{0: 1.0}, {0: 1.0}])
        outcome = scribe.check(exact=exact)
        assert outcome.status == ("checked" if kind == "whole" else "refuted"), (kind, outcome)


@pytest.mark.parametrize("exact", [False, True])
def test_cases_without_points_need_no_bounds_and_no_proof(tmp_path, exact):
    net = relu_network(tmp_path / "n.onnx", (np.eye(2, dtype=np.float32), np.zeros(2, np.float32)))
    inside = "(>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1)"
    cases = f"(assert (or (and (>= X_0 1) (<= X_0 -1)) (and {inside} (>= Y_0 1.5))))"
    scribe = Scribe(net, specification(tmp_path / "s.vnnlib", 2, 2, [], cases))
    scribe.refute([scribe.case(1)], [{0: 1.0}])
    assert scribe.check(exact=exact).status == "checked"
    scribe = Scribe(scribe.net, scribe.spec)
    scribe.refute([scribe.case(0)], [{}])
    assert scribe.check(exact=exact).status == "refuted"


@pytest.mark.parametrize("exact", [False, True])
def test_recomputed_bounds_are_kept_below_and_only_there(tmp_path, exact):
    """With x <= 0 the second layer's neurons are in smaller ranges, once they are computed again."""
    net = relu_network(
        tmp_path / "n.onnx",
        (np.array([[1, -1]], np.float32), np.array([0, 0], np.float32)),
        (np.array([[1, 1], [1, -1]], np.float32), np.array([-0.5, 0], np.float32)),
        (np.array([[1], [1]], np.float32), np.zeros(1, np.float32)),
    )
    # y = relu(|x| - 0.5) + relu(x) is at most 0.5 where x <= 0; elsewhere the sum of the two atoms is x + 0.5
    spec = specification(
        tmp_path / "s.vnnlib", 1, 1, [(-1, 1)], "(assert (>= Y_0 0.6))", "(assert (<= (+ X_0 Y_0) 0.1))"
    )
    for kind in ("recompute", "fresh", "bound", "none", "elsewhere"):
        scribe = Scribe(net, spec)
        below, above = scribe.split(scribe.case(0), "", 0, 0.0)
        if kind in {"recompute", "elsewhere"}:
            scribe.data.append(scribe.writer.recompute(below if kind == "recompute" else above))
        if kind == "bound":
            scribe.bound([below] * 2, "z1", [0, 1], [1, 1], fresh=True)
        scribe.refute([above], [{0: 1.0, 1: 1.0}])
        scribe.refute([below], [{0: 1.0}], fresh=kind == "fresh")
        outcome = scribe.check(exact=exact)
        assert outcome.status == ("refuted" if kind in {"none", "elsewhere"} else "checked"), kind


def test_each_row_has_its_own_slopes(tmp_path):
    """Two halves that need different slopes, in one record; exchanged, they prove nothing."""
    net = relu_network(
        tmp_path / "n.onnx",
        (np.array([[1, 1]], np.float32), np.array([0, 2], np.float32)),
        (np.array([[1], [-0.5]], np.float32), np.array([1], np.float32)),
    )
    spec = specification(tmp_path / "s.vnnlib", 1, 1, [(-1, 1)], "(assert (<= Y_0 -0.01))")
    for slots, status in (([1, 1], "checked"), ([1, 2], "refuted"), ([2, 1], "refuted"), ([1, 3], "refuted")):
        scribe = Scribe(net, spec)
        halves = scribe.split(scribe.case(0), "z0", 1, 2.0)
        scribe.data.append(scribe.writer.slopes(1, {"z0": np.array([127, 255])}))
        scribe.data.append(scribe.writer.slopes(2, {"z0": np.array([254, 255])}))
        scribe.refute(halves, [{0: 1.0}, {0: 1.0}], slots=slots)
        assert scribe.check().status == status


def test_strict_atoms_are_refuted_at_zero_in_exact_arithmetic(tmp_path):
    """``x < 0`` on [0, 1] has no point, ``x <= 0`` has one."""
    net = relu_network(tmp_path / "n.onnx", (np.ones((1, 1)), np.zeros(1)), (np.ones((1, 1)), np.zeros(1)))
    for sign, status in (("<", "checked"), ("<=", "refuted")):
        spec = specification(tmp_path / "s.vnnlib", 1, 1, [(0, 1)], f"(assert ({sign} Y_0 0))")
        scribe = Scribe(net, spec)
        scribe.refute([scribe.case(0)], [{0: 1.0}])
        assert scribe.check(exact=True).status == status
        assert scribe.check().status == "refuted"


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
def test_a_last_softmax_only_compares(tmp_path, last, capsys):
    net = relu_network(
        tmp_path / "n.onnx", (np.eye(2), np.array([0.0, 1.5])), (np.eye(2), np.array([0.0, 0.0])), last=last
    )
    spec = specification(tmp_path / "s.vnnlib", 2, 2, [(0, 1), (0, 1)], "(assert (or (and (>= Y_0 Y_1))))")
    scribe = Scribe(net, spec)
    scribe.refute([scribe.case(0)], [{0: 1.0}])
    assert scribe.check().status == "checked"
    for text in ("(assert (>= Y_0 0.5))", "(assert (>= Y_0 (* 2.0 Y_1)))", "(assert (>= (+ Y_0 X_0) Y_1))"):
        spec = specification(tmp_path / "t.vnnlib", 2, 2, [(0, 1), (0, 1)], text)
        assert main([str(net), str(spec), str(tmp_path / "certificate")]) == 2
    assert "softmax" in capsys.readouterr().err


def random_network(rng, path: Path, inputs: int, *sizes: int, kind: type = np.float32) -> Path:
    shapes = zip((inputs, *sizes), sizes, strict=False)
    return relu_network(
        path, *((rng.normal(size=s).astype(kind), rng.normal(size=s[1]).astype(kind) / 2) for s in shapes)
    )


def exact_value(net: Path, point) -> Fraction:
    """The output at a point, in rationals."""
    model = Model.of(load_network(net), exact=True)
    place = np.array([[Fraction(x) for x in point]], object)
    return fresh_bounds(model, place, place, []).lower[model.network.output][0, 0]


def text(number: Fraction) -> str:
    """A number in decimals, exactly."""
    digits = Fraction(number) * 10**60
    return f"{int(digits // 1)}e-60"


def raw(data: bytes) -> bytearray:
    return bytearray(zlib.decompressobj().decompress(data[len(MAGIC) :]))


def packed(data: bytes) -> bytes:
    return MAGIC + zlib.compress(bytes(data))


def record_places(data: bytes) -> list[tuple[int, int]]:
    place, found = 0, []
    while place < len(data):
        length = HEAD.unpack_from(data, place)[1]
        found.append((place, place + HEAD.size + length))
        place += HEAD.size + length
    return found


@pytest.mark.parametrize("way", ["boxes", "spaces", "phases"])
@pytest.mark.parametrize("seed", range(3))
def test_no_mutation_proves_what_is_false(tmp_path, seed, way):
    """Certificates of a true statement, with the hash of a false one that is close by, and mutated at random.

    The minimum of a network is found as a threshold that is proved; at a point close to it, the statement with the
    value there, in exact arithmetic, as threshold is false: no mutation may be accepted.
    """
    rng = np.random.default_rng(seed)
    net = random_network(rng, tmp_path / "n.onnx", 2, 4, 3, 1)
    points = rng.uniform(-1, 1, (300, 2))
    low, place = min((exact_value(net, point), tuple(point)) for point in points)
    false = specification(
        tmp_path / "false.vnnlib", 2, 1, [(-1, 1)] * 2, f"(assert (<= Y_0 {text(low + Fraction(1, 10**50))}))"
    )
    prover = tightest(net, tmp_path, low, way == "phases", way == "spaces")
    assert exact_value(net, place) == low
    true_spec, path = tmp_path / "true.vnnlib", tmp_path / "certificate"
    good = raw(b"".join(prover.data))
    path.write_bytes(packed(good))
    assert check(net, true_spec, path).status == "checked"
    assert check(net, true_spec, path, exact=True).status == "checked"
    assert check(net, false, path).status == "refuted"
    forged = good.replace(load_formula(true_spec).digest, load_formula(false).digest)
    seen = set()
    for _ in range(60):
        path.write_bytes(packed(mutated(rng, forged)))
        seen.add(check(net, false, path).status)
        path.write_bytes(bytes(flipped(rng, bytearray(packed(forged)))))
        seen.add(check(net, false, path).status)
    assert seen <= {"refuted", "incomplete"} and "refuted" in seen


def proved(net: Path, folder: Path, threshold: Fraction, phases: bool, spaces: bool) -> CertificateProver | None:
    spec = specification(folder / "true.vnnlib", 2, 1, [(-1, 1)] * 2, f"(assert (<= Y_0 {text(threshold)}))")
    prover = CertificateProver(net, spec, phases, spaces=spaces)
    return prover if prover.prove(400) else None


def tightest(net: Path, folder: Path, low: Fraction, phases: bool, spaces: bool = False) -> CertificateProver:
    """The proof of the highest of some thresholds below a value."""
    proofs = (
        proved(net, folder, low - Fraction(m), phases, spaces) for m in (1e-6, 1e-3, 1e-2, 0.05, 0.2, 1.0, 5.0, 20.0)
    )
    return next(proof for proof in proofs if proof)


def flipped(rng, data: bytearray) -> bytearray:
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return data


def mutated(rng, data: bytes) -> bytes:
    """A record dropped, doubled, moved, cut or with other numbers; the header stays."""
    data = bytearray(data)
    places = record_places(data)
    kind, chosen = rng.integers(6), places[rng.integers(1, len(places))]
    record = data[chosen[0] : chosen[1]]
    if kind == 0:
        del data[chosen[0] : chosen[1]]
    elif kind == 1:
        data[chosen[1] : chosen[1]] = record
    elif kind == 2:
        data += record
    elif kind == 3:
        data = data[: int(rng.integers(places[0][1], len(data)))]
    elif kind == 4 and len(record) >= HEAD.size + 8:
        start = chosen[0] + HEAD.size + int(rng.integers(len(record) - HEAD.size - 7))
        numbers = [struct.pack("<d", x) for x in (np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, -1.0, 1e-320)]
        data[start : start + 8] = numbers[rng.integers(len(numbers))]
    else:
        start, end = places[1][0], len(data)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(start, end)] = rng.integers(256)
    return bytes(data)


@pytest.mark.parametrize("phases", [False, True])
def test_jobs_agree_and_both_find_what_is_wrong(tmp_path, phases):
    rng = np.random.default_rng(5)
    net = random_network(rng, tmp_path / "n.onnx", 2, 8, 8, 1)
    low = min(exact_value(net, point) for point in rng.uniform(-1, 1, (100, 2)))
    prover = tightest(net, tmp_path, low, phases)
    path = prover.write(tmp_path / "certificate")
    assert [check(net, tmp_path / "true.vnnlib", path, jobs=jobs).status for jobs in (1, 2)] == ["checked"] * 2
    data = raw(path.read_bytes())
    places = record_places(data)
    leaves = [place for place in places if data[place[0]] == RecordKind.REFUTE]
    path.write_bytes(packed(data[: leaves[-1][0]] + data[leaves[-1][1] :]))
    assert [check(net, tmp_path / "true.vnnlib", path, jobs=jobs).status for jobs in (1, 2)] == ["incomplete"] * 2
    path.write_bytes(packed(data[: leaves[0][1] - 1] + b"\xff" + data[leaves[0][1] :]))
    assert [check(net, tmp_path / "true.vnnlib", path, jobs=jobs).status for jobs in (1, 2)] == ["refuted"] * 2
    other = random_network(rng, tmp_path / "o.onnx", 2, 8, 8, 1)
    assert check(other, tmp_path / "true.vnnlib", path).status == "refuted"


def test_lengths_are_not_trusted(absolute, tmp_path):
    net, spec = absolute
    scribe = Scribe(net, spec)
    scribe.refute([scribe.case(0)], [{0: 1.0}])
    data = raw(b"".join([*scribe.data, scribe.writer.end()]))
    path = tmp_path / "certificate"
    for start, _ in record_places(data)[:-1]:
        for length in (0, 1, 2**28, 2**32 - 1):
            changed = bytearray(data)
            struct.pack_into("<I", changed, start + 1, length)
            path.write_bytes(packed(changed))
            assert check(net, spec, path).status != "checked"
    for content in (b"", MAGIC, b"x" * 100, MAGIC + b"\0" * 100, packed(b""), packed(data) + b"more"):
        path.write_bytes(content)
        assert check(net, spec, path).status != "checked"


@pytest.mark.parametrize(("declared", "reason"), [
    ("(declare-input X real [1, 2])(declare-output Y real [1, 3])", None),
    ("(declare-input X real [2])(declare-output Y real [3, 1])", None),
    ("(declare-input X real [1, 3])(declare-output Y real [1, 3])", "has 2 inputs and 3 outputs"),
    ("(declare-input X real [1, 2])(declare-output Y real [1, 2])", "has 2 inputs and 3 outputs"),
    ("(declare-input X real [3])(declare-output Y real [2])", "has 2 inputs and 3 outputs"),
    ("(declare-input X real [1])(declare-input U real [1])(declare-output Y real [3])", "tensors of the specification"),
    ("(declare-input X real [2])(declare-output Y real [2])(declare-output Z real [])", "tensors of the specification"),
])  # fmt: skip
def test_a_specification_is_about_tensors_like_the_network_s(tmp_path: Path, declared: str, reason: str | None) -> None:
    net = relu_network(tmp_path / "n.onnx", (np.ones((2, 2), np.float32), np.zeros(2, np.float32)),
                       (np.ones((2, 3), np.float32), np.zeros(3, np.float32)))  # fmt: skip
    spec = tmp_path / "s.vnnlib"
    spec.write_text(f"(vnnlib-version <2.0>)\n(declare-network N {declared})\n")
    with nullcontext() if reason is None else pytest.raises(UnreadableError, match=reason):
        check_match(load_network(net), load_formula(spec))
