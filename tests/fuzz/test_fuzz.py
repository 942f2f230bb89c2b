"""The short form of the hunt: a few cases of every kind, all that once went wrong, and the hunt's own machinery."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from choices import Choices, again, from_seed
from corpus import FOLDER, read_finding, write_finding
from fuzz_campaign import Plan, all_kinds, run_here
from kinds import KINDS, Finding, Kind, Wrong, judge
from shrink import shrunk

CASES = 8
"""Cases of a kind with a share of 1."""
SECONDS = 5.0
"""After which a kind has had its share, however slow the machine."""
SEED = 1


OPEN: frozenset[str] = frozenset()
"""Kinds of which some cases are known to go wrong still."""


def marked(names: list[str]) -> list[ParameterSet]:
    """Names as parameters; what is open may go wrong."""
    return [pytest.param(name, marks=pytest.mark.xfail(name in OPEN, reason="open")) for name in names]


@pytest.mark.parametrize("name", marked(all_kinds()))
def test_nothing_is_wrong_in_a_few_cases(name: str) -> None:
    told: list[dict] = []
    plan = Plan(SEED, (name,), CASES * KINDS[name].share, SECONDS, shrinking=5.0)
    run_here(plan, told.append)
    assert not [record for record in told if "finding" in record]
    assert sum(record.get("judged", 0) for record in told) > 0


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_what_once_went_wrong_does_not_any_more(path: Path) -> None:
    past = read_finding(path)
    _, found = judge(KINDS[past.kind], again(past.choices))
    assert found is None


def numbers(choices: Choices) -> int:
    """Some numbers, of which two in a row must not both be large."""
    drawn = [choices.below(100) for _ in range(choices.between(1, 30))]
    if any(first > 50 and second > 70 for first, second in pairwise(drawn)):
        raise Wrong("large", str(drawn))
    return len(drawn)


def failing() -> tuple[Kind, Finding]:
    """A kind that goes wrong now and then, and its first case that does."""
    chosen = Kind("numbers", "", numbers, 1)
    found = (judge(chosen, from_seed(0, number))[1] for number in range(100))
    return chosen, next(finding for finding in found if finding is not None)


def test_cases_are_made_as_small_as_can_be() -> None:
    chosen, finding = failing()
    small = shrunk(chosen, finding)
    assert small.key == finding.key
    assert small.choices == (1, 51, 71)


def test_cases_are_the_same_again(tmp_path: Path) -> None:
    chosen, finding = failing()
    path = write_finding(tmp_path, finding)
    assert read_finding(path) == finding
    assert judge(chosen, again(finding.choices))[1] == finding
    assert from_seed(3, 4).below(1 << 40) == from_seed(3, 4).below(1 << 40)


def test_whatever_a_case_raises_is_told() -> None:
    def broken(choices: Choices) -> int:
        return 1 // choices.below(1)

    _, finding = judge(Kind("broken", "", broken, 1), again(()))
    assert finding is not None
    assert (finding.sort, finding.label) == ("crash", "ZeroDivisionError in test_fuzz.py broken")


def test_a_case_without_end_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinds.PATIENCE", 0.2)
    _, finding = judge(Kind("slow", "", lambda choices: time.sleep(30) or 1, 1), again(()))
    assert finding is not None
    assert finding.sort == "hang"


def test_a_campaign_in_processes_ends_with_figures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.jsonl"
    options = ["--cases=8", "--jobs=1", "--seed=1", "--kind=specifications", f"--figures={figures}"]
    script = Path(__file__).parent / "fuzz.py"
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(figures.read_text())
    assert record["cases"] == 8
    assert record["kinds"]["specifications"]["judgements"] > 0
    assert record["findings"] == []
