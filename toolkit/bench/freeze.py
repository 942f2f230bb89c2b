"""Keep a run's benchmark: its files, its verdicts and a generator, in a folder that does not change by itself.

What would make a repository heavy is made smaller: large specifications are compressed, and of the test images, as
many are kept as the generator needs to draw others.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from toolkit.bench import expected
from toolkit.bench.journal import Record
from toolkit.bench.scoring import DECIDED
from toolkit.bench.store import write_text_atomically
from toolkit.bench.writer import write_pool
from toolkit.errors import InputError
from toolkit.formats.binding import BARE
from toolkit.formats.instances import write_instances

PARTS = ("onnx", "vnnlib", "2.0", "properties.json")
GENERATOR = "generate_properties.py"
LARGE = 1 << 16
"""Bytes from which a specification is compressed."""
POOL = 200
"""Most test images that are kept, where no more are verified."""


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
    _keep_first_images(benchmark, folder)
    for place in (folder, folder / "2.0"):
        names = _compress(place / "vnnlib")
        _write_lists(place, records, names)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _keep_first_images(benchmark: Path, folder: Path) -> None:
    """As many test images as are verified, and up to `POOL`."""
    count = max(POOL, json.loads((benchmark / "properties.json").read_text())["images"])
    with np.load(benchmark / "images.npz") as pool:
        write_pool(folder, pool["images"][:count], pool["labels"][:count])


def _compress(specs: Path) -> dict[str, str]:
    """Compress large specifications; the new names of files by their old ones."""
    names = {}
    for path in sorted(specs.iterdir()):
        names[path.name] = path.name
        if path.stat().st_size >= LARGE:
            names[path.name] = f"{path.name}.gz"
            path.with_name(names[path.name]).write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            path.unlink()
    return names


def _write_lists(place: Path, records: Sequence[Record], names: Mapping[str, str]) -> None:
    """The instances, and the verdicts of those that are decided."""
    rows = [
        (record.onnx, f"vnnlib/{names[Path(record.vnnlib).name]}", record.timeout, record.verdict) for record in records
    ]
    write_instances(place / "instances.csv", [({BARE: onnx}, spec, timeout) for onnx, spec, timeout, _ in rows])
    text = expected.format_expected(
        (onnx, spec, timeout, verdict if verdict in DECIDED else None) for onnx, spec, timeout, verdict in rows
    )
    write_text_atomically(place / expected.NAME, text)
