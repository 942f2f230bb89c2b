"""Branch and bound over the input box, for networks with few inputs: there, halves of a box soon look linear.

Take open boxes, cut each along its most promising dimension, clip the halves to where a violation can be, bound them,
close what is refuted, look for witnesses among the rest. Complete in the limit for all operators, s-shaped ones too.

What makes boxes few is that a child knows where its parent's violations can be: half-spaces, in which alone it bounds
its neurons (Clip-and-Verify, 2025). What makes them cheap is that neurons once stable are not bounded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.attack.gradient_attack import Accept, accept_best, case_loss, descend
from toolkit.bounds.backward import LinearBounds, backward, functional, layer_lines
from toolkit.bounds.backward_rounding import errors_for
from toolkit.bounds.clip_boxes import HalfSpaces, clip_box, minimum_within, polytopes
from toolkit.bounds.crown_many_boxes import InputInfluence, tighten
from toolkit.bounds.interval import Bounds
from toolkit.bounds.relaxations import RELAXATIONS, RelaxationLines
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program, split_layers
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Observer, RoundDone
from toolkit.search.batch_size import refusals, smaller_batch
from toolkit.search.input_domains import BoxStack, InputBoxes, bisect, unrefuted
from toolkit.search.parallel_search import SearchRemainder
from toolkit.search.progress import SearchOutcome, SearchProgress
from toolkit.search.root import RootBounds
from toolkit.search.shared_boxes import UNGROUPED, BoxGroups, groups_of, weakest_last

ATTACKED_BOXES = 32
"""Boxes of a batch from which a witness is looked for: the best ones by their centres, and the weakest bounds."""
ATTACK_STEPS = 6
"""Steps of gradient descent inside each of them."""
ATOM_VARIATION_WEIGHT = 0.1
"""Weight of the atoms' own variation when a dimension is chosen, against that of the relaxations' gaps."""
LEAST_SIDE_ULPS = 16
"""Width of a side, in units in the last place, that is not cut any more."""


@dataclass(frozen=True)
class BoxSearchPlan:
    """How the search is run."""

    batch: int
    """Largest number of boxes bounded at once."""
    fill: int
    """Boxes are cut along several dimensions at once until they are so many: what keeps the device busy."""
    max_domains: int
    shared: bool = False
    """Whether the neurons of a box are bounded once for all of its cases (`toolkit.search.shared_boxes`)."""

    def groups(self, boxes: InputBoxes) -> BoxGroups:
        """The boxes whose neurons are bounded together."""
        return groups_of(boxes) if self.shared else UNGROUPED


@dataclass
class BoxSearch:
    """A search and how far it has come: one that its clock stopped goes on from there."""

    problem: Problem
    frontier: BoxStack
    plan: BoxSearchPlan
    batch: int
    progress: SearchProgress
    undecided: int = 0
    """Boxes too narrow to be cut."""

    @classmethod
    def begun(cls, problem: Problem, root: RootBounds, cases: Tensor, plan: BoxSearchPlan, clock: Clock) -> BoxSearch:
        """A search through the whole boxes of the given cases, once these are bounded. Raises OutOfTime."""
        search = cls(problem, BoxStack(), plan, plan.batch, SearchProgress())
        for part in cases.split(plan.batch):
            search.push(unrefuted(bound_boxes(problem, root_boxes(problem, root, part), plan, clock)))
        return search

    def push(self, boxes: InputBoxes) -> None:
        """Put open boxes on the frontier, the weakest first in turn."""
        self.frontier.push(weakest_last(boxes, self.plan.groups(boxes)))

    @property
    def max_domains(self) -> int:
        """Boxes after which the search gives up."""
        return self.plan.max_domains

    @property
    def open(self) -> int:
        """Open boxes that can be dealt out: none where boxes that share their neurons had to part."""
        return 0 if self.plan.shared else len(self.frontier)

    def run(self, clock: Clock, accept: Accept, observer: Observer) -> SearchOutcome:
        """Decide all boxes. Raises OutOfTime."""
        return input_split(self, clock, accept, observer)

    def shares(self, count: int) -> list[BoxSearch]:
        """Equal shares of the frontier."""
        parts = self.frontier.deal(count)
        return [replace(self, frontier=part, progress=replace(self.progress), undecided=0) for part in parts]

    def rest(self) -> SearchRemainder[BoxStack, BoxSearchPlan]:
        """What the search has left: its open boxes, plan and counters."""
        return SearchRemainder(self.frontier, self.plan, self.progress, self.undecided)

    def gather(self, rests: Sequence[SearchRemainder[BoxStack, BoxSearchPlan]]) -> None:
        """Go on from what is left of the shares."""
        self.frontier = BoxStack.together([rest.frontier for rest in rests])
        self.progress = self.progress.with_parts([rest.progress for rest in rests])
        self.undecided += sum(rest.undecided for rest in rests)


def input_split(search: BoxSearch, clock: Clock, accept: Accept, observer: Observer) -> SearchOutcome:
    """Decide all boxes of a search. Raises OutOfTime when the clock runs out.

    Boxes leave the frontier only once it is known what becomes of them.
    """
    frontier, progress = search.frontier, search.progress
    while len(frontier):
        clock.check_round()
        if progress.bounded >= search.plan.max_domains:
            return SearchOutcome(False, False, f"the limit of {search.plan.max_domains} domains was reached")
        chosen, narrow = divisible(frontier.pop(max(1, search.batch // 2)))
        search.undecided += narrow
        if not len(chosen):
            continue
        try:
            with refusals():
                children, still_open = _cut(search, chosen, clock)
                found = accept_points(search.problem, still_open, clock, accept)
        except torch.OutOfMemoryError:
            frontier.push(chosen)
            search.batch = smaller_batch(search.batch, observer)
            continue
        except OutOfTime:
            frontier.push(chosen)
            raise
        progress.count(len(children), int(children.depth.max()) if len(children) else 0)
        if found:
            return SearchOutcome(True, False)
        search.push(still_open)
        observer(RoundDone(progress.bounded, len(frontier), frontier.weakest(), progress.depth))
    if search.undecided:
        return SearchOutcome(False, False, f"{search.undecided} boxes are so narrow that rounding hides the answer")
    return SearchOutcome(False, True)


def _cut(search: BoxSearch, chosen: InputBoxes, clock: Clock) -> tuple[InputBoxes, InputBoxes]:
    """The parts of some boxes that were bounded, and those of them that stay open, clipped. Raises OutOfTime."""
    plan = search.plan
    parts = unrefuted(clip(branch(chosen, min(plan.fill, search.batch)), plan))
    children = bound_boxes(search.problem, parts, plan, clock)
    return children, unrefuted(clip(unrefuted(children), plan))


def root_boxes(problem: Problem, root: RootBounds, cases: Tensor) -> InputBoxes:
    """The whole boxes of some cases, with their root bounds and nothing known of their atoms."""
    region = problem.region[cases]
    lower, upper = problem.lower[region], problem.upper[region]
    count, atoms = len(cases), problem.rows.shape[1]
    return InputBoxes(
        case=cases,
        lower=lower,
        upper=upper,
        bound=root.lower[cases],
        depth=torch.zeros_like(cases),
        neuron_lower=root.bounds.lower[region],
        neuron_upper=root.bounds.upper[region],
        rows=lower.new_zeros(count, atoms, lower.shape[1]),
        offset=lower.new_zeros(count, atoms),
        gain=torch.zeros_like(lower),
    )


def divisible(boxes: InputBoxes) -> tuple[InputBoxes, int]:
    """The boxes that can still be cut, with no gain expected of sides that cannot, and the number of the others."""
    unit = torch.finfo(boxes.lower.dtype).eps * torch.maximum(boxes.lower.abs(), boxes.upper.abs())
    wide = boxes.upper - boxes.lower > LEAST_SIDE_ULPS * unit
    gain = torch.where(wide, boxes.gain.nan_to_num(0.0, posinf=0.0), -1.0)
    some = wide.any(1)
    return replace(boxes, gain=gain).select(some), int((~some).sum())


def branch(boxes: InputBoxes, fill: int) -> InputBoxes:
    """Cut every box once, and again as long as there is room."""
    boxes = bisect(boxes, boxes.gain.argmax(1))
    while 0 < 2 * len(boxes) <= fill:
        boxes = bisect(boxes, boxes.gain.argmax(1))
    return boxes


def clip(boxes: InputBoxes, plan: BoxSearchPlan) -> InputBoxes:
    """The boxes without what their atoms' linear bounds refute; sides that cross refute a whole box.

    What is left for the cases of a group is the smallest box around what is left for each.
    """
    box = clip_box(boxes.box, boxes.spaces)
    empty = (box.lower - box.upper).amax(1)
    bound = torch.where(empty > 0, torch.fmax(empty, boxes.bound), boxes.bound)
    groups = plan.groups(boxes)
    lower, upper = groups.least(box.lower), -groups.least(-torch.maximum(box.lower, box.upper))
    return replace(boxes, lower=groups.each(lower), upper=groups.each(upper), bound=bound)


def bound_boxes(problem: Problem, boxes: InputBoxes, plan: BoxSearchPlan, clock: Clock) -> InputBoxes:
    """Bound all neurons and the atoms of every box."""
    if not len(boxes):  # which no map of operators takes
        return boxes
    program, groups = problem.program, plan.groups(boxes)
    one = groups.one_of_each(boxes)
    tightened = tighten(program, one.box, one.neurons, one.spaces, clock.check)
    bounds = Bounds(groups.each(tightened.bounds.lower), groups.each(tightened.bounds.upper))
    atoms = problem.rows[boxes.case]
    errors = errors_for(program, boxes.box, bounds)
    start = functional(program.features, problem.weights[atoms], problem.offsets[atoms], errors.features)
    lines = layer_lines(program, bounds)
    linear = backward(program, start, lines, errors)
    lower = joint_minimum(boxes.box, HalfSpaces(linear.coefficients, linear.offset))
    contradiction = groups.each(tightened.contradiction)
    lower = torch.where(contradiction > 0, torch.fmax(lower, contradiction), lower)
    error = groups.total(_gaps(program, bounds, lines) * _coefficients(program, linear))
    variation = groups.total(linear.coefficients.abs().sum(1) * (boxes.upper - boxes.lower))
    return replace(
        boxes,
        bound=torch.fmax(boxes.bound, lower),
        neuron_lower=bounds.lower,
        neuron_upper=bounds.upper,
        rows=linear.coefficients,
        offset=linear.offset,
        gain=groups.each(gains(tightened.reach, error, variation)),
    )


def joint_minimum(box: Bounds, spaces: HalfSpaces) -> Tensor:
    """Lower bounds ``(B,)`` of the best atom where all atoms' linear bounds are at most zero: of the conjunction."""
    count, atoms, inputs = spaces.coefficients.shape
    owner = torch.arange(count, device=box.lower.device).repeat_interleave(atoms)
    rows, offset = spaces.coefficients.reshape(count * atoms, inputs), spaces.offset.reshape(-1)
    lower = minimum_within(rows, offset, polytopes(box, spaces), owner)
    return lower.reshape(count, atoms).amax(1)


def gains(reach: InputInfluence, error: Tensor, variation: Tensor) -> Tensor:
    """What cutting each dimension of some boxes in half is expected to gain, ``(B, n)``.

    A cut narrows the gaps that the relaxations of neurons leave: ``error``, ``(B, num_neurons)``, is each relaxation's
    largest error times the neuron's coefficients in the atoms, shared among the dimensions that move the neuron. The
    atoms' own ``variation``, ``(B, n)``, counts for less, because cutting it helps one of the halves only.
    """
    error = error.reshape(-1).index_select(0, reach.owner * error.shape[1] + reach.neuron)
    return (ATOM_VARIATION_WEIGHT * variation).index_add(0, reach.owner, error.unsqueeze(1) * reach.share)


def _gaps(program: Program, bounds: Bounds, lines: list[RelaxationLines]) -> Tensor:
    """Largest error of the relaxation of every neuron, ``(B, num_neurons)``."""
    lower, upper = split_layers(program, bounds.lower), split_layers(program, bounds.upper)
    parts = [
        RELAXATIONS[layer.op].gap(line, l, u)
        for layer, line, l, u in zip(program.layers, lines, lower, upper, strict=True)
    ]
    return torch.cat(parts, 1) if parts else bounds.lower


def _coefficients(program: Program, linear: LinearBounds) -> Tensor:
    """Absolute coefficients of the atoms on every activation, ``(B, num_neurons)``, summed over the atoms."""
    batch = len(linear.offset)
    parts = [
        linear.offset.new_zeros(batch, layer.affine.size) if post is None else post.abs().sum(1).expand(batch, -1)
        for layer, post in zip(program.layers, linear.post, strict=True)
    ]
    return torch.cat(parts, 1) if parts else linear.offset.new_zeros(batch, 0)


def accept_points(problem: Problem, boxes: InputBoxes, clock: Clock, accept: Accept) -> bool:
    """Try points of the open boxes as witnesses: descend from the best centres and from the corners of the weakest."""
    if not len(boxes):
        return False
    centres = (boxes.lower + boxes.upper) / 2
    best = case_loss(problem, centres, boxes.case).argsort()[:ATTACKED_BOXES]
    weakest = boxes.bound.argsort()[:ATTACKED_BOXES]
    corners = torch.where(boxes.rows.sum(1) > 0, boxes.lower, boxes.upper)
    chosen = boxes.select(torch.cat([best, weakest]))
    inside = parts_as_problem(problem, chosen)
    starts = torch.cat([centres[best], corners[weakest]])
    return any(
        accept_best(points, loss, problem.region[chosen.case], accept)
        for points, loss in descend(
            inside, torch.arange(len(chosen), device=starts.device), starts, ATTACK_STEPS, clock
        )
    )


def parts_as_problem(problem: Problem, boxes: InputBoxes) -> Problem:
    """The question whether some of these boxes holds a witness: each is a case with a region of its own."""
    numbers = torch.arange(len(boxes), device=boxes.case.device)
    return replace(problem, lower=boxes.lower, upper=boxes.upper, region=numbers, rows=problem.rows[boxes.case])
