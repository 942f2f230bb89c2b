"""One problem to decide, with what every phase needs; and the network that is left on its boxes, the cheapest to bound.

Whatever is made of a program is compared with it at points of its boxes before anything is proved about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.attack.gradient_attack import Accept
from toolkit.bounds.backward_rounding import shared_errors
from toolkit.bounds.interval import Bounds
from toolkit.bounds.network_reduction import reduce_program, worth_reducing
from toolkit.bounds.optimised_bound import Multipliers
from toolkit.errors import DisagreementError
from toolkit.problem.compile import Problem
from toolkit.problem.evaluate_program import evaluate, transposed_wrongly
from toolkit.problem.fast_maps import with_sparse_maps, with_stacks
from toolkit.problem.program import Program
from toolkit.problem.sum_rounding import unit_roundoff
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.run.events import NetworkReduced, Observer
from toolkit.search.root import RootBounds
from toolkit.settings import Settings
from toolkit.tuning import tuned


@dataclass(frozen=True)
class SearchResult:
    """The verdict of a phase (attack, root bounds, a search), with the name of the phase that reached it."""

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
    """The problem before its network was merged, reduced or rounded; None where a caller has only this one."""
    double: Problem | None = None
    """The problem in double precision, where it is searched in single."""

    @property
    def exact(self) -> Problem:
        """The problem in double precision."""
        return self.problem if self.double is None else self.double

    @property
    def budget(self) -> Budget:
        """What a search or an attack is given to work with."""
        return Budget(self.clock, self.accept, self.observer, self.settings.seed)

    def with_rounding_errors(self, bounds: Bounds) -> SearchTask:
        """The task with bounds on rounding errors in its programs, for bounds ``(R, num_neurons)`` of its neurons."""
        double = None if self.double is None else with_rounding_errors(self.double, bounds)
        return replace(self, problem=with_rounding_errors(self.problem, bounds), double=double)

    def soon(self, seconds: float) -> SearchTask:
        """The task with at most so many seconds of the time that is left."""
        return replace(self, clock=self.clock.soon(seconds))


def with_rounding_errors(problem: Problem, bounds: Bounds) -> Problem:
    """The problem with bounds on rounding errors in its program (`toolkit.bounds.backward_rounding`), which hold on all
    of its boxes for neurons within ``bounds``, ``(R, num_neurons)``."""
    bounds = bounds.to(problem.program.dtype)
    errors = shared_errors(problem.program, Bounds(problem.lower, problem.upper), bounds)
    return replace(problem, program=replace(problem.program, errors=errors))


def decided(found: SearchResult | None) -> bool:
    """Whether a search came to a verdict: it may also be out of time (None), or have given up."""
    return found is not None and (found.witness or found.proved)


COMPARED_POSITIONS = (0.5, 0.0, 1.0, None)
"""Points of each box, by their shares of the way between its corners; None stands for random shares."""


def reduced(task: SearchTask, root: RootBounds) -> tuple[SearchTask, RootBounds]:
    """The task on the network that is left on its boxes, where that is the cheaper one.

    Raises DisagreementError where it is another one.
    """
    problem, dtype = task.exact, task.problem.program.dtype
    box = Bounds(problem.lower, problem.upper)
    if not problem.varying_inputs or problem.program.errors is None:
        return task, root  # of points nothing would be left to bound, and without errors nothing would be proved
    if not worth_reducing(problem.program, box, root.bounds):
        return task, root
    # In double precision always: what a matrix of the reduced network has lost is lost for every bound of the search.
    bounds = root.bounds.to(problem.program.dtype)
    reduction = reduce_program(problem.program, box, bounds, task.clock.check, recentred=task.double is not None)
    check_same("the reduced network", problem.program, reduction.program, box, reduction.restrict_box)
    task.observer(NetworkReduced(reduction))
    smaller = reduction.restrict_box(box)
    problem = replace(problem, program=reduction.program, lower=smaller.lower, upper=smaller.upper)
    accept, double = task.accept, task.double
    task = replace(
        task,
        problem=problem.to(problem.program.device, dtype),
        double=None if double is None else problem,
        accept=lambda point, region: accept(reduction.restore(point), region),
    )
    slopes, left = root.multipliers, reduction.neurons
    slopes = Multipliers(slopes.alpha[:, left], slopes.beta[:, left], slopes.weight)
    root = replace(root, bounds=root.bounds.of(left), multipliers=slopes)
    return task.with_rounding_errors(root.bounds), root


def sparse(problem: Problem) -> Problem:
    """The problem for a search over phases: nothing differentiates through its maps, which may skip their zeros,
    and of which many may be one. Raises DisagreementError where that makes a difference."""
    program = with_stacks(with_sparse_maps(problem.program))
    if program is not problem.program:
        box = Bounds(problem.lower, problem.upper)
        check_same("the network with sparse and stacked maps", problem.program, program, box)
    return replace(problem, program=program)


def check_same(
    what: str, program: Program, made: Program, box: Bounds, translate: Callable[[Bounds], Bounds] = lambda box: box
) -> None:
    """Raise DisagreementError unless ``made`` computes the features of ``program`` in boxes ``(R, n)``.

    ``translate`` says where its own boxes are.
    """
    points = _points(box)
    own = translate(Bounds(points, points)).lower
    with torch.no_grad():
        expected, _ = evaluate(program, points, torch.zeros_like(points), 0.0)
        found, _ = evaluate(made, own, unit_roundoff(own.dtype) * own.abs(), 0.0)
        # Products may underflow, which no error in proportion to them counts.
        rounding = expected.tolerance + found.tolerance + torch.finfo(own.dtype).tiny
        allowed = tuned().agreement.reduced_tolerances * rounding
        near = (found.value - expected.value).abs() <= allowed
        same = near | (found.value == expected.value) | (found.value.isnan() & expected.value.isnan())
        if not bool(same.all()):
            row, column = (int(index) for index in (~same).nonzero()[0])
            values = float(found.value[row, column]), float(expected.value[row, column])
            raise DisagreementError(
                f"{what} is not the network that it was made of: feature {column} is {values[0]:.9g} instead of "
                f"{values[1]:.9g}; this is a fault of the verifier"
            )
        if transposed_wrongly(made) is not None or not _stacked_rightly(made):
            raise DisagreementError(
                f"{what} has a map that differs from its transpose; this is a fault of the verifier"
            )


def _points(box: Bounds) -> Tensor:
    """Points of some boxes, ``(B, n)``."""
    generator = torch.Generator().manual_seed(0)
    count = len(box.lower)
    found = []
    for number in sorted({0, count // 2, count - 1})[: tuned().agreement.compared_boxes]:
        lower, upper = box.lower[number], box.upper[number]
        for share in COMPARED_POSITIONS:
            part = torch.rand(len(lower), generator=generator).to(lower) if share is None else share
            found.append((lower + part * (upper - lower)).clamp(lower, upper))
    return torch.stack(found)


def _stacked_rightly(program: Program) -> bool:
    """Whether what is pushed back to a source at once is what each layer reads of it."""
    for source, stack in (program.stacks or {}).items():
        for layer in program.layers:
            if layer.start < stack.first:
                continue
            rows = stack.matrix[layer.start - stack.first : layer.stop - stack.first]
            matrices = dict(zip(layer.affine.sources, getattr(layer.affine, "matrices", ()), strict=True))
            expected = matrices.get(source)
            if not (torch.equal(rows, expected) if expected is not None else not bool(rows.any())):
                return False
    return True
