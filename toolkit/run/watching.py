"""How people and programs watch one query: a line on a terminal, a file of JSON lines."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from toolkit.run.clock import Clock
from toolkit.run.events import Event, PhaseBegun, RootBounded, RoundDone


def event_values(event: Event) -> dict[str, Any]:
    """What an event says, as far as it can stand in a line of JSON.

    Words and numbers are kept, infinite ones as words; of records of several domains the number. The rest is left out.
    """
    values: dict[str, Any] = {"event": type(event).__name__}
    for entry in fields(event):
        value = getattr(event, entry.name)
        if isinstance(value, float) and not math.isfinite(value):
            values[entry.name] = str(value)
        elif isinstance(value, str | int | float):
            values[entry.name] = value
        elif hasattr(value, "__len__") and not hasattr(value, "shape"):
            values[entry.name] = len(value)
    return values


@dataclass
class EventLog:
    """Writes each event as a line of JSON, with the seconds since the query began."""

    file: IO[str]
    clock: Clock

    @classmethod
    def opened(cls, path: Path, clock: Clock) -> EventLog:
        """One that writes a new file; each line is there at once. Raises OSError."""
        return cls(path.open("w", encoding="utf-8", buffering=1), clock)

    def __call__(self, event: Event) -> None:
        """Write one line."""
        print(json.dumps({"seconds": round(self.clock.seconds, 4), **event_values(event)}), file=self.file)


@dataclass
class ProgressLine:
    """One line on a terminal that says how far a query is: phase, weakest bound, domains, and the time left.

    It is drawn when something happens, by the thread that does the work: processes with other threads cannot be forked
    safely, and searches are.
    """

    console: Console
    clock: Clock
    every: float = 0.1
    """Least time between two drawings, in seconds."""
    patience: float = 0.3
    """Seconds before the first drawing: easy queries show nothing."""
    phase: str = "reading"
    weakest: float = math.nan
    bounded: int = 0
    open: int = 0
    _search: str = field(default="branch and bound", repr=False)
    """The search that is under way."""
    _drawn: float = field(default=-math.inf, repr=False)
    _began: tuple[float, int] = field(default=(0.0, 0), repr=False)
    """When the present search was first heard of, and the domains that it had bounded then."""

    def __call__(self, event: Event) -> None:
        """Take note of an event, and draw the line when it is time."""
        if isinstance(event, PhaseBegun):
            self.phase = event.phase
            self._search = event.phase if event.search else self._search
            self._draw()
        elif isinstance(event, RootBounded):
            self.weakest = event.lower
            self._draw()
        elif isinstance(event, RoundDone):
            if event.bounded < self.bounded or not self._began[1]:
                self._began = (self.clock.seconds, event.bounded)
            self.weakest, self.bounded, self.open = event.lower, event.bounded, event.open
            self.phase = self._search
            if time.monotonic() - self._drawn >= self.every:
                self._draw()

    def text(self) -> str:
        """What the line on the terminal says."""
        parts = [f"{self.clock.seconds:.1f} s", self.phase]
        if not math.isnan(self.weakest):
            parts.append(f"weakest bound {self.weakest:.4g}")
        if self.bounded:
            began, before = self._began
            rate = (self.bounded - before) / max(self.clock.seconds - began, 1e-3)
            parts.append(f"{self.open:,} domains open, {self.bounded:,} bounded, {rate:,.0f} a second")
        return " | ".join([*parts, f"{max(0.0, self.clock.seconds_left):.0f} s left"])

    def _draw(self) -> None:
        if self.clock.seconds < self.patience:
            return
        self._drawn = time.monotonic()
        line = Text(self.text())
        line.truncate(self.console.width - 1, overflow="ellipsis")
        erase_line(self.console)
        self.console.print(line, end="", highlight=False, soft_wrap=True)

    def erase(self) -> None:
        """Leave nothing of the line."""
        if self._drawn > -math.inf:
            erase_line(self.console)


def erase_line(console: Console) -> None:
    """Erase the line of a terminal that the cursor is in."""
    console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
