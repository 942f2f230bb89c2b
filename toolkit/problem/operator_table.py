"""The table of operators the verifier knows: one registration each.

An *affine* operator needs nothing else: its interval image and its backward (CROWN) step follow from the operator
itself. A *nonlinear* one has its record in `toolkit.ops`. What is in neither table, and has no
rewrite in `toolkit.problem.rewrites`, is unsupported, and said so before any work starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from toolkit import ops
from toolkit.errors import UnsupportedError
from toolkit.ops import AFFINE_FORMS, AffineForm
from toolkit.problem.rewrites import REWRITES, elementwise


def depends_on_input(value: object) -> bool:
    """Whether an argument is computed from the inputs (and is not a constant)."""
    return isinstance(value, fx.Node) and value.op != "get_attr"


def _variable_operands(arguments: Any) -> int:
    """How many of the arguments, lists included, depend on the inputs."""
    if isinstance(arguments, (list, tuple)):
        return sum(_variable_operands(argument) for argument in arguments)
    return int(depends_on_input(arguments))


def _one_factor(node: fx.Node) -> bool:
    return _variable_operands(node.args) <= 1


def _first_only(node: fx.Node) -> bool:
    return _variable_operands(node.args[1:]) == 0


def _one_factor_after_bias(node: fx.Node) -> bool:
    return _variable_operands(node.args[1:]) <= 1


def _constant_condition(node: fx.Node) -> bool:
    return not depends_on_input(node.args[0])


def _to_floating(node: fx.Node) -> bool:
    dtype = node.kwargs.get("dtype")
    return dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)


AFFINE: dict[Any, AffineForm] = {elementwise.primitive(name): form for name, form in AFFINE_FORMS.items()}
"""Affine operator -> what it does with elements."""

EXACT_ON_CONSTANTS = frozenset(elementwise.primitive(name) for name in ops.EXACT_ON_CONSTANTS)
"""Operators whose results of constants are not rounded."""
IN_ORDER = frozenset(elementwise.primitive(name) for name in ops.IN_ORDER)
"""Operators that change the shape alone."""
WITHOUT_SIGN = {elementwise.primitive(name): elementwise.primitive(other) for name, other in ops.WITHOUT_SIGN.items()}
"""Operator with negative coefficients -> its counterpart with positive ones."""

CONDITIONS: dict[AffineForm, Callable[[fx.Node], bool]] = {
    AffineForm.FACTOR: _one_factor,
    AffineForm.PRODUCT: _one_factor,
    AffineForm.DIVIDE: _first_only,
    AffineForm.CONVOLUTION: _first_only,
    AffineForm.GATHER: _first_only,
    AffineForm.BIASED_PRODUCT: _one_factor_after_bias,
    AffineForm.CONVERT: _to_floating,
    AffineForm.CHOOSE: _constant_condition,
}
"""Whether a node of a form is affine in what depends on the inputs; those of other forms always are."""

NONLINEAR: dict[Any, str] = {operator: name for name, operator in elementwise.PRIMITIVES.items()}
"""Elementwise operator -> name of its record in `toolkit.ops.ELEMENTWISE`."""


SEVERAL = " where several operands depend on the input"
REASONS: dict[AffineForm, str] = {
    AffineForm.CHOOSE: " where the condition depends on the input",
    AffineForm.CONVERT: " for a conversion to integers",
}
"""What is not affine about affine operators, in words, where it is something else than several operands."""


def is_part(node: fx.Node) -> bool:
    """Whether a node takes one of several results."""
    return getattr(node.target, "__name__", "") == "_getitem"


def form_of(node: fx.Node) -> AffineForm | None:
    """What a node does with elements; None where its operator is not affine. One of several results is a move."""
    return AffineForm.MOVE if node.target is torch.reshape or is_part(node) else AFFINE.get(node.target)


def is_affine(node: fx.Node) -> bool:
    """Whether the node is an affine operator of what depends on the inputs (tuple access included)."""
    form = form_of(node)
    return form is not None and (form not in CONDITIONS or CONDITIONS[form](node))


def refusal(node: fx.Node) -> str:
    """Why a node of a graph cannot be bounded; empty where it can."""
    if node.op != "call_function" or is_affine(node) or node.target in NONLINEAR:
        return ""
    why = REASONS.get(AFFINE[node.target], SEVERAL) if node.target in AFFINE else ""
    origin = node.meta.get("origin")
    return f"{origin}: no bounding rule{why}" if origin else f"operator {node.target}: no bounding rule{why}"


def check_supported(graph: fx.Graph) -> None:
    """Raise UnsupportedError naming the first operator that has no rule, as the network's file calls it."""
    if reason := next(filter(None, map(refusal, graph.nodes)), ""):
        raise UnsupportedError(reason)


def table() -> list[tuple[str, str]]:
    """All supported operators as rows (operator, how it is handled), sorted."""
    rows = [(str(op), "affine") for op in AFFINE]
    rows += [(str(op), f"relaxation {name}") for op, name in NONLINEAR.items()]
    rows += [(str(op), "rewritten") for op in REWRITES]
    return sorted(rows)
