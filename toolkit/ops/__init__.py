"""One record an operator: everything that is known about it, in one place, without torch.

A new activation is an entry in the file of its shape here, or a new file and its entry below; a new operator of ONNX
that is rewritten with others is an entry in `toolkit.ops.onnx_operators`. Names, imports, bounds, attacks, exactness,
the comparison with onnxruntime and the commands that print what is supported derive from these.
"""

from __future__ import annotations

from toolkit.ops.affine_primitives import AFFINE_FORMS, EXACT_ON_CONSTANTS, IN_ORDER, WITHOUT_SIGN, AffineForm
from toolkit.ops.convex import CONVEX
from toolkit.ops.float_casts import CASTS
from toolkit.ops.onnx_operators import OTHERS
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.periodic import SINE
from toolkit.ops.relaxation import Relaxation, RelaxationLines
from toolkit.ops.relu import RELU
from toolkit.ops.s_shaped import S_SHAPED
from toolkit.ops.softmax_parts import SOFTMAX
from toolkit.ops.step_functions import STEPS

__all__ = [
    "AFFINE_FORMS",
    "ELEMENTWISE",
    "EXACT_ON_CONSTANTS",
    "IN_ORDER",
    "ONNX",
    "RELAXATIONS",
    "WITHOUT_SIGN",
    "AffineForm",
    "ElementwiseOperator",
    "OnnxOperator",
    "OperatorKind",
    "Relaxation",
    "RelaxationLines",
]  # fmt: skip

ELEMENTWISE: dict[str, ElementwiseOperator] = {
    operator.name: operator for operator in (RELU, *S_SHAPED, *CONVEX, *SOFTMAX, SINE, *STEPS, *CASTS)
}
"""Nonlinear operators of traced graphs and of programs, by name."""
RELAXATIONS: dict[str, Relaxation] = {name: operator.relaxation for name, operator in ELEMENTWISE.items()}
"""Relaxations of the nonlinear operators, by name."""
ONNX: dict[str, OnnxOperator] = {
    operator.name: operator
    for operator in (*OTHERS, *(own.onnx for own in ELEMENTWISE.values() if own.onnx is not None))
}
"""Operators of the ONNX standard that something is known about, by name."""
