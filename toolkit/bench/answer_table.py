"""``answers.csv``: everything that is known of each answer of a run, one line each, with a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.journal import JournalRecord
from toolkit.result import Statistics, Verdict

NAME = "answers.csv"
_STATISTICS = tuple(entry.name for entry in fields(Statistics) if entry.name not in ("layers", "seconds"))
"""All statistics that are one number or word each; those by layer are in the journal."""
HEADER = (
    "category", "network", "specification", "verdict", "expected", "seconds", "timeout", "reason", *_STATISTICS,
    "verifier_seconds", "witness", "certificate_file", "finished", "device",
)  # fmt: skip
"""The columns. ``seconds`` is measured outside of the verifier, ``verifier_seconds`` inside."""


def answers_csv(records: Sequence[JournalRecord], expected: Mapping[str, Verdict]) -> str:
    """The text of ``answers.csv``; ``expected`` has known verdicts by the records' keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_answer_line(record, expected.get(record.key, "")) for record in records)
    return text.getvalue()


def _answer_line(record: JournalRecord, expected: str) -> dict[str, object]:
    return {
        "category": record.category,
        "network": record.onnx,
        "specification": record.vnnlib,
        "verdict": record.verdict,
        "expected": expected,
        "seconds": record.seconds,
        "timeout": record.timeout,
        "reason": record.reason,
        **{name: getattr(record.statistics, name) for name in _STATISTICS},
        "verifier_seconds": round(record.statistics.seconds, 4),
        "witness": record.witness,
        "certificate_file": record.certificate,
        "finished": record.finished,
        "device": record.provenance.get("device", ""),
    }


def write_answers(path: Path, records: Sequence[JournalRecord], expected: Mapping[str, Verdict]) -> None:
    """Write ``answers.csv``, so that it is there completely or not at all."""
    write_text_atomically(path, answers_csv(records, expected))
