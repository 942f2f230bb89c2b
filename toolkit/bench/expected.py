"""Known verdicts: ``expected.csv`` beside ``instances.csv``, and how a run compares with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.journal import Record
from toolkit.bench.scoring import DECIDED, is_contradiction
from toolkit.errors import InputError
from toolkit.formats.instances import parse_verdict
from toolkit.result import Verdict

NAME = "expected.csv"
Expected = dict[tuple[str, str], Verdict]


def read_expected(folder: Path) -> Expected:
    """Verdicts by (network field, specification field); an empty fourth column means unknown. Empty without a file.

    Rows are ``onnx,vnnlib,timeout,verdict``, the first two spelled as in ``instances.csv``.
    """
    path = folder / NAME
    if not path.exists():
        return {}
    expected: Expected = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            try:
                onnx, vnnlib, _timeout, verdict = row
                if verdict:
                    expected[onnx, vnnlib] = parse_verdict(verdict)
            except (ValueError, InputError) as error:
                raise InputError(
                    f"{path}:{number}: expected 'onnx,vnnlib,timeout,verdict', got {','.join(row)}"
                ) from error
    return expected


def format_expected(rows: Iterable[tuple[str, str, float, Verdict | None]]) -> str:
    """The text of an ``expected.csv``: network field, specification field, time limit, verdict (None: unknown)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows((onnx, vnnlib, f"{timeout:g}", verdict or "") for onnx, vnnlib, timeout, verdict in rows)
    return text.getvalue()


@dataclass(frozen=True)
class Comparison:
    """How answers compare with the known verdicts."""

    agreements: int
    undecided: int
    """Instances of known verdict that the run did not decide."""
    contradictions: tuple[tuple[Record, Verdict], ...]


def compare(pairs: Iterable[tuple[Record, Verdict | None]]) -> Comparison:
    """Compare answers with known verdicts; pairs without one (None) are skipped."""
    known = [(record, truth) for record, truth in pairs if truth in DECIDED]
    return Comparison(
        agreements=sum(record.verdict == truth for record, truth in known),
        undecided=sum(record.verdict not in DECIDED for record, _ in known),
        contradictions=tuple((record, truth) for record, truth in known if is_contradiction(record, truth)),
    )
