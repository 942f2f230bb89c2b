"""Keep a run's benchmark: its files, its verdicts and a generator, in a folder that does not change by itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from toolkit.bench import expected
from toolkit.bench.journal import Record
from toolkit.bench.scoring import DECIDED
from toolkit.bench.store import write_text_atomically
from toolkit.errors import InputError

PARTS = ("onnx", "vnnlib", "2.0", "instances.csv", "images.npz", "properties.json")
GENERATOR = "generate_properties.py"


def freeze(benchmark: Path, folder: Path, records: Sequence[Record]) -> None:
    """Copy a benchmark to a folder, in place of what an earlier call put there; other files there stay.

    Decided verdicts go to ``expected.csv``, which later runs are compared with.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        _copy(benchmark / part, folder / part)
    write_text_atomically(folder / GENERATOR, files("toolkit.bench").joinpath(GENERATOR).read_text(encoding="utf-8"))
    _write_expected(folder, records)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _write_expected(folder: Path, records: Sequence[Record]) -> None:
    text = expected.format_expected(
        (record.onnx, record.vnnlib, record.timeout, record.verdict if record.verdict in DECIDED else None)
        for record in records
    )
    for place in (folder, folder / "2.0"):
        write_text_atomically(place / expected.NAME, text)
