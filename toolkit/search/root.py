"""Root bounds: what can be decided before anything is split.

Intervals, then CROWN for the rows that stay unstable, then slopes optimised for the cases still open. Cases are rows of
one batch; every case keeps the best bound met. Of many queries about one network, boxes and cases are rows of one
batch, too: what a small network costs is mostly the calls themselves, which a batch shares, and on a GPU that holds for
large ones. Each query gets the bounds that it would get alone, up to rounding, and with the same allowances for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from toolkit.bounds.bounder import NeuronQuestion, Stage, cheapest, most_unstable
from toolkit.bounds.crown import bound_features
from toolkit.bounds.dual_ascent import Adam, Schedule, optimise
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Multipliers, adaptive_multipliers
from toolkit.errors import DisagreementError
from toolkit.problem.compile import Problem, places, stacked
from toolkit.problem.program import Program, split_layers
from toolkit.problem.sum_rounding import outward
from toolkit.run.clock import Clock
from toolkit.run.events import NeuronsBounded, Observer, RootBounded
from toolkit.search.batch_size import largest_batch
from toolkit.search.phase_domains import proved, unsplit_domains
from toolkit.tuning import tuned


@dataclass(frozen=True)
class RootBounds:
    """Bounds of all neurons in each region, and for each case its lower bound and the multipliers that give it."""

    bounds: Bounds
    lower: Tensor
    """``(C,)``."""
    multipliers: Multipliers
    method: str
    unstable_interval: int
    unstable: int
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Neurons of each layer, and how many of them each method so far leaves unstable."""

    def to(self, dtype: torch.dtype) -> RootBounds:
        """Convert the bounds to another precision, rounded outward."""
        if dtype == self.lower.dtype:
            return self
        bounds = self.bounds.to(dtype)
        lower, _ = outward(self.lower, self.lower, dtype)
        return replace(self, bounds=bounds, lower=lower, multipliers=self.multipliers.map(lambda part: part.to(dtype)))


def root_bounds(
    problem: Problem, clock: Clock, observer: Observer, double: Problem | None = None, stated: bool = False
) -> RootBounds:
    """Root bounds of every case. Raises OutOfTime.

    ``double`` is the problem in double precision, where it is searched in single: neurons are bounded in single
    precision where that loses little, all else is in double. ``stated``: by what a certificate can state.
    """
    question = replace(NeuronQuestion.of_problem(problem, clock.check), stated=stated)
    question = question if double is None else replace(question, exact=double.program)
    bounder = cheapest(Stage.FIRST, question)
    assert bounder is not None, "CROWN suits every program"
    bounds = bounder.bound(question)
    exact = problem if double is None else double
    if bounds is None:
        return root_bounds(exact, clock, observer, stated=stated).to(problem.program.dtype)
    check_consistent(problem.program, question.known)
    check_consistent(problem.program, bounds)
    lower, multipliers = first_bounds(exact, bounds.to(exact.program.dtype), clock)
    root = root_of(problem, question.known, bounds, lower, multipliers, bounder.name)
    tell_root_bounds(problem, root, observer)
    return replace(root.to(problem.program.dtype), bounds=bounds)


def check_consistent(program: Program, bounds: Bounds) -> None:
    """Raise DisagreementError where bounds of a neuron over a whole box contradict each other.

    A domain that is refuted is one whose bounds do; but a box has points, at which each neuron has a value. So what
    rounding may change was accounted for wrongly somewhere, and nothing that follows from such bounds is a proof.
    """
    crossed = bounds.lower > bounds.upper
    if bool(crossed.any()):
        row, neuron = crossed.nonzero()[0].tolist()
        layer = next(layer.name for layer in program.layers if neuron < layer.stop)
        lower, upper = float(bounds.lower[row, neuron]), float(bounds.upper[row, neuron])
        raise DisagreementError(f"bounds of {layer} contradict each other: from {lower} to {upper}")


def root_of(
    problem: Problem, intervals: Bounds, bounds: Bounds, lower: Tensor, multipliers: Multipliers, method: str
) -> RootBounds:
    """The record of root bounds, with the unstable neurons by intervals and by these bounds counted."""
    layers = {layer.name: {"neurons": layer.affine.size} for layer in problem.program.layers}
    layers = with_unstable_counts(with_unstable_counts(layers, problem, intervals, "interval"), problem, bounds, method)
    before, after = (most_unstable(problem.program, part) for part in (intervals, bounds))
    return RootBounds(bounds, lower, multipliers, method, before, after, layers)


def refined_root(
    problem: Problem, root: RootBounds, iterations: int, clock: Clock, observer: Observer, in_bytes: bool = False
) -> RootBounds:
    """Optimise the slopes of the neurons' bounds, then of the open cases' (alpha-CROWN). Raises OutOfTime.

    ``in_bytes``: all slopes are such that a byte can state them.
    """
    box = Bounds(problem.lower, problem.upper)
    question = NeuronQuestion(problem.program, box, root.bounds, clock.check, iterations=iterations)
    question = replace(question, stated=in_bytes, tell=lambda rows: observer(NeuronsBounded(problem, rows)))
    bounder = cheapest(Stage.REFINING, question)
    bounds = (None if bounder is None else bounder.bound(question)) or root.bounds
    check_consistent(problem.program, bounds)
    root = replace(root, layers=with_unstable_counts(root.layers, problem, bounds, "alpha-crown"))
    return optimised_root(problem, root, bounds, iterations, clock, observer, in_bytes)


def optimised_root(
    problem: Problem,
    root: RootBounds,
    bounds: Bounds,
    iterations: int,
    clock: Clock,
    observer: Observer,
    in_bytes: bool = False,
) -> RootBounds:
    """The root with better bounds of its neurons, and the slopes of its open cases optimised. Raises OutOfTime."""
    lower, multipliers = first_bounds(problem, bounds, clock)
    lower = torch.fmax(root.lower, lower)
    count = most_unstable(problem.program, bounds)
    root = RootBounds(bounds, lower, multipliers, "alpha-crown", root.unstable_interval, count, root.layers)
    root = optimise_cases(problem, root, iterations, clock, in_bytes)
    tell_root_bounds(problem, root, observer)
    return root


def root_statistics(root: RootBounds) -> dict[str, Any]:
    """The statistics about root bounds, by their names in `toolkit.result.Statistics`."""
    return {
        "unstable_interval": root.unstable_interval,
        "unstable": root.unstable,
        "bounds": root.method,
        "layers": root.layers,
    }


def tell_root_bounds(problem: Problem, root: RootBounds, observer: Observer) -> None:
    """Tell an observer about root bounds of a problem."""
    still_open = int((~proved(root.lower)).sum())
    weakest = float(root.lower.min()) if len(root.lower) else float("inf")
    observer(RootBounded(root.method, root.unstable, weakest, still_open, root, problem))


def with_unstable_counts(
    layers: dict[str, dict[str, int]], problem: Problem, bounds: Bounds, method: str
) -> dict[str, dict[str, int]]:
    """The counts of each layer with those of one more method; a layer that was reduced away has none unstable."""
    if not len(bounds.lower):
        return layers
    masks = split_layers(problem.program, unstable_neurons(problem.program, bounds))
    found = {layer.name: int(mask.sum(1).max()) for layer, mask in zip(problem.program.layers, masks, strict=True)}
    return {name: counts | {method: found.get(name, 0)} for name, counts in layers.items()}


def first_bounds(problem: Problem, bounds: Bounds, clock: Clock) -> tuple[Tensor, Multipliers]:
    """CROWN bounds of all cases with adaptive slopes; a conjunction is refuted by its best single atom."""
    lowers, parts = [], []
    for case in torch.arange(problem.num_cases, device=problem.region.device).split(tuned().roots.cases_per_pass):
        clock.check()
        domain = unsplit_domains(problem, bounds, case)
        _, lowers_of_atoms = bound_features(problem.program, domain.atoms, domain.box, domain.bounds, domain.constants)
        lower, best = lowers_of_atoms.max(1)
        weight = torch.nn.functional.one_hot(best, domain.atoms.shape[1]).to(lower.dtype)
        lowers.append(lower)
        parts.append(adaptive_multipliers(domain.bounds, weight))
    return torch.cat(lowers), parts[0].map(lambda *tensors: torch.cat(tensors), *parts[1:])


def optimise_cases(
    problem: Problem, root: RootBounds, iterations: int, clock: Clock, in_bytes: bool = False
) -> RootBounds:
    """Optimise slopes and atom weights of the cases that are still open (alpha-CROWN, Xu et al. 2021)."""
    schedule = Schedule(iterations, Adam(rate_alpha=0.3, decay=0.96), in_bytes=in_bytes)
    lower = root.lower.clone()
    kept = root.multipliers.map(torch.clone)
    still_open = open_cases(root)
    # A tensor without elements splits into one part without elements, which no map of operators takes.
    for case in still_open.split(tuned().roots.cases_per_pass) if len(still_open) else ():
        clock.check()
        domain = unsplit_domains(problem, root.bounds, case)
        bound = optimise(problem.program, domain, kept.select(case), schedule, clock.check)
        lower[case] = torch.fmax(lower[case], bound.lower)
        kept.alpha[case], kept.weight[case] = bound.multipliers.alpha, bound.multipliers.weight
    return replace(root, lower=lower, multipliers=kept, method="alpha-crown")


def open_cases(root: RootBounds) -> Tensor:
    """Cases that the root bounds do not refute."""
    return (~proved(root.lower)).nonzero().squeeze(1)


def boxes_at_once(program: Program) -> int:
    """How many boxes are bounded together: on a processor, as many as keep it busy; else as many as fit."""
    fitting = largest_batch(program, 0)
    if program.device.type == "cuda":
        return fitting
    return min(fitting, max(1, tuned().roots.batch_cost // max(1, program.cost)))


def joint_roots(problems: Sequence[Problem], clock: Clock) -> list[RootBounds]:
    """Root bounds of problems of one program, each with one box and K atoms a case. Raises OutOfTime."""
    whole = stacked(problems)
    question = replace(NeuronQuestion.of_problem(whole, clock.check), alike=True)
    bounder = cheapest(Stage.FIRST, question)
    bounds = None if bounder is None else bounder.bound(question)
    assert bounder is not None and bounds is not None, "CROWN suits every program"
    lower, multipliers = first_bounds(whole, bounds, clock)
    roots = []
    for problem, (regions, cases) in zip(problems, places(problems), strict=True):
        own = bounds.select(regions)
        alone = question.known.select(regions), own, lower[cases], multipliers.select(cases)
        roots.append(root_of(problem, *alone, bounder.name))
    return roots
