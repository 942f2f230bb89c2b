"""Certificates of searches that several processes share: one file that the checker accepts."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_networks import NetworkBuilder, save
from random_queries import hard_query

from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.leaf_rows import ProofNode
from toolkit.certificates.share_record import RENUMBERED, Renumbering, ShareRecorder, ToldShare, flattened, rebuilt
from toolkit.certificates.verify_with_certificate import ProofFiles, check_in_shares, verify_with_certificate
from toolkit.certificates.writer import CertificateWriter, linear_payload, references, split_payload
from toolkit.proof.check import CHECKED, REFUTED, CertificateChecker, CheckOutcome, check
from toolkit.proof.stream import Damaged, LinearRows, Payload, RecordKind, records
from toolkit.result import Result, Verdict
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.run.events import LeafClosed, ObserverGroup, ShareObserverGroup, observer_of_share, silent
from toolkit.search import parallel_search
from toolkit.search.loop import Frontier, SearchOutcome, branch_and_bound
from toolkit.settings import Settings
from toolkit.verify import load_networks

forked = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
STRATEGIES = pytest.mark.parametrize(("strategy", "margin"), [("relu", 0.4), ("input", 0.2)])
"""How queries are decided, and by how much points miss them, so that it takes some rounds."""


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]) -> list[ToldShare]:
    """The reports of forked processes to the recorder, in order. Searches are tuned to deal their open domains among
    processes from the first rounds on, however few there are, and to gather them after some hundredths of a second."""
    tune(processes={"seconds_to_fork": 1e-9}, strategy={"first_turn_seconds": 0.2})
    tune(sharing={"seconds_before": 0.01, "least_turn_seconds": 0.02, "least_domains": 1})
    found: list[ToldShare] = []
    gather = ShareRecorder.gather

    def kept(self: ShareRecorder, told: ToldShare) -> None:
        found.append(told)
        gather(self, told)

    monkeypatch.setattr(ShareRecorder, "gather", kept)
    return found


def posed(folder: Path, seed: int, margin: float) -> tuple[Path, Path]:
    """A ReLU network of three hidden layers and a query that random points miss by a margin."""
    generator = np.random.default_rng(seed)
    builder, x, widths = NetworkBuilder(generator, (1, 5)), "x", [5, 14, 14, 14]
    for size, following in pairwise(widths):
        x = builder.op("Relu", builder.dense(x, size, following))
    network = save(builder.model(builder.dense(x, widths[-1], 3), 3), folder, f"{seed}.onnx")
    specification = network.with_suffix(".vnnlib")
    specification.write_text(hard_query(network, generator, margin))
    return network, specification


def written(network: Path, specification: Path, **settings: Any) -> tuple[Result, Path]:
    """The answer of a search in three processes, and the path of its certificate."""
    certificate = specification.with_suffix(".certificate")
    files = ProofFiles({"": network}, specification, certificate)
    chosen = Settings(timeout=60.0, device="cpu", processes=3).changed({"alpha_iterations": 1, "batch": 4} | settings)
    result = verify_with_certificate(files, load_networks(files.networks), chosen, silent, Clock.started(60.0))
    return result, certificate


@forked
@STRATEGIES
def test_what_processes_prove_of_their_shares_is_one_proof(
    tmp_path: Path, strategy: str, margin: float, gathered: list[ToldShare]
) -> None:
    kinds = Counter[int]()
    for seed in range(2):
        network, specification = posed(tmp_path, seed, margin)
        result, certificate = written(network, specification, strategy=strategy)
        assert (result.verdict, result.reason) == (Verdict.UNSAT, "")
        outcome = check(network, specification, certificate)
        assert outcome.status == CHECKED, outcome.message
        with certificate.open("rb") as file:
            kinds += Counter(kind for kind, _ in records(file))
    assert kinds[RecordKind.SPLIT] and kinds[RecordKind.HALF_SPACE]
    assert len(gathered) > 3
    assert any(told.keys for told in gathered), "some shares are not done when they come back"


@forked
@STRATEGIES
def test_a_lost_process_leaves_its_share_open(
    tmp_path: Path, strategy: str, margin: float, gathered: list[ToldShare], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of a process that is killed are not copied into the certificate; the first process searches the open
    domains dealt to it again, and the checker accepts the proof."""
    here = os.getpid()

    def lost_elsewhere(search: Frontier[Any, Any], budget: Budget) -> SearchOutcome:
        if os.getpid() != here:
            budget = replace(budget, clock=budget.clock.soon(0.05))
            try:
                branch_and_bound(search, budget)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        return branch_and_bound(search, budget)

    turns: list[parallel_search.TurnResult] = []
    take = parallel_search.take_turn

    def kept(*given: Any, **options: Any) -> parallel_search.TurnResult:
        turns.append(take(*given, **options))
        return turns[-1]

    monkeypatch.setattr(parallel_search, "branch_and_bound", lost_elsewhere)
    monkeypatch.setattr(parallel_search, "take_turn", kept)
    network, specification = posed(tmp_path, 0, margin)
    result, certificate = written(network, specification, strategy=strategy)
    assert (result.verdict, result.reason) == (Verdict.UNSAT, "")
    assert check(network, specification, certificate).status == CHECKED
    assert any(turn.lost for turn in turns)
    assert not gathered


@forked
def test_leaves_are_dealt_among_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checking processes bound a part of the leaves each. The file is refused where one of them refuses a leaf,
    and checked by one process where another is killed."""
    network, specification = posed(tmp_path, 0, 0.4)
    result, certificate = written(network, specification, strategy="relu")
    files, clock = ProofFiles({"": network}, specification, certificate), Clock.started(60.0)
    assert result.verdict is Verdict.UNSAT
    here, shares = os.getpid(), set[tuple[int, int]]()
    plain = CertificateChecker.check_leaves

    def only_elsewhere(self: CertificateChecker, rows: LinearRows) -> None:
        shares.add((self.job, self.jobs))
        assert os.getpid() == here or self.job
        plain(self, rows)

    monkeypatch.setattr("toolkit.proof.check.SHARE", 4)
    monkeypatch.setattr(CertificateChecker, "check_leaves", only_elsewhere)
    assert check_in_shares(files, clock, 3).status == CHECKED
    assert shares == {(0, 3)}

    def refused(self: CertificateChecker, rows: LinearRows) -> None:
        if self.job == 2:
            raise Damaged("not refuted")

    monkeypatch.setattr(CertificateChecker, "check_leaves", refused)
    outcome = check_in_shares(files, clock, 3)
    assert (outcome.status, "not refuted" in outcome.message) == (REFUTED, True)

    def lost(self: CertificateChecker, rows: LinearRows) -> None:
        if self.job:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, rows)

    monkeypatch.setattr(CertificateChecker, "check_leaves", lost)
    assert check_in_shares(files, clock, 3).status == CHECKED, "then alone"


@forked
def test_a_certified_search_has_its_file_checked_by_several_processes(
    tmp_path: Path, gathered: list[ToldShare], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def kept(files: ProofFiles, clock: Clock, count: int) -> CheckOutcome:
        counts.append(count)
        return check_in_shares(files, clock, count)

    monkeypatch.setattr("toolkit.certificates.verify_with_certificate.check_in_shares", kept)
    result, _ = written(*posed(tmp_path, 0, 0.4), strategy="relu", certified=True)
    assert (result.verdict, result.statistics.certificate) == (Verdict.UNSAT, CHECKED)
    assert counts == [3]


def test_nodes_far_from_the_root_come_back_as_they_were() -> None:
    """Nodes of a tree 5,000 splits deep sent to another process keep parents, neurons and cases; contexts begun
    in the share get the certificate's numbers, earlier ones and the -1 of no context stay."""
    node = root = ProofNode(3, 7)
    for depth in range(5000):
        node = ProofNode(depth + 4, 7, node, depth % 9)
    beside, unknown = ProofNode(90_000, 7, root, 5), ProofNode(-1, 7, root, 6)
    told = flattened([node, beside, unknown, root])
    assert all(part.parent is None for part, _ in told)
    deep, other, none, again = rebuilt(told, Renumbering(5000, 100, 0, 0))[:4]
    assert (other.context, other.neuron, none.context, again.context) == (90_100, 5, -1, 3)
    assert other.parent is again and none.parent is again
    path = []
    while deep.parent is not None:
        path.append((deep.context, deep.neuron))
        deep = deep.parent
    assert deep is again
    expected = [(depth + 4 + (100 if depth + 4 >= 5000 else 0), depth % 9) for depth in range(5000)]
    assert path == expected[::-1]


def test_records_of_a_share_get_the_numbers_of_the_whole_file() -> None:
    moved = Renumbering(first_context=10, contexts_by=6, first_half=2, halves_by=5)
    split = Payload(RENUMBERED[RecordKind.SPLIT](0, split_payload(*np.array([[9, 10], [0, 1], [3, 4], [0, 1]])), moved))
    assert split.number() == 2
    assert split.array(6).tolist() == [9, 16, 0, 1, 3, 4]
    assert split.array(2, "<f8").tolist() == [0, 1]
    rows = LinearRows(
        False,
        np.array([9, 11]),
        np.array([1, 2]),
        references([{12: 1.0}, {}]),
        references([{}, {9: 0.5, 10: 0.25}]),
        references([{1: 0.5, 2: 2.0}, {}]),
    )
    for kind in (RecordKind.REFUTE, RecordKind.HALF_SPACE):
        found = Payload(RENUMBERED[kind](kind, linear_payload(rows), moved)).linear(kind)
        assert (found.contexts.tolist(), found.slots.tolist()) == ([9, 17], [1, 2])
        assert (found.atoms.numbers.tolist(), found.splits.numbers.tolist()) == ([12], [9, 16])
        assert found.halves.numbers.tolist() == [1, 7]
        assert (found.splits.values.tolist(), found.halves.values.tolist()) == ([0.5, 0.25], [0.5, 2.0])


def test_a_share_s_writer_counts_on() -> None:
    """The writer of a share's file writes no HEADER record and begins contexts with the certificate's next number; the
    certificate's own writer still counts as before."""
    writer = CertificateWriter(bytes(32), bytes(32), ["z"])
    writer.case(0)
    share = writer.of_share()
    file = CertificateFile(io.BytesIO(), share)
    contexts, record = share.split(*np.array([[0], [0], [1], [2]]))
    file.add(record)
    file.flush()
    assert contexts.tolist() == [[1, 2]]
    assert (share.contexts, writer.contexts) == (3, 1)
    assert [kind for kind, _ in file.records()] == [RecordKind.SPLIT]


def test_only_who_asks_hears_of_a_share() -> None:
    class Curious:
        def __init__(self) -> None:
            self.heard: list[object] = []

        def __call__(self, event: object) -> None:
            self.heard.append(event)

        def of_share(self, share: Any) -> ShareObserverGroup:
            return ShareObserverGroup([self])  # type: ignore[list-item]

        def told(self) -> int:
            return len(self.heard)

        def gather(self, told: int) -> None:
            self.heard.append(told)

    curious, others = Curious(), list[object]()
    observer = observer_of_share(ObserverGroup((others.append, ObserverGroup((curious,)), silent)), None)
    event = LeafClosed(None, "a linear program")
    observer(event)
    assert observer.told() == [[[1]]]
    observer.gather(observer.told())
    assert (curious.heard, others) == ([event, 1], [])
    assert observer_of_share(silent, None).told() == []
