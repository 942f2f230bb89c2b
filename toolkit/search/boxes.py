"""The state of branch and bound over the input: one record of batched tensors on the device, kept as a stack.

Every box carries the bounds of all neurons and the linear bounds of its atoms that its parent found; a child starts
from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from toolkit.bounds.clip import HalfSpaces
from toolkit.bounds.interval import Bounds


@dataclass(frozen=True)
class Boxes:
    """Parts of the cases' input boxes, not yet refuted."""

    case: Tensor
    """``(B,)`` int64."""
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
    """Upper bounds of the same."""
    rows: Tensor
    """Coefficients of linear lower bounds of the case's atoms, ``(B, K, n)``."""
    offset: Tensor
    """Their constants, ``(B, K)``."""
    gain: Tensor
    """What cutting a dimension in half is expected to gain, ``(B, n)``."""

    def __len__(self) -> int:
        return len(self.case)

    @property
    def box(self) -> Bounds:
        """The boxes alone."""
        return Bounds(self.lower, self.upper)

    @property
    def neurons(self) -> Bounds:
        """The bounds of the neurons."""
        return Bounds(self.neuron_lower, self.neuron_upper)

    @property
    def spaces(self) -> HalfSpaces:
        """Where a violation has to be, by the atoms' linear bounds."""
        return HalfSpaces(self.rows, self.offset)

    def select(self, index: Tensor) -> Boxes:
        """Some of the boxes, by position or mask."""
        index = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return Boxes(*(getattr(self, field.name).index_select(0, index) for field in fields(self)))


def concat(parts: Sequence[Boxes]) -> Boxes:
    """All boxes of several records."""
    return Boxes(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Boxes)))


def bisect(boxes: Boxes, dimension: Tensor) -> Boxes:
    """Both halves of every box, cut in the middle of one dimension each, ``(B,)``: all lower halves first."""
    column = dimension.unsqueeze(1)
    low, high = boxes.lower.gather(1, column), boxes.upper.gather(1, column)
    # Between its ends even when the sum rounds: both halves together are the box in any case.
    middle = torch.minimum(torch.maximum((low + high) / 2, low), high)
    below = replace(boxes, upper=boxes.upper.scatter(1, column, middle), depth=boxes.depth + 1)
    above = replace(boxes, lower=boxes.lower.scatter(1, column, middle), depth=boxes.depth + 1)
    return concat([below, above])


class Stack:
    """Open boxes, the last in the first out, so that their number grows with the depth and not with the tree."""

    def __init__(self, boxes: Boxes) -> None:
        self._parts = [boxes]

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def push(self, boxes: Boxes) -> None:
        """Put boxes on top, the weakest bound uppermost."""
        if len(boxes):
            self._parts.append(boxes.select(boxes.bound.argsort(descending=True)))

    def pop(self, count: int) -> Boxes:
        """Take up to ``count`` boxes from the top; at least one is there."""
        taken: list[Boxes] = []
        while self._parts and count:
            part = self._parts.pop()
            keep = max(0, len(part) - count)
            positions = torch.arange(len(part), device=part.case.device)
            taken.append(part.select(positions[keep:]))
            if keep:
                self._parts.append(part.select(positions[:keep]))
            count -= len(part) - keep
        return concat(taken)

    def weakest(self) -> float:
        """The weakest bound of all open boxes."""
        return min((float(part.bound.min()) for part in self._parts if len(part)), default=float("inf"))
