"""How many threads a search uses: waking a second one costs more than a small matrix product."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from toolkit.problem.program import Program
from toolkit.run.threads import one_thread
from toolkit.tuning import tuned


def suited_threads(program: Program) -> AbstractContextManager[None]:
    """One thread while a small program is searched on the processor, else as many as there are."""
    return one_thread() if program.cost < tuned().processes.single_thread_cost else nullcontext()
