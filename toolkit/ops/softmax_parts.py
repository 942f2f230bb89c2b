"""What a softmax is made of: exponentials that are cut off, and reciprocals that make up for it.

``softmax_i = 1 / (1 + sum of exp(s_j - s_i))`` needs no exponential above ``CAP = 2^115``: where one is cut off there,
the sum is at least CAP both ways, so the softmax and its reciprocal both lie between zero and 1 / CAP. Exponentials
have the image of the cut-off function, and reciprocals a lower line that is 1 / CAP lower: then everything is finite
in single precision, too, however far scores are apart, and bounds hold for the softmax of real arithmetic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import named, namespace
from toolkit.ops.convex import EXPONENTIAL, LEAST_EXPONENTIAL, RECIPROCAL_FROM_ONE
from toolkit.ops.operator_record import ElementwiseOperator
from toolkit.ops.relaxation import (
    Line,
    Relaxation,
    RelaxationLines,
    allowance,
    combine,
    increasing,
    outward,
    resting_above,
)

if TYPE_CHECKING:
    from torch import Tensor

CAP = 2.0**115
"""Where the exponentials of a softmax are cut off: thousands of them can be added up in single precision."""
KINK = math.log(CAP)
"""Where the exponential reaches the cap."""


def _exp_below_cap(z: Tensor) -> Tensor:
    xp = namespace(z)
    value: Tensor = xp.clip(xp.exp(z), None, CAP)
    return value


_image = increasing(_exp_below_cap, 0.0, CAP)


def _above(lower: Tensor, upper: Tensor) -> Line:
    """Over the kink: the line through it from the lower end, where it ends lower than twice the cap; else the cap."""
    xp = namespace(lower)
    f_lower, kink = _exp_below_cap(lower), xp.full_like(lower, KINK)
    slope = (CAP - f_lower) / (kink - lower).clamp(min=1e-3)
    slope = xp.where((upper - KINK < KINK - lower) & (lower < KINK), slope, 0.0)
    cap = xp.full_like(lower, CAP)
    ends = [lower, kink.clamp(lower, upper), upper]
    return slope, resting_above(slope, lower, upper, ends, [f_lower, cap, cap])


def _below(lower: Tensor, upper: Tensor) -> Line:
    """Over the kink: the tangent at a point so far below it that it stays below the cap at the upper end.

    For ``w = upper - KINK >= 0`` that is ``a = 1 + 2 log(1 + w)`` below, as ``1 + w + a <= exp(a)``.
    """
    xp = namespace(lower)
    beyond = (upper - KINK).clamp(min=0)
    touch = KINK - 1 - 2 * xp.log1p(beyond)
    flat = touch <= lower
    point = xp.where(flat, lower, touch)
    slope = xp.where(flat, 0.0, _exp_below_cap(touch))
    return slope, -resting_above(-slope, lower, upper, [point], [-_exp_below_cap(point)])


def _lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """The convex function's lines below the kink, others over it; constants where bounds are not known."""
    low, high = _image(lower, upper)
    whole = EXPONENTIAL.lines(lower, upper)
    over = combine(_below(lower, upper), _above(lower, upper), low, high)
    bent = ~(upper < KINK - 1e-3)
    parts = [namespace(lower).where(bent, getattr(over, name), getattr(whole, name)) for name in _FIELDS]
    return combine((parts[0], parts[1]), (parts[2], parts[3]), low, high)


_FIELDS = ("lower_slope", "lower_offset", "upper_slope", "upper_offset")


def _share_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Shares are in [0, 1]."""
    low, high = RECIPROCAL_FROM_ONE.image(lower, upper)
    return outward(low - 1 / CAP, high, 0.0, 1.0)


def _share_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """The lines of the reciprocal, the lower one lower by what cutting off may have changed."""
    found = RECIPROCAL_FROM_ONE.lines(lower, upper)
    below = (found.lower_slope, found.lower_offset - (allowance(found.lower_offset) + 1 / CAP))
    return combine(below, (found.upper_slope, found.upper_offset), *_share_image(lower, upper))


# In attacks, an exponential cut off where it would overflow keeps its slope, and shares descend on their logarithm, as
# if on the scores that a softmax is made of: their own gradients vanish where a softmax is sure of itself.
SOFTMAX = (
    ElementwiseOperator(  # min(exp z, CAP): a term of the sum that a share is the reciprocal of
        "exp_below_cap",
        "prunecert.exp_below_cap.default",
        Relaxation(_exp_below_cap, _lines, _image, EXPONENTIAL.inexact),
        nonnegative=True,
        vanishing=LEAST_EXPONENTIAL,
        surrogate=lambda z, value: value * z,
    ),
    ElementwiseOperator(  # 1 / z of one plus a sum of exponentials that were cut off: a softmax, up to 1 / CAP
        "share",
        "prunecert.share.default",
        Relaxation(named("reciprocal"), _share_lines, _share_image, RECIPROCAL_FROM_ONE.inexact),
        nonnegative=True,
        vanishing=1 / CAP,
        surrogate=lambda z, value: -z.log(),
    ),
)
