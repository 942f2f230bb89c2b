"""How many threads a search uses: waking a second one costs more than a small matrix product."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from toolkit.problem.program import Program
from toolkit.run.threads import one_thread

SINGLE_THREAD_COST = 1_000_000
"""Multiplications of one pass of one row below which one thread is the fastest (measured on two cores)."""


def suited_threads(program: Program) -> AbstractContextManager[None]:
    """One thread while a small program is searched on the processor, else as many as there are."""
    return one_thread() if program.cost < SINGLE_THREAD_COST else nullcontext()
