"""One problem to decide, with what every phase of deciding it needs, and what a phase found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from toolkit.attack.gradient_attack import Accept
from toolkit.bounds.backward_rounding import with_errors
from toolkit.bounds.interval import Bounds
from toolkit.problem.compile import Problem
from toolkit.run.clock import Clock
from toolkit.run.events import Observer
from toolkit.settings import Settings


@dataclass(frozen=True)
class SearchResult:
    """What the phases found, and which of them."""

    witness: bool
    proved: bool
    by: str
    reason: str = ""


@dataclass(frozen=True)
class UnmergedProblem:
    """A problem about the network as it was compiled, in double precision on the processor."""

    problem: Problem
    accept: Accept


@dataclass(frozen=True)
class SearchTask:
    """One problem with everything a phase needs to work on it."""

    problem: Problem
    settings: Settings
    clock: Clock
    accept: Accept
    observer: Observer
    note: Callable[..., None]
    """Takes statistics by name."""
    spent: Callable[[int, int], None]
    """Takes the domains that one search bounded, and its depth."""
    share: float = 1.0
    """Share of the whole query's cases that the problem's are."""
    original: UnmergedProblem | None = None
    """The problem before anything was merged, reduced or rounded; None where it is not at hand."""
    double: Problem | None = None
    """The problem in double precision, where it is searched in single."""

    @property
    def exact(self) -> Problem:
        """The problem in double precision."""
        return self.problem if self.double is None else self.double

    def counted(self, bounds: Bounds) -> SearchTask:
        """The task with what rounding can change in its programs, for bounds ``(R, num_neurons)`` of its neurons."""
        double = None if self.double is None else counted(self.double, bounds)
        return replace(self, problem=counted(self.problem, bounds), double=double)

    def soon(self, seconds: float) -> SearchTask:
        """The task with so much time, or what is left."""
        return replace(self, clock=self.clock.soon(seconds))


def counted(problem: Problem, bounds: Bounds) -> Problem:
    """The problem with a program that knows what rounding can change on its boxes
    (`toolkit.bounds.backward_rounding`)."""
    bounds = bounds.to(problem.program.dtype)
    return replace(problem, program=with_errors(problem.program, Bounds(problem.lower, problem.upper), bounds))


def decided(found: SearchResult | None) -> bool:
    """Whether a search came to a verdict: it may also be out of time (None), or have given up."""
    return found is not None and (found.witness or found.proved)
