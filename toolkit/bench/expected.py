"""Known verdicts: ``expected.csv`` beside ``instances.csv``, and how a run compares with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import is_contradiction
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import parse_verdict, read_rows, seconds_field
from toolkit.result import DECIDED, Verdict

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
    for line, row in read_rows(path):
        try:
            onnx, vnnlib, _timeout, word = row
            verdict = parse_verdict(word) if word else None
        except (ValueError, InputError) as error:
            raise InputError(f"{path}:{line}: expected 'onnx,vnnlib,timeout,verdict', got {','.join(row)}") from error
        if verdict is not None and expected.setdefault((onnx, vnnlib), verdict) != verdict:
            before = expected[onnx, vnnlib]
            raise InputError(f"{path}:{line}: {verdict} for {onnx} {vnnlib}, which is {before} in a row before")
    return expected


def format_expected(rows: Iterable[tuple[str, str, float, Verdict | None]]) -> str:
    """The text of an ``expected.csv``: network field, specification field, time limit, verdict (None: unknown)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows((onnx, vnnlib, seconds_field(timeout), verdict or "") for onnx, vnnlib, timeout, verdict in rows)
    return text.getvalue()


@dataclass(frozen=True)
class VerdictComparison:
    """How answers compare with the known verdicts."""

    agreements: int
    undecided: int
    """Instances of known verdict that the run did not decide."""
    contradictions: tuple[tuple[JournalRecord, Verdict], ...]


def compare(pairs: Iterable[tuple[JournalRecord, Verdict | None]]) -> VerdictComparison:
    """Compare answers with known verdicts; pairs without one (None) are skipped."""
    known = [(record, truth) for record, truth in pairs if truth in DECIDED]
    return VerdictComparison(
        agreements=sum(record.verdict == truth for record, truth in known),
        undecided=sum(record.verdict not in DECIDED for record, _ in known),
        contradictions=tuple((record, truth) for record, truth in known if is_contradiction(record, truth)),
    )
