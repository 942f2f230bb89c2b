"""From root bounds to branch and bound: the phases that need torch, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toolkit.bounds.dual_ascent import Schedule
from toolkit.bounds.interval import unstable_neurons
from toolkit.bounds.step_rules import Polyak
from toolkit.ops import RELAXATIONS
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.run.clock import OutOfTime
from toolkit.run.forked_processes import cores
from toolkit.search.attack_budget import FIRST_RESTARTS_SHARE, attack_first, attack_on, attack_part
from toolkit.search.batch_size import largest_batch, most_waiting
from toolkit.search.box_frontier import BoxFrontier, root_boxes
from toolkit.search.branching import rule_named
from toolkit.search.input_domains import BoxStack
from toolkit.search.loop import Frontier
from toolkit.search.mixed_integer import by_mixed_integers, suits
from toolkit.search.neuron_branching import branch_neurons
from toolkit.search.parallel_search import search_in_shares
from toolkit.search.phase_domains import PhaseSpace, proved, root_domains
from toolkit.search.phase_frontier import PhaseBounding, PhaseFrontier
from toolkit.search.reduce_task import reduced, sparse
from toolkit.search.root import (
    RootBounds,
    facts,
    open_cases,
    optimised_root,
    refined_root,
    root_bounds,
    root_in_single,
    tell,
)
from toolkit.search.search_task import SearchResult, SearchTask, counted, decided
from toolkit.search.strict_atoms import by_exact_leaves, closed_by_images
from toolkit.search.suited_threads import suited_threads

MOST_INPUTS_BOXES_FIRST = 20
"""Most varying inputs for which splitting the input box comes first."""
MOST_INPUTS_BOXES = 64
"""Most varying inputs for which splitting the input box is tried at all where phases could be split instead."""
MOST_INPUTS_BOXES_SHALLOW = 256
"""Most varying inputs, for networks of one hidden layer, for which splitting the input box is tried at all."""
MOST_NEURONS_PHASES_FIRST = 16
"""Most unstable neurons of which all phases are tried first, whatever the number of inputs: these trees are small."""
MOST_NEURONS_BOXES = 20_000
"""Most neurons for which a box of more inputs is split: every box bounds all of them again."""
SHORT_TURN_SHARE, HALF_TURN_SHARE, LONG_TURN_SHARE = 0.15, 0.5, 0.7
"""Shares of the time left that a strategy gets before another has its turn."""
LAST_TURN_SECONDS = 5.0
"""Seconds that others get, at least, where all phases of a piecewise linear network were split and leaves are open."""
FIRST_TURN_SECONDS = 1.0
"""Seconds of the first search over phases, where better root bounds did not take half as long."""
GAP_CLOSED_WORTH_WAITING = 0.05
"""Share of the way to a proof that better bounds of the neurons must bring the root to be worth as long as a search."""
GAP_CLOSED_WORTH_RESTART = 0.2
"""Share of the way to a proof that must be gained for a new search, which then is where the old one was before long."""
RESTARTED_TURN_SHARE = 0.25
"""Share of its turn that a new search gets while better bounds of the neurons still bring so much."""
BOXES_FILLING_DEVICE = {"cpu": 16}
"""Boxes in a batch that keep a device busy, at most; as many as a batch holds for devices that are not named."""
BATCH_COST = {"cpu": 1 << 24}
"""Multiplications of a pass for all boxes of a batch that do, by device: boxes that cost more are cut once, then
bounded."""
BATCH_COST_ELSEWHERE = 1 << 30
"""Multiplications of a pass for all boxes of a batch, on devices that `BATCH_COST` does not name."""
SHARED_BOXES_COST = 1 << 22
"""Multiplications of a pass from which on a box's neurons are bounded once for all of its cases."""


def prove(task: SearchTask, root: RootBounds | None = None) -> SearchResult:
    """Decide all cases of a problem, from its root bounds where they are known. Raises OutOfTime."""
    task.note(relus=task.problem.program.num_neurons)
    attacked = attack_first(task) if root is None else None
    if attacked:
        return SearchResult(True, False, "attack")
    if root is None:
        root = _root(task)
    else:
        tell(root, task.observer)
    task.note(**facts(root))
    if not len(open_cases(root)):
        return SearchResult(False, True, root.method)
    root = closed_by_images(task, root)
    if not len(open_cases(root)):
        return SearchResult(False, True, "images")
    if not task.problem.varying_inputs:
        return by_exact_leaves(task, root) or at_points(task, root)
    task, root = reduced(task.counted(root.bounds), root)
    if attacked is None and attack_part(task, open_cases(root), FIRST_RESTARTS_SHARE):
        return SearchResult(True, False, "attack")
    found = by_exact_leaves(task, root)
    if found is not None and not decided(found) and attack_part(task, open_cases(root), 1 - FIRST_RESTARTS_SHARE):
        return SearchResult(True, False, "attack")
    return in_turn(task, root) if found is None else found


def _root(task: SearchTask) -> RootBounds:
    """The root bounds of a problem."""
    if task.double is None:
        return root_bounds(task.problem, task.clock, task.observer)
    return root_in_single(task.problem, task.double, task.clock, task.observer)


def at_points(task: SearchTask, root: RootBounds) -> SearchResult:
    """What is left to do where all inputs are fixed: to run the network."""
    if attack_part(task, open_cases(root), 1.0):
        return SearchResult(True, False, "attack")
    why = "all inputs are fixed, and rounding hides whether an atom holds there"
    return SearchResult(False, False, "", f"{len(open_cases(root))} cases stay open: {why}")


def in_turn(task: SearchTask, root: RootBounds) -> SearchResult:
    """One strategy after the other, each for its share of the time that is left, until one decides."""
    found: SearchResult | None = None
    for strategy, share in turns(task, root):
        try:
            found = strategy(replace(task, clock=task.clock.part(share)), root)
        except OutOfTime:
            continue
        if decided(found):
            return found
        if strategy is by_relu_phases and is_piecewise_linear(task.problem.program):
            task = task.soon(max(LAST_TURN_SECONDS, SHORT_TURN_SHARE * task.clock.left))
    if found is None:
        raise OutOfTime
    return found


def is_piecewise_linear(program: Program) -> bool:
    """Whether nothing is left open by a search over phases but what rounding hides."""
    return all(RELAXATIONS[layer.op].piecewise_linear for layer in program.layers)


Strategy = Callable[[SearchTask, RootBounds], SearchResult]


def turns(task: SearchTask, root: RootBounds) -> list[tuple[Strategy, float]]:
    """Strategies with their shares of the time left: as set, or the likelier one first.

    Boxes of few inputs soon look linear, but not at the bends. Phases can only be split where operators are piecewise
    linear.
    """
    if task.settings.strategy != "auto":
        return [(STRATEGIES[task.settings.strategy], 1.0)]
    program = task.problem.program
    varying = task.problem.varying_inputs
    unstable = int(unstable_neurons(program, root.bounds).sum(1).max())
    phases, few = unstable > 0, unstable <= MOST_NEURONS_PHASES_FIRST
    smooth = not is_piecewise_linear(program)
    shallow = is_shallow(program)
    affordable = varying <= MOST_INPUTS_BOXES_FIRST or program.num_neurons <= MOST_NEURONS_BOXES
    boxes = affordable and (
        smooth or varying <= (MOST_INPUTS_BOXES_SHALLOW if shallow and phases else MOST_INPUTS_BOXES)
    )
    if not boxes or not phases:
        return [(by_relu_phases if phases or not boxes else by_input_boxes, 1.0)]
    mixed: list[tuple[Strategy, float]] = (
        [(by_mixed_integers, SHORT_TURN_SHARE)] if shallow and suits(program, unstable) else []
    )
    if varying <= MOST_INPUTS_BOXES_FIRST and (smooth or not few):
        return [(by_input_boxes, LONG_TURN_SHARE), *mixed, (by_relu_phases, 1.0)]
    # What either decides, it mostly decides soon: a short try first costs little.
    first = HALF_TURN_SHARE if few or (shallow and varying <= MOST_INPUTS_BOXES) else SHORT_TURN_SHARE
    rest: list[tuple[Strategy, float]] = [*mixed, (by_input_boxes, LONG_TURN_SHARE), (by_relu_phases, 1.0)]
    return rest if shallow and conjunctions(task.problem, root) else [(by_relu_phases, first), *rest]


def conjunctions(problem: Problem, root: RootBounds) -> bool:
    """Whether every open case has several atoms: what one of them leaves of a box, the others' bounds gain from.

    Networks of one hidden layer that stand for Boolean formulas are so: boxes proved a formula of 34 variables in two
    seconds, of which phases did not come near in half of the time limit.
    """
    rows = problem.rows[open_cases(root)]
    return bool((rows != rows[:, :1]).any(1).all())


def is_shallow(program: Program) -> bool:
    """Whether all hidden layers read the input alone: their bounds are exact on every box, only the atoms relaxed."""
    return all(layer.affine.sources == (INPUT,) for layer in program.layers)


def by_input_boxes(task: SearchTask, root: RootBounds) -> SearchResult:
    """Branch and bound over the input box."""
    if attack_part(task, open_cases(root), 1 - FIRST_RESTARTS_SHARE):
        return SearchResult(True, False, "attack")
    return _search(task, "input-split", box_search(task, root))


def box_search(task: SearchTask, root: RootBounds) -> BoxFrontier:
    """A search over the input boxes of all open cases, from root bounds."""
    problem, cases, batch = task.problem, open_cases(root), batch_of(task)
    device, price = problem.program.device.type, problem.program.cost
    cheap = BATCH_COST.get(device, BATCH_COST_ELSEWHERE) // max(1, price)
    return BoxFrontier(
        open=BoxStack((root_boxes(problem, root, cases),)),
        batch=batch,
        max_domains=task.settings.max_domains,
        problem=problem,
        fill=min(BOXES_FILLING_DEVICE.get(device, batch), cheap),
        shared=len(cases) > len(problem.lower) and price >= SHARED_BOXES_COST,
    )


def processes_of(task: SearchTask) -> int:
    """How many processes share a search."""
    return cores(task.problem.program.device, task.settings.processes)


def batch_of(task: SearchTask) -> int:
    """Most domains that each of them bounds at once."""
    return largest_batch(task.problem.program, task.settings.batch, processes_of(task))


def _search(task: SearchTask, name: str, search: Frontier[Any, Any]) -> SearchResult:
    """Run a search, or go on with it; what its counters rise by is added however it ends."""
    before = search.progress.bounded
    processes = processes_of(task)
    try:
        with suited_threads(task.problem.program):
            outcome = search_in_shares(search, task.clock, task.accept, task.observer, processes)
    finally:
        task.spent(search.progress.bounded - before, search.progress.depth)
    return SearchResult(outcome.witness, outcome.proved, name, outcome.reason)


def by_relu_phases(task: SearchTask, root: RootBounds) -> SearchResult:
    """Branch and bound over the phases of the unstable neurons, from optimised root bounds.

    Searches take turns with better bounds of all neurons (`toolkit.search.neuron_branching`), each twice as long as the
    last time, so that little is lost whichever of them is what a query needs; where the bounds gain little, searches
    get ever more of the time. A search goes on where it was stopped, with the better bounds, unless these bring the
    root itself much nearer to a proof: then a new one begins, on what is left of the network. The rest of the attack
    comes after the first turn, which is enough for many a query that has no witness, and ever more restarts later, but
    not where bounds come nearer to a proof so fast.
    """
    began = task.clock.elapsed
    task, root = refined(task, root)
    if not len(open_cases(root)):
        return SearchResult(False, True, root.method)
    searching = tightening = max(FIRST_TURN_SECONDS, 2 * (task.clock.elapsed - began))
    search = phase_search(task, root)
    found = _try(task, search, searching)
    if not decided(found) and attack_part(task, open_cases(root), 1 - FIRST_RESTARTS_SHARE):
        return SearchResult(True, False, "attack")
    gain = 0.0
    while not decided(found) and len(task.problem.lower) == 1 and not is_shallow(task.problem.program):
        if not gain >= GAP_CLOSED_WORTH_RESTART and attack_on(task, open_cases(root), search.progress.rounds):
            return SearchResult(True, False, "attack")
        better = tightened(task, root, search, tightening)
        if not len(open_cases(better)):
            return SearchResult(False, True, better.method)
        gain = nearer(root, better)
        if found is not None and not gain >= GAP_CLOSED_WORTH_WAITING:
            return found
        if gain >= GAP_CLOSED_WORTH_RESTART or found is not None:
            task, root = reduced(task, better)
            search = phase_search(task, root)
        else:
            root = better
            search.inherit(root.bounds, proved(root.lower), task.observer)
        tightening, searching = 2 * tightening, (2 if gain >= GAP_CLOSED_WORTH_WAITING else 4) * searching
        found = _try(task, search, RESTARTED_TURN_SHARE * searching if gain >= GAP_CLOSED_WORTH_RESTART else searching)
    return branch_phases(task, search) if found is None else found


def nearer(root: RootBounds, better: RootBounds) -> float:
    """Which share of the way to a proof of the open cases better bounds have come; NaN where there was no bound."""
    cases = open_cases(root)
    before, after = (float((-bounds.lower[cases]).clamp(min=0).mean()) for bounds in (root, better))
    return 1 - after / before if before > 0 else 0.0


def _try(task: SearchTask, search: PhaseFrontier, seconds: float) -> SearchResult | None:
    """What a search for so long comes to, or None where it takes longer."""
    try:
        return branch_phases(task.soon(seconds), search)
    except OutOfTime:
        task.clock.check()
        return None


def refined(task: SearchTask, root: RootBounds) -> tuple[SearchTask, RootBounds]:
    """The task on the network that is left after the slopes of the root bounds are optimised."""
    if not task.settings.alpha_iterations:
        return task, root
    root = refined_root(task.problem, root, task.settings.alpha_iterations, task.clock, task.observer)
    task.note(unstable=root.unstable, bounds=root.method, layers=root.layers)
    return reduced(task, root)


def tightened(task: SearchTask, root: RootBounds, search: PhaseFrontier, seconds: float) -> RootBounds:
    """The root, of one region, with bounds of its neurons found by branch and bound for so long.

    That is on the problem as a search over phases has it already, in batches of its size.
    """
    problem, turn = search.space.problem, task.clock.soon(seconds)
    bounds = branch_neurons(problem, root.bounds, search.batch, turn, task.clock.check, processes_of(task))
    root = optimised_root(task.problem, root, bounds, task.settings.alpha_iterations, task.clock, task.observer)
    task.note(unstable=root.unstable, bounds=root.method, layers=root.layers)
    return root


def phase_search(task: SearchTask, root: RootBounds) -> PhaseFrontier:
    """A search over ReLU phases, from root bounds."""
    cases = open_cases(root)
    unstable = unstable_neurons(task.problem.program, root.bounds).any(0).nonzero().squeeze(1)
    space = PhaseSpace(counted(sparse(task.problem), root.bounds), root.bounds, unstable, double=task.double)
    frontier = root_domains(space, cases, root.multipliers.select(cases), root.lower[cases])
    schedule = Schedule(task.settings.beta_iterations, Polyak())
    bounding = PhaseBounding(schedule, rule_named(task.settings.branching), task.settings.clipped_neurons)
    return PhaseFrontier(
        open=frontier,
        batch=batch_of(task),
        max_domains=task.settings.max_domains,
        space=space,
        bounding=bounding,
        most=most_waiting(frontier),
    )


def branch_phases(task: SearchTask, search: PhaseFrontier) -> SearchResult:
    """Branch and bound over ReLU phases."""
    return _search(task, "branch-and-bound", search)


STRATEGIES: dict[str, Strategy] = {"relu": by_relu_phases, "input": by_input_boxes}
"""Strategies by the name that the settings give them."""
