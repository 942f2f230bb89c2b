"""Lines about training come now and then."""

from __future__ import annotations

import io
import time

import pytest

from toolkit.training.training_progress import EpochLines


def test_lines_are_not_more_frequent_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    told = EpochLines(every=10, prefix="seed 3: ", file=io.StringIO(), shown=100.0)
    for epoch in range(1, 7):
        now[0] += 4
        told("net dense", epoch, 6)
    assert isinstance(told.file, io.StringIO)
    assert told.file.getvalue().splitlines() == [f"seed 3: net dense: epoch {epoch} of 6" for epoch in (3, 6)]
