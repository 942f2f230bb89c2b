"""ReLU: the triangle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.ops import exact_rules
from toolkit.ops.array_namespace import as_numbers, named, namespace
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.relaxation import Relaxation, RelaxationLines

if TYPE_CHECKING:
    from torch import Tensor


def _lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """Chord above; below, a line through the origin (CROWN, Zhang et al. 2018).

    Its slope is the adaptive one: 1 where the positive part is the wider, else 0.
    """
    xp = namespace(lower)
    active, inactive = lower >= 0, upper <= 0
    unstable = ~(active | inactive)
    chord = upper / xp.where(unstable, upper - lower, xp.ones_like(upper))
    zero = xp.zeros_like(upper)
    slope = xp.where(unstable, chord, as_numbers(active, upper))
    # The chord must clear both ends although its slope was rounded.
    outward = 4 * xp.finfo(upper.dtype).eps
    above = xp.where(unstable, chord * lower * -(1 + outward) + outward * upper, zero)
    below = as_numbers(active | (upper > -lower), upper)
    return RelaxationLines(below, zero, slope, above, from_origin=True)


def _image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    xp = namespace(lower)
    return xp.relu(lower), xp.relu(upper)


def _inexact(lower: Tensor, upper: Tensor) -> Tensor:
    return ~((lower >= 0) | (upper <= 0))


def _height(lines: RelaxationLines, lower: Tensor, upper: Tensor) -> Tensor:
    """The chord's distance from the function at zero, whatever the slope of the line below."""
    xp = namespace(lower)
    width = xp.clip(upper - lower, xp.finfo(lower.dtype).tiny, None)
    height: Tensor = xp.clip(lower, None, 0) * -xp.clip(upper, 0, None) / width
    return height


RELU = ElementwiseOperator(
    "relu",
    "aten.relu.default",
    Relaxation(named("relu"), _lines, _image, _inexact, piecewise_linear=True, gap=_height),
    OnnxOperator(
        "Relu",
        OperatorKind.ELEMENTWISE,
        plain=True,
        exact=True,
        exact_rule=exact_rules.relu,
    ),
    nonnegative=True,
    folds=True,
    lipschitz=1.0,
)
