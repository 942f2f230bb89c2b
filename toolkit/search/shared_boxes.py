"""Cases of one box: where bounding its neurons is what takes the time, that is done once for all of them.

The price is that a box is not made smaller for each of its cases alone, and that its neurons are bounded everywhere
and not only where one case can be violated. Both come back as soon as one case is left of a box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.search.input_domains import InputBoxes


@dataclass(frozen=True)
class BoxGroups:
    """Which boxes are one and the same; without numbers, each is a group of its own."""

    first: Tensor | None = None
    """Position of a member of each group, ``(G,)``."""
    group: Tensor | None = None
    """The group of each box, ``(B,)``."""

    def each(self, values: Tensor) -> Tensor:
        """What groups have, for each of their members."""
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
