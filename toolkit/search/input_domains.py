"""The state of branch and bound over the input: one record of batched tensors on the device, kept as a stack.

Every box carries the bounds of all neurons and the linear bounds of its atoms that its parent found; a child starts
from them.

Where bounding the neurons of a box is what takes the time, that is done once for all of its cases: equal boxes are a
group. The price is that a box is not made smaller for each of its cases alone, and that its neurons are bounded
everywhere and not only where one case can be violated. Both come back as soon as one case is left of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.interval import Bounds
from toolkit.search.loop import DomainBatch
from toolkit.search.phase_domains import proved


@dataclass(frozen=True)
class InputBoxes(DomainBatch):
    """Parts of the cases' input boxes."""

    lower: Tensor
    """Lower corners, ``(B, n)``."""
    upper: Tensor
    """Upper corners, ``(B, n)``."""
    bound: Tensor
    """Best lower bound known, ``(B,)``; a child's is never below its parent's."""
    depth: Tensor
    """Splits on the path from the root, ``(B,)`` int64."""
    neuron_lower: Tensor
    """Lower bounds of all neurons where a violation can be, ``(B, num_neurons)``."""
    neuron_upper: Tensor
    """Upper bounds of all neurons where a violation can be, ``(B, num_neurons)``."""
    rows: Tensor
    """Coefficients of linear lower bounds of the case's atoms, ``(B, K, n)``."""
    offset: Tensor
    """Constants of these linear lower bounds, ``(B, K)``."""
    gain: Tensor
    """What cutting each dimension in half is expected to gain, ``(B, n)``."""

    @property
    def box(self) -> Bounds:
        """The input boxes, ``(B, n)``, without what is known about them."""
        return Bounds(self.lower, self.upper)

    @property
    def neurons(self) -> Bounds:
        """The bounds of the neurons."""
        return Bounds(self.neuron_lower, self.neuron_upper)

    @property
    def spaces(self) -> HalfSpaces:
        """Where a violation has to be, by the atoms' linear bounds."""
        return HalfSpaces(self.rows, self.offset)

    @property
    def deepest(self) -> int:
        """Splits on the longest path."""
        return int(self.depth.max()) if len(self) else 0


def unrefuted(boxes: InputBoxes) -> InputBoxes:
    """The boxes whose bound is not a proof."""
    return boxes.select(~proved(boxes.bound))


def bisect(boxes: InputBoxes, dimension: Tensor) -> InputBoxes:
    """Both halves of every box, cut in the middle of one dimension each, ``(B,)``: all lower halves first.

    A half expects half the gain from its next cut along the same dimension.
    """
    column = dimension.unsqueeze(1)
    low, high, gain = (part.gather(1, column) for part in (boxes.lower, boxes.upper, boxes.gain))
    # Between its ends even when the sum rounds: both halves together are the box in any case.
    middle = torch.minimum(torch.maximum((low + high) / 2, low), high)
    boxes = replace(boxes, gain=boxes.gain.scatter(1, column, gain / 2), depth=boxes.depth + 1)
    below = replace(boxes, upper=boxes.upper.scatter(1, column, middle))
    above = replace(boxes, lower=boxes.lower.scatter(1, column, middle))
    return InputBoxes.concat([below, above])


@dataclass(frozen=True)
class BoxStack:
    """Open boxes, the last in the first out, so that their number grows with the depth and not with the tree."""

    parts: tuple[InputBoxes, ...] = ()

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def with_top(self, boxes: InputBoxes) -> BoxStack:
        """The stack with more boxes on top, the last one uppermost."""
        return BoxStack((*self.parts, boxes)) if len(boxes) else self

    def top(self, count: int) -> tuple[InputBoxes, BoxStack]:
        """Up to ``count`` boxes from the top, and the stack without them; at least one is there."""
        taken: list[InputBoxes] = []
        below = list(self.parts)
        while below and count:
            part = below.pop()
            kept = max(0, len(part) - count)
            positions = torch.arange(len(part), device=part.case.device)
            taken.append(part.select(positions[kept:]))
            if kept:
                below.append(part.select(positions[:kept]))
            count -= len(part) - kept
        return InputBoxes.concat(taken), BoxStack(tuple(below))

    def dealt(self, count: int) -> list[BoxStack]:
        """Equal stacks, large and small boxes in each. At least one box is there."""
        boxes = InputBoxes.concat(self.parts)
        positions = torch.arange(len(boxes), device=boxes.case.device)
        return [BoxStack().with_top(boxes.select(positions[number::count])) for number in range(count)]

    @staticmethod
    def joined(stacks: Sequence[BoxStack]) -> BoxStack:
        """One stack of several, with the smallest boxes on top."""
        parts = [part for stack in stacks for part in stack.parts]
        if not parts:
            return BoxStack()
        boxes = InputBoxes.concat(parts)
        return BoxStack((boxes.select(boxes.depth.argsort(stable=True)),))

    def weakest(self) -> float:
        """The weakest bound of all open boxes."""
        return min((float(part.bound.min()) for part in self.parts), default=float("inf"))


@dataclass(frozen=True)
class BoxGroups:
    """Groups of boxes that are equal; without the two tensors, each box is a group of its own."""

    first: Tensor | None = None
    """Position of a member of each group, ``(G,)``."""
    group: Tensor | None = None
    """The group of each box, ``(B,)``."""

    def each(self, values: Tensor) -> Tensor:
        """Values of the groups, ``(G, ...)``, repeated for each of their members, ``(B, ...)``."""
        return values if self.group is None else values.index_select(0, self.group)

    def total(self, values: Tensor) -> Tensor:
        """Sums over the members of each group."""
        if self.first is None or self.group is None:
            return values
        return values.new_zeros(len(self.first), *values.shape[1:]).index_add(0, self.group, values)

    def least(self, values: Tensor) -> Tensor:
        """The least of the members of each group."""
        if self.first is None or self.group is None:
            return values
        index = self.group.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
        start = values.new_full((len(self.first), *values.shape[1:]), torch.inf)
        return start.scatter_reduce(0, index, values, "amin")

    def one_of_each(self, boxes: InputBoxes) -> InputBoxes:
        """A box for each group, with what holds at the violations of every member.

        Members may have been bounded apart, where their own violations are: the loosest of their bounds hold for all.
        No half-space does.
        """
        if self.first is None or self.group is None:
            return boxes
        alone = (self.group.bincount(minlength=len(self.first)) == 1).to(boxes.lower.dtype)
        chosen = boxes.select(self.first)
        return replace(
            chosen,
            neuron_lower=self.least(boxes.neuron_lower),
            neuron_upper=-self.least(-boxes.neuron_upper),
            rows=chosen.rows * alone.view(-1, 1, 1),
            offset=chosen.offset * alone.view(-1, 1),
        )


UNGROUPED = BoxGroups()


def groups_of(boxes: InputBoxes) -> BoxGroups:
    """The groups of equal boxes."""
    _, group = torch.unique(torch.cat([boxes.lower, boxes.upper], 1), dim=0, return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    if count == len(boxes):
        return UNGROUPED
    position = torch.arange(len(boxes), device=group.device)
    first = position.new_full((count,), len(boxes)).scatter_reduce(0, group, position, "amin")
    return BoxGroups(first, group)


def weakest_last(boxes: InputBoxes, groups: BoxGroups) -> InputBoxes:
    """Sorted by the weakest bound of their group, with its members next to each other."""
    if groups.group is None:
        return boxes.select(boxes.bound.argsort(descending=True))
    by_group = groups.group.argsort(stable=True)
    weakest = groups.each(groups.least(boxes.bound))[by_group]
    return boxes.select(by_group[weakest.argsort(descending=True, stable=True)])
