"""What runs on a GPU, on a device that tests can pretend to have: nothing is left on the host by mistake, verdicts are
those of the processor, and a round of a search copies nothing back and waits a few times, however many domains it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_device import DEVICE, Pretend, Remote
from random_networks import FAMILIES, NetworkBuilder, random_network, save
from random_queries import hard_query
from recorders import Again

from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.explanation import CaseTracker
from toolkit.formats.vnnlib.read import parse_query
from toolkit.proof.check import CHECKED, check
from toolkit.result import Result, Verdict
from toolkit.run import cuda_graphs
from toolkit.run.clock import Clock
from toolkit.run.events import Event, Observer, RoundDone
from toolkit.search import batch_size
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent, verify

MOST_WAITS = 40
"""Times that the host may wait for the device in one round."""
DOMAINS = 200
"""Domains of a search that is recorded: its rounds are counted, and their time depends on what else a machine does."""
ROUNDS = 5
"""Rounds of a search that are looked at: before anything is divided into leaves."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """The device, which verification picks."""
    monkeypatch.setattr("toolkit.verify.pick_device", lambda name: DEVICE if name == "cuda" else torch.device(name))
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: 1 << 30)
    return Pretend()


def decided(path: Path, text: str, observer: Observer = silent, **settings: object) -> Result:
    """A query decided without what needs no device."""
    chosen = {"timeout": 30.0, "device": "cuda", "attack_restarts": 2, "attack_steps": 4, **settings}
    return verify(load_networks({"": path}), parse_query(text), Settings(**chosen), observer)


def test_tensors_of_both_places_do_not_mix(device: Pretend) -> None:
    with device:
        there = torch.ones(3, device=DEVICE)
        assert isinstance(there, Remote)
        assert float((2.0 * there + torch.tensor(1.0)).sum()) == 9.0
        with pytest.raises(AssertionError, match="of the device and of the host"):
            there + torch.ones(3)
        assert isinstance(there.cpu(), torch.Tensor)
        assert not isinstance(there.cpu(), Remote)
    assert device.to_host == 24  # two copies of three numbers
    assert device.waits["aten._local_scalar_dense.default"] == 1


@pytest.mark.parametrize("strategy", ["relu", "input"])
@pytest.mark.parametrize("name", FAMILIES)
def test_verdicts_are_those_of_the_processor(name: str, strategy: str, tmp_path: Path, device: Pretend) -> None:
    generator = np.random.default_rng(5)
    both = 0
    for seed in range(3):
        path = save(random_network(name, seed), tmp_path)
        text = hard_query(path, generator)
        plain = decided(path, text, device="cpu", strategy=strategy, timeout=2.0)
        with device:
            found = decided(path, text, strategy=strategy, timeout=4.0)
        both += {plain.verdict, found.verdict} <= {Verdict.SAT, Verdict.UNSAT}
        assert found.verdict == plain.verdict or Verdict.TIMEOUT in {found.verdict, plain.verdict}
    assert both
    assert device.calls


@pytest.mark.parametrize(("strategy", "margin"), [("relu", 0.02), ("input", 0.1)])
def test_certificates_of_the_device_are_accepted(strategy: str, margin: float, tmp_path: Path, device: Pretend) -> None:
    """All that is stated comes from the device: slopes, multipliers, ranges and clipping."""
    path = save(random_network("residual", 0), tmp_path)
    files = ProofFiles({"": path}, tmp_path / "q.vnnlib", tmp_path / "q.certificate")
    files.specification.write_text(hard_query(path, np.random.default_rng(0), margin))
    settings = Settings(timeout=60.0, device="cuda", strategy=strategy, attack_restarts=2, attack_steps=4)
    with device:
        clock = Clock.started(60.0)
        result = verify_with_certificate(files, load_networks(files.networks), settings, silent, clock)
    assert result.verdict is Verdict.UNSAT
    assert not result.reason
    assert device.calls
    outcome = check(path, files.specification, files.certificate)
    assert outcome.status == CHECKED, outcome.message


@dataclass(kw_only=True)
class Strict(Again):
    """Records as a GPU does, which nobody may wait for meanwhile."""

    device: Pretend

    def __call__(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        waits = sum(self.device.waits.values())
        recorded = super().__call__(function)
        assert sum(self.device.waits.values()) == waits, self.device.waits
        return recorded


@pytest.mark.parametrize("as_operators", [False, True])
@pytest.mark.parametrize("name", ["mlp", "residual", "convolutional", "wired"])
def test_what_is_recorded_waits_for_nothing(
    name: str,
    as_operators: bool,
    tmp_path: Path,
    device: Pretend,
    monkeypatch: pytest.MonkeyPatch,
    tune: Callable[..., None],
) -> None:
    recorder = Strict(device=device)
    monkeypatch.setitem(cuda_graphs.RECORDERS, DEVICE.type, lambda: recorder)
    tune(recordings={"calls_before": 0})
    if as_operators:
        monkeypatch.setattr("toolkit.problem.program.compact", lambda affine: affine)
        tune(reduction={"most_cost_factor": 0.0})
    generator = np.random.default_rng(7)
    for seed in range(30):
        path = save(random_network(name, seed), tmp_path)
        text = hard_query(path, generator, 0.002)
        with device:
            found = decided(path, text, strategy="relu", alpha_iterations=0, max_domains=DOMAINS)
        plain = decided(path, text, device="cpu", strategy="relu", max_domains=DOMAINS)
        assert found.verdict == plain.verdict or not {found.verdict, plain.verdict} <= {Verdict.SAT, Verdict.UNSAT}
        if recorder.played > 5:
            break
    assert recorder.played > 5


def wide_model(folder: Path) -> Path:
    """A random network of two wide layers."""
    builder = NetworkBuilder(np.random.default_rng(1), (1, 6))
    x = builder.op("Relu", builder.dense("x", 6, 24))
    x = builder.op("Relu", builder.dense(x, 24, 24))
    return save(builder.model(builder.dense(x, 24, 2), 2), folder)


class Enough(Exception):  # noqa: N818 - nothing is wrong
    """As many rounds as are looked at."""


@dataclass
class Watch:
    """What crossed between device and host, and the domains bounded, until each of the first rounds."""

    device: Pretend
    rounds: list[tuple[int, int, int]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundDone):
            self.rounds.append((sum(self.device.waits.values()), self.device.to_host, event.bounded))
        if len(self.rounds) == ROUNDS:
            raise Enough


@pytest.mark.parametrize(("strategy", "margin", "batch"), [("relu", 0.1, 1024), ("input", 0.5, 16)])
def test_rounds_stay_on_the_device(
    strategy: str, margin: float, batch: int, tmp_path: Path, device: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bounds of open cases are looked at four times a second, however many rounds these are; here each takes longer.
    monkeypatch.setattr(CaseTracker, "look", lambda tracker, frontier: None)
    watch, path = Watch(device), wide_model(tmp_path)
    text = hard_query(path, np.random.default_rng(0), margin)
    with device, pytest.raises(Enough):
        decided(path, text, watch, strategy=strategy, attack_restarts=0, batch=batch)
    waits, copied, bounded = (np.diff([entry[part] for entry in watch.rounds]) for part in range(3))
    assert bounded.max() >= 8
    assert not copied.any()
    assert waits.max() <= MOST_WAITS
