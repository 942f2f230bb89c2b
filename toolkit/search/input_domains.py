"""The state of branch and bound over the input: one record of batched tensors on the device, kept as a stack.

Every box carries the bounds of all neurons and the linear bounds of its atoms that its parent found; a child starts
from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.interval import Bounds
from toolkit.search.phase_domains import proved


@dataclass(frozen=True)
class InputBoxes:
    """Parts of the cases' input boxes."""

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
    """What cutting each dimension in half is expected to gain, ``(B, n)``."""

    def __len__(self) -> int:
        return len(self.case)

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

    def select(self, index: Tensor) -> InputBoxes:
        """Some of the boxes, by position or mask."""
        index = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return InputBoxes(*(getattr(self, field.name).index_select(0, index) for field in fields(self)))


def concat(parts: Sequence[InputBoxes]) -> InputBoxes:
    """All boxes of several records."""
    return InputBoxes(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(InputBoxes)))


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
    return concat([below, above])


class BoxStack:
    """Open boxes, the last in the first out, so that their number grows with the depth and not with the tree."""

    def __init__(self) -> None:
        self._parts: list[InputBoxes] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def push(self, boxes: InputBoxes) -> None:
        """Put boxes on top, the last one uppermost."""
        if len(boxes):
            self._parts.append(boxes)

    def pop(self, count: int) -> InputBoxes:
        """Take up to ``count`` boxes from the top; at least one is there."""
        taken: list[InputBoxes] = []
        while self._parts and count:
            part = self._parts.pop()
            kept = max(0, len(part) - count)
            positions = torch.arange(len(part), device=part.case.device)
            taken.append(part.select(positions[kept:]))
            if kept:
                self._parts.append(part.select(positions[:kept]))
            count -= len(part) - kept
        return concat(taken)

    def deal(self, count: int) -> list[BoxStack]:
        """Equal stacks, large and small boxes in each. At least one box is there."""
        boxes = concat(self._parts)
        stacks = [BoxStack() for _ in range(count)]
        for number, stack in enumerate(stacks):
            stack.push(boxes.select(torch.arange(number, len(boxes), count, device=boxes.case.device)))
        return stacks

    @staticmethod
    def together(stacks: Sequence[BoxStack]) -> BoxStack:
        """One stack of several, with the smallest boxes on top."""
        whole = BoxStack()
        parts = [part for stack in stacks for part in stack._parts]
        if parts:
            boxes = concat(parts)
            whole.push(boxes.select(boxes.depth.argsort(stable=True)))
        return whole

    def weakest(self) -> float:
        """The weakest bound of all open boxes."""
        return min((float(part.bound.min()) for part in self._parts), default=float("inf"))
