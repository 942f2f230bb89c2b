"""What a long training shows while it goes: a line now and then."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class EpochLines:
    """An observer of chains that says how far the network in training is, at most every so many seconds."""

    every: float = 30.0
    prefix: str = ""
    file: TextIO | None = None
    """Standard error by default."""
    shown: float = field(default_factory=time.monotonic)

    def __call__(self, name: str, done: int, total: int) -> None:
        """Epochs done of all epochs of the named network."""
        if time.monotonic() - self.shown >= self.every:
            self.shown = time.monotonic()
            print(f"{self.prefix}{name}: epoch {done} of {total}", file=self.file or sys.stderr, flush=True)
