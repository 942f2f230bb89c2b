"""What is known of a traced node's value at all inputs: that it is not negative, or minus infinity.

Roots, logarithms and powers below zero have no value, and where one may have none nothing is proved. Of a sum of
squares bounds may come out below zero all the same, by rounding or relaxation; what is known of the operators decides.

What an attention mask leaves out is minus infinity. Affine operators with finite coefficients make ``constant +
finite`` of finite sources. So what is minus infinity with all sources zero is minus infinity always. Constants are
added up in double precision: a sum of two masks that only overflows in single precision is finite.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import _disable_current_modes

from toolkit.ops import ELEMENTWISE, AffineForm
from toolkit.problem.operator_table import form_of, is_affine
from toolkit.problem.rewrites.elementwise import PRIMITIVES

aten = torch.ops.aten

UNDEFINED = frozenset(PRIMITIVES[operator.name] for operator in ELEMENTWISE.values() if operator.partial)
"""Operators that have no finite value somewhere: sums with minus infinity need not be minus infinity there."""

IMAGES = frozenset(PRIMITIVES[operator.name] for operator in ELEMENTWISE.values() if operator.nonnegative)
"""Operators without negative values."""

KEEPING = frozenset(
    {AffineForm.MOVE, AffineForm.COPY, AffineForm.SELECT, AffineForm.TOTAL, AffineForm.MEAN, AffineForm.POOL}
)
"""Forms of operators whose values are not negative where those of their first operand are not."""

TERMS = frozenset({AffineForm.ADD, AffineForm.FACTOR})
"""Forms of operators whose values are not negative where both operands' are not."""


def is_nonnegative(root: torch.nn.Module, node: Any) -> bool:
    """Whether a node's value, or a number, is known not to be negative; ``root`` has the graph's constants.

    The answer for a node is kept with it, so that a graph is gone through once.
    """
    if not isinstance(node, fx.Node):
        return isinstance(node, (int, float)) and node >= 0
    if "nonnegative" not in node.meta:
        node.meta["nonnegative"] = _cannot_be_negative(root, node)
    return bool(node.meta["nonnegative"])


def _cannot_be_negative(root: torch.nn.Module, node: fx.Node) -> bool:
    if node.op == "get_attr":
        return bool((getattr(root, str(node.target)) >= 0).all())
    if node.op != "call_function":
        return False
    form = form_of(node)
    if form in KEEPING:
        return is_nonnegative(root, node.args[0])
    if form in TERMS:
        weight = node.kwargs.get("alpha", 1)
        return is_nonnegative(root, weight) and all(is_nonnegative(root, term) for term in node.args[:2])
    if form is AffineForm.DIVIDE:
        return all(is_nonnegative(root, term) for term in node.args[:2])
    if form is AffineForm.JOIN:
        parts: Any = node.args[0]
        return all(is_nonnegative(root, part) for part in parts)
    return node.target in IMAGES


def minus_infinite(root: torch.nn.Module, node: fx.Node) -> Tensor:
    """Which elements of a node's value are minus infinity at all inputs, of its shape; ``root`` has its constants.

    That is where all operators before it are defined; `may_be_undefined` says whether there are others.
    """
    with _disable_current_modes(), torch.no_grad():
        return torch.isneginf(_value_at_zero(root, node))


def may_be_undefined(node: fx.Node) -> bool:
    """Whether some operator that a node's value is computed with has no value somewhere."""
    return any(before.target in UNDEFINED for before in _ancestors(node, affine_only=False))


def _ancestors(node: fx.Node, affine_only: bool) -> list[fx.Node]:
    """Nodes that a node is computed from, itself included, sources first; back to operators that are not affine."""
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found.add(current)
        if not affine_only or (current.op == "call_function" and is_affine(current)):
            pending.extend(current.all_input_nodes)
    return [other for other in node.graph.nodes if other in found]


def _value_at_zero(root: torch.nn.Module, node: fx.Node) -> Tensor:
    """A node's value with everything that is not affine replaced by zeros, in double precision."""
    values: dict[fx.Node, Any] = {}
    for current in _ancestors(node, affine_only=True):
        if current.op == "get_attr":
            constant = getattr(root, str(current.target))
            values[current] = constant.double() if constant.is_floating_point() else constant
        elif current.op == "call_function" and is_affine(current):
            values[current] = _value(current, values)
        else:
            values[current] = torch.zeros(current.meta["shape"], dtype=torch.float64)
    return values[node]


def _value(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda other: values[other])
    if node.target is aten._to_copy.default:
        return args[0]
    assert callable(node.target)
    return node.target(*args, **kwargs)
