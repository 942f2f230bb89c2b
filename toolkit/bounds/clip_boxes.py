"""Clipping: what the linear bounds of the outputs say about where in a box a violation can still be.

A lower bound ``a . x + d`` of an atom is at most zero wherever the atom is. So the points that matter lie in
half-spaces ``a . x + d <= 0``, which shrink the box (relaxed clipping) and tighten the bound of any other linear
function over it (complete clipping; both from Clip-and-Verify, 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds, without_overflow
from toolkit.problem.sum_rounding import gamma
from toolkit.tuning import tuned

ROUNDINGS_OF_FUNCTION = 32
"""Operations on a function's value beside the two sums over the dimensions: its offset, multiples of others."""


@dataclass(frozen=True)
class HalfSpaces:
    """``coefficients . x + offset <= 0``: ``(B, K, n)`` and ``(B, K)``, K for each box."""

    coefficients: Tensor
    offset: Tensor

    @classmethod
    def none(cls, box: Bounds) -> HalfSpaces:
        """No half-space for each of the boxes."""
        return cls(box.lower.new_zeros(len(box.lower), 0, box.lower.shape[1]), box.lower.new_zeros(len(box.lower), 0))

    def select(self, index: Tensor) -> HalfSpaces:
        """The half-spaces of some boxes, by position or mask."""
        return HalfSpaces(self.coefficients[index], self.offset[index])


@dataclass(frozen=True)
class CentredRows:
    """Linear functions in coordinates where their boxes are [-1, 1]^n."""

    value: Tensor
    """At the centre, ``(N,)``."""
    spread: Tensor
    """Change from the centre to the side of each dimension, ``(N, n)``; contiguous by dimension where these are few."""
    allowance: Tensor
    """What rounding may have changed, ``(N,)``."""

    def minimum(self) -> Tensor:
        """Least values over the boxes, ``(N,)``."""
        return without_overflow(self.value - self.spread.abs().sum(1) - self.allowance)

    def select(self, index: Tensor) -> CentredRows:
        """Some of the functions, or the same more than once."""
        by_dimension = _few(self.spread)
        spread = self.spread.T.index_select(1, index).T if by_dimension else self.spread.index_select(0, index)
        return CentredRows(self.value.index_select(0, index), spread, self.allowance.index_select(0, index))

    def plus(self, beta: Tensor, other: CentredRows) -> CentredRows:
        """``self + beta * other``, ``(N,)``. Coefficients may cancel, allowances never do."""
        return CentredRows(
            torch.addcmul(self.value, beta, other.value),
            torch.addcmul(self.spread, beta.unsqueeze(1), other.spread),
            torch.addcmul(self.allowance, beta, other.allowance),
        )


def centred(coefficients: Tensor, offset: Tensor, box: Bounds) -> CentredRows:
    """Functions ``coefficients . x + offset``, ``(N, n)`` and ``(N,)``, with a box ``(N, n)`` each or one for all."""
    spread = coefficients * box.radius
    return CentredRows(
        _dot(coefficients, box.centre) + offset,
        spread.T.contiguous().T if _few(spread) else spread.contiguous(),
        gamma(2 * coefficients.shape[1] + ROUNDINGS_OF_FUNCTION, offset.dtype)
        * (_dot(coefficients.abs(), box.magnitude) + offset.abs()),
    )


def _few(spread: Tensor) -> bool:
    """Whether there are so few dimensions that it is faster to add up whole dimensions than function by function."""
    return spread.shape[1] <= tuned().clipping.most_breakpoints


def _dot(rows: Tensor, points: Tensor) -> Tensor:
    """Products ``(N,)`` of rows ``(N, n)`` with a point each, or with the only one."""
    return rows @ points[0] if len(points) == 1 else (rows * points).sum(1)


def clip_box(box: Bounds, spaces: HalfSpaces) -> Bounds:
    """Boxes ``(B, n)`` that still contain every point of theirs in all of their half-spaces.

    A point that starts in the corner where a row is least, at ``m <= 0``, can move at most ``-m / |a_i|`` along
    dimension i before it leaves the half-space. Rounding is outward; a row that is broken (NaN) clips nothing. Sides
    that cross mean that no point is left.
    """
    lower, upper = box.lower, box.upper
    eps = torch.finfo(lower.dtype).eps
    allowance = 4 * eps * box.magnitude
    for k in range(spaces.offset.shape[1]):
        normal = spaces.coefficients[:, k]
        slack = centred(normal, spaces.offset[:, k], box).minimum().clamp(max=0).neg()
        step = slack.unsqueeze(1) * (1 + 8 * eps) / normal.abs() + allowance
        step = torch.where(torch.isfinite(step), step, torch.inf)
        upper = torch.where(normal > 0, torch.minimum(upper, box.lower + step), upper)
        lower = torch.where(normal < 0, torch.maximum(lower, box.upper - step), lower)
    return Bounds(lower, upper)


@dataclass(frozen=True)
class Polytopes:
    """Boxes cut by half-spaces, made ready for linear functions to be minimised over them."""

    box: Bounds
    """``(B, n)``, or ``(1, n)`` where all have the same."""
    spaces: list[CentredRows]
    """The half-spaces, ``(B,)`` each."""


def polytopes(box: Bounds, spaces: HalfSpaces) -> Polytopes:
    """Boxes, each with its half-spaces ``(B, K, n)``."""
    count = spaces.offset.shape[1] if box.lower.shape[1] else 0
    return Polytopes(box, [centred(spaces.coefficients[:, k], spaces.offset[:, k], box) for k in range(count)])


def minimum_within(coefficients: Tensor, offset: Tensor, within: Polytopes, owner: Tensor) -> Tensor:
    """Lower bounds ``(N,)`` of ``coefficients . x + offset``, ``(N, n)`` and ``(N,)``, in each row's owner ``(N,)``.

    For any beta >= 0 the minimum of ``c . x + beta (a . x + d)`` over the box is a lower bound; it is concave in beta
    with breakpoints ``-c_i / a_i``; its best is looked for one half-space after the other.
    """
    return minimum_with_multipliers(coefficients, offset, within, owner)[0]


def minimum_with_multipliers(
    coefficients: Tensor, offset: Tensor, within: Polytopes, owner: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Lower bounds as `minimum_within` has them, with the multipliers ``(N,)`` of each half-space that give them."""
    box = within.box
    own = box if len(box.lower) == 1 else Bounds(box.lower.index_select(0, owner), box.upper.index_select(0, owner))
    function = centred(coefficients, offset, own)
    best, multipliers = function.minimum(), []
    for number, every in enumerate(within.spaces):
        space = every.select(owner)
        beta, found = _best_multiplier(function, space)
        better = (found > best) & (found < torch.inf)
        multipliers.append(torch.where(better, beta, 0.0))
        if number + 1 < len(within.spaces):
            function = function.plus(multipliers[-1], space)
        best = torch.where(better, found, best)
    return best, multipliers


def _best_multiplier(function: CentredRows, space: CentredRows) -> tuple[Tensor, Tensor]:
    """The multiplier ``(N,)`` with the greatest dual bound, or nearly, and that bound."""
    return (_best_breakpoint if _few(function.spread) else _between_tangents)(function, space)


def _best_breakpoint(function: CentredRows, space: CentredRows) -> tuple[Tensor, Tensor]:
    beta = _breakpoints(function.spread.T, space.spread.T)
    spread = torch.addcmul(function.spread.T, beta.unsqueeze(1), space.spread.T).abs_().sum(1)
    bound = torch.addcmul(function.value - function.allowance, beta, space.value - space.allowance) - spread
    best, index = bound.max(0, keepdim=True)
    return beta.gather(0, index).squeeze(0), best.squeeze(0)


def _breakpoints(spread: Tensor, slope: Tensor) -> Tensor:
    """Multipliers ``(n, N)`` at which the dual bound can bend; zero where there is none."""
    beta = -spread / slope
    return torch.where(torch.isfinite(beta) & (beta > 0), beta, 0.0)


def _between_tangents(function: CentredRows, space: CentredRows) -> tuple[Tensor, Tensor]:
    """Where tangents of the concave dual bound from both sides meet, again and again (Kelley's method on a line).

    The first tangents are those at zero and at infinity.
    """
    constant, slope = function.value - function.allowance, space.value - space.allowance
    spread, work = torch.empty_like(function.spread), torch.empty_like(function.spread)

    def dual(beta: Tensor) -> tuple[Tensor, Tensor]:
        torch.addcmul(function.spread, beta.unsqueeze(1), space.spread, out=spread)
        value = torch.addcmul(constant, beta, slope) - torch.abs(spread, out=work).sum(1)
        return value, slope - torch.mul(torch.sign(spread, out=spread), space.spread, out=work).sum(1)

    best_beta = torch.zeros_like(constant)
    best, rise = dual(best_beta)
    left = (best, rise)  # a tangent: its values at zero and its rise
    right = (
        constant - torch.mul(torch.sign(space.spread, out=work), function.spread, out=work).sum(1),
        slope - torch.abs(space.spread, out=work).sum(1),
    )
    for _ in range(tuned().clipping.tried_multipliers):
        beta = ((right[0] - left[0]) / (left[1] - right[1])).clamp(min=0)
        beta = torch.where(torch.isfinite(beta), beta, 0.0)
        value, rise = dual(beta)
        tangent = (value - beta * rise, rise)
        rising = rise > 0
        left = (torch.where(rising, tangent[0], left[0]), torch.where(rising, tangent[1], left[1]))
        right = (torch.where(rising, right[0], tangent[0]), torch.where(rising, right[1], tangent[1]))
        better = value > best
        best, best_beta = torch.where(better, value, best), torch.where(better, beta, best_beta)
    return best_beta, best
