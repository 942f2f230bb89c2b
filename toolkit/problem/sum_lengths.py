"""How many terms the sums of affine maps have: what the rounding of a sum grows with (Higham 2002, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, fx

from toolkit.problem.affine import Affine, DenseAffine
from toolkit.tuning import tuned

aten = torch.ops.aten


def terms(affine: Affine) -> int:
    """At most how many terms are added for one value of a map, its bias counted."""
    if isinstance(affine, DenseAffine):
        return 1 + sum(_widest(matrix) for matrix in affine.matrices)
    graph: Any = affine
    return 1 + sum(node_terms(node) for node in graph.linear.graph.nodes if node.op == "call_function")


def _widest(matrix: Tensor) -> int:
    """Most elements of a row that are not zero."""
    if not 0 < matrix.numel() <= tuned().problem.most_counted_elements:
        return matrix.shape[1]
    return int(torch.count_nonzero(matrix, 1).max())


def node_terms(node: fx.Node) -> int:
    """At most how many terms one operator adds for a value, by ``node.meta["shape"]``; moving values counts as one."""
    return max(1, _TERMS[node.target](node)) if node.target in _TERMS else 1


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["shape"])


def _inner(position: int) -> Callable[[fx.Node], int]:
    """Length of the inner dimension of a product, the last of this operand."""
    return lambda node: _shape(node.args[position])[-1]


def _convolution(node: fx.Node) -> int:
    weight = _shape(node.args[1])
    transposed, groups = cast(bool, node.args[6]), cast(int, node.args[8])
    if transposed:  # the weight is (inputs, outputs of a group, *kernel)
        return weight[0] // groups * prod(weight[2:])
    return prod(weight[1:])


def _all(node: fx.Node) -> int:
    """At most all elements of the operand for each of the result, and as many times as windows overlap."""
    return -(-prod(_shape(node.args[0])) // max(1, prod(_shape(node))))


def _window(node: fx.Node) -> int:
    kernel: Any = node.args[1]
    return prod(kernel) if len(kernel) > 1 else kernel[0] ** 2


def _along(node: fx.Node) -> int:
    return _shape(node.args[0])[cast(int, node.args[1])]


_TERMS: dict[Any, Callable[[fx.Node], int]] = {
    aten.mm.default: _inner(0),
    aten.bmm.default: _inner(0),
    aten.mv.default: _inner(0),
    aten.dot.default: _inner(0),
    aten.addmm.default: _inner(1),
    aten.baddbmm.default: _inner(1),
    aten.convolution.default: _convolution,
    aten.sum.default: _all,
    aten.sum.dim_IntList: _all,
    aten.mean.default: _all,
    aten.mean.dim: _all,
    aten.cumsum.default: _along,
    aten.avg_pool2d.default: _window,
    aten._adaptive_avg_pool2d.default: lambda node: 4 * _all(node),
    aten.upsample_bilinear2d.default: lambda node: 4,
    aten.upsample_bilinear2d.vec: lambda node: 4,
}
"""Operators that add, and how many terms."""
