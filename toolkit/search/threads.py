"""How many threads a search uses: waking a second one costs more than a small matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from toolkit.bounds.network_reduction import cost
from toolkit.problem.program import Program

SINGLE_THREAD_COST = 1_000_000
"""Multiplications of one pass of one row below which one thread is the fastest (measured on two cores)."""


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def suited_threads(program: Program) -> AbstractContextManager[None]:
    """One thread while a small program is searched on the processor, else as many as there are."""
    return one_thread() if cost(program) < SINGLE_THREAD_COST else nullcontext()
