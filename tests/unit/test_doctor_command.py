"""``prunecert doctor``: what it says of an installation that works, and of one that does not."""

from __future__ import annotations

import json

import pytest

from toolkit import __version__, cli
from toolkit.commands.doctor import PACKAGES, devices
from toolkit.errors import MachineError
from toolkit.result import Result, Verdict


def test_an_installation_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["prunecert"] == __version__
    assert set(PACKAGES) <= set(found["versions"])
    assert [(test["device"], test["verdict"]) for test in found["tests"]] == [
        (device, verdict) for device in devices() for verdict in ("sat", "unsat")
    ]
    assert all(test["passed"] for test in found["tests"])


def test_a_wrong_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("toolkit.verify.verify_files", lambda *_: Result(Verdict.UNSAT))
    assert cli.run(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "FAILED: on cpu a query that is sat is unsat" in out
    assert "ok: on cpu a query that is unsat is unsat" in out


def test_a_library_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> Result:
        raise MachineError("no memory")

    monkeypatch.setattr("toolkit.verify.verify_files", fails)
    assert cli.run(["doctor"]) == 3
    assert "MachineError: no memory" in capsys.readouterr().out
