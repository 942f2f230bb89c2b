"""What happens between the turns of a search over phases, as one table that is read from top to bottom.

As in the main loop of the solver CaDiCaL (``else if (reducing ()) reduce ();``, Biere et al., 2020), the first
technique that is due acts, then the table is read again. One that is added here is a line of the table, and a function
that tells its idea.

A search takes turns with better bounds of all neurons, each twice as long as the last time, so that little is lost
whichever of them is what a query needs; where the bounds gain little, searches get ever more of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from toolkit.bounds.bounder import Bounder, NeuronQuestion, Stage, cheapest
from toolkit.bounds.dual_ascent import Polyak, Schedule
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.run.clock import OutOfTime
from toolkit.run.events import NeuronsBounded
from toolkit.run.forked_processes import cores
from toolkit.run.threads import suited_threads
from toolkit.search import neuron_branching  # noqa: F401 - importing it registers what bounds neurons by a search
from toolkit.search.attack_budget import attack_on, attack_part
from toolkit.search.batch_size import largest_batch, most_waiting
from toolkit.search.branching import RULES
from toolkit.search.loop import Frontier
from toolkit.search.parallel_search import search_in_shares
from toolkit.search.phase_domains import PhaseSpace, proved, root_domains
from toolkit.search.phase_frontier import PhaseBounding, PhaseFrontier
from toolkit.search.root import RootBounds, open_cases, optimised_root, refined_root
from toolkit.search.search_task import SearchResult, SearchTask, decided, reduced, sparse, with_rounding_errors
from toolkit.tuning import tuned


@dataclass
class PhaseAttempt:
    """A problem on its way to a verdict by splitting phases: the bounds and the search so far, and what decides which
    technique is due next."""

    task: SearchTask
    root: RootBounds
    better: RootBounds
    """Root bounds with the neurons' latest bounds, which the search does not know yet, or `root` itself."""
    frontier: PhaseFrontier | None = None
    """The search with its open domains; None before it begins."""
    found: SearchResult | None = None
    """The result of the latest search where it ended by itself, decided or not; None where its time was over."""
    gain: float = 0.0
    """Share of the way to a proof that the latest bounds of the neurons have closed."""
    granted: float = 0.0
    """Seconds that the next search may take."""
    searching: float = 0.0
    """Seconds of the latest search, and of `tightening`, the latest bounds of the neurons."""
    tightening: float = 0.0
    acted: set[str] = field(default_factory=set)
    """Techniques that acted since the latest search."""
    attacked: bool = False
    """Whether all of the settings' restarts were made."""

    @property
    def search(self) -> PhaseFrontier:
        """The search with its open domains. It has begun."""
        assert self.frontier is not None
        return self.frontier

    @property
    def tightener(self) -> Bounder | None:
        """The technique that tightens the bounds of all neurons by its own branch and bound; None where none suits."""
        problem = self.task.problem
        box = Bounds(problem.lower, problem.upper)
        return cheapest(Stage.BRANCHING, NeuronQuestion(problem.program, box, self.root.bounds))

    @property
    def restart_pays(self) -> bool:
        """Whether bounds became so good that a new search is where the old one was before long."""
        return self.gain >= tuned().strategy.gap_worth_restart

    def awaits(self, name: str) -> bool:
        """Whether a technique has not acted since the latest search."""
        return name not in self.acted


@dataclass(frozen=True)
class Technique:
    """Something to do between two turns of a search."""

    name: str
    due: Callable[[PhaseAttempt], bool]
    """Whether it acts now, provided that no technique above it in the table does."""
    act: Callable[[PhaseAttempt], SearchResult | None]
    """Acts on the attempt; a result that it returns is the verdict, None lets the attempt go on."""


def by_relu_phases(task: SearchTask, root: RootBounds) -> SearchResult:
    """Branch and bound over the phases of the unstable neurons, with all techniques. Raises OutOfTime."""
    attempt = PhaseAttempt(task, root, root)
    while True:
        technique = next(technique for technique in TECHNIQUES if technique.due(attempt))
        attempt.acted.add(technique.name)
        result = technique.act(attempt)
        if result is not None:
            return result


def refine(attempt: PhaseAttempt) -> SearchResult | None:
    """Optimise the slopes of the root bounds (alpha-CROWN), reduce the network, and begin a search from there.

    The first search gets twice the time that this took, so that neither is long where the other would do.
    """
    task, root = attempt.task, attempt.root
    began = task.clock.elapsed
    if task.settings.alpha_iterations:
        steps, stated = task.settings.alpha_iterations, task.settings.certifiable
        root = refined_root(task.problem, root, steps, task.clock, task.observer, stated)
        task.note(unstable=root.unstable, bounds=root.method, layers=root.layers)
        task, root = reduced(task, root)
    attempt.task, attempt.root, attempt.better = task, root, root
    if not len(open_cases(root)):
        return SearchResult(False, True, root.method)
    attempt.searching = attempt.tightening = max(tuned().strategy.first_turn_seconds, 2 * (task.clock.elapsed - began))
    attempt.frontier, attempt.granted = phase_search(task, root), attempt.searching
    return None


def search(attempt: PhaseAttempt) -> SearchResult | None:
    """Branch and bound over phases, for as long as was granted."""
    seconds, attempt.granted, attempt.found = attempt.granted, 0.0, None
    attempt.acted.clear()
    try:
        attempt.found = run_search(attempt.task.soon(seconds), "branch-and-bound", attempt.search)
    except OutOfTime:
        attempt.task.clock.check()
    return attempt.found if decided(attempt.found) else None


def attack_fully(attempt: PhaseAttempt) -> SearchResult | None:
    """Make the rest of the attack's restarts: after the first search, which is enough for many without a witness."""
    attempt.attacked = True
    won = attack_part(attempt.task, open_cases(attempt.root), 1 - tuned().attack.first_restarts_share)
    return SearchResult(True, False, "attack") if won else None


def attack_more(attempt: PhaseAttempt) -> SearchResult | None:
    """Make ever more restarts, for a share of the time spent; not where bounds come nearer to a proof so fast."""
    if attempt.restart_pays:
        return None
    won = attack_on(attempt.task, open_cases(attempt.root), attempt.search.progress.rounds)
    return SearchResult(True, False, "attack") if won else None


def tighten(attempt: PhaseAttempt) -> SearchResult | None:
    """Bound all neurons by branch and bound of their own (`toolkit.search.neuron_branching`)."""
    assert attempt.tightener is not None, "without one, the search goes on alone"
    attempt.better = tightened(attempt.task, attempt.root, attempt.search, attempt.tightener, attempt.tightening)
    attempt.gain = gap_closed(attempt.root, attempt.better)
    return None if len(open_cases(attempt.better)) else SearchResult(False, True, attempt.better.method)


def grant(attempt: PhaseAttempt) -> None:
    """Let the next search take twice as long as the latest, or four times where bounds bring next to nothing."""
    attempt.tightening *= 2
    attempt.searching *= 2 if attempt.gain >= tuned().strategy.gap_worth_waiting else 4
    attempt.granted = attempt.searching * (tuned().strategy.restarted_turn_share if attempt.restart_pays else 1)


def restart(attempt: PhaseAttempt) -> None:
    """Begin a new search on what is left of the network with its neurons' better bounds."""
    attempt.task, attempt.root = reduced(attempt.task, attempt.better)
    attempt.better, attempt.frontier = attempt.root, phase_search(attempt.task, attempt.root)
    grant(attempt)


def inherit(attempt: PhaseAttempt) -> None:
    """Let the search go on where it was stopped, with the neurons' better bounds."""
    attempt.root = attempt.better
    attempt.search.inherit(attempt.root.bounds, proved(attempt.root.lower), attempt.task.observer)
    grant(attempt)


def search_on(attempt: PhaseAttempt) -> None:
    """Let the search take all the time that there is."""
    attempt.granted = math.inf


def give_up(attempt: PhaseAttempt) -> SearchResult | None:
    """A search that ended undecided is not repeated from bounds that are hardly better."""
    return attempt.found


def gave_up(attempt: PhaseAttempt) -> bool:
    """Whether a search ended undecided, and nothing can be expected of another."""
    hopeless = not attempt.awaits("tighten") and not attempt.gain >= tuned().strategy.gap_worth_waiting
    return attempt.found is not None and (hopeless or attempt.tightener is None)


def begins_again(attempt: PhaseAttempt) -> bool:
    """Whether better bounds pay for a new search, or the old one ended; a certificate states them before a search."""
    return attempt.restart_pays or attempt.found is not None or attempt.task.settings.certifiable


TECHNIQUES = (
    #         name            due                                                                     act
    Technique("refine",       lambda attempt: attempt.frontier is None,                               refine),
    Technique("search",       lambda attempt: attempt.granted > 0,                                    search),
    Technique("attack fully", lambda attempt: not attempt.attacked,                                   attack_fully),
    Technique("give up",      gave_up,                                                                give_up),
    Technique("search on",    lambda attempt: attempt.tightener is None,                              search_on),
    Technique("attack more",  lambda attempt: attempt.awaits("attack more"),                          attack_more),
    Technique("tighten",      lambda attempt: attempt.awaits("tighten"),                              tighten),
    Technique("restart",      begins_again,                                                           restart),
    Technique("inherit",      lambda attempt: True,                                                   inherit),
)  # fmt: skip
"""The techniques; those above come first."""


def gap_closed(root: RootBounds, better: RootBounds) -> float:
    """The share of the distance from zero of the open cases' mean bound that better bounds close; NaN where a bound is
    infinite."""
    cases = open_cases(root)
    before, after = (float((-bounds.lower[cases]).clamp(min=0).mean()) for bounds in (root, better))
    return 1 - after / before if before > 0 else 0.0


def tightened(
    task: SearchTask, root: RootBounds, search: PhaseFrontier, tightener: Bounder, seconds: float
) -> RootBounds:
    """The root, of one region, with bounds of its neurons found by a search of their own for so long.

    That is on the problem as a search over phases has it already, in batches of its size.
    """
    problem, turn, check = search.space.problem, task.clock.soon(seconds), task.clock.check
    box, stated = Bounds(problem.lower, problem.upper), task.settings.certifiable
    question = NeuronQuestion(
        problem.program,
        box,
        root.bounds,
        check,
        turn=turn,
        batch=search.batch,
        processes=processes_of(task),
        stated=stated,
        tell=lambda rows: task.observer(NeuronsBounded(problem, rows)),
    )
    bounds = tightener.bound(question)
    assert bounds is not None, "these are in the precision of the search"
    steps = task.settings.alpha_iterations
    root = optimised_root(task.problem, root, bounds, steps, task.clock, task.observer, in_bytes=stated)
    task.note(unstable=root.unstable, bounds=root.method, layers=root.layers)
    return root


def phase_search(task: SearchTask, root: RootBounds) -> PhaseFrontier:
    """A search over ReLU phases, from root bounds."""
    cases = open_cases(root)
    unstable = unstable_neurons(task.problem.program, root.bounds).any(0).nonzero().squeeze(1)
    problem = with_rounding_errors(sparse(task.problem), root.bounds)
    space = PhaseSpace(problem, root.bounds, unstable, double=task.double)
    frontier = root_domains(space, cases, root.multipliers.select(cases), root.lower[cases])
    schedule = Schedule(task.settings.beta_iterations, Polyak())
    clipped = task.settings.clipped_neurons
    return PhaseFrontier(
        open=frontier,
        batch=batch_of(task),
        max_domains=task.settings.max_domains,
        space=space,
        bounding=PhaseBounding(
            schedule, RULES.named(task.settings.branching), clipped, in_bytes=task.settings.certifiable
        ),
        most=most_waiting(len(frontier), frontier.bytes_each, frontier.lower.device),
    )


def processes_of(task: SearchTask) -> int:
    """How many processes share a search: one where passes are counted."""
    return 1 if task.settings.passes else cores(task.problem.program.device, task.settings.processes)


def batch_of(task: SearchTask) -> int:
    """Most domains that each of them bounds at once."""
    return largest_batch(task.problem.program, task.settings.batch, processes_of(task))


def run_search(task: SearchTask, name: str, frontier: Frontier[Any, Any]) -> SearchResult:
    """Run a search, or go on with it; what its counters rise by is added however it ends. Raises OutOfTime."""
    before = frontier.progress.bounded
    try:
        with suited_threads(task.problem.program.cost):
            outcome = search_in_shares(frontier, task.budget, processes_of(task))
    finally:
        task.spent(frontier.progress.bounded - before, frontier.progress.depth)
    return SearchResult(outcome.witness, outcome.proved, name, outcome.reason)
