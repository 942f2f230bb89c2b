"""An observer of benchmark runs for tests that look at the answers alone."""

from collections.abc import Sequence

from toolkit.bench.job import Event
from toolkit.bench.journal import JournalRecord


class SilentObserver:
    """An observer that shows nothing."""

    def begin(self, total: int, resumed: Sequence[JournalRecord]) -> None:
        """Show nothing at the beginning of a run."""

    def see(self, event: Event) -> None:
        """Show nothing of an event."""

    def end(self) -> None:
        """Show nothing at the end of a run."""
