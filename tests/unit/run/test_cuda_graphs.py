"""Functions that a device records and plays back, on a recorder that runs the function again in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from recorders import Again
from torch import Tensor

from toolkit.run import cuda_graphs
from toolkit.run.cuda_graphs import Recordings
from toolkit.search.phase_domains import PhaseSpace
from toolkit.tuning import tuned


@dataclass(frozen=True)
class Pair:
    first: Tensor
    second: Tensor


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Again:
    """A recorder for the processor."""
    again = Again()
    monkeypatch.setitem(cuda_graphs.RECORDERS, "cpu", lambda: again)
    return again


def swapped(pair: Pair) -> Pair:
    return Pair(pair.second * 2, pair.first + 1)


def test_played_results_are_those_of_the_function(recorder: Again) -> None:
    known = Recordings()
    for count in [5, 5, 5, tuned().recordings.least_padded_rows, 1, tuned().recordings.least_padded_rows - 1]:
        pair = Pair(torch.randn(count, 3), torch.randn(count, 2))
        found = known.run("swap", swapped, pair)
        assert torch.equal(found.first, pair.second * 2)
        assert torch.equal(found.second, pair.first + 1)
    assert (recorder.recorded, recorder.played) == (1, 6 - tuned().recordings.calls_before)


def test_results_stay_when_the_recording_is_played_again(recorder: Again) -> None:
    known = Recordings()
    pairs = [Pair(torch.randn(4, 3), torch.randn(4, 2)) for _ in range(tuned().recordings.calls_before + 3)]
    found = [known.run("swap", swapped, pair) for pair in pairs]
    assert all(torch.equal(new.first, pair.second * 2) for new, pair in zip(found, pairs, strict=True))


def test_other_names_sizes_and_widths_are_recorded_apart(recorder: Again) -> None:
    known = Recordings()
    for name, count, width in [
        ("a", 4, 3),
        ("b", 4, 3),
        ("a", 4, 2),
        ("a", tuned().recordings.least_padded_rows + 1, 3),
    ]:
        for _ in range(tuned().recordings.calls_before + 1):
            rows = torch.randn(count, width)
            assert torch.equal(known.run(name, torch.neg, rows), -rows)
    assert recorder.recorded == 4


def test_what_cannot_be_recorded_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(function: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setitem(cuda_graphs.RECORDERS, "cpu", lambda: refusing)
    known, rows = Recordings(), torch.randn(4, 3)
    for _ in range(tuned().recordings.calls_before + 3):
        assert torch.equal(known.run("neg", torch.neg, rows), -rows)


def test_nothing_is_recorded_on_a_processor() -> None:
    known, rows = Recordings(), torch.randn(4, 3)
    for _ in range(tuned().recordings.calls_before + 3):
        known.run("neg", torch.neg, rows)
    assert not known._known


def test_another_space_has_recordings_of_its_own() -> None:
    space = PhaseSpace(None, None, torch.arange(3))  # type: ignore[arg-type]
    assert replace(space, unstable=torch.arange(2)).recordings is not space.recordings
