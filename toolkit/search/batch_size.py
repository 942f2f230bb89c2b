"""How many domains fit: the batch follows from the memory that is free, and no verdict follows from the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from toolkit.problem.program import Program
from toolkit.run.events import MemoryShort, Observer
from toolkit.run.memory_limits import available, refused
from toolkit.tuning import tuned


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take on a device, in bytes."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
        return torch.cuda.mem_get_info(device)[0] + kept
    return available()


def largest_batch(program: Program, wanted: int, processes: int = 1) -> int:
    """Domains that may be bounded at once, at least 2: those wanted (0: what suits the device), or as many as fit.

    So many processes may bound a batch each at the same time.
    """
    limits = tuned().batches
    wanted = wanted or limits.most_domains.on(program.device.type)
    width = program.num_neurons + program.num_inputs
    each = limits.vectors_per_domain * width * torch.finfo(program.dtype).bits // 8
    return max(2, min(wanted, int(limits.memory_share * free_bytes(program.device)) // max(1, each * processes)))


def most_waiting(count: int, bytes_each: int, device: torch.device) -> int:
    """How many domains of this size may wait for their turn, as memory allows; at least ``count``, which are there."""
    return max(count, int(tuned().batches.frontier_memory_share * free_bytes(device)) // bytes_each)


def smaller_batch(batch: int, observer: Observer) -> int:
    """Half the batch after running out of memory; no verdict depends on it. Raises MemoryError below one domain."""
    if batch <= 2:
        raise MemoryError("one domain does not fit into the device's memory")
    torch.cuda.empty_cache()
    observer(MemoryShort(batch // 2))
    return batch // 2


@contextmanager
def refusals() -> Iterator[None]:
    """Where the processor's memory is short, the error is the one that a GPU's is told by: torch.OutOfMemoryError.

    Libraries have several; one of torch's is told from its other errors by its text alone.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not refused(error):
            raise
        raise torch.OutOfMemoryError(f"refused by the system: {error}") from error
