"""The journal of a run: one JSON object per line, appended as answers come, so that a crash loses nothing.

It is also what a run resumes from. A proof or a counterexample counts again for every limit of time and passes that it
was found within, whatever the limit was then; an answer that decides nothing only for the limit that it was given
under.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from toolkit.bench.atomic_files import sync_folder, write_bytes_atomically
from toolkit.bench.job import Answer, InstanceJob
from toolkit.errors import InputError
from toolkit.result import DECIDED, Statistics, Verdict
from toolkit.settings import Settings

NAME = "journal.jsonl"


@dataclass(frozen=True)
class JournalRecord:
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
    witness_sha256: str = ""
    """SHA-256 of the counterexample file, as it is on disk."""
    certificate: str = ""
    """Certificate file, relative to the folder of the run; empty without one."""
    certificate_sha256: str = ""
    """SHA-256 of the certificate file, as it is on disk."""
    question: str = ""
    """The key without limits; empty in journals of before there was one."""
    finished: str = ""
    """Time of day (UTC, ISO 8601)."""
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """Key of the question that the answer is to, limits left out."""
        return self.question or self.key

    @property
    def row(self) -> tuple[str, str, str]:
        """Category, network and specification: what names the instance in a benchmark."""
        return self.category, self.onnx, self.vnnlib

    @property
    def files(self) -> list[tuple[str, str]]:
        """The files that the record names, relative to the folder of the run, with their SHA-256."""
        named = ((self.witness, self.witness_sha256), (self.certificate, self.certificate_sha256))
        return [(path, digest) for path, digest in named if path]

    @property
    def proof_checked(self) -> bool:
        """Whether the answer is ``unsat`` with a certificate that the checker accepted."""
        return self.verdict is Verdict.UNSAT and self.statistics.certificate == "checked"


def make_record(job: InstanceJob, answer: Answer, **files: str) -> JournalRecord:
    """The record of a finished job, with its counterexample and certificate by the record's fields."""
    return JournalRecord(
        key=job.key,
        category=job.category,
        onnx=job.onnx,
        vnnlib=job.vnnlib,
        timeout=job.timeout,
        verdict=answer.verdict,
        reason=answer.reason,
        seconds=round(answer.seconds, 4),
        statistics=answer.statistics,
        question=job.question,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=dict(job.origin),
        **files,
    )


def line_of(record: JournalRecord) -> bytes:
    """The line of a journal that a record is."""
    return json.dumps(asdict(record)).encode() + b"\n"


def write(path: Path, records: Iterable[JournalRecord]) -> None:
    """Write a whole journal, in place of what is there; on return it is on disk."""
    write_bytes_atomically(path, b"".join(map(line_of, records)))


def append(path: Path, record: JournalRecord) -> None:
    """Add one record; on return it is on disk. Where that fails, nothing of it is left, and the error is raised."""
    line = line_of(record)
    new = not path.exists()
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        # A line that a crash cut short must not swallow this one.
        if size and not _ends_line(file):
            line = b"\n" + line
        try:
            _write_all(file, line)
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                file.truncate(size)
            raise
    if new:
        sync_folder(path.parent)


def _ends_line(file: FileIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _write_all(file: FileIO, data: bytes) -> None:
    """Write everything: a disk that is almost full takes a part, and refuses the next."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def history(path: Path) -> list[JournalRecord]:
    """All complete records in the order in which they were added; a line cut short by a crash is skipped."""
    return list(_lines(path)) if path.exists() else []


def read(path: Path) -> list[JournalRecord]:
    """All complete records; of several with one key the last counts."""
    return list({record.key: record for record in history(path)}.values())


class LimitedQuestion(Protocol):
    """A question with the settings that it is asked under."""

    @property
    def key(self) -> str:
        """Fingerprint of the question with all its limits."""

    @property
    def settings(self) -> Settings:
        """The settings, the time limit among them."""


def answer_to(job: LimitedQuestion, records: Iterable[JournalRecord]) -> JournalRecord | None:
    """Which of the records about a job's question, in order, answers it; None when it has to be run (again).

    The latest that decides it within its limits, else the latest under the same limit; with the job's key and
    limit.
    """
    found = None
    for record in records:
        decides = record.verdict in DECIDED and is_within(record, job.settings)
        if decides or (record.key == job.key and not (found and found.verdict in DECIDED)):
            found = record
    return found and replace(found, key=job.key, timeout=job.settings.timeout)


def is_within(record: JournalRecord, limits: Settings) -> bool:
    """Whether an answer took no more time than the limit and, where passes are limited, no more of these."""
    return record.seconds <= limits.timeout and (not limits.passes or record.statistics.passes <= limits.passes)


def _lines(path: Path) -> Iterator[JournalRecord]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields_read = json.loads(line)
        except (ValueError, RecursionError):
            continue
        yield _record(fields_read, f"{path}:{number}")


def _record(values: dict[str, Any], where: str) -> JournalRecord:
    known = {item.name for item in fields(JournalRecord)}
    statistics = {item.name for item in fields(Statistics)}
    try:
        values = {name: value for name, value in values.items() if name in known}
        values["verdict"] = Verdict(values["verdict"])
        counts = {name: value for name, value in values["statistics"].items() if name in statistics}
        values["statistics"] = Statistics(**counts)
        return JournalRecord(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: not a line of a prunecert journal; remove the file or use --fresh") from error
