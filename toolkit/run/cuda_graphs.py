"""Functions of a batch that a device records and plays back.

A pass through a small network is hundreds of short kernels, and starting them one after the other from here takes
several times as long as they do. A GPU can record them as one graph, started at once. What is recorded has fixed
shapes: a batch is filled up to the next power of two, and what comes of the filling is left out.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from toolkit.tuning import tuned


class Recorder(Protocol):
    """Records functions without arguments, all of them in memory of its own."""

    def __call__(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What the function returned, and how to compute that again, in place. RuntimeError where it cannot be."""


class CudaRecorder:
    """Records graphs that share memory: of one, nothing is needed any more when another one is played."""

    def __init__(self) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def __call__(self, function: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What the function returned, and the graph's replay."""
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream), _without_collections():
            function()  # what is set up at the first call must not become part of the graph
            torch.cuda.synchronize()
            # Not by `torch.cuda.graph`, which first gives all free memory back, so that all that follows asks again.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                result = function()
            finally:
                graph.capture_end()
        here.wait_stream(self._stream)
        return result, graph.replay


@contextmanager
def _without_collections() -> Iterator[None]:
    """No garbage is collected inside: what frees graphs or events may not run while a graph is recorded."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


RECORDERS: dict[str, Callable[[], Recorder]] = {"cuda": CudaRecorder}
"""Recorders by type of device; others have none."""


Batch = Any
"""A tensor with a row for each element of the batch, or a record of batches."""
T = TypeVar("T")


@dataclass(frozen=True)
class Recording:
    """A function as it was recorded, with the places of its argument and of its result."""

    argument: list[Tensor]
    result: Batch
    play: Callable[[], None]

    def __call__(self, batch: Batch) -> Batch:
        """The function of a batch of at most as many rows as there is place for."""
        given = tensors_of(batch)
        for place, tensor in zip(self.argument, given, strict=True):
            place[: len(tensor)].copy_(tensor)
        self.play()
        return _mapped(lambda tensor: tensor[: len(given[0])].clone(), self.result)


@dataclass
class Recordings:
    """What was recorded. A recording holds as long as the tensors that its function used besides its argument."""

    _known: dict[Hashable, Recording | None] = field(default_factory=dict)
    """None where recording failed."""
    _calls: Counter[Hashable] = field(default_factory=Counter)
    _recorder: Recorder | None = None

    def run(self, name: Hashable, function: Callable[[Any], T], batch: Batch) -> T:
        """The function of a batch, played back where it was recorded under this name.

        The function returns a batch of as many rows, makes no size depend on values, and is the same whenever the name
        is.
        """
        tensors = tensors_of(batch)
        make, count = RECORDERS.get(tensors[0].device.type), len(tensors[0])
        if make is None or not count:
            return function(batch)
        size = max(tuned().recordings.least_padded_rows, 1 << (count - 1).bit_length())
        key = (name, size, *(tensor.shape[1:] for tensor in tensors))
        self._calls[key] += 1
        if self._calls[key] == tuned().recordings.calls_before + 1:
            self._recorder = self._recorder or make()
            self._known[key] = _recorded(self._recorder, function, _filled(batch, size))
        found = self._known.get(key)
        return found(batch) if found else function(batch)


def _recorded(recorder: Recorder, function: Callable[[Any], Any], argument: Batch) -> Recording | None:
    try:
        return Recording(tensors_of(argument), *recorder(lambda: function(argument)))
    except RuntimeError:  # an operator that cannot be recorded, or too little memory for a second copy
        return None


def _filled(batch: Batch, size: int) -> Batch:
    """So many rows: those given, again and again."""
    return _mapped(lambda tensor: tensor[torch.arange(size, device=tensor.device) % len(tensor)], batch)


def tensors_of(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in the order of its fields."""
    if isinstance(batch, Tensor):
        return [batch]
    return [tensor for place in fields(batch) for tensor in tensors_of(getattr(batch, place.name))]


def _mapped(function: Callable[[Tensor], Tensor], batch: Batch) -> Any:
    if isinstance(batch, Tensor):
        return function(batch)
    return type(batch)(*(_mapped(function, getattr(batch, place.name)) for place in fields(batch)))
