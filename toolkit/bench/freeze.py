"""Keep a run's benchmark: its files, its verdicts and a generator, in a folder that does not change by itself.

What would make a repository heavy is made smaller: large specifications are compressed, and of the test images, as
many are kept as the generator needs to draw others.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from toolkit.bench import expected
from toolkit.bench.atomic_files import file_digest, write_text_atomically
from toolkit.bench.journal import JournalRecord
from toolkit.bench.write_benchmark import write_pool
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import write_instances
from toolkit.formats.vnncomp.model_binding import BARE
from toolkit.result import DECIDED
from toolkit.tuning import tuned

PARTS = ("onnx", "vnnlib", "2.0", "properties.json")
GENERATOR = "generate_properties.py"
MANIFEST = "frozen.json"
"""The files that were written, with their SHA-256: nothing else is ever replaced or removed."""
DRAFT = ".freezing-"
"""How the folder begins in which everything is made first."""


def check_target(folder: Path) -> None:
    """Raise :class:`InputError` for a folder that cannot be frozen to without touching somebody's files.

    It must be new, empty, or made by an earlier call, whose files are as they were written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    if not folder.exists():
        return
    frozen = _read_manifest(folder)
    if frozen is None and any(not path.name.startswith(DRAFT) for path in folder.iterdir()):
        raise InputError(f"{folder}: holds files that --freeze did not write; choose a new or empty folder")
    for name, content in (frozen or {}).items():
        path = folder / name
        if (path.exists() or path.is_symlink()) and file_digest(path) != content:
            raise InputError(f"{path}: was changed since it was frozen; move it away, or choose another folder")


def freeze(benchmark: Path, folder: Path, records: Sequence[JournalRecord]) -> None:
    """Copy a benchmark to a folder, in place of what an earlier call put there; other files there stay.

    Decided verdicts go to ``expected.csv``, which later runs are compared with. Raises InputError as `check_target`
    does, and where a file of somebody else is in the way.
    """
    check_target(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{DRAFT}*"):
        shutil.rmtree(leftover)
    with TemporaryDirectory(dir=folder, prefix=DRAFT) as name:
        draft = Path(name)
        _write(benchmark, draft, records)
        _put_in_place(draft, folder)


def _write(benchmark: Path, folder: Path, records: Sequence[JournalRecord]) -> None:
    """Write everything that is kept of a benchmark to an empty folder."""
    for part in PARTS:
        source = benchmark / part
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / part)
    write_text_atomically(folder / GENERATOR, files("toolkit.bench").joinpath(GENERATOR).read_text(encoding="utf-8"))
    keep_first_images(benchmark, folder, tuned().bench.most_kept_images)
    for place in (folder, folder / "2.0"):
        names = _compress(place / "vnnlib")
        _write_lists(place, records, names)


def _put_in_place(draft: Path, folder: Path) -> None:
    """Move the files of a draft into their folder, in place of those of an earlier call.

    At every moment, the list of what was frozen names all such files that are there.
    """
    before = _read_manifest(folder) or {}
    made = {path.relative_to(draft).as_posix(): file_digest(path) for path in draft.rglob("*") if path.is_file()}
    for name in made.keys() - before.keys():
        if (folder / name).exists() or (folder / name).is_symlink():
            raise InputError(f"{folder / name}: is in the way, and --freeze did not write it; move it away")
    for name in before:
        (folder / name).unlink(missing_ok=True)
    for place in sorted({(folder / name).parent for name in before}, reverse=True):
        with suppress(OSError):  # it holds something else, or is gone
            place.rmdir()
    write_text_atomically(folder / MANIFEST, json.dumps(made, indent=0, sort_keys=True) + "\n")
    for name in made:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(folder / name)


def _read_manifest(folder: Path) -> dict[str, str] | None:
    """The files that an earlier call wrote, with their SHA-256; None where there was none. Raises InputError."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        inside = all(isinstance(content, str) and _is_inside(name) for name, content in listed.items())
    except (OSError, ValueError, AttributeError):
        inside = False
    if not inside:
        raise InputError(f"{path}: is no list of frozen files; choose another folder")
    return dict(listed)


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts and name != MANIFEST


def keep_first_images(benchmark: Path, folder: Path, least: int = 0) -> None:
    """Write the first test images of a benchmark: as many as are verified, and ``least`` at least."""
    verified = json.loads((benchmark / "properties.json").read_text(encoding="utf-8"))["images"]
    count = max(least, verified)
    with np.load(benchmark / "images.npz") as pool:
        write_pool(folder, pool["images"][:count], pool["labels"][:count])


def _compress(specs: Path) -> dict[str, str]:
    """Compress large specifications; the new names of files by their old ones."""
    names = {}
    for path in sorted(specs.iterdir()):
        names[path.name] = path.name
        if path.stat().st_size >= tuned().bench.compressed_from_bytes:
            names[path.name] = f"{path.name}.gz"
            path.with_name(names[path.name]).write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            path.unlink()
    return names


def _write_lists(place: Path, records: Sequence[JournalRecord], names: Mapping[str, str]) -> None:
    """The instances, and the verdicts of those that are decided."""
    rows = [
        (record.onnx, f"vnnlib/{names[Path(record.vnnlib).name]}", record.timeout, record.verdict) for record in records
    ]
    write_instances(place / "instances.csv", [({BARE: onnx}, spec, timeout) for onnx, spec, timeout, _ in rows])
    text = expected.format_expected(
        (onnx, spec, timeout, verdict if verdict in DECIDED else None) for onnx, spec, timeout, verdict in rows
    )
    write_text_atomically(place / expected.NAME, text)
