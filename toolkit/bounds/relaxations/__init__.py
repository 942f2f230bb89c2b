"""Linear relaxations of elementwise nonlinear operators: the only thing such an operator has to declare.

A relaxation is two lines a neuron, ``lower_slope z + lower_offset <= op(z) <= upper_slope z + upper_offset`` for all z
in [l, u]. Which of its lower lines an unstable ReLU gets may be optimised (``alpha``). One file for each shape of
function.
"""

from __future__ import annotations

from toolkit.bounds.relaxations.convex import CONVEX
from toolkit.bounds.relaxations.float_casts import ROUNDING
from toolkit.bounds.relaxations.periodic import SINE
from toolkit.bounds.relaxations.relaxation import Relaxation, RelaxationLines
from toolkit.bounds.relaxations.relu import RELU
from toolkit.bounds.relaxations.s_shaped import S_SHAPED
from toolkit.bounds.relaxations.softmax_parts import SOFTMAX
from toolkit.bounds.relaxations.step_functions import FLOOR, SIGN

__all__ = ["RELAXATIONS", "Relaxation", "RelaxationLines"]

RELAXATIONS: dict[str, Relaxation] = {
    "relu": RELU,
    **S_SHAPED,
    **CONVEX,
    **SOFTMAX,
    "sin": SINE,
    "sign": SIGN,
    "floor": FLOOR,
    **ROUNDING,
}
"""Name in `toolkit.problem.operator_table.NONLINEAR` -> relaxation."""
