"""From root bounds to branch and bound: the phases that need torch, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from toolkit.bounds.interval import unstable_neurons
from toolkit.ops import RELAXATIONS
from toolkit.problem.compile import Problem
from toolkit.problem.input_cells import input_cells
from toolkit.problem.program import Program
from toolkit.run.clock import OutOfTime
from toolkit.run.events import PhaseBegun
from toolkit.search.attack_budget import attack_first, attack_part
from toolkit.search.box_frontier import BoxFrontier, root_boxes
from toolkit.search.input_domains import BoxStack
from toolkit.search.mixed_integer import by_mixed_integers, is_small_relu_network
from toolkit.search.root import RootBounds, open_cases, root_bounds, root_statistics, tell_root_bounds
from toolkit.search.search_task import SearchResult, SearchTask, decided, reduced
from toolkit.search.strict_atoms import by_exact_leaves, closed_by_images
from toolkit.search.techniques import batch_of, by_relu_phases, run_search
from toolkit.tuning import tuned


def prove(task: SearchTask, root: RootBounds | None = None) -> SearchResult:
    """Decide all cases of a problem, from its root bounds where they are known. Raises OutOfTime."""
    task.note(relus=task.problem.program.num_neurons)
    attacked = attack_first(task) if root is None else None
    if attacked:
        return SearchResult(True, False, "attack")
    task.observer(PhaseBegun("root bounds"))
    if root is None:
        root = root_bounds(task.problem, task.clock, task.observer, task.double, task.settings.certifiable)
    else:
        tell_root_bounds(task.problem, root, task.observer)
    task.note(**root_statistics(root))
    if not len(open_cases(root)):
        return SearchResult(False, True, root.method)
    root = root if task.settings.certifiable else closed_by_images(task, root)
    if not len(open_cases(root)):
        return SearchResult(False, True, "images")
    if not task.problem.varying_inputs:
        return by_exact_leaves(task, root) or at_points(task, root)
    task, root = reduced(task.with_rounding_errors(root.bounds), root)
    if attacked is None and attack_part(task, open_cases(root), tuned().attack.first_restarts_share):
        return SearchResult(True, False, "attack")
    found = by_exact_leaves(task, root)
    if (
        found is not None
        and not decided(found)
        and attack_part(task, open_cases(root), 1 - tuned().attack.first_restarts_share)
    ):
        return SearchResult(True, False, "attack")
    return in_turn(task, root) if found is None else found


def at_points(task: SearchTask, root: RootBounds) -> SearchResult:
    """Decide a problem whose inputs are all fixed, which only running the network at these points can."""
    if attack_part(task, open_cases(root), 1.0):
        return SearchResult(True, False, "attack")
    why = "all inputs are fixed, and rounding hides whether an atom holds there"
    return SearchResult(False, False, "", f"{len(open_cases(root))} cases stay open: {why}")


def in_turn(task: SearchTask, root: RootBounds) -> SearchResult:
    """One strategy after the other, each for its share of the time that is left, until one decides."""
    found: SearchResult | None = None
    for strategy, share in turns(task, root):
        task.observer(PhaseBegun(NAMES[strategy], search=True))
        try:
            found = STRATEGIES[strategy](replace(task, clock=task.clock.part(share)), root)
        except OutOfTime:
            continue
        if decided(found):
            return found
        if strategy == "relu" and is_piecewise_linear(task.problem.program):
            # Phases leave open what rounding hides, which other strategies rarely decide: they get less time.
            task = task.soon(tuned().strategy.short_turn_share * task.clock.left)
    if found is None:
        raise OutOfTime
    return found


Strategy = Callable[[SearchTask, RootBounds], SearchResult]


@dataclass(frozen=True)
class QueryTraits:
    """What decides which strategies suit a problem."""

    varying: int
    """Inputs that vary."""
    neurons: int
    unstable: int
    """Neurons that the root bounds leave unstable."""
    smooth: bool
    """Whether some operator is not piecewise linear: phases can only be split where it is."""
    shallow: bool
    """Whether all hidden layers read the input alone."""
    mixed: bool
    """Whether the network is shallow, and a mixed-integer program of the problem small."""
    conjunctions: bool
    """Whether the network is shallow, and each open case has several atoms."""

    @classmethod
    def of(cls, problem: Problem, root: RootBounds) -> QueryTraits:
        """The traits of a problem with its root bounds."""
        program = problem.program
        unstable = int(unstable_neurons(program, root.bounds).sum(1).max())
        return cls(
            varying=problem.varying_inputs,
            neurons=program.num_neurons,
            unstable=unstable,
            smooth=not is_piecewise_linear(program),
            shallow=program.is_shallow,
            mixed=program.is_shallow and is_small_relu_network(program, unstable),
            conjunctions=program.is_shallow and conjunctions(problem, root),
        )

    @property
    def few(self) -> bool:
        """Whether so few neurons are unstable that the tree of all their phases is small."""
        return self.unstable <= tuned().strategy.most_neurons_phases_first

    @property
    def boxes(self) -> bool:
        """Whether splitting the input box is worth a try: boxes of few inputs soon look linear."""
        limits = tuned().strategy
        most = limits.most_inputs_boxes_shallow if self.shallow and self.unstable else limits.most_inputs_boxes
        affordable = self.varying <= limits.most_inputs_boxes_first or self.neurons <= limits.most_neurons_boxes
        return affordable and (self.smooth or self.varying <= most)

    @property
    def boxes_first(self) -> bool:
        """Whether splitting boxes is likelier to decide than splitting phases, so that it goes first."""
        return self.both and self.varying <= tuned().strategy.most_inputs_boxes_first and (self.smooth or not self.few)

    @property
    def both(self) -> bool:
        """Whether boxes and phases can both be split."""
        return self.boxes and self.unstable > 0

    @property
    def try_phases(self) -> bool:
        """Whether phases have a short turn before boxes: what they decide, they mostly decide soon."""
        return self.both and not self.boxes_first and not self.conjunctions

    @property
    def try_longer(self) -> bool:
        """Whether the turn of phases before boxes is a longer one."""
        return self.few or (self.shallow and self.varying <= tuned().strategy.most_inputs_boxes)


@dataclass(frozen=True)
class StrategyTurn:
    """A turn of a strategy."""

    strategy: str
    length: Literal["short", "half", "long", "whole"]
    """Which share of the time left it gets: one of `toolkit.tuning.StrategyTuning`, or all."""
    suits: Callable[[QueryTraits], bool]


TURNS = (
    StrategyTurn("input", "long", lambda query: query.boxes_first),
    StrategyTurn("relu", "half", lambda query: query.try_phases and query.try_longer),
    StrategyTurn("relu", "short", lambda query: query.try_phases and not query.try_longer),
    StrategyTurn("mixed-integer", "short", lambda query: query.both and query.mixed),
    StrategyTurn("input", "long", lambda query: query.both and not query.boxes_first),
    StrategyTurn("input", "whole", lambda query: query.boxes and not query.both),
    StrategyTurn("relu", "whole", lambda query: query.both or not query.boxes),
)
"""Which strategies have their turns, in this order, and for how long."""
UNCERTIFIED = ("mixed-integer",)
"""Strategies whose proofs no certificate can state, and whose bounding passes are not counted."""


def turns(task: SearchTask, root: RootBounds) -> list[tuple[str, float]]:
    """Strategies with their shares of the time left: the one that is set, or those that suit.

    A mixed-integer solver knows limits of time only, so it has no turn where passes are counted.
    """
    if task.settings.strategy != "auto":
        return [(task.settings.strategy, 1.0)]
    traits = QueryTraits.of(task.problem, root)
    limits = tuned().strategy
    shares = {
        "short": limits.short_turn_share,
        "half": limits.half_turn_share,
        "long": limits.long_turn_share,
        "whole": 1.0,
    }
    left_out = UNCERTIFIED if task.settings.certifiable or task.settings.passes else ()
    return [
        (turn.strategy, shares[turn.length]) for turn in TURNS if turn.suits(traits) and turn.strategy not in left_out
    ]


def is_piecewise_linear(program: Program) -> bool:
    """Whether all operators are piecewise linear, so that a search over phases leaves nothing open but what rounding
    hides."""
    return all(RELAXATIONS[layer.op].piecewise_linear for layer in program.layers)


def conjunctions(problem: Problem, root: RootBounds) -> bool:
    """Whether every open case has several atoms: what one of them leaves of a box, the others' bounds gain from.

    Networks of one hidden layer that stand for Boolean formulas are so: boxes proved a formula of 34 variables in two
    seconds, of which phases did not come near in half of the time limit.
    """
    rows = problem.rows[open_cases(root)]
    return bool((rows != rows[:, :1]).any(1).all())


def by_input_boxes(task: SearchTask, root: RootBounds) -> SearchResult:
    """Branch and bound over the input box."""
    if attack_part(task, open_cases(root), 1 - tuned().attack.first_restarts_share):
        return SearchResult(True, False, "attack")
    return run_search(task, "input-split", box_search(task, root))


def box_search(task: SearchTask, root: RootBounds) -> BoxFrontier:
    """A search over the input boxes of all open cases, from root bounds."""
    problem, cases, batch = task.problem, open_cases(root), batch_of(task)
    device, price, limits = problem.program.device.type, problem.program.cost, tuned().boxes
    cheap = limits.batch_cost.on(device) // max(1, price)
    return BoxFrontier(
        open=BoxStack((root_boxes(problem, root, cases),)),
        batch=batch,
        max_domains=task.settings.max_domains,
        problem=problem,
        fill=min(limits.filling.on(device) or batch, cheap),
        shared=len(cases) > len(problem.lower) and price >= limits.shared_cost,
        stated=root.bounds if task.settings.certifiable else None,
        cut=task.settings.clipped_neurons > 0,
        cells=None if task.settings.certifiable else input_cells(problem),
    )


STRATEGIES: dict[str, Strategy] = {
    "relu": by_relu_phases,
    "input": by_input_boxes,
    "mixed-integer": by_mixed_integers,
}
"""Strategies by name; the settings can give the first two."""
NAMES = {
    "relu": "search over ReLU phases",
    "input": "search over input boxes",
    "mixed-integer": "mixed-integer programs",
}
"""How each strategy is called in messages."""
