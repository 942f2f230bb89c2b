"""Kinds about a machine that fails: whatever call fails, and whenever, there is no wrong verdict and no crash."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
from choices import Choices, from_seed
from kind_graphs import judge_verdict, load
from kinds import Wrong, kind
from networks import Dense, random_dense
from random_queries import QueryCase, query_text
from scenes import EIGHTHS, random_box, random_points
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.errors import ToolkitError
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.tuning import tuned, using
from toolkit.verify import LoadedNetwork, decide, load_query

NETWORKS = 12
"""Networks that are loaded once and asked about again and again."""


@dataclass
class Countdown:
    """Fails at one call, and perhaps at all later ones."""

    calls: int
    lasting: bool
    error: Callable[[], Exception]
    failed: int = field(default=0)

    def count(self) -> None:
        """Count a call. Raises the error where it is its turn."""
        self.calls -= 1
        if self.calls == 0 or (self.lasting and self.calls < 0):
            self.failed += 1
            raise self.error()


class FailingOperators(TorchDispatchMode):
    """Operators of torch that fail, as one does that gets no memory."""

    def __init__(self, countdown: Countdown) -> None:
        super().__init__()
        self._countdown = countdown

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        self._countdown.count()
        return function(*arguments, **(keywords or {}))


@contextmanager
def no_memory(countdown: Countdown) -> Iterator[None]:
    """Torch's operators get no memory."""
    with FailingOperators(countdown):
        yield


@contextmanager
def no_session(countdown: Countdown) -> Iterator[None]:
    """Calls of onnxruntime fail."""
    run = Session.run_undeclared

    def failing(self: Session, *arguments: Any, **options: Any) -> Any:
        countdown.count()
        return run(self, *arguments, **options)

    with mock.patch.object(Session, "run_undeclared", failing):
        yield


@contextmanager
def no_fork(countdown: Countdown) -> Iterator[None]:
    """Processes cannot be started."""
    fork = os.fork

    def failing() -> int:
        countdown.count()
        return fork()

    eager = using(tuned().changed(sharing={"seconds_before": 1e-3, "least_turn_seconds": 1e-3, "least_domains": 1}))
    with eager, mock.patch.object(os, "fork", failing):
        yield


ALLOCATION = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to allocate"
FAULTS: tuple[tuple[str, Callable[..., Any], Callable[[], Exception]], ...] = (
    ("allocation", no_memory, lambda: RuntimeError(ALLOCATION)),
    ("memory", no_memory, MemoryError),
    ("onnxruntime", no_session, lambda: MemoryError("onnxruntime: bad allocation")),
    ("fork", no_fork, lambda: OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))),
)
"""Name, what fails, and how."""


@functools.cache
def loaded(seed: int) -> tuple[Dense, LoadedNetwork]:
    """One of a few networks."""
    network = random_dense(from_seed(77, seed), EIGHTHS, 2, 2, 8)
    return network, load(network.model())


@kind(share=3)
def faults(choices: Choices) -> int:
    """The n-th allocation, call of onnxruntime or fork fails, once or from then on: no wrong verdict, no crash."""
    network, model = loaded(choices.below(NETWORKS))
    lower, upper = random_box(choices, network.inputs)
    points = np.float64(np.float32(random_points(choices, lower, upper, 100)))
    on_y = np.array([[choices.of((1.0, -1.0)), choices.of((0.0, 1.0, -1.0))]])
    case = QueryCase(lower, upper, np.zeros((1, network.inputs)), on_y, np.zeros(1))
    worst = case.worst(points, network.values(points))
    best = int(worst.argmin())
    margin = choices.of((-0.05, -0.5, 1e-6, 1e-2)) * (1 + abs(worst[best]))
    case = case.shifted(-margin - worst[best])
    witness = points[best] if margin > 0 else None
    name, fault, error = choices.of(FAULTS)
    countdown = Countdown(
        choices.of((1, 2, 3, choices.between(1, 40), choices.between(1, 400))), choices.chance(0.5), error
    )
    settings = Settings(
        timeout=2.0, device="cpu", strategy=choices.of(("auto", "relu", "input")), attack_steps=3,
        attack_restarts=choices.of((0, 1)), alpha_iterations=choices.of((2, 0)), beta_iterations=2, max_domains=200,
        processes=2 if name == "fork" else 1,
    )  # fmt: skip
    posed = load_query({"": model}, parse_query(query_text([case])))
    try:
        with fault(countdown):
            result = decide(posed, settings, Clock.started(settings.timeout))
    except ToolkitError:
        return 1
    judge_verdict(result, case, witness, network.values)
    if result.verdict in {Verdict.UNKNOWN, Verdict.ERROR} and not result.reason:
        raise Wrong(f"no reason after {name}", str(result))
    return 1
