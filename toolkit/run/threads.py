"""How many threads torch may use: waking a second one costs more than a small matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from toolkit.tuning import tuned


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def suited_threads(cost: int) -> AbstractContextManager[None]:
    """One thread while rows of so many multiplications are bounded on the processor, if these are few; else all."""
    return one_thread() if cost < tuned().processes.single_thread_cost else nullcontext()
