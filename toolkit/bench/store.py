"""Files of a run: counterexamples named as VNN-COMP names them, and ``results.csv``; all written atomically."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.bench.job import Job
from toolkit.bench.journal import Record
from toolkit.formats.instances import ResultRow, format_results, witness_name

WITNESSES = "witnesses"


def witness_path(job: Job) -> str:
    """Where the counterexample of a job goes, relative to the folder of the run.

    Specifications in subfolders of ``vnnlib/`` carry the subfolder's name, since their stems repeat.
    """
    inner = [part for part in Path(job.vnnlib).parent.parts if part not in (".", "vnnlib")]
    name = "_".join([*inner, witness_name(dict(job.networks), job.spec)])
    return f"{WITNESSES}/{job.category}/{name}.gz"


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file, compressed when its name ends in ``.gz`` (without a time stamp: same text, same bytes)."""
    data = text.encode()
    write_bytes_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_results(path: Path, records: Sequence[Record], folders: Mapping[str, Path]) -> None:
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
