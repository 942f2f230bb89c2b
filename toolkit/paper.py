"""Published figures, to stand beside our own; ``paper.toml`` says where they are from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import nan

DENSE = "Dense"


@dataclass(frozen=True)
class PaperRow:
    """A published network: density as a part of one, accuracies in per cent, mean seconds for each image."""

    density: float
    certified: float
    standard: float = nan
    seconds: float = nan
    adversarial: float = nan
    certified_most: float = nan
    """The other end, where ``certified`` is the lower end of a range over several networks."""


@cache
def paper_rows() -> Mapping[str, PaperRow]:
    """All rows by ``DATA-RADIUS/TRAINING/METHOD``, such as ``cifar10-2/certified/IMP+NRSLoss`` (radius in 1/255, or in
    pixels of [0, 1]); of the training ``ctbench`` there are dense networks alone."""
    tables = tomllib.loads(files("toolkit").joinpath("paper.toml").read_text(encoding="utf-8"))
    return {f"{table}/{method}": PaperRow(**row) for table, rows in tables.items() for method, row in rows.items()}


def dense_key(key: str) -> str:
    """The dense network of the same data and training as a row."""
    return f"{key.rpartition('/')[0]}/{DENSE}"
