"""The tuning table: every choice has a range, says what it does, and names a record that exists."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path

import pytest

from toolkit import tuning
from toolkit.tuning import DEFAULTS, PerDevice, choice, tuned, using

ROOT = Path(tuning.__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "perf"
UNMEASURED = 1
"""Most choices that no measurement is known of; a number that may only fall."""


CHOICES = {
    f"{name}.{field}": entry for name, group in DEFAULTS._asdict().items() for field, entry in group.choices.items()
}


FACTS = {
    # what a proof relies on: how many roundings, and how far outward
    "ROUNDINGS_BESIDE_SUM", "ROUNDINGS_OF_FUNCTION", "OUTWARD_ULPS", "MARGIN", "MOST_ATOMS", "UNKNOWN_ERROR_SHARE",
    "ALLOWED_SUM_TERMS", "MOST_LOST", "SMALL_LOSS", "ERROR_OF_ERROR_BOUND", "BLOCKED_SUM_TERMS", "BLOCK_TERMS",
    "QUOTIENT_ROUNDING", "MOST_STEP_ERROR", "LEAST_NORMAL_NUMBERS", "LEAST_EXPONENTIAL", "MANTISSA", "CAP",
    # guards of an arithmetic operation
    "OVERFLOW_SUMMANDS", "LEAST_SQUARED_GRADIENT", "LEAST_MEAN_MAGNITUDE",
    # limits and codes of systems, solvers and formats, units, and numbers that stand for something
    "LONGEST_WAIT_SECONDS", "PIPE_CAPACITY", "DIE_WITH_PARENT", "GIB", "TOLERANCES", "INFEASIBLE", "SEED_STRIDE",
    "REFUTED_BOUND", "INPUT", "SLOPE_STEPS", "_BIASED", "_ALL",
}  # fmt: skip
"""Names of numbers that are no choices, and stay beside the code."""


def test_numbers_outside_of_the_table_are_no_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RECORDS))
    counts = importlib.import_module("house_counts")
    found = counts.constants(source for source in counts.sources(ROOT) if source.path.startswith("toolkit/"))["all"]
    assert not [place for place in found if place.partition(":")[2] not in FACTS]
    assert {place.partition(":")[2] for place in found} == FACTS, "names that are no more"


def test_every_record_that_is_named_exists() -> None:
    for name, entry in CHOICES.items():
        if (record := entry.measured) not in ("no", "guard"):
            file, *keys = record.split(":")
            found = json.loads((RECORDS / file).read_text(encoding="utf-8"))
            for part in keys:
                assert part in found, f"{name}: {record}"
                found = found[part]
            assert found


def test_choices_without_a_measurement_become_fewer() -> None:
    count = sum(entry.measured == "no" for entry in CHOICES.values())
    assert count == UNMEASURED, "lower the number in this test" if count < UNMEASURED else "measure what is new"


def test_every_choice_says_what_it_does() -> None:
    """By a docstring of its own, which is a sentence, and a unit."""
    for node in ast.parse(Path(tuning.__file__).read_text(encoding="utf-8")).body:
        if not (isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "TuningGroup" for base in node.bases)):
            continue
        for entry, text in zip(node.body[1::2], node.body[2::2], strict=True):
            assert isinstance(entry, ast.AnnAssign)
            assert isinstance(text, ast.Expr), ast.unparse(entry)
            assert ast.literal_eval(text.value).endswith("."), ast.unparse(entry)
    assert all(entry.unit for entry in CHOICES.values())


def test_every_choice_is_read() -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in ROOT.glob("toolkit/**/*.py") if path.name != "tuning.py"
    )
    unread = [name for name in CHOICES if f".{name.partition('.')[2]}" not in text]
    assert not unread


@pytest.mark.parametrize("value", [-1, 0, float("nan")])
def test_values_outside_of_their_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"EvolutionTuning.parents: .* is not in \[1, inf\]"):
        DEFAULTS.changed(evolution={"parents": value})
    assert DEFAULTS.changed(evolution={"parents": 1}).evolution.parents == 1


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(TypeError, match="EvolutionTuning has no parent"):
        DEFAULTS.changed(evolution={"parent": 1})
    with pytest.raises(AttributeError):
        DEFAULTS.changed(evolutions={"parents": 1})


def test_groups_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        DEFAULTS.evolution.parents = 1


def test_other_values_hold_inside_of_a_block() -> None:
    before = tuned().evolution.parents
    with using(tuned().changed(evolution={"parents": before + 1})):
        assert tuned().evolution.parents == before + 1
        with using(tuned().changed(evolution={"generations": 3})):
            assert (tuned().evolution.parents, tuned().evolution.generations) == (before + 1, 3)
        with pytest.raises(ZeroDivisionError), using(DEFAULTS):
            _ = 1 / 0
        assert tuned().evolution.parents == before + 1
    assert tuned() is DEFAULTS


def test_numbers_by_device() -> None:
    number = PerDevice(cpu=1 << 4, elsewhere=1 << 6)
    assert (number.on("cpu"), number.on("cuda"), number.on("xpu")) == (16, 64, 64)


def test_a_range_holds_on_every_device() -> None:
    entry = choice(PerDevice(1, 1), "rows", least=1, most=8, measured="no")
    assert entry.allows(PerDevice(1, 8))
    assert not any(entry.allows(PerDevice(*numbers)) for numbers in ((0, 1), (1, 9), (float("nan"), 1)))
