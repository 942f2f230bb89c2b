"""Branch and bound over the input box, for networks with few inputs: there, halves of a box soon look linear.

Boxes are cut along their most promising dimension, the halves are clipped to where a violation can be, then bounded.
Complete in the limit for all operators, s-shaped ones too.

What makes boxes few is that a child knows where its parent's violations can be: half-spaces, in which alone it bounds
its neurons (Clip-and-Verify, 2025). What makes them cheap is that neurons once stable are not bounded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from toolkit.attack.gradient_attack import accept_best, case_loss, descend
from toolkit.bounds.backward import LinearBounds, backward, functional, layer_lines
from toolkit.bounds.backward_rounding import map_errors
from toolkit.bounds.clip_boxes import HalfSpaces, clip_box, minimum_within, polytopes
from toolkit.bounds.crown import InputInfluence, tighten, tighten_by_passes
from toolkit.bounds.interval import Bounds
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.compile import Problem
from toolkit.problem.input_cells import InputCells
from toolkit.problem.program import Program, split_layers
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.search.input_domains import (
    UNGROUPED,
    BoxGroups,
    BoxStack,
    InputBoxes,
    bisect,
    groups_of,
    unrefuted,
    weakest_last,
)
from toolkit.search.loop import BoundedChildren, Frontier, LeafOutcome, PickedDomains, weakest_of_cases
from toolkit.search.root import RootBounds
from toolkit.tuning import tuned


@dataclass(kw_only=True)
class BoxFrontier(Frontier[InputBoxes, BoxStack]):
    """Open parts of the input boxes of a problem's cases."""

    undecided_because: ClassVar[str] = "boxes are so narrow that rounding hides the answer"
    problem: Problem
    fill: int
    """Boxes are cut along several dimensions at once until they are so many: what keeps the device busy."""
    shared: bool = False
    """Whether the neurons of a box are bounded once for all of its cases."""
    stated: Bounds | None = None
    """Bounds of all neurons in the regions, where each box is to be bounded in a way that a certificate can state: by
    these and backward passes, in the half-space of one atom; otherwise it is clipped to where a violation can be."""
    cut: bool = True
    """Whether the half-spaces of atoms are used where each box is to be stated in a certificate."""
    cells: InputCells | None = None
    """Which inputs are only read rounded; None where none is, or where a certificate is to be stated."""

    def groups(self, boxes: InputBoxes) -> BoxGroups:
        """The boxes whose neurons are bounded together."""
        return groups_of(boxes) if self.shared else UNGROUPED

    def stacked(self, boxes: InputBoxes, below: BoxStack) -> BoxStack:
        """The boxes on top of others, the weakest first in turn."""
        return below.with_top(weakest_last(boxes, self.groups(boxes)))

    def shrunk(self, boxes: InputBoxes) -> InputBoxes:
        """The boxes without points that have the values of others: of an input that is only read rounded, one point a
        step is kept."""
        return boxes if self.cells is None else shrink(self.problem, boxes, self.cells)

    def begin(self, clock: Clock) -> list[InputBoxes]:
        """Bound all open boxes."""
        boxes, stack, bounded = InputBoxes.concat(self.open.parts), BoxStack(), []
        for positions in torch.arange(len(boxes), device=boxes.case.device).split(self.batch):
            part = self.shrunk(boxes.select(positions))
            bounded.append(bound_boxes(self.problem, part, self.groups(part), clock, self.stated))
            stack = self.stacked(unrefuted(bounded[-1]), stack)
        self.open = stack
        return bounded

    def pick(self, count: int) -> PickedDomains[InputBoxes, BoxStack] | None:
        """The uppermost boxes; those too narrow to be cut, by themselves."""
        if not len(self.open):
            return None
        boxes, rest = self.open.top(count)
        boxes, wide = divisible(boxes)
        if bool(wide.all()):
            return PickedDomains(boxes, rest)
        return PickedDomains(boxes.select(~wide), rest.with_top(boxes.select(wide)), leaves=True)

    def with_stated_space(self, boxes: InputBoxes) -> InputBoxes:
        """The boxes with the line of one atom in place of all, or with none."""
        return with_best_space(boxes) if self.cut else replace(boxes, rows=0 * boxes.rows, offset=0 * boxes.offset)

    def split(self, domains: InputBoxes, clock: Clock) -> InputBoxes:
        """The parts of every box that may have a violation by what its atoms' lines say."""
        domains = domains if self.stated is None else self.with_stated_space(domains)
        boxes = branch(domains, min(self.fill, self.batch))
        return boxes if self.stated is not None else unrefuted(self.shrunk(clip(boxes, self.groups(boxes))))

    def bound(self, children: InputBoxes, clock: Clock) -> BoundedChildren[InputBoxes]:
        """Bound every box, and clip those that stay open."""
        children = bound_boxes(self.problem, children, self.groups(children), clock, self.stated)
        still_open = unrefuted(children)
        if self.stated is not None:
            return BoundedChildren(children, still_open)
        return BoundedChildren(children, unrefuted(self.shrunk(clip(still_open, self.groups(still_open)))))

    def find_witness(self, bounded: BoundedChildren[InputBoxes], budget: Budget) -> bool:
        """Try points of the boxes that stay open."""
        return accept_points(self.problem, bounded.still_open, budget)

    def decide(self, leaves: InputBoxes, budget: Budget) -> LeafOutcome:
        """Bound again what was shrunk to a point after it was bounded; nothing else decides what is too narrow."""
        if self.cells is None:
            return LeafOutcome(False, len(leaves))
        found = bound_boxes(self.problem, leaves, self.groups(leaves), budget.clock, self.stated)
        still_open = unrefuted(found)
        return LeafOutcome(accept_points(self.problem, still_open, budget), len(still_open))

    def put(self, rest: BoxStack, children: InputBoxes) -> None:
        """Put open boxes on top, the weakest first in turn."""
        self.open = self.stacked(children, rest)

    def weakest(self) -> float:
        """The weakest bound of all open boxes."""
        return self.open.weakest()

    def weakest_by_case(self) -> dict[int, float]:
        """The weakest bound of the open boxes of each case."""
        parts = self.open.parts
        if not parts:
            return {}
        return weakest_of_cases(torch.cat([part.case for part in parts]), torch.cat([part.bound for part in parts]))

    def __len__(self) -> int:
        return len(self.open)

    @property
    def divisible(self) -> int:
        """Open boxes that can be dealt out: none where boxes that share their neurons had to part."""
        return len(self.open) if self.begun and not self.shared else 0

    def deal(self, count: int) -> list[BoxStack]:
        """Equal parts of the stack."""
        return self.open.dealt(count)

    def joined(self, parts: Sequence[BoxStack]) -> BoxStack:
        """One stack of several."""
        return BoxStack.joined(parts)


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


def shrink(problem: Problem, boxes: InputBoxes, cells: InputCells) -> InputBoxes:
    """The boxes around the representatives of inputs that are only read rounded; one without any is refuted."""
    region = problem.region[boxes.case]
    first, last = problem.lower[region], problem.upper[region]
    lower, upper, empty = cells.around_representatives(boxes.lower, boxes.upper, first, last)
    bound = torch.where(empty, torch.fmax(boxes.bound, torch.ones_like(boxes.bound)), boxes.bound)
    return replace(boxes, lower=lower, upper=upper, bound=bound)


def divisible(boxes: InputBoxes) -> tuple[InputBoxes, Tensor]:
    """The boxes with no gain expected of sides too narrow to be cut, and which of them can be cut at all, ``(B,)``."""
    unit = torch.finfo(boxes.lower.dtype).eps * torch.maximum(boxes.lower.abs(), boxes.upper.abs())
    wide = boxes.upper - boxes.lower > tuned().boxes.least_side_ulps * unit
    gain = torch.where(wide, boxes.gain.nan_to_num(0.0, posinf=0.0), -1.0)
    return replace(boxes, gain=gain), wide.any(1)


def branch(boxes: InputBoxes, fill: int) -> InputBoxes:
    """Cut every box once, and again as long as there is room."""
    boxes = bisect(boxes, boxes.gain.argmax(1))
    while 0 < 2 * len(boxes) <= fill:
        boxes = bisect(boxes, boxes.gain.argmax(1))
    return boxes


def clip(boxes: InputBoxes, groups: BoxGroups) -> InputBoxes:
    """The boxes without what their atoms' linear bounds refute; sides that cross refute a whole box.

    What is left for the cases of a group is the smallest box around what is left for each.
    """
    box = clip_box(boxes.box, boxes.spaces)
    empty = (box.lower - box.upper).amax(1)
    bound = torch.where(empty > 0, torch.fmax(empty, boxes.bound), boxes.bound)
    lower, upper = groups.least(box.lower), -groups.least(-torch.maximum(box.lower, box.upper))
    return replace(boxes, lower=groups.each(lower), upper=groups.each(upper), bound=bound)


def bound_boxes(
    problem: Problem, boxes: InputBoxes, groups: BoxGroups, clock: Clock, stated: Bounds | None = None
) -> InputBoxes:
    """Bound all neurons, once for each group, and the atoms of every box, where a violation can be: by the lines of all
    atoms, or, where bounds of the regions are given for a certificate, by one that it states."""
    if not len(boxes):  # which no map of operators takes
        return boxes
    program = problem.program
    one = groups.one_of_each(boxes)
    if stated is None:
        tightened = tighten(program, one.box, one.neurons, one.spaces, clock.check)
    else:
        tightened = tighten_by_passes(
            program, one.box, stated.select(problem.region[one.case]), one.spaces, clock.check
        )
    bounds = Bounds(groups.each(tightened.bounds.lower), groups.each(tightened.bounds.upper))
    atoms = problem.rows[boxes.case]
    errors = map_errors(program, boxes.box, bounds)
    start = functional(program.features, problem.weights[atoms], problem.offsets[atoms], errors.features)
    lines = layer_lines(program, bounds)
    linear = backward(program, start, lines, errors)
    atoms_below = HalfSpaces(linear.coefficients, linear.offset)
    minima = joint_minima(boxes.box, atoms_below, atoms_below if stated is None else boxes.spaces)
    lower = minima.amax(1)  # that of the best atom bounds the conjunction
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
        gain=groups.each(gains(tightened.influence, error, variation)),
    )


def best_atom(boxes: InputBoxes) -> Tensor:
    """The atom of each box whose line is highest where it is lowest: what leaves least of the box, ``(B,)``."""
    return joint_minima(boxes.box, boxes.spaces, HalfSpaces.none(boxes.box)).argmax(1)


def with_best_space(boxes: InputBoxes) -> InputBoxes:
    """The boxes with the line of one atom, in place of all."""
    chosen = one_hot(best_atom(boxes), boxes.offset.shape[1]).to(boxes.offset.dtype)
    return replace(boxes, rows=boxes.rows * chosen.unsqueeze(2), offset=boxes.offset * chosen)


def joint_minima(box: Bounds, linear: HalfSpaces, spaces: HalfSpaces) -> Tensor:
    """Lower bounds ``(B, K)`` of atoms by their ``linear`` bounds, where some half-spaces are at most zero."""
    count, atoms, inputs = linear.coefficients.shape
    owner = torch.arange(count, device=box.lower.device).repeat_interleave(atoms)
    rows, offset = linear.coefficients.reshape(count * atoms, inputs), linear.offset.reshape(-1)
    lower = minimum_within(rows, offset, polytopes(box, spaces), owner)
    return lower.reshape(count, atoms)


def gains(influence: InputInfluence, error: Tensor, variation: Tensor) -> Tensor:
    """What cutting each dimension of some boxes in half is expected to gain, ``(B, n)``.

    A cut narrows the gaps that the relaxations of neurons leave: ``error``, ``(B, num_neurons)``, is each relaxation's
    largest error times the neuron's coefficients in the atoms, shared among the dimensions that move the neuron. The
    atoms' own ``variation``, ``(B, n)``, counts for less, because cutting it helps one of the halves only.
    """
    error = error.reshape(-1).index_select(0, influence.owner * error.shape[1] + influence.neuron)
    return (tuned().boxes.atom_variation_weight * variation).index_add(
        0, influence.owner, error.unsqueeze(1) * influence.share
    )


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


def accept_points(problem: Problem, boxes: InputBoxes, budget: Budget) -> bool:
    """Try points of the open boxes as witnesses: descend from the best centres and from the corners of the weakest."""
    if not len(boxes):
        return False
    centres = boxes.box.centre
    best = case_loss(problem, centres, boxes.case).argsort()[: tuned().boxes.attacked]
    weakest = boxes.bound.argsort()[: tuned().boxes.attacked]
    corners = torch.where(boxes.rows.sum(1) > 0, boxes.lower, boxes.upper)
    chosen = boxes.select(torch.cat([best, weakest]))
    inside = parts_as_problem(problem, chosen)
    starts = torch.cat([centres[best], corners[weakest]])
    return any(
        accept_best(points, loss, problem.region[chosen.case], budget.accept)
        for points, loss in descend(
            inside, torch.arange(len(chosen), device=starts.device), starts, tuned().boxes.attack_steps, budget.clock
        )
    )


def parts_as_problem(problem: Problem, boxes: InputBoxes) -> Problem:
    """The question whether some of these boxes holds a witness: each is a case with a region of its own."""
    numbers = torch.arange(len(boxes), device=boxes.case.device)
    return replace(problem, lower=boxes.lower, upper=boxes.upper, region=numbers, rows=problem.rows[boxes.case])
