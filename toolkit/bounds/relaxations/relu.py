"""ReLU: the triangle."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.bounds.relaxations.relaxation import Relaxation, RelaxationLines


def _lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """Chord above; below, a line through the origin (CROWN, Zhang et al. 2018).

    Its slope is the adaptive one: 1 where the positive part is the wider, else 0.
    """
    active, inactive = lower >= 0, upper <= 0
    unstable = ~(active | inactive)
    chord = upper / torch.where(unstable, upper - lower, torch.ones_like(upper))
    below = (upper > -lower).to(upper.dtype)
    fixed = active.to(upper.dtype)
    zero = torch.zeros_like(upper)
    slope = torch.where(unstable, chord, fixed)
    # The chord must clear both ends although its slope was rounded.
    outward = 4 * torch.finfo(upper.dtype).eps
    above = torch.where(unstable, -chord * lower * (1 + outward) + outward * upper, zero)
    return RelaxationLines(torch.where(unstable, below, fixed), zero, slope, above, from_origin=True)


def _image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(lower), torch.relu(upper)


def _inexact(lower: Tensor, upper: Tensor) -> Tensor:
    return ~((lower >= 0) | (upper <= 0))


def _height(lines: RelaxationLines, lower: Tensor, upper: Tensor) -> Tensor:
    """The chord's distance from the function at zero, whatever the slope of the line below."""
    width = (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
    return lower.clamp(max=0) * -upper.clamp(min=0) / width


RELU = Relaxation(torch.relu, _lines, _image, _inexact, piecewise_linear=True, gap=_height)
