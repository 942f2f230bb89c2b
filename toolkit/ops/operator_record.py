"""What is known about an operator, in one place: everything else derives its tables from these records. No torch.

An operator of the ONNX file is one thing (`OnnxOperator`), one of the traced graph another (`ElementwiseOperator`,
`AffineOperator`): a node of the file is imported and traced as one or several of the latter. Where the two are one, the
record of the traced operator holds that of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from toolkit.ops.exact_rules import ExactCall, ExactTensor
from toolkit.ops.relaxation import Relaxation

if TYPE_CHECKING:
    from torch import Tensor


class OperatorKind(StrEnum):
    """What the verifier does with an operator of ONNX."""

    AFFINE = "affine"
    """Affine where what else it takes is constant; products and quotients of what varies are relaxed."""
    ELEMENTWISE = "relaxation"
    REWRITTEN = "rewritten"
    """Written with affine and elementwise operators, exactly."""
    EVALUATED = "evaluated"
    """A constant where shapes are concrete."""
    REFUSED = "no bounding rule"


@dataclass(frozen=True)
class OnnxOperator:
    """An operator of the ONNX standard."""

    name: str
    kind: OperatorKind
    plain: bool = False
    """Whether the trace does what every implementation does, up to the order of sums. Others, normalisation and softmax
    for instance, are computed in ways whose errors differ."""
    exact: bool = False
    """Whether results are among the operands, up to the sign, or are small integers."""
    jumps: bool = False
    """Whether it may turn a last-digit difference into a large one."""
    random: bool = False
    """Whether it computes something else each time."""
    by_body: bool = False
    """Whether the standard defines it by a function body, by which it is read."""
    reads_sequences: bool = False
    """Whether operands may be sequences of tensors."""
    by_value: tuple[int, ...] | None = None
    """Operands that matter by value, of the others only shape, type or length do; None where all matter."""
    shaped_by: tuple[int, ...] = ()
    """Operands whose values decide about the shape of a result (of a sequence: about which tensors are in it)."""
    same_elements: bool = False
    """Whether its result has the elements of its first operand and no others, at most converted to another type."""
    picks: bool = False
    """Whether every element of a result is one of an operand, whatever its type, or zero."""
    exact_rule: Callable[[ExactCall], ExactTensor] | None = None
    """How it is evaluated in exact arithmetic, where it can be."""


@dataclass(frozen=True)
class ElementwiseOperator:
    """A nonlinear function of one variable, as an operator of the traced graph that bounds are computed for."""

    name: str
    """Name in programs, messages and tables."""
    primitive: str
    """The traced operator: one of aten's, or of our own where torch spells a function in several ways or not at all."""
    relaxation: Relaxation
    onnx: OnnxOperator | None = None
    """The operator of ONNX that it is, where there is one."""
    jumps: bool = False
    """Whether it is discontinuous."""
    partial: bool = False
    """Whether it is not defined everywhere, or overflows. Such neurons stay when others are merged or removed, and the
    features keep reading them: where a value may be undefined, its bounds are infinite and nothing is proved."""
    nonnegative: bool = False
    """Whether it has no negative values."""
    from_zero: str = ""
    """Name of the operator that stands for it where the argument is known not to be negative."""
    folds: bool = False
    """Whether its finite value at a constant replaces the neuron."""
    saturating: bool = False
    """Whether common approximations err by units in the last place of 1, not of the value."""
    vanishing: float = 0.0
    """A value that another evaluation may have instead of zero, or zero instead."""
    lipschitz: float | None = None
    """How much it enlarges errors at most, of functions with values in [-1, 1] and of the ReLU; None where its rounding
    is not known."""
    surrogate: Callable[[Tensor, Tensor], Tensor] | None = None
    """A function of ``z`` and the operator's values there whose gradient attacks follow, where its own is useless."""
