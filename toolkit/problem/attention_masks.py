"""Values of a traced network that are minus infinity for every input: what an attention mask leaves out.

Affine operators with finite coefficients make ``constant + finite`` of finite sources. So what is minus infinity with
all sources zero is minus infinity always. Constants are added up in double precision: a sum of two masks that only
overflows in single precision is finite.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import _disable_current_modes

from toolkit.ops import ELEMENTWISE
from toolkit.problem.operator_table import is_affine
from toolkit.problem.rewrites.elementwise import PRIMITIVES

aten = torch.ops.aten

UNDEFINED = frozenset(PRIMITIVES[operator.name] for operator in ELEMENTWISE.values() if operator.partial)
"""Operators that have no finite value somewhere: sums with minus infinity need not be minus infinity there."""


def minus_infinite(root: torch.nn.Module, node: fx.Node) -> Tensor:
    """Which elements of a node's value are minus infinity at all inputs, of its shape; ``root`` has its constants.

    That is where all operators before it are defined; `may_be_undefined` says whether there are others.
    """
    with _disable_current_modes(), torch.no_grad():
        return torch.isneginf(_at_zero(root, node))


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


def _at_zero(root: torch.nn.Module, node: fx.Node) -> Tensor:
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
