"""Neuron bounds by branch and bound: what slopes alone cannot tighten, splits of earlier neurons can.

Every unstable neuron of a layer is two small questions, how low and how high it can get, and each is answered by a tree
of its own over the phases of the layers before: the least of its leaves' bounds is the neuron's bound. All trees of a
layer grow together, by one leaf each a round, so that a round is one batch: a search over phases whose closed domains
still count, and which ends when growing hardly helps. It does for layers of a few hundred neurons what other verifiers
leave to a mixed-integer solver, layer after layer, with bounds of our own throughout. On a processor, each of its cores
has trees of its own.
"""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from toolkit.bounds.bounder import NeuronQuestion, NeuronTrees, Stage, bounder
from toolkit.bounds.dual_ascent import Adam, Polyak, Schedule, evaluate, relax
from toolkit.bounds.intermediate_bounds import lower_ends, refine_layer, worth_stating
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Multipliers, adaptive_multipliers
from toolkit.ops import RELAXATIONS
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.forked_processes import side_by_side, worth_starting
from toolkit.search.batch_size import refusals
from toolkit.search.branching import BranchingRule, chord
from toolkit.search.loop import BoundedChildren, PickedDomains, branch_and_bound
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, expand, proved, root_domains
from toolkit.search.phase_frontier import PhaseBounding, PhaseFrontier
from toolkit.tuning import tuned

ROOT_SCHEDULE = Schedule(8, Adam(rate_alpha=0.3))
"""How a layer's rows, and then the unsplit roots of their trees, are bounded."""
LEAF_SCHEDULE = Schedule(2, Polyak())
"""How leaves are bounded: many leaves beat thorough ones (measured)."""


@bounder(
    "neuron-branching",
    Stage.BRANCHING,
    suits=lambda question: len(question.box.lower) == 1 and not question.program.is_shallow,
    cost=lambda question: math.inf,  # it takes all the time that it is granted
)
def branch_neurons(question: NeuronQuestion) -> Bounds:
    """Tighter bounds ``(1, num_neurons)`` of all neurons in one box, within the time of the turn.

    The bounds of one layer are exact. Other layers share the time that is left equally; each builds on the better
    bounds of those before. What a layer begins with is not cut short by the turn's end.
    """
    assert question.turn is not None, "branching is granted some time"
    program, turn = question.program, question.turn
    schedule = replace(ROOT_SCHEDULE, in_bytes=question.stated)
    layers = [number for number, layer in enumerate(program.layers) if layer.affine.sources != (INPUT,)]
    for position, number in enumerate(layers):
        if turn.left <= 0:
            break
        bounds = refine_layer(program, number, question.box, question.known, schedule, question.check, question.tell)
        question = replace(question, known=bounds)
        question = replace(question, known=_branch_layer(question, number, turn.part(1 / (len(layers) - position))))
    return question.known


def _branch_layer(question: NeuronQuestion, number: int, clock: Clock) -> Bounds:
    """The bounds with those of one layer's unstable neurons tightened, dealt among processes."""
    program, bounds = question.program, question.known
    layer = program.layers[number]
    unstable = _unstable(bounds.of(layer.neurons))
    if not len(unstable) or not RELAXATIONS[layer.op].piecewise_linear:
        return bounds
    most = min(question.processes, len(unstable) // tuned().sharing.least_domains, worth_starting(clock.left))
    count = max(1, most)
    hands = [unstable[hand::count] for hand in range(count)]
    grow = _stated if question.stated else _grown
    works = [partial(grow, question, number, hand, clock) for hand in hands]
    lower, upper = bounds.lower.clone(), bounds.upper.clone()
    for hand, found in zip(hands, side_by_side(works, clock), strict=True):
        if found is not None:
            if found.trees is not None:
                question.tell(found.trees)
            at = layer.start + hand
            new = Bounds(lower[:, at], upper[:, at]).intersect(found.bounds)
            lower[:, at], upper[:, at] = new.lower, new.upper
    return Bounds(lower, upper)


@dataclass(frozen=True)
class GrownTrees:
    """What trees prove of some neurons of a layer: bounds ``(1, n)``, and the trees where these are to be told."""

    bounds: Bounds
    trees: NeuronTrees | None = None


def _stated(question: NeuronQuestion, number: int, rows: Tensor, clock: Clock) -> GrownTrees | None:
    """Bounds of some neurons of a layer by trees whose leaves have slopes that a byte can state, as a certificate needs
    them, less a margin for the rounding of its checker; None where memory is short."""
    program, bounds = question.program, question.known
    at = program.layers[number].start + rows
    known, width = lower_ends(Bounds(bounds.lower[:, at], bounds.upper[:, at]))
    try:
        with refusals():
            margin = tuned().neuron_bounds.stated_margin * width
            trees = plant(program, number, question.box, bounds, rows, question.batch, margin)
            grown(trees, clock)
            multipliers, ends = trees.with_stated_slopes()
    except torch.OutOfMemoryError:
        return None
    better = worth_stating(ends, known, width)
    told = multipliers.alpha, multipliers.beta, ends, better
    low, negated = torch.where(better, ends, known).unsqueeze(0).chunk(2, 1)
    return GrownTrees(
        Bounds(low, -negated),
        NeuronTrees(number, rows, trees.space.unstable, trees.open.case, trees.open.phase, *told),
    )


def _grown(question: NeuronQuestion, number: int, rows: Tensor, clock: Clock) -> GrownTrees | None:
    """Bounds of some neurons of a layer by trees, or None where memory is short."""
    try:
        with refusals():
            trees = plant(question.program, number, question.box, question.known, rows, question.batch)
            return GrownTrees(grown(trees, clock))
    except torch.OutOfMemoryError:
        return None


def _unstable(bounds: Bounds) -> Tensor:
    """Positions of the neurons that may have either sign, for bounds ``(1, n)``."""
    return ((bounds.lower < 0) & (bounds.upper > 0))[0].nonzero().squeeze(1)


@dataclass(kw_only=True)
class TreeFrontier(PhaseFrontier):
    """Trees over the phases of earlier neurons: two for each of ``n`` neurons, their lower ends first.

    Open is every leaf, proved or not; its ``case`` is the number of the tree, below ``2 n``.
    """

    width: float = float("inf")
    """Sum of the widths of all neurons' bounds when the trees had half of ``due`` leaves."""
    due: int = 0
    """Leaves at which it is seen again whether growing helps."""
    helps: bool = True
    """Whether it did."""

    def heights(self) -> Tensor:
        """The least bound among each tree's leaves, ``(2 n,)``: bounds of the neurons and of their negatives."""
        return self.least_of_leaves(self.open.lower)

    def least_of_leaves(self, lower: Tensor) -> Tensor:
        """The least of some bounds of all leaves, ``(L,)``, for each tree, ``(2 n,)``."""
        most = torch.full_like(self.space.problem.offsets, torch.inf)
        return most.scatter_reduce(0, self.open.case, lower, "amin")

    def bounds(self) -> Bounds:
        """Bounds of the neurons, ``(1, n)``, less the margin of each."""
        low, negated = self.heights().unsqueeze(0).chunk(2, 1)
        return Bounds(low, -negated)

    def with_stated_slopes(self) -> tuple[Multipliers, Tensor]:
        """The leaves' multipliers, with slopes that a byte can state, and the trees' least bounds by these."""
        program, found = self.space.problem.program, list[Tensor]()
        for part in self.open.parts(self.batch):
            domain, multipliers = expand(self.space, part)
            bound = evaluate(program, relax(program, domain), multipliers.stated()).bound
            found.append(bound.lower.nan_to_num(nan=-torch.inf))
        multipliers = Multipliers(self.open.alpha, self.open.beta, self.open.weight).stated()
        return multipliers, self.least_of_leaves(torch.cat(found))

    def begin(self, clock: Clock) -> list[PhaseDomains]:
        """Bound the unsplit roots of all trees, more thoroughly than leaves."""
        parts = self.bound_open(replace(self.bounding, schedule=ROOT_SCHEDULE), clock)
        self.width, self.due = _width(self.bounds()), 2 * len(self.open)
        return parts

    def pick(self, count: int) -> PickedDomains[PhaseDomains, PhaseDomains] | None:
        """The weakest leaves of trees that can still rise, or None where growing hardly helps any more."""
        if not self.helps or not len(chosen := weakest_leaves(self, count)):
            return None
        rest = torch.ones_like(self.open.case, dtype=torch.bool).index_fill(0, chosen, False)
        return PickedDomains(self.open.select(chosen), self.open.select(rest))

    def unproved(self, domains: PhaseDomains) -> PhaseDomains:
        """All domains: a leaf that is proved bounds its tree like any other."""
        return domains

    def find_witness(self, bounded: BoundedChildren[PhaseDomains], budget: Budget) -> bool:
        """No point is looked for."""
        return False

    def put(self, rest: PhaseDomains, children: PhaseDomains) -> None:
        """Keep all leaves, and see whether growing helps each time that they doubled."""
        super().put(rest, children)
        if len(self.open) >= self.due:
            now = _width(self.bounds())
            self.helps = not now > (1 - tuned().neuron_trees.least_width_gain) * self.width
            self.width, self.due = now, 2 * self.due


def plant(
    program: Program, number: int, box: Bounds, bounds: Bounds, rows: Tensor, batch: int, margin: Tensor | float = 0.0
) -> TreeFrontier:
    """Trees of one leaf each, not bounded yet, for some rows ``(n,)`` of a layer; their bounds are less by a margin,
    ``(2 n,)`` or one for all, so that a tree which is done proves a phase by as much."""
    layer = program.layers[number]
    ending_here = program.ending_at(number)
    earlier = bounds.of(slice(layer.start))
    space = PhaseSpace(_both_ends(ending_here, box, rows, margin), earlier, _unstable(earlier))
    count = 2 * len(rows)
    trees = torch.arange(count, device=program.device)
    start = adaptive_multipliers(earlier, earlier.lower.new_ones(count, 1))
    # What is known of the rows is left out: how trees grow must not be hidden by bounds that earlier trees gave.
    return TreeFrontier(
        open=root_domains(space, trees, start, bounds.lower.new_full((count,), -torch.inf)),
        batch=batch,
        max_domains=sys.maxsize,
        space=space,
        bounding=PhaseBounding(LEAF_SCHEDULE, BranchingRule(chord, candidates=1), most_steps=LEAF_SCHEDULE.iterations),
        most=sys.maxsize,
    )


def _both_ends(program: Program, box: Bounds, rows: Tensor, margin: Tensor | float) -> Problem:
    """One case for the value of each feature in ``rows``, and one for its negative, less a margin."""
    count = 2 * len(rows)
    weights = torch.zeros(count, program.features.size, dtype=program.dtype, device=program.device)
    cases = torch.arange(count, device=program.device)
    weights[cases, torch.cat([rows, rows])] = torch.cat([torch.ones_like(rows), -torch.ones_like(rows)]).to(weights)
    region = torch.zeros_like(cases)
    return Problem(
        program=program,
        lower=box.lower,
        upper=box.upper,
        region=region,
        rows=cases.unsqueeze(1),
        weights=weights,
        offsets=weights.new_zeros(count) - margin,
    )


def grown(trees: TreeFrontier, clock: Clock) -> Bounds:
    """Bounds ``(1, n)`` of the neurons when time is up, all trees are done, or growing hardly helps any more."""
    with suppress(OutOfTime, MemoryError):
        branch_and_bound(trees, Budget(clock, accept=lambda point, region: False))
    return trees.bounds()


def _width(bounds: Bounds) -> float:
    return float((bounds.upper - bounds.lower).sum())


def weakest_leaves(trees: TreeFrontier, most: int) -> Tensor:
    """Positions of leaves to split: the weakest of each tree that can still rise, the smallest trees first.

    A tree whose bound is positive is done: its neuron is stable. So is one whose weakest leaf has nothing to split.
    Of a large tree they are several, as all of them stand in its way: larger batches are cheaper by the leaf.
    """
    leaves = trees.open
    by_bound = leaves.lower.argsort()
    tree, by_tree = leaves.case[by_bound].sort(stable=True)
    size = tree.bincount(minlength=len(trees.space.problem.offsets))
    first = (size.cumsum(0) - size)[tree]  # where the weakest leaf of the same tree stands
    rank = torch.arange(len(tree), device=tree.device) - first
    position = by_bound[by_tree]
    open_leaf = ~proved(leaves.lower[position]) & (leaves.candidates[position, 0] >= 0)
    weakest = (rank < (size[tree] // tuned().neuron_trees.leaves_per_split).clamp(min=1)) & open_leaf & open_leaf[first]
    order = size[tree[weakest]].argsort(stable=True)
    return position[weakest][order[: max(1, most)]]
