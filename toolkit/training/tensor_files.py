"""Saving and loading tensors so that a kill at any moment leaves either the old file or the new one."""

from __future__ import annotations

import os
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


def save(record: dict[str, Any], path: Path) -> None:
    """Writes a record of tensors and plain values under its final name in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(record, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, device: torch.device | str) -> dict[str, Any] | None:
    """The record, or None when there is none or it is damaged (it is then made again)."""
    try:
        record = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        return None
    return record if isinstance(record, dict) else None


@dataclass
class PeriodicSaver:
    """Saves the state of long work to a file, at most once in so many seconds; without a path, never."""

    path: Path | None
    seconds: float
    saved: float = field(default_factory=time.monotonic)
    """Time of the last save, or of the beginning, by the monotonic clock."""

    def due(self) -> bool:
        """Whether it is time to save."""
        return self.path is not None and time.monotonic() - self.saved >= self.seconds

    def save(self, record: dict[str, Any]) -> None:
        """Save the record now."""
        if self.path is not None:
            save(record, self.path)
            self.saved = time.monotonic()
