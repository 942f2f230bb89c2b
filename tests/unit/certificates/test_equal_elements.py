"""Networks with neurons that are multiples of others: they are merged by the search, and the certificate says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from random_networks import NetworkBuilder, save
from random_queries import hard_query

from toolkit.certificates.equal_elements import proportional, stated_tensors
from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.proof.check import CHECKED, check
from toolkit.proof.network import load_network
from toolkit.proof.stream import Payload, RecordKind, records
from toolkit.result import Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent

Generator = np.random.Generator


def multiples(generator: Generator, count: int, more: int) -> tuple[np.ndarray, np.ndarray]:
    """Of ``count + more`` elements in random order the model of each, and by which factor it is a multiple."""
    model = np.append(np.arange(count), generator.integers(0, count, more))
    factor = np.append(np.ones(count), generator.choice([1.0, -1.0, -1.0, 2.0, -0.5], more))
    order = generator.permutation(count + more)
    return model[order], factor[order]


def doubled(generator: Generator) -> onnx.ModelProto:
    """Three dense layers; half of the neurons are multiples of others."""
    builder, x, size = NetworkBuilder(generator, (1, 3)), "x", 3
    for few in (3, 2):
        model, factor = multiples(generator, few, 3)
        weight, bias = generator.normal(0, 1.5 / np.sqrt(size), (size, few)), generator.normal(0, 0.5, few)
        weight, bias = (part.astype(np.float32)[..., model] * factor for part in (weight, bias))
        x, size = builder.op("Relu", builder.op("Gemm", x, builder.constant(weight), builder.constant(bias))), few + 3
    return builder.model(builder.dense(x, size, 2), 2)


def turned(generator: Generator) -> onnx.ModelProto:
    """``min(a, b)`` of linear functions, then the maximum of these, all written with four ReLUs each."""
    builder = NetworkBuilder(generator, (1, 2))
    x, size = builder.dense("x", 2, 4), 4
    for sign in (-1.0, 1.0):
        rows = np.kron(np.eye(size // 2), np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]]))
        back = np.kron(np.eye(size // 2), np.array([[0.5, -0.5, 0.5 * sign, 0.5 * sign]]))
        zeros = builder.constant(np.zeros(2 * size)), builder.constant(np.zeros(size // 2))
        x = builder.op("Relu", builder.op("Add", builder.op("MatMul", x, builder.constant(rows.T)), zeros[0]))
        x, size = builder.op("Add", builder.op("MatMul", x, builder.constant(back.T)), zeros[1]), size // 2
    return builder.model(builder.op("Concat", x, builder.op("Neg", x), axis=1), 2)


def split(generator: Generator) -> onnx.ModelProto:
    """A convolution whose channels are split by ``relu(z) - relu(-z) = z``, as ReluSplitter does, then more layers."""
    builder = NetworkBuilder(generator, (1, 1, 3, 3))
    weight, bias = generator.normal(0, 0.8, (2, 1, 2, 2)).astype(np.float32), generator.normal(0, 0.5, 2)
    both = builder.constant(np.concatenate([weight, -weight])), builder.constant(np.concatenate([bias, -bias]))
    x = builder.op("Relu", builder.op("Conv", "x", *both, kernel_shape=[2, 2]))
    back = builder.constant(np.concatenate([np.eye(2), -np.eye(2)], 1).reshape(2, 4, 1, 1))
    x = builder.op("Relu", builder.op("Conv", x, back, kernel_shape=[1, 1]))
    x = builder.op("Relu", builder.dense(builder.op("Flatten", x), 8, 4))
    return builder.model(builder.dense(x, 4, 2), 2)


MAKERS = {"doubled": doubled, "turned": turned, "split": split}
SEEDS = {"doubled": (2, 3), "turned": (0, 2), "split": (1, 4)}
"""Of queries that are refuted."""


def answered(folder: Path, model: onnx.ModelProto, seed: int, **settings: object) -> tuple[Path, Path, Path]:
    """Network, specification and certificate of a random query that is refuted."""
    network, specification = save(model, folder), folder / "s.vnnlib"
    specification.write_text(hard_query(network, np.random.default_rng(seed), 0.03))
    files = ProofFiles({"": network}, specification, folder / "certificate")
    chosen = Settings(timeout=60.0, device="cpu").changed(settings)
    result = verify_with_certificate(files, load_networks(files.networks), chosen, silent, Clock.started(60.0))
    assert result.verdict is Verdict.UNSAT and not result.reason
    return network, specification, files.certificate


def kinds(certificate: Path) -> Counter[RecordKind]:
    with certificate.open("rb") as file:
        return Counter(RecordKind(kind) for kind, _ in records(file))


@pytest.mark.parametrize("strategy", ["relu", "input"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_checker_accepts_searches_that_merged_neurons(tmp_path: Path, name: str, strategy: str) -> None:
    for seed in SEEDS[name]:
        model = MAKERS[name](np.random.default_rng(seed))
        files = answered(tmp_path, model, seed, strategy=strategy)
        outcome = check(*files)
        assert outcome.status == CHECKED, (seed, outcome.message)
        assert kinds(files[-1])[RecordKind.EQUAL]
        if name != "split":
            assert check(*files, exact=True).status == CHECKED


def test_a_search_over_boxes_has_no_neurons_to_tell_apart(tmp_path: Path) -> None:
    """Slopes and splits of neurons that are one element differ, where a search over phases has several such ones."""
    stated = {}
    for strategy in ("relu", "input"):
        _, _, certificate = answered(tmp_path, doubled(np.random.default_rng(2)), 2, strategy=strategy)
        with certificate.open("rb") as file:
            equal = [Payload(data) for kind, data in records(file) if kind == RecordKind.EQUAL]
        stated[strategy] = {payload.number(): payload.number() for payload in equal}
    assert stated["relu"].keys() < stated["input"].keys()


def test_what_is_left_of_each_tensor(tmp_path: Path) -> None:
    network = load_network(save(turned(np.random.default_rng(0)), tmp_path))
    found = list(stated_tensors(network))
    assert [len(tensor.multiples.elements) for tensor in found] == [4, 2]
    small = found[-1].after
    assert [small.sizes[value] for value in small.names.values()] == [4, 2]
    [first, _] = network.names
    other = list(stated_tensors(network, {first}))[-1].after
    assert other.sizes[other.names[first]] == 8


def test_what_values_make_likely_is_accepted_only_where_it_is_so(tmp_path: Path) -> None:
    network = load_network(save(turned(np.random.default_rng(0)), tmp_path))
    likely = list(stated_tensors(network, sure=False))
    assert [len(tensor.multiples.elements) for tensor in likely] == [4, 2]
    assert all(tensor.accepted for tensor in likely)
    wrong = replace(likely[0].multiples, factors=2 * likely[0].multiples.factors)
    assert not replace(likely[0], multiples=wrong).accepted


def test_values_in_one_proportion() -> None:
    values = np.random.default_rng(0).normal(size=(5, 4))
    columns = np.stack(
        [values[:, 0], -values[:, 0], 3 * values[:, 0], 4 * values[:, 1], values[:, 1], 0 * values[:, 0]], 1
    )
    found = proportional(columns)
    assert (found.elements.tolist(), found.models.tolist()) == ([1, 4], [0, 3])
    assert found.factors.tolist() == [-1.0, 0.25]
