"""What a run leaves besides its journal: ``results.csv``, and counterexamples and certificates by their instances."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.atomic_files import file_digest, move_to_disk, packed, write_bytes_atomically, write_text_atomically
from toolkit.bench.job import InstanceJob
from toolkit.bench.journal import JournalRecord
from toolkit.formats.vnncomp.instances import ResultRow, format_results, witness_name

WITNESSES, CERTIFICATES = "witnesses", "certificates"
SUFFIX, CERTIFICATE_SUFFIX = ".counterexample", ".certificate"
UNFINISHED = ".part"
"""What the name of a certificate ends in while a worker writes it."""
LONGEST_NAME = 200
"""Bytes of a file's name without what is added to it; file systems take 255 in all."""

Row = tuple[str, str, str]


def witness_path(job: InstanceJob, tag: str = "") -> str:
    """Where the counterexample of a job goes, relative to the folder of the run; ``tag`` tells equal names apart."""
    return f"{WITNESSES}/{job.category}/{_instance_name(job)}{tag and '_'}{tag}{SUFFIX}.gz"


def certificate_path(job: InstanceJob, tag: str = "") -> str:
    """Where the certificate of a job goes, relative to the folder of the run; ``tag`` tells equal names apart."""
    return f"{CERTIFICATES}/{job.category}/{_instance_name(job)}{tag and '_'}{tag}{CERTIFICATE_SUFFIX}"


def _instance_name(job: InstanceJob) -> str:
    """The name of an instance's files, as VNN-COMP has it. Specifications in subfolders of ``vnnlib/`` carry the
    subfolder's name, since their stems repeat."""
    inner = [part for part in Path(job.vnnlib).parent.parts if part not in (".", "vnnlib")]
    name = "_".join([*inner, witness_name(dict(job.networks), job.spec)]).removesuffix(SUFFIX)
    return os.fsdecode(os.fsencode(name.replace("/", "_").replace("\0", "_"))[:LONGEST_NAME])


@dataclass
class EvidenceFolder:
    """The counterexamples and certificates of a run: each instance has files of its own, which no other instance
    writes or removes."""

    out: Path
    owners: dict[str, Row]
    """The instance that each file belongs to."""
    shared: frozenset[str]
    """Names that several instances of the run would have: none of them gets it."""

    @classmethod
    def of(cls, out: Path, jobs: Iterable[InstanceJob], records: Iterable[JournalRecord]) -> EvidenceFolder:
        """For the jobs of a run and what its journal says so far."""
        first: dict[str, Row] = {}
        names = ((path, job.row) for job in jobs for path in (witness_path(job), certificate_path(job)))
        shared = {path for path, row in names if first.setdefault(path, row) != row}
        owners = {path: record.row for record in records for path, _ in record.files}
        return cls(out, owners, frozenset(shared))

    def put_witness(self, job: InstanceJob, text: str) -> tuple[str, str]:
        """Write the counterexample of a job; its file, relative to the folder of the run, and the file's SHA-256.

        On return it is on disk. An earlier one of the same instance is replaced.
        """
        path = self._own(job, witness_path)
        data = packed(self.out / path, text)
        write_bytes_atomically(self.out / path, data)
        return path, hashlib.sha256(data).hexdigest()

    def keep_certificate(self, job: InstanceJob, draft: Path) -> tuple[str, str]:
        """Give the certificate that a worker wrote its name; its file, relative to the folder of the run, and SHA-256.

        On return it is on disk. An earlier one of the same instance is replaced. Raises OSError where it is gone.
        """
        path = self._own(job, certificate_path)
        move_to_disk(draft, self.out / path)
        return path, file_digest(self.out / path)

    def _own(self, job: InstanceJob, name: Callable[[InstanceJob, str], str]) -> str:
        """The name of a job's file, which is from now on its own."""
        path = name(job, "")
        if path in self.shared or self.owners.get(path, job.row) != job.row:
            path = name(job, hashlib.sha256("\0".join(job.row).encode()).hexdigest()[:12])
        self.owners[path] = job.row
        return path


def has_its_files(record: JournalRecord, out: Path) -> bool:
    """Whether counterexample and certificate that a record names are there as they were written; true of one that
    names none."""
    return all(bool(digest) and file_digest(out / path) == digest for path, digest in record.files)


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
