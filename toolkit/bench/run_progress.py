"""What a run shows while it goes: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from toolkit.bench.job import Event, Finished
from toolkit.bench.journal import JournalRecord
from toolkit.result import Verdict

COLOURS = {
    Verdict.UNSAT: "green",
    Verdict.SAT: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.TIMEOUT: "yellow",
    Verdict.ERROR: "bold magenta",
}


class ProgressBar:
    """A live bar with the verdicts so far; errors are printed above it as they come."""

    def __init__(self, console: Console) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.task = self.progress.add_task("")
        self.counts: Counter[Verdict] = Counter()

    def begin(self, total: int, resumed: Sequence[JournalRecord]) -> None:
        """Show the bar, with what the journal already answers."""
        self.counts.update(record.verdict for record in resumed)
        self.progress.update(self.task, total=total, completed=len(resumed), description=self.summary())
        self.progress.start()

    def see(self, event: Event) -> None:
        """Move the bar on."""
        if isinstance(event, Finished):
            self.counts[event.answer.verdict] += 1
            self.progress.update(self.task, advance=1, description=self.summary())
            if event.answer.verdict == Verdict.ERROR:
                self.progress.console.print(describe(event), markup=False, highlight=False, soft_wrap=True)

    def end(self) -> None:
        """Leave the bar as it stands."""
        self.progress.stop()

    def summary(self) -> str:
        """Verdicts so far, coloured."""
        return " ".join(f"[{COLOURS[verdict]}]{verdict} {count}[/]" for verdict, count in sorted(self.counts.items()))


class ProgressLines:
    """Plain lines for logs: one every few seconds and one for each error."""

    def __init__(self, console: Console, every: float = 5.0) -> None:
        self.console, self.every = console, every
        self.counts: Counter[Verdict] = Counter()
        self.total = self.printed = 0
        self.started = self.shown = time.monotonic()

    def begin(self, total: int, resumed: Sequence[JournalRecord]) -> None:
        """Say how much there is to do."""
        self.total = total
        self.started = self.shown = time.monotonic()
        self.counts.update(record.verdict for record in resumed)
        self.printed = self.counts.total()

    def see(self, event: Event) -> None:
        """Print an error at once, and the counts when it is time."""
        if not isinstance(event, Finished):
            return
        self.counts[event.answer.verdict] += 1
        if event.answer.verdict == Verdict.ERROR:
            self._print(describe(event))
        if time.monotonic() - self.shown >= self.every:
            self._show()

    def end(self) -> None:
        """Print the last state, if that has not been done."""
        if self.counts.total() != self.printed:
            self._show()

    def _show(self) -> None:
        self.shown, self.printed = time.monotonic(), self.counts.total()
        self._print(self.summary())

    def summary(self) -> str:
        """Done, total, verdicts and seconds so far."""
        counts = "  ".join(f"{verdict} {count}" for verdict, count in sorted(self.counts.items()))
        return f"[{self.counts.total()}/{self.total}]  {counts}  {time.monotonic() - self.started:.0f} s"

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(event: Finished) -> str:
    """One line about an answer."""
    job, answer = event.job, event.answer
    return f"{answer.verdict}: {job.onnx} {job.vnnlib} ({answer.seconds:.1f} s) {answer.reason}".rstrip()


def make_observer(console: Console | None = None) -> ProgressBar | ProgressLines:
    """The observer that fits the console: a bar on a terminal, lines otherwise."""
    console = console or Console(file=sys.stderr)
    return ProgressBar(console) if console.is_terminal else ProgressLines(console)
