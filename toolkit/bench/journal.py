"""The journal of a run: one JSON object per line, appended as answers come, so that a crash loses nothing.

It is also what a run resumes from: an instance whose key stands in the journal is not run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.bench.fingerprint import provenance
from toolkit.bench.job import Answer, Job
from toolkit.errors import InputError
from toolkit.result import Statistics, Verdict

NAME = "journal.jsonl"


@dataclass(frozen=True)
class Record:
    """One line of the journal: an answered instance."""

    key: str
    category: str
    onnx: str
    vnnlib: str
    timeout: float
    verdict: Verdict
    reason: str
    seconds: float
    statistics: Statistics
    witness: str = ""
    """Counterexample file, relative to the folder of the run; empty without one."""
    finished: str = ""
    """Time of day (UTC, ISO 8601)."""
    provenance: dict[str, Any] = field(default_factory=dict)


def make_record(job: Job, answer: Answer, witness: str) -> Record:
    """The record of a finished job."""
    return Record(
        key=job.key,
        category=job.category,
        onnx=job.onnx,
        vnnlib=job.vnnlib,
        timeout=job.timeout,
        verdict=answer.verdict,
        reason=answer.reason,
        seconds=round(answer.seconds, 4),
        statistics=answer.statistics,
        witness=witness,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=provenance(job.networks, job.spec, job.settings),
    )


def append(path: Path, record: Record) -> None:
    """Add one record; on return it has left this process."""
    line = json.dumps(asdict(record))
    with path.open("a+b") as file:
        # A line that a crash cut short must not swallow this one.
        if file.tell() and not _ends_line(path):
            line = "\n" + line
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read(path: Path) -> list[Record]:
    """All complete records; of several with one key the last counts. A line cut short by a crash is skipped."""
    if not path.exists():
        return []
    records = {record.key: record for record in _lines(path)}
    return list(records.values())


def _lines(path: Path) -> Iterator[Record]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields_read = json.loads(line)
        except ValueError:
            continue
        yield _record(fields_read, f"{path}:{number}")


def _record(values: dict[str, Any], where: str) -> Record:
    known = {item.name for item in fields(Record)}
    statistics = {item.name for item in fields(Statistics)}
    try:
        values = {name: value for name, value in values.items() if name in known}
        values["verdict"] = Verdict(values["verdict"])
        counts = {name: value for name, value in values["statistics"].items() if name in statistics}
        values["statistics"] = Statistics(**counts)
        return Record(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: not a line of a prunecert journal; remove the file or use --fresh") from error
