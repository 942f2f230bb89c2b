"""Certificates that a search writes: the checker, which shares nothing with it, accepts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import NetworkBuilder, random_network, save
from random_queries import hard_query

from toolkit.certificates.box_record import BoxRecord
from toolkit.certificates.phase_record import PhaseRecord
from toolkit.certificates.recorder import CertificateRecorder
from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.errors import InputError
from toolkit.proof.check import CHECKED, INCOMPLETE, REFUTED, check
from toolkit.proof.stream import RecordKind, records
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.run.events import LeafClosed, RoundDone
from toolkit.search import neuron_branching
from toolkit.settings import Settings
from toolkit.tuning import tuned, using
from toolkit.verify import load_networks, silent


def posed(folder: Path, family: str, seed: int, margin: float = 0.05) -> tuple[Path, Path]:
    """A random network with a query that points miss by so much."""
    network = save(random_network(family, seed), folder, f"{family}{seed}.onnx")
    specification = folder / f"{family}{seed}.vnnlib"
    specification.write_text(hard_query(network, np.random.default_rng(seed), margin))
    return network, specification


def written(network: Path, specification: Path, timeout: float = 10.0, **settings: object) -> tuple[Result, Path]:
    """The answer and its certificate."""
    certificate = specification.with_suffix(".certificate")
    files = ProofFiles({"": network}, specification, certificate)
    chosen = Settings(timeout=timeout, device="cpu").changed({"strategy": "relu"} | settings)
    result = verify_with_certificate(files, load_networks(files.networks), chosen, silent, Clock.started(timeout))
    return result, certificate


def accepted(folder: Path, family: str, strategy: str, seeds: range) -> int:
    """How many certificates the checker accepts: of all queries about these networks that are refuted, unless the
    checker does not know an operator."""
    count = 0
    for seed in seeds:
        network, specification = posed(folder, family, seed)
        result, certificate = written(network, specification, strategy=strategy)
        if result.verdict is Verdict.UNSAT and not result.reason:
            outcome = check(network, specification, certificate)
            assert outcome.status == CHECKED, (seed, outcome.message)
            count += 1
        assert result.verdict is not Verdict.UNSAT or not result.reason or "operator is not known" in result.reason
    return count


@pytest.mark.parametrize(("family", "seeds"), [("mlp", 4), ("residual", 4), ("convolutional", 6), ("wired", 4)])
def test_the_checker_accepts_what_a_search_over_phases_writes(tmp_path: Path, family: str, seeds: int) -> None:
    assert accepted(tmp_path, family, "relu", range(seeds)) >= 2


@pytest.mark.parametrize(
    ("family", "seeds"), [("mlp", range(4)), ("residual", range(4)), ("kinks", range(6, 7)), ("smooth", range(4))]
)
def test_the_checker_accepts_what_a_search_over_boxes_writes(tmp_path: Path, family: str, seeds: range) -> None:
    assert accepted(tmp_path, family, "input", seeds) >= len(seeds) / 2


@pytest.mark.parametrize("family", ["residual", "smooth"])
def test_boxes_are_bounded_in_half_spaces_that_are_stated(tmp_path: Path, family: str) -> None:
    """Fewer boxes are needed, and one half-space for each that is split; without its half-spaces a file is refused."""
    boxes, spaces = Counter[int](), Counter[int]()
    for seed in range(4):
        network, specification = posed(tmp_path, family, seed)
        for clipped in (0, 32):
            chosen = {"strategy": "input", "clipped_neurons": clipped, "batch": 2}
            result, certificate = written(network, specification, **chosen)
            if result.verdict is not Verdict.UNSAT:
                break
            assert check(network, specification, certificate, exact=family == "residual").status == CHECKED
            boxes[clipped] += result.statistics.domains
            spaces[clipped] += kinds(certificate)[RecordKind.HALF_SPACE]
    assert 2 * boxes[32] < boxes[0]
    assert spaces[32] > spaces[0] == 0


def test_a_search_that_stops_leaves_a_readable_beginning(tmp_path: Path) -> None:
    outcomes = []
    for seed in range(4):
        network, specification = posed(tmp_path, "residual", seed)
        result, certificate = written(network, specification, strategy="input", batch=2, max_domains=2)
        if result.verdict is Verdict.UNKNOWN:
            outcomes.append(check(network, specification, certificate))
    assert outcomes and {outcome.status for outcome in outcomes} == {INCOMPLETE}
    assert all("the file ends too early" in outcome.message for outcome in outcomes)


def test_a_certificate_is_of_its_files_alone(tmp_path: Path) -> None:
    network, specification = posed(tmp_path, "tiny", 0)
    other, question = posed(tmp_path, "tiny", 1)
    result, certificate = written(network, specification)
    assert result.verdict is Verdict.UNSAT and check(network, specification, certificate).status == CHECKED
    assert check(other, specification, certificate).status == REFUTED
    assert check(network, question, certificate).status == REFUTED


def test_what_cannot_be_stated_is_left_open_and_said(tmp_path: Path) -> None:
    """Differences of the elements of a pooling window are no tensor of the file."""
    answers = []
    for seed in (1, 8):
        network, specification = posed(tmp_path, "pooled", seed, margin=0.02)
        result, certificate = written(network, specification)
        if result.verdict is Verdict.UNSAT:
            status = check(network, specification, certificate).status
            assert status == (INCOMPLETE if result.reason else CHECKED)
            answers.append(status)
    assert set(answers) == {CHECKED, INCOMPLETE}


def kinds(certificate: Path) -> Counter[RecordKind]:
    """How many records of each kind there are."""
    with certificate.open("rb") as file:
        return Counter(RecordKind(kind) for kind, _ in records(file))


def test_every_kind_of_statement_is_written_and_accepted(tmp_path: Path) -> None:
    """Without ranges by slopes and clipping, the checker refuses what they prove."""
    found: Counter[RecordKind] = Counter()
    for seed in (0, 2):
        network, specification = posed(tmp_path, "residual", seed, margin=0.02)
        result, certificate = written(network, specification)
        assert result.verdict is Verdict.UNSAT and check(network, specification, certificate).status == CHECKED
        found += kinds(certificate)
    assert set(found) == set(RecordKind) - {RecordKind.RECOMPUTE, RecordKind.EQUAL, RecordKind.FLOATS}


@pytest.mark.parametrize("processes", [1, 2])
def test_trees_of_neurons_are_stated(tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where searches get next to no time before neurons are bounded by trees, ends of neurons are what proves; so it is
    where each process has trees of its own."""
    hands, deal = set[int](), neuron_branching.side_by_side

    def dealt(works: Sequence[Callable[[], Any]], clock: Clock) -> list[Any]:
        hands.add(len(works))
        return deal(works, clock)

    monkeypatch.setattr(neuron_branching, "side_by_side", dealt)
    trees, few = 0, {"strategy": {"first_turn_seconds": 0.0}, "certificates": {"trees_put_together": 3}}
    few |= {"processes": {"seconds_to_fork": 1e-9}, "sharing": {"least_domains": 1}}
    for width, seed, margin in ((12, 0, 0.3), (12, 1, 0.3), (16, 3, 0.1)):
        generator = np.random.default_rng(seed)
        builder, x, widths = NetworkBuilder(generator, (1, 6)), "x", [6, width, width, width]
        for size, following in pairwise(widths):
            x = builder.op("Relu", builder.dense(x, size, following))
        network = save(builder.model(builder.dense(x, width, 3), 3), tmp_path, f"{width}{seed}.onnx")
        specification = network.with_suffix(".vnnlib")
        specification.write_text(hard_query(network, generator, margin))
        with using(tuned().changed(**few)):
            chosen = {"beta_iterations": 1, "batch": 2, "processes": processes}
            result, certificate = written(network, specification, timeout=60.0, **chosen)
        assert result.verdict is Verdict.UNSAT and not result.reason
        outcome = check(network, specification, certificate)
        assert outcome.status == CHECKED, outcome.message
        trees += kinds(certificate)[RecordKind.RECOMPUTE]
    assert trees and max(hands) == processes


def test_only_what_the_checker_accepts_is_certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, specification = posed(tmp_path, "tiny", 0)
    assert written(network, specification, certified=True)[0].verdict is Verdict.UNSAT
    monkeypatch.setattr("toolkit.certificates.recorder.CertificateRecorder.__call__", lambda self, event: None)
    result, _ = written(network, specification, certified=True)
    assert result.verdict is Verdict.UNKNOWN and "the certificate is incomplete" in result.reason


@pytest.mark.parametrize(
    "condition",
    [
        "(<= 2.0 1.0)",
        "(or (<= 2.0 1.0) (>= Y_0 100.0))",
        "(>= (+ X_0 X_1) 2.5)",
        "(or (and (>= (- X_0 X_1) 2.5) (>= Y_0 0.0)) (>= Y_0 100.0))",
        "(or (>= Y_0 100.0) (>= Y_0 100.0))",
    ],
)
def test_cases_that_the_specification_rules_out_are_proved(tmp_path: Path, condition: str) -> None:
    network, specification = posed(tmp_path, "tiny", 0)
    inputs = load_networks({"": network})[""].model.inputs[0].size
    text = "".join(f"(declare-const X_{i} Real)(assert (>= X_{i} -1.0))(assert (<= X_{i} 1.0))" for i in range(inputs))
    outputs = "".join(f"(declare-const Y_{i} Real)" for i in range(specification.read_text().count("declare-const Y")))
    specification.write_text(f"{text}{outputs}(assert {condition})")
    result, certificate = written(network, specification, certified=True)
    assert (result.verdict, result.reason) == (Verdict.UNSAT, "")
    assert check(network, specification, certificate).status == CHECKED


def test_there_is_no_certificate_after_sat_or_where_none_can_be_written(tmp_path: Path) -> None:
    network, specification = posed(tmp_path, "residual", 3, margin=0.02)
    result, certificate = written(network, specification)
    assert result.verdict is Verdict.SAT and not certificate.exists()
    certificate.mkdir()
    with pytest.raises(InputError, match="directory"):
        written(network, specification)


def test_a_leaf_that_is_told_twice_is_refuted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn whose time ends while leaves are decided leaves them open, and the next one tells all of them."""
    record, told = CertificateRecorder.__call__, []

    def twice(self: CertificateRecorder, event: object) -> None:
        record(self, event)
        if isinstance(event, LeafClosed):
            told.append(event)
            record(self, event)

    monkeypatch.setattr(CertificateRecorder, "__call__", twice)
    for seed in (0, 2):
        network, specification = posed(tmp_path, "residual", seed, margin=0.02)
        result, certificate = written(network, specification)
        assert result.verdict is Verdict.UNSAT and check(network, specification, certificate).status == CHECKED
    assert told


@pytest.mark.parametrize(("strategy", "margin"), [("relu", 0.02), ("input", 0.03)])
def test_what_is_refuted_is_not_kept(
    strategy: str, margin: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the file: of a search, the open domains alone are known, however many were closed."""
    record, rounds = CertificateRecorder.__call__, []

    def counted(self: CertificateRecorder, event: object) -> None:
        record(self, event)
        if isinstance(event, RoundDone):
            assert isinstance(self.search, PhaseRecord | BoxRecord)
            rounds.append((event.bounded, event.open, len(self.search.nodes)))

    monkeypatch.setattr(CertificateRecorder, "__call__", counted)
    result, _ = written(*posed(tmp_path, "residual", 0, margin), strategy=strategy, batch=8)
    assert result.verdict is Verdict.UNSAT
    assert len(rounds) > 2
    assert rounds[-1][0] > 8
    assert all(known == still_open for _, still_open, known in rounds)
