"""Certificates as proofs in other formats, judged by readers and programs of the tests' own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from exported_proofs import (
    Layers,
    NetworkProgram,
    boxes_are_bounded,
    boxes_cover,
    boxes_prove,
    cover,
    dense_model,
    outputs,
    patterns_prove,
    read_patterns,
)
from onnx import helper, numpy_helper
from random_networks import random_network, save
from random_queries import hard_query, number

from toolkit.certificates.exports.aptp_export import decimal
from toolkit.certificates.proof_formats import PROOF_FORMATS, exported_proof
from toolkit.certificates.relu_layers import relu_layers
from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.certificates.writer import CertificateWriter, references
from toolkit.cli import run
from toolkit.errors import InputError
from toolkit.proof.check import CHECKED, check
from toolkit.proof.formula import load_formula
from toolkit.proof.identities import Multiples
from toolkit.proof.network import load_network
from toolkit.proof.stream import LinearRows
from toolkit.result import Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent

FORMER, LATTER = "abcrown_leaf_cert_v0_1", "abcrown_leaf_artifact_v0_1"


def random_layers(seed: int, widths: Sequence[int]) -> Layers:
    """Random layers, whose numbers are those of the file."""
    generator, layers = np.random.default_rng(seed), []
    for size, following in pairwise(widths):
        weight = generator.normal(0, 1.5 / np.sqrt(size), (following, size))
        layers.append((weight.astype(np.float32).astype(float), generator.normal(0, 0.5, following).round(2)))
    return [(weight, bias.astype(np.float32).astype(float)) for weight, bias in layers]


def missed(layers: Layers, row: Sequence[float], margin: float) -> float:
    """What ``row . outputs`` is above, on [-1, 1]^n, by about a margin at the exact minimum."""
    program = NetworkProgram(layers, np.tile([-1.0, 1.0], (layers[0][0].shape[1], 1)))
    return round(program.leaf(np.array(row, float), ()) - margin, 4)


def specification(layers: Layers, *asserted: str) -> str:
    """The box [-1, 1]^n, and what is asserted of outputs."""
    inputs = layers[0][0].shape[1]
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{j}" for j in range(len(layers[-1][1]))]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (>= X_{i} -1.0))\n(assert (<= X_{i} 1.0))" for i in range(inputs)]
    return "\n".join([*lines, *(f"(assert {text})" for text in asserted)])


def certified(folder: Path, model: Any, text: str, **settings: object) -> tuple[Path, Path, Path]:
    """Network, specification and a certificate that the checker accepts."""
    network, spec, certificate = (folder / f"net.{end}" for end in ("onnx", "vnnlib", "certificate"))
    onnx.save(model, network)
    spec.write_text(text)
    chosen = Settings(timeout=20, device="cpu").changed({"strategy": "relu"} | settings)
    files = ProofFiles({"": network}, spec, certificate)
    result = verify_with_certificate(files, load_networks(files.networks), chosen, silent, Clock.started(20))
    assert result.verdict is Verdict.UNSAT and not result.reason, result
    return network, spec, certificate


def exported(files: tuple[Path, Path, Path], name: str, output: str | None = None) -> list[str]:
    """The texts of all cases."""
    chosen = PROOF_FORMATS.loaded().named(name)
    return list(exported_proof(*files, chosen, Path(output or f"out{chosen.suffix}")).values())


def hidden_splits(folder: Path, seed: int, **settings: object) -> tuple[Layers, str]:
    """A network, and the text of a proof about its first output, which took splits."""
    layers = random_layers(seed, (4, 8, 8, 2))
    text = specification(layers, f"(<= Y_0 {number(missed(layers, [1, 0], 0.05))})")
    [proof] = exported(certified(folder, dense_model(layers), text, batch=2, **settings), "aptp")
    return layers, proof


@pytest.mark.parametrize("seed", [1, 3])
def test_leaves_cover_all_patterns_and_none_has_a_counterexample(tmp_path: Path, seed: int) -> None:
    layers, text = hidden_splits(tmp_path, seed)
    assert patterns_prove(read_patterns(text), layers)


def test_patterns_are_those_of_the_neurons_that_were_split(tmp_path: Path) -> None:
    """A linear program suffices at every leaf, as it did for the search without clipping; about other neurons it does
    not."""
    leaves, refused = 0, 0
    for seed in (0, 1, 4):
        layers, text = hidden_splits(tmp_path, seed, clipped_neurons=0)
        proof = read_patterns(text)
        leaves += len(proof.leaves)
        assert patterns_prove(proof, layers, whole=False), seed
        count = proof.neurons + 1
        swapped = [tuple(int(np.sign(n)) * (count - abs(n)) for n in leaf) for leaf in proof.leaves]
        refused += not patterns_prove(replace(proof, leaves=swapped), layers, whole=False)
    assert leaves > 20 and refused >= 2


def test_patterns_of_a_convolution_are_numbered_as_its_elements_lie(tmp_path: Path) -> None:
    refused = 0
    for seed in (1, 3):
        generator = np.random.default_rng(seed)
        kernel, bias = (generator.normal(0, 1, shape).astype(np.float32) for shape in ((3, 1, 2, 2), (3,)))
        units = torch.eye(9, dtype=torch.float64).reshape(9, 1, 3, 3)
        matrix = torch.nn.functional.conv2d(units, torch.tensor(kernel, dtype=torch.float64)).reshape(9, 12).numpy()
        layers: Layers = [(matrix.T, np.repeat(bias.astype(float), 4)), *random_layers(seed, (12, 4, 2))]
        nodes = [
            helper.make_node("Conv", ["x", "k", "c"], ["c0"]),
            helper.make_node("Flatten", ["c0"], ["z0"]),
            numpy_helper.from_array(kernel, "k"),
            numpy_helper.from_array(bias, "c"),
        ]
        model = dense_model(layers, nodes, (1, 1, 3, 3))
        text = specification(layers, f"(>= Y_1 {number(-missed(layers, [0, -1], 0.05))})")
        [found] = exported(certified(tmp_path, model, text, batch=2, clipped_neurons=0), "aptp")
        proof = read_patterns(found)
        assert patterns_prove(proof, layers, whole=False)
        order = np.arange(12).reshape(3, 4).T.ravel().tolist()  # channels last
        places = {old + 1: new + 1 for new, old in enumerate(order)} | {n: n for n in range(13, 17)}
        swapped = [tuple(int(np.sign(n)) * places[abs(n)] for n in leaf) for leaf in proof.leaves]
        refused += not patterns_prove(replace(proof, leaves=swapped), layers, whole=False)
    assert refused


def test_the_judge_refuses_what_is_no_proof(tmp_path: Path) -> None:
    layers, text = hidden_splits(tmp_path, 0)
    proof = read_patterns(text)
    assert len(proof.leaves) > 3
    for number_of in range(len(proof.leaves)):
        assert not cover(proof.leaves[:number_of] + proof.leaves[number_of + 1 :])
        leaf = proof.leaves[number_of]
        flipped = [*proof.leaves[:number_of], (*leaf[:-1], -leaf[-1]), *proof.leaves[number_of + 1 :]]
        assert not cover(flipped)
    assert not patterns_prove(replace(proof, end=proof.end + 0.1), layers)
    assert not patterns_prove(replace(proof, row=-proof.row), layers)
    assert not patterns_prove(replace(proof, box=proof.box * 3), layers)


def test_a_file_for_each_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = random_layers(5, (3, 6, 3))
    layers[-1][1][:] += np.float32([4, 0, 0])
    ahead = [min(missed(layers, row, 0.0), 0.0) for row in ([1, -1, 0], [1, 0, -1])]
    layers[-1][1][0] += np.float32(0.25 - min(ahead))
    empty = "(and (>= X_0 2.0) (<= Y_0 Y_1))"
    text = specification(layers, f"(or (and (>= Y_1 Y_0)) {empty} (and (<= Y_0 Y_2)))")
    files = certified(tmp_path, dense_model(layers), text, clipped_neurons=0)
    for name, end in (("aptp", ".aptp"), ("torchlean", ".json"), ("torchlean-cert", ".json")):
        assert run(["export-proof", *map(str, files), "--to", name, "-o", str(tmp_path / f"p{end}")]) == 0
        paths = [tmp_path / f"p.{case}{end}" for case in (0, 2)]
        assert capsys.readouterr().out.split() == [str(path) for path in paths]
        for path, row in zip(paths, ([1, -1, 0], [1, 0, -1]), strict=True):
            if name == "aptp":
                proof = read_patterns(path.read_text())
                assert proof.row.tolist() == row and proof.end == 0 and patterns_prove(proof, layers)
            else:
                former = FORMER if name == "torchlean-cert" else LATTER
                assert boxes_prove(path.read_text(), former, np.array([row], float), np.zeros(1), layers)


# --- certificates by hand ---------------------------------------------------------------------------------------------

NONE = references([{}])
LEAVES = [(-1,), (1, -2), (1, 2)]


class HandWritten:
    """``z0 = x0 + x1, z1 = x0 - x1, y = relu(z0) + relu(z1)`` and the question ``y >= 2.5`` on [-1, 1]^2."""

    layers: ClassVar[Layers] = [(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]
    asserted: ClassVar[tuple[str, ...]] = ("(>= Y_0 2.5)",)

    def __init__(self, folder: Path) -> None:
        self.files = folder / "two.onnx", folder / "two.vnnlib", folder / "two.certificate"
        onnx.save(self.model(), self.files[0])
        self.files[1].write_text(specification(self.layers, *self.asserted))
        network, formula = load_network(self.files[0]), load_formula(self.files[1])
        self.writer = CertificateWriter(network.digest, formula.digest, ["z0"])
        self.data = self.writer.header()

    def model(self) -> onnx.ModelProto:
        return dense_model(self.layers)

    def begin(self, case: int, above: int | None = None) -> int:
        context, record = self.writer.case(case, above)
        self.data += record
        return context

    def split(self, context: int, index: int, point: float = 0.0, tensor: int = 1) -> tuple[int, int]:
        found, record = self.writer.split(*(np.array([n]) for n in (context, tensor, index)), np.array([point]))
        self.data += record
        return int(found[0, 0]), int(found[0, 1])

    def refute(self, context: int, atoms: dict[int, float] | None = None, split: int | None = None) -> None:
        atom, half = (
            references([{0: 1.0} if atoms is None else atoms]),
            references([{} if split is None else {split: 1.0}]),
        )
        row = LinearRows(False, np.array([context]), np.zeros(1), atom, half, NONE)
        self.data += self.writer.refute(row)

    def tree(self, context: int, second: int = 1, **refuted: Any) -> None:
        """The proof of docs/certificate.md below a context."""
        left, right = self.split(context, 0)
        self.refute(left, **refuted)
        for half in self.split(right, second):
            self.refute(half, **refuted)

    def finish(self) -> tuple[Path, Path, Path]:
        self.files[2].write_bytes(self.data + self.writer.end())
        assert check(*self.files).status == CHECKED
        return self.files


class TwoAtoms(HandWritten):
    """The question ``y <= 100 and y >= 2.5``, whose first atom no proof needs."""

    asserted = ("(<= Y_0 100.0)", "(>= Y_0 2.5)")


def patterns(written: HandWritten) -> list[tuple[int, ...]]:
    [text] = exported(written.finish(), "aptp")
    proof = read_patterns(text)
    assert patterns_prove(proof, written.layers)
    return proof.leaves


def test_a_tree_of_phases_is_written_as_it_is(tmp_path: Path) -> None:
    written = HandWritten(tmp_path)
    written.tree(written.begin(0))
    assert patterns(written) == LEAVES


def test_a_neuron_that_is_split_again_keeps_its_phase(tmp_path: Path) -> None:
    written = HandWritten(tmp_path)
    left, right = written.split(written.begin(0), 0)
    written.refute(left)
    below, above = written.split(right, 0)
    written.refute(below, split=below)
    for half in written.split(above, 1):
        written.refute(half)
    assert patterns(written) == LEAVES


def test_splits_at_other_points_are_left_out(tmp_path: Path) -> None:
    """Whichever half has the larger tree."""
    written = HandWritten(tmp_path)
    within, beyond = written.split(written.begin(0), 0, 2.5)
    written.refute(beyond, {})
    below, above = written.split(within, 1, -2.5)
    written.refute(below, {})
    written.tree(above)
    assert patterns(written) == LEAVES


def test_what_all_cases_have_in_common_is_no_part_of_a_tree(tmp_path: Path) -> None:
    written = HandWritten(tmp_path)
    within, beyond = written.split(written.begin(1), 0, 2.5)
    written.refute(beyond, {})
    written.tree(written.begin(0, within))
    assert patterns(written) == LEAVES
    [text] = exported(written.files, "torchlean")
    assert boxes_prove(text, LATTER, -np.ones((1, 1)), np.array([2.5]), written.layers)


def test_a_tree_without_splits_has_one_of_the_first_neuron(tmp_path: Path) -> None:
    class Easy(HandWritten):
        asserted = ("(>= Y_0 3.5)",)

    written = Easy(tmp_path)
    written.refute(written.begin(0))
    assert patterns(written) == [(-1,), (1,)]


def test_elements_that_are_left_have_their_old_numbers(tmp_path: Path) -> None:
    """Neuron 2 is twice neuron 1: in the certificate, what was neuron 3 is the second one that is left."""

    class Doubled(HandWritten):
        layers: ClassVar[Layers] = [
            (np.array([[1.0, 1.0], [2.0, 2.0], [1.0, -1.0]]), np.zeros(3)),
            (np.array([[0.5, 0.25, 1.0]]), np.zeros(1)),
        ]

    written = Doubled(tmp_path)
    written.data += written.writer.equal(1, Multiples(np.array([1]), np.array([0]), np.array([2.0])))
    written.tree(written.begin(0))
    assert patterns(written) == [(-1,), (1, -3), (1, 3)]


def test_the_one_atom_that_is_used_is_what_is_claimed(tmp_path: Path) -> None:
    written = TwoAtoms(tmp_path)
    written.tree(written.begin(0), atoms={1: 1.0})
    assert patterns(written) == LEAVES
    [text] = exported(written.files, "torchlean")
    rows = np.array([[1.0], [-1.0]])
    assert boxes_prove(text, LATTER, rows, np.array([-100.0, 2.5]), written.layers)
    assert json.loads(text)["leaves"][0]["witness_idx"] == 1
    written = TwoAtoms(tmp_path)
    written.tree(written.begin(0), atoms={0: 0.001, 1: 1.0})
    files = written.finish()
    with pytest.raises(InputError, match="2 comparisons"):
        exported(files, "aptp")
    with pytest.raises(InputError, match="several atoms"):
        exported(files, "torchlean")


@pytest.mark.parametrize(
    "asserted", ["(> Y_0 2.5)", "(>= (* 3.0 Y_0) 7.6)", "(>= (+ Y_0 X_0) 3.5)", "(>= (+ Y_0 (* 0.0001 X_0)) 2.75)"]
)
def test_comparisons_that_the_format_has_not_are_refused(tmp_path: Path, asserted: str) -> None:
    class Other(HandWritten):
        pass

    Other.asserted = (asserted,)
    written = Other(tmp_path)
    written.tree(written.begin(0))
    with pytest.raises(InputError, match="APTP compares"):
        exported(written.finish(), "aptp")


def test_splits_of_inputs(tmp_path: Path) -> None:
    """Boxes for one format, halves outside of the box left out; nothing for the other."""
    written = HandWritten(tmp_path)
    outside, inside = written.split(written.begin(0), 0, -3.0, tensor=0)
    written.refute(outside)
    left, right = written.split(inside, 1, -0.25, tensor=0)
    written.tree(left)
    written.tree(right)
    files = written.finish()
    with pytest.raises(InputError, match="inputs are split"):
        exported(files, "aptp")
    [text] = exported(files, "torchlean")
    leaves = json.loads(text)["leaves"]
    assert [(leaf["lo"], leaf["hi"]) for leaf in leaves] == [([-1, -1], [1, -0.25]), ([-1, -0.25], [1, 1])]
    assert boxes_prove(text, LATTER, -np.ones((1, 1)), np.array([2.5]), written.layers)


def test_splits_of_inputs_below_those_of_neurons_are_one_box(tmp_path: Path) -> None:
    written = HandWritten(tmp_path)
    below, above = written.split(written.begin(0), 0)
    written.refute(below)
    for half in written.split(above, 0, 0.5, tensor=0):
        for phase in written.split(half, 1):
            written.refute(phase)
    [text] = exported(written.finish(), "torchlean")
    assert len(json.loads(text)["leaves"]) == 1
    assert boxes_prove(text, LATTER, -np.ones((1, 1)), np.array([2.5]), written.layers)


def test_bounds_that_hold_at_counterexamples_alone_are_none_of_a_box(tmp_path: Path) -> None:
    """The half-space ``2.5 - y <= 0`` bounds a neuron, and that neuron the output."""
    written = HandWritten(tmp_path)
    context = written.begin(0)
    one = np.array([context])
    atom = references([{0: 1.0}])
    row = LinearRows(False, one, np.zeros(1), atom, NONE, NONE, 1, np.array([0]), np.array([0], np.uint8))
    written.data += written.writer.bound(row)
    written.tree(context)
    files = written.finish()
    with pytest.raises(InputError, match="at counterexamples alone"):
        exported(files, "torchlean")
    assert patterns_prove(read_patterns(exported(files, "aptp")[0]), written.layers)


def test_a_bound_that_all_cases_have_in_common_may_hold_at_counterexamples_alone(tmp_path: Path) -> None:
    """By a bound that uses an atom, or a half that is refuted by one; the atom counts as used in the case."""

    for bounded in (True, False):
        written = TwoAtoms(tmp_path)
        common = written.begin(1)
        if bounded:
            index, upper = np.array([0]), np.array([0], np.uint8)
            atom = references([{0: 1e-6}])
            row = LinearRows(False, np.array([common]), np.zeros(1), atom, NONE, NONE, 1, index, upper)
            written.data += written.writer.bound(row)
        else:
            common, beyond = written.split(common, 0, 2.5)
            written.refute(beyond, {0: 1e-6})
        written.tree(written.begin(0, common), atoms={1: 1.0})
        files = written.finish()
        with pytest.raises(InputError, match="at counterexamples alone"):
            exported(files, "torchlean")
        with pytest.raises(InputError, match="2 comparisons"):
            exported(files, "aptp")


def test_bounds_are_of_atoms_and_not_of_their_multiples(tmp_path: Path) -> None:
    """Each leaf has a multiplier of its own, and a half without a point any bound."""
    written = HandWritten(tmp_path)
    within, beyond = written.split(written.begin(0), 0, 2.5)
    written.refute(beyond, {0: 0.125})
    left, right = written.split(within, 0)
    written.refute(left, {0: 4.0})
    for half, factor in zip(written.split(right, 1), (2.0, 8.0), strict=True):
        written.refute(half, {0: factor})
    [text] = exported(written.finish(), "torchlean")
    assert boxes_prove(text, LATTER, -np.ones((1, 1)), np.array([2.5]), written.layers)
    assert json.loads(text)["leaves"][0]["lb"][0] > 0.49


def test_half_spaces_are_none_of_a_box(tmp_path: Path) -> None:
    written = HandWritten(tmp_path)
    context = written.begin(0)
    left, right = written.split(context, 0)
    written.refute(left)
    row = LinearRows(False, np.array([right]), np.zeros(1), references([{0: 1.0}]), NONE, NONE)
    numbers, record = written.writer.half_space(row)
    written.data += record
    for half in written.split(right, 1):
        row = LinearRows(
            False, np.array([half]), np.zeros(1), references([{0: 1.0}]), NONE, references([{int(numbers[0]): 0.001}])
        )
        written.data += written.writer.refute(row)
    files = written.finish()
    with pytest.raises(InputError, match="half-spaces"):
        exported(files, "torchlean")
    assert read_patterns(exported(files, "aptp")[0]).leaves == LEAVES


def test_outputs_of_a_softmax_have_no_bounds_in_a_box(tmp_path: Path) -> None:
    """What is bounded are the numbers before it: a case is refuted by it, but its atoms are about the outputs."""

    class Compared(HandWritten):
        layers: ClassVar[Layers] = [HandWritten.layers[0], (np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([0.0, 2.5]))]
        asserted = ("(>= Y_0 Y_1)",)

        def model(self) -> onnx.ModelProto:
            model = super().model()
            model.graph.node[-1].output[0] = "o"
            model.graph.node.append(helper.make_node("Softmax", ["o"], ["y"]))
            return model

    written = Compared(tmp_path)
    written.tree(written.begin(0))
    files = written.finish()
    for name in ("aptp", "torchlean"):
        with pytest.raises(InputError, match="ends in a softmax"):
            exported(files, name)


def test_differences_of_outputs_are_compared_with_zero_alone(tmp_path: Path) -> None:
    class TwoOutputs(HandWritten):
        layers: ClassVar[Layers] = [HandWritten.layers[0], (np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([0.0, 2.5]))]

    for asserted, accepted in (
        ("(>= Y_0 Y_1)", True),
        ("(>= (- Y_0 Y_1) 0.25)", False),
        ("(>= Y_0 (* 2.0 Y_1))", False),
    ):
        TwoOutputs.asserted = (asserted,)
        written = TwoOutputs(tmp_path)
        written.tree(written.begin(0))
        if accepted:
            assert patterns(written) == LEAVES
        else:
            with pytest.raises(InputError, match="APTP compares"):
                exported(written.finish(), "aptp")


# --- boxes by searches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["input", "relu"])
def test_boxes_of_searches_have_bounds_and_cover(tmp_path: Path, strategy: str) -> None:
    most = 0
    for seed in range(2):
        layers = random_layers(seed, (2, 4, 4, 2))
        end = missed(layers, [1, 0], 0.1)
        spec = specification(layers, f"(<= Y_0 {number(end)})")
        files = certified(tmp_path, dense_model(layers), spec, strategy=strategy, clipped_neurons=0)
        [text] = exported(files, "torchlean")
        question = (np.array([[1.0, 0.0]]), np.array([-end]), layers)
        assert boxes_prove(text, LATTER, *question)
        document = json.loads(text)
        most = max(most, len(document["leaves"]))
        for gone in range(len(document["leaves"]) if strategy == "input" else 0):
            left = document["leaves"][:gone] + document["leaves"][gone + 1 :]
            assert not left or not boxes_cover(document | {"leaves": left})
        first = document["leaves"][0]
        first["lb"], first["witness_margin"] = [first["lb"][0] + 5.0], first["witness_margin"] + 5.0
        assert not boxes_are_bounded(document | {"leaves": [first]}, *question)
    assert most > (2 if strategy == "input" else 0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_networks_that_are_no_chain_are_refused(tmp_path: Path) -> None:
    for family, seed, why in (("residual", 2, "tensors are added"), ("convolutional", 1, "plain convolution")):
        network = save(random_network(family, seed), tmp_path, f"{family}.onnx")
        files = certified(tmp_path, onnx.load(network), hard_query(network, np.random.default_rng(seed), 0.05))
        with pytest.raises(InputError, match=why):
            exported(files, "aptp")


CHAIN = "main (float[1,2,3,3] x) => (float[1,{}] y) {{ {} f = Flatten(a) {} }}"
LAST = "y = Gemm(f, w)"


@pytest.mark.parametrize(
    ("size", "first", "last"),
    [
        (18, "z = Conv<group=2>(x, g) a = Relu(z)", LAST),
        (3, "z = Conv<dilations=[2,2]>(x, k) a = Relu(z)", LAST),
        (18, "z = Conv<pads=[0,1,0,0]>(x, k) a = Relu(z)", LAST),
        (12, "z = Conv(x, k) a = LeakyRelu(z)", LAST),
        (12, "z = Conv(x, k) b = Abs(z) a = Relu(b)", LAST),
        (12, "z = Conv(x, k) a = Relu(z)", "o = Gemm(f, w) y = Softmax(o)"),
        (12, "z = Conv(x, k) a = Relu(z)", "o = Gemm(f, w) y = Relu(o)"),
        (18, "z = MatMul(x, m) a = Relu(z)", LAST),
        (12, "s = Add(x, c) z = Conv(s, k) a = Relu(z)", LAST),
        (12, "a = Conv(x, k)", LAST),
        (12, "z = Conv(x, k) b = Relu(z) a = Conv(b, l)", "y = Flatten(a)"),
    ],
)
def test_layers_that_are_numbered_in_no_way_that_is_known_are_refused(
    tmp_path: Path, size: int, first: str, last: str
) -> None:
    """The first of each is a small change of a network that is accepted."""
    shapes = {"g": (2, 1, 1, 1), "k": (3, 2, 2, 2), "m": (3, 3), "c": (1,), "l": (2, 3, 2, 2)}

    def layers_of(size: int, first: str, last: str) -> dict[int, int]:
        text = '<ir_version: 8, opset_import: ["" : 13]> ' + CHAIN.format(2, first, last)
        model = onnx.parser.parse_model(text)
        for name, shape in (shapes | {"w": (size, 2)}).items():
            model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
        onnx.save(model, tmp_path / "net.onnx")
        return relu_layers(load_network(tmp_path / "net.onnx"))

    assert list(layers_of(12, "z = Conv(x, k) a = Relu(z)", LAST).values()) == [0]
    with pytest.raises(InputError, match="no chain"):
        layers_of(size, first, last)


def test_only_what_is_checked_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = HandWritten(tmp_path)
    left, _ = written.split(written.begin(0), 0)
    written.refute(left)
    written.files[2].write_bytes(written.data + written.writer.end())
    out, none = tmp_path / "out.aptp", tmp_path / "none"
    for certificate, why in ((written.files[2], "incomplete"), (written.files[1], "refuted"), (none, "No such")):
        assert run(["export-proof", *map(str, (*written.files[:2], certificate)), "--to", "aptp", "-o", str(out)]) == 2
        assert why in capsys.readouterr().err and not out.exists()


def test_arguments_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = HandWritten(tmp_path)
    written.tree(written.begin(0))
    files = [str(path) for path in written.finish()]
    for name, output, why in (
        ("vipr", "out", "aptp, torchlean, torchlean-cert"),
        ("aptp", "out.txt", "end in .aptp"),
        ("aptp", "none/out.aptp", "No such"),
    ):
        assert run(["export-proof", *files, "--to", name, "-o", str(tmp_path / output)]) == 2
        assert why in capsys.readouterr().err


def test_numbers_have_all_their_places() -> None:
    for text in ("0.0", "-0.5", "2.0", "-12.25", "0.0625", "100.0", "0.1"):
        assert decimal(Fraction(text)) == text
    generator = np.random.default_rng(0)
    for value in (generator.normal(size=50) * 10.0 ** generator.integers(-12, 12, 50)).tolist():
        found = decimal(Fraction(value))
        assert found is not None and Fraction(found) == Fraction(value)
    assert decimal(Fraction(1, 3)) is None


def test_ends_that_are_no_decimals_are_moved_outward(tmp_path: Path) -> None:
    class Third(HandWritten):
        asserted = ("(>= Y_0 2.5)", "(<= (* 3.0 X_0) 1.0)")

    written = Third(tmp_path)
    written.tree(written.begin(0))
    [text] = exported(written.finish(), "aptp")
    [end] = [line.split()[-1].rstrip(")") for line in text.splitlines() if "(<= X_0 " in line]
    assert Fraction(1, 3) < Fraction(end) < Fraction(1, 3) + Fraction(1, 2**50)


def test_the_judge_computes_the_network() -> None:
    """Its exact minimum is a lower bound of values at points, and close to them."""
    layers = random_layers(1, (2, 5, 5, 1))
    least = NetworkProgram(layers, np.tile([-1.0, 1.0], (2, 1))).leaf(np.ones(1), ())
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 201)] * 2), -1).reshape(-1, 2)
    values = outputs(layers, grid)
    assert least <= values.min() + 1e-6 and values.min() < least + 0.05
