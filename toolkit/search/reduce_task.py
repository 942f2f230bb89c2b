"""The network that is left on a problem's boxes, in the form that is the cheapest to bound."""

from __future__ import annotations

from dataclasses import replace

from toolkit.bounds.interval import Bounds
from toolkit.bounds.network_reduction import kept_neurons, reduce_program, reduced_cost
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program
from toolkit.problem.sparse_affine import with_sparse_maps
from toolkit.problem.stacked_matrices import with_stacks
from toolkit.search.program_equality import check_same
from toolkit.search.root import RootBounds
from toolkit.search.search_task import SearchTask
from toolkit.tuning import tuned


def reduced(task: SearchTask, root: RootBounds) -> tuple[SearchTask, RootBounds]:
    """The task on the network that is left on its boxes, where that is the cheaper one.

    Raises DisagreementError where it is another one.
    """
    problem, dtype = task.exact, task.problem.program.dtype
    box = Bounds(problem.lower, problem.upper)
    if not problem.varying_inputs or not _reducible(problem.program, box, root.bounds):
        return task, root  # of points nothing would be left to bound
    # In double precision always: what a matrix of the reduced network has lost is lost for every bound of the search.
    bounds = root.bounds.to(problem.program.dtype)
    reduction = reduce_program(problem.program, box, bounds, task.clock.check, recentred=task.double is not None)
    check_same("the reduced network", problem.program, reduction.program, box, reduction.restrict_box)
    smaller = reduction.restrict_box(box)
    problem = replace(problem, program=reduction.program, lower=smaller.lower, upper=smaller.upper)
    accept, double = task.accept, task.double
    task = replace(
        task,
        problem=problem.to(problem.program.device, dtype),
        double=None if double is None else problem,
        accept=lambda point, region: accept(reduction.restore(point), region),
    )
    root = replace(
        root,
        bounds=reduction.restrict(root.bounds),
        multipliers=reduction.restrict_multipliers(root.multipliers),
    )
    return task.counted(root.bounds), root


def _reducible(program: Program, box: Bounds, bounds: Bounds) -> bool:
    """Whether what rounding can change is known, and reducing pays."""
    return program.errors is not None and worth_reducing(program, box, bounds)


def worth_reducing(program: Program, box: Bounds, bounds: Bounds) -> bool:
    """Whether the reduced program is quickly made, a pass for each of its neurons, and the cheaper one."""
    price = kept_neurons(program, bounds) * program.cost
    limits = tuned().reduction
    affordable = price <= limits.most_multiplications
    return affordable and reduced_cost(program, box, bounds) <= limits.most_cost_factor * program.cost


def sparse(problem: Problem) -> Problem:
    """The problem for a search over phases: nothing differentiates through its maps, which may skip their zeros,
    and of which many may be one. Raises DisagreementError where that makes a difference."""
    program = with_stacks(with_sparse_maps(problem.program))
    if program is not problem.program:
        box = Bounds(problem.lower, problem.upper)
        check_same("the network with sparse and stacked maps", problem.program, program, box)
    return replace(problem, program=program)
