"""Which inputs a data set's networks have, and how far the radius reaches in each of them; no torch."""

from __future__ import annotations

from dataclasses import dataclass

OPEN = 3.4028234663852886e38
"""The largest number of single precision: the end of a range that has none."""


@dataclass(frozen=True)
class InputSpace:
    """Values between ``low`` and ``high``. Pixels as they stand here; rows of numbers say theirs."""

    low: float = 0.0
    high: float = 1.0
    radii: tuple[float, ...] = ()
    """Radius of each feature in multiples of the specification's; empty where that is all features' own."""


PIXELS = InputSpace()
