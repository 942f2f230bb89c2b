"""The places of the old faults are still in the sources, and the script tells what is caught from what is not."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from planted_faults import FAULTS, ROOT, PlantedFault, main


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_place_of_a_fault_is_found_once_and_its_tests_exist(fault: PlantedFault) -> None:
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) == 1
    assert fault.new != fault.old
    assert fault.tests
    for test in fault.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {re.escape(name.partition('[')[0])}\(", text, re.MULTILINE), test


CODE = "def double(x):\n    return 2 * x\n"
TEST = """from toolkit.numbers import double
def test_noticing():
    assert double(3) == 6
def test_sleeping():
    assert double(0) == 0
"""
FAULT = PlantedFault("added", "", "toolkit/numbers.py", "2 * x", "2 + x", ("test_it.py::test_noticing",))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout, with its tests, that need no library; one of them notices little."""
    monkeypatch.setattr("planted_faults.LIBRARIES", ())
    for name, text in {"toolkit/__init__.py": "", "toolkit/numbers.py": CODE, "test_it.py": TEST}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_what_no_test_notices_is_told(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unnoticed = replace(FAULT, name="tripled", new="3 * x", tests=("test_it.py::test_sleeping",))
    assert main([], checkout, [FAULT, unnoticed]) == 1
    said = capsys.readouterr().out
    assert "added: caught by test_it.py::test_noticing" in said
    assert "tripled: NOT caught" in said
    assert main(["--only", "added"], checkout, [FAULT, unnoticed]) == 0
    assert (checkout / "toolkit/numbers.py").read_text() == CODE


def test_a_test_that_fails_anyway_notices_nothing(checkout: Path) -> None:
    (checkout / "test_it.py").write_text(TEST.replace("== 6", "== 7"))
    with pytest.raises(RuntimeError, match="without any fault"):
        main([], checkout, [FAULT])


def test_tests_that_are_not_there_are_no_answer(checkout: Path) -> None:
    with pytest.raises(RuntimeError, match="cannot run"):
        main([], checkout, [replace(FAULT, tests=("test_it.py::test_missing",))])
