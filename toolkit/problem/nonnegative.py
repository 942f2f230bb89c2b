"""Nodes of a traced graph whose value cannot be negative, whatever its computed bounds say.

Roots, logarithms and powers below zero have no value, and where one may have none nothing is proved. Of a sum of
squares bounds may come out below zero all the same, by rounding or relaxation; what is known of the operators decides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from toolkit.ops import ELEMENTWISE, AffineForm
from toolkit.problem.operator_table import form_of
from toolkit.problem.rewrites.elementwise import PRIMITIVES

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
        node.meta["nonnegative"] = _found(root, node)
    return bool(node.meta["nonnegative"])


def _found(root: torch.nn.Module, node: fx.Node) -> bool:
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
