"""Importing on a thread of its own."""

import sys
from pathlib import Path

import pytest

from toolkit.ahead import import_ahead


def test_modules_are_there_when_the_thread_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_ahead.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_ahead(["imported_ahead", "json"]).join()
    assert sys.modules.pop("imported_ahead").value == 3


def test_what_cannot_be_imported_is_met_by_whoever_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_ahead.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    patience = sys.getswitchinterval()
    import_ahead(["broken_ahead"]).join()
    assert sys.getswitchinterval() == patience
    with pytest.raises(ZeroDivisionError):
        __import__("broken_ahead")
