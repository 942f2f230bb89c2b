"""What came of a run as one JSON object: what its tables say, for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.bench.answer_table import answers_csv
from toolkit.bench.stored_run import expected_by_key, read_run, stored_records
from toolkit.experiments.campaign import category_scores

SUMMARY = "summary.csv"
"""The table of networks that the run of a recipe leaves."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended that ran or merged something."""

    code: int
    """The exit code."""
    values: Callable[[], dict[str, Any]]
    """What came of it as one JSON object, from its folder."""


def run_values(out: Path) -> dict[str, Any]:
    """The scores of a run, all of its answers, and of a recipe the networks, by the names of the columns in its files.

    Raises InputError for a folder without a run.
    """
    run = read_run(out)
    records, expected = stored_records(out, run), expected_by_key(run)
    summary = out / SUMMARY
    return {
        "run": run.name,
        "folder": str(out),
        "instances": len(run.instances),
        "scores": [asdict(score) for score in category_scores(records, expected)],
        "networks": _rows(summary.read_text(encoding="utf-8")) if run.recipe and summary.is_file() else [],
        "answers": _rows(answers_csv(records, expected)),
    }


def _rows(text: str) -> list[dict[str, Any]]:
    """The lines of a table; what is a number there is one here, and what is empty is null."""
    return [{name: _value(cell) for name, cell in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _value(cell: str) -> Any:
    if cell == "":
        return None
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    return value if isinstance(value, int | float) and math.isfinite(value) else cell
