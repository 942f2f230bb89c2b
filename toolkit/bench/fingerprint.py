"""Fingerprints: an answer is kept only as long as everything it depends on is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toolkit import __version__
from toolkit.settings import Settings

PACKAGES = ("torch", "onnx", "onnxruntime", "onnx2torch", "vnnlib", "numpy")
VERIFIER = ("formats", "problem", "bounds", "search", "proof", "verify.py", "together.py", "result.py", "settings.py")
"""The parts of this package that an answer depends on."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes as they are on disk; the empty string for a file that cannot be read."""
    try:
        state = path.stat()
        return _file_hash(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return ""


@cache
def _file_hash(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_hash(parts: tuple[str, ...] = VERIFIER) -> str:
    """SHA-256 over the source of some parts of this package, by default the verifier."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for part in parts:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@cache
def versions() -> Mapping[str, str]:
    """Versions of this package and of the libraries an answer depends on."""
    found = {"prunecert": __version__, "code": code_hash()[:16]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def provenance(networks: tuple[tuple[str, Path], ...], spec: Path, settings: Settings) -> dict[str, object]:
    """What an answer depends on, as it is written to the journal."""
    return {
        "networks": {name: file_hash(path) for name, path in networks},
        "spec": file_hash(spec),
        "settings": settings.model_dump(mode="json"),
        "versions": dict(versions()),
    }


def fingerprint(category: str, onnx: str, vnnlib: str, origin: Mapping[str, object]) -> str:
    """Key of one instance: its names and its provenance."""
    text = json.dumps([category, onnx, vnnlib, origin], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
