"""The figures of the paper's tables, to stand beside our own; ``paper.toml`` says where they are from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DENSE = "Dense"


@dataclass(frozen=True)
class PaperRow:
    """One network of the paper: density as a part of one, accuracies in per cent, mean seconds for each image."""

    density: float
    standard: float
    certified: float
    seconds: float
    adversarial: float | None = None


@cache
def paper_rows() -> Mapping[str, PaperRow]:
    """All rows by ``DATA-RADIUS/TRAINING/METHOD``, such as ``cifar10-2/certified/IMP+NRSLoss`` (radius in 1/255)."""
    tables = tomllib.loads(files("toolkit").joinpath("paper.toml").read_text(encoding="utf-8"))
    return {f"{table}/{method}": PaperRow(**row) for table, rows in tables.items() for method, row in rows.items()}


def dense_key(key: str) -> str:
    """The dense network of the same data and training as a row."""
    return f"{key.rpartition('/')[0]}/{DENSE}"
