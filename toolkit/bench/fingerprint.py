"""Fingerprints: an answer is kept only as long as everything it depends on is the same.

That is the content of its files (uncompressed, and with the tensors that a network keeps in other files), the settings,
the source of every module that takes part, the versions of Python and of the libraries, and the kind of device. The
limits of time and of passes are no part of it, but for whether passes are counted: a proof or a counterexample found in
five seconds is one under every limit from there on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from toolkit import __version__
from toolkit.devices import gpu_models, uses_gpu
from toolkit.errors import ToolkitError
from toolkit.formats.onnx.external_data import external_tensors, open_beside
from toolkit.formats.onnx.model_file import read_bytes
from toolkit.settings import Settings
from toolkit.sources import code_hash, library_versions
from toolkit.tuning import tuned

VERIFIER = ("toolkit.bench.verify_job",)
"""The module whose imports are the verifier: what a worker runs."""

Stamp = tuple[int, int, int, int, int]
GZIP_MAGIC = b"\x1f\x8b"


def file_hash(path: Path) -> str:
    """SHA-256 of a file's uncompressed content; the empty string for a file that cannot be read."""
    try:
        return _file_hash(path, _stamp(path))
    except (OSError, EOFError, zlib.error):
        return ""


def model_hash(path: Path) -> str:
    """SHA-256 over a network: its file, uncompressed, and every file that it keeps tensors in.

    What cannot be read counts as what is wrong with it, so that an answer to that is not taken for one about a file
    that was repaired since; a device or a pipe is not touched.
    """
    try:
        content, locations = _read_model(path, _stamp(path))
        parts = [content, *(_beside_hash(path, location) for location in locations)]
    except OSError as error:
        parts = [f"{type(error).__name__} {error.errno}"]
    except ToolkitError as error:
        parts = [_raw_hash(path), str(error)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def files_beside(path: Path) -> tuple[str, ...]:
    """The files that a network keeps tensors in, as it names them; none where it cannot be read."""
    try:
        return _read_model(path, _stamp(path))[1]
    except (OSError, ToolkitError):
        return ()


def _stamp(path: Path) -> Stamp:
    """What tells a changed file from an unchanged one without reading it; the time of status change cannot be set
    back, as that of modification can."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@cache
def _file_hash(path: Path, _stamp: Stamp) -> str:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if not compressed:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, size = hashlib.sha256(), 0
        for chunk in _uncompressed(file):
            digest.update(chunk)
            size += len(chunk)
            if size > tuned().files.most_text_bytes:  # more than is ever read of a file
                return _raw_hash(path)
        return digest.hexdigest()


def _uncompressed(file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as stream:
        yield from iter(lambda: stream.read(tuned().files.decompressed_block), b"")


def _raw_hash(path: Path) -> str:
    """SHA-256 of a file's bytes as they are on disk."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _read_model(path: Path, _stamp: Stamp) -> tuple[str, tuple[str, ...]]:
    """The hash of a network's file, and the other files that it names. Raises ToolkitError where it is no network."""
    data = read_bytes(path)
    try:
        proto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError):
        return hashlib.sha256(data).hexdigest(), ()
    names = sorted({entry.location for entry in external_tensors(path, proto)})
    return hashlib.sha256(data).hexdigest(), tuple(names)


def _beside_hash(path: Path, location: str) -> str:
    """Hash of a file in the folder of a network; where it cannot be read, the message that says why."""
    try:
        handle = open_beside(path, location)
    except ToolkitError as error:
        return str(error)
    os.close(handle)
    real = (path.parent / location).resolve()
    return _file_hash_as_is(real, _stamp(real))


@cache
def _file_hash_as_is(path: Path, _stamp: Stamp) -> str:
    return _raw_hash(path)


@cache
def versions(modules: tuple[str, ...] = VERIFIER) -> Mapping[str, str]:
    """Versions of this package, of its code that some modules run, of Python and of the libraries that these use."""
    return {"prunecert": __version__, "code": code_hash(modules)[:16], **library_versions(modules)}


@cache
def device_kind(device: str) -> str:
    """What a device setting means on this machine: the processor's architecture, or the models of the GPUs with the
    driver and CUDA's libraries."""
    if not uses_gpu(device):
        return f"cpu {platform.machine()}"
    libraries = sorted(
        f"{found.metadata['Name']} {found.version}"
        for found in distributions()
        if str(found.metadata["Name"]).startswith("nvidia")
    )
    return " | ".join(["cuda", *gpu_models(), *libraries])


def provenance(networks: tuple[tuple[str, Path], ...], spec: Path, settings: Settings) -> dict[str, object]:
    """What an answer depends on, as it is written to the journal."""
    return {
        "networks": {name: model_hash(path) for name, path in networks},
        "spec": file_hash(spec),
        "settings": settings.model_dump(mode="json", exclude={"timeout", "passes"}) | {"passes": settings.passes > 0},
        "device": device_kind(settings.device),
        "versions": dict(versions()),
    }


def is_about(
    origin: Mapping[str, object], networks: tuple[tuple[str, Path], ...], spec: Path, settings: Settings
) -> bool:
    """Whether what an answer depends on is what these files and settings are now; what is known of another verifier,
    and stands beside that, is not looked at."""
    now = provenance(networks, spec, settings) if origin else {}
    return all(now.get(name, value) == value for name, value in origin.items())


def fingerprint(category: str, onnx: str, vnnlib: str, origin: Mapping[str, object]) -> str:
    """What one instance asks, as a key: its names and its provenance."""
    text = json.dumps([category, onnx, vnnlib, origin], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
