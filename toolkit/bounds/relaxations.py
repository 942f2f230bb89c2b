"""Linear relaxations of elementwise nonlinear operators: the only thing such an operator has to declare.

A relaxation is two lines a neuron, ``lower_slope z + lower_offset <= op(z) <= upper_slope z + upper_offset`` for all z
in [l, u]. Free slopes (``alpha``) may choose among sound lower lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lines:
    """Two lines a neuron, each field of shape ``(B, N)`` (or broadcastable to it)."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


@dataclass(frozen=True)
class Relaxation:
    """Everything that bounding and branching need to know about an operator."""

    function: Callable[[Tensor], Tensor]
    lines: Callable[[Tensor, Tensor, Tensor | None], Lines]
    """Lines for bounds l, u and optional slopes alpha in [0, 1]."""
    inexact: Callable[[Tensor, Tensor], Tensor]
    """Neurons whose lines are not the operator itself on [l, u]."""
    piecewise_linear: bool
    """Whether splitting at zero makes it linear, so that branching on its phase is complete."""


def _relu_lines(lower: Tensor, upper: Tensor, alpha: Tensor | None) -> Lines:
    """The triangle: chord above; below, a line through the origin with slope alpha (CROWN, Zhang et al. 2018).

    Without alpha the slope is the adaptive one: 1 where the positive part is the wider, else 0.
    """
    active, inactive = lower >= 0, upper <= 0
    unstable = ~(active | inactive)
    chord = upper / torch.where(unstable, upper - lower, torch.ones_like(upper))
    below = (upper > -lower).to(upper.dtype) if alpha is None else alpha
    fixed = active.to(upper.dtype)
    zero = torch.zeros_like(upper)
    slope = torch.where(unstable, chord, fixed)
    return Lines(torch.where(unstable, below, fixed), zero, slope, torch.where(unstable, -chord * lower, zero))


def _relu_inexact(lower: Tensor, upper: Tensor) -> Tensor:
    return (lower < 0) & (upper > 0)


def _s_shaped(
    function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, Tensor, Tensor | None], Lines]:
    """Lines for an increasing function that is convex below zero, concave above, with derivative even in z.

    The slope is the smaller of the end points' derivatives (DeepZ, Singh et al. 2018), which is sound on both sides of
    the inflection point; on one side of it, chord and tangent at the middle are tighter.
    """

    def lines(lower: Tensor, upper: Tensor, alpha: Tensor | None) -> Lines:
        f_lower, f_upper = function(lower), function(upper)
        width = upper - lower
        wide = width > 1e-6
        chord = torch.where(wide, (f_upper - f_lower) / torch.where(wide, width, torch.ones_like(width)), 0.0)
        middle = (lower + upper) / 2
        tangent = derivative(middle)
        flat = torch.minimum(derivative(lower), derivative(upper))
        convex, concave = wide & (upper <= 0), wide & (lower >= 0)
        lower_slope = torch.where(concave, chord, torch.where(convex, tangent, torch.where(wide, flat, 0.0)))
        upper_slope = torch.where(convex, chord, torch.where(concave, tangent, torch.where(wide, flat, 0.0)))
        # Every line touches the function at the point that keeps it on its side.
        low_at = torch.where(convex, middle, lower)
        high_at = torch.where(concave, middle, upper)
        return Lines(
            lower_slope, function(low_at) - lower_slope * low_at, upper_slope, function(high_at) - upper_slope * high_at
        )

    return lines


def _wide(lower: Tensor, upper: Tensor) -> Tensor:
    return upper > lower


RELAXATIONS: dict[str, Relaxation] = {
    "relu": Relaxation(torch.relu, _relu_lines, _relu_inexact, True),
    "sigmoid": Relaxation(
        torch.sigmoid, _s_shaped(torch.sigmoid, lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z))), _wide, False
    ),
    "tanh": Relaxation(torch.tanh, _s_shaped(torch.tanh, lambda z: 1 - torch.tanh(z) ** 2), _wide, False),
}
"""Name in `toolkit.problem.ops.NONLINEAR` -> relaxation. All are increasing, so interval images are end points."""
