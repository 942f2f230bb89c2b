"""What a run leaves besides its journal: ``results.csv``, and counterexamples named as VNN-COMP names them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.atomic_files import file_digest, packed, write_bytes_atomically, write_text_atomically
from toolkit.bench.job import InstanceJob
from toolkit.bench.journal import JournalRecord
from toolkit.formats.vnncomp.instances import ResultRow, format_results, witness_name

WITNESSES = "witnesses"
SUFFIX = ".counterexample"
LONGEST_NAME = 200
"""Bytes of a file's name without what is added to it; file systems take 255 in all."""

Row = tuple[str, str, str]


def witness_path(job: InstanceJob, tag: str = "") -> str:
    """Where the counterexample of a job goes, relative to the folder of the run; ``tag`` tells equal names apart.

    Specifications in subfolders of ``vnnlib/`` carry the subfolder's name, since their stems repeat.
    """
    inner = [part for part in Path(job.vnnlib).parent.parts if part not in (".", "vnnlib")]
    name = "_".join([*inner, witness_name(dict(job.networks), job.spec)]).removesuffix(SUFFIX)
    name = os.fsdecode(os.fsencode(name.replace("/", "_").replace("\0", "_"))[:LONGEST_NAME])
    return f"{WITNESSES}/{job.category}/{name}{tag and '_'}{tag}{SUFFIX}.gz"


@dataclass
class WitnessFolder:
    """The counterexamples of a run: each instance has a file of its own, which no other instance writes or removes."""

    out: Path
    owners: dict[str, Row]
    """The instance that each file belongs to."""
    shared: frozenset[str]
    """Names that several instances of the run would have: none of them gets it."""

    @classmethod
    def of(cls, out: Path, jobs: Iterable[InstanceJob], records: Iterable[JournalRecord]) -> WitnessFolder:
        """For the jobs of a run and what its journal says so far."""
        first: dict[str, Row] = {}
        shared = {path for job in jobs if first.setdefault(path := witness_path(job), job.row) != job.row}
        owners = {record.witness: record.row for record in records if record.witness}
        return cls(out, owners, frozenset(shared))

    def put(self, job: InstanceJob, text: str) -> tuple[str, str]:
        """Write the counterexample of a job; its file, relative to the folder of the run, and the file's SHA-256.

        On return it is on disk. An earlier one of the same instance is replaced.
        """
        path = witness_path(job)
        if path in self.shared or self.owners.get(path, job.row) != job.row:
            path = witness_path(job, hashlib.sha256("\0".join(job.row).encode()).hexdigest()[:12])
        data = packed(self.out / path, text)
        write_bytes_atomically(self.out / path, data)
        self.owners[path] = job.row
        return path, hashlib.sha256(data).hexdigest()


def has_its_witness(record: JournalRecord, out: Path) -> bool:
    """Whether the counterexample that a record names is there as it was written; true of one that names none."""
    if not record.witness:
        return True
    return bool(record.witness_sha256) and file_digest(out / record.witness) == record.witness_sha256


def write_results(path: Path, records: Sequence[JournalRecord], folders: Mapping[str, Path]) -> None:
    """Write ``results.csv``.

    Networks and specifications are named as the runner was given them, below ``folders[category]`` and without
    ``.gz``. Preparing is loading the verifier, once for many instances: its time is 0.
    """
    rows = [
        ResultRow(
            category=record.category,
            onnx=_below(folders[record.category], record.onnx),
            vnnlib=_below(folders[record.category], record.vnnlib),
            prepare_time=0.0,
            verdict=record.verdict,
            run_time=record.seconds,
        )
        for record in records
    ]
    write_text_atomically(path, format_results(rows))


def _below(folder: Path, name: str) -> str:
    # The network field of several networks is a list written in Python, not a path.
    return name if name.startswith("[") else str(folder / name).removesuffix(".gz")
