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

from toolkit.errors import UnsupportedError
from toolkit.problem.rewrites import REWRITES, elementwise

aten = torch.ops.aten


def _always(node: fx.Node) -> bool:
    return True


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


AFFINE: dict[Any, Callable[[fx.Node], bool]] = {
    **dict.fromkeys(
        [
            # moving values
            aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default, aten.t.default,
            aten.transpose.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default,
            aten.expand.default, aten.clone.default, aten.alias.default, aten.detach.default, aten.cat.default,
            aten.stack.default, aten.slice.Tensor, aten.select.int, aten.index_select.default, aten.split.Tensor,
            aten.split_with_sizes.default, aten.unbind.int, aten.chunk.default, aten.repeat.default, aten.flip.default,
            aten.constant_pad_nd.default, aten.reflection_pad2d.default, aten.replication_pad2d.default,
            aten.contiguous.default, aten.pixel_shuffle.default,
            aten.unfold.default, aten.diagonal.default, aten.roll.default,
            # sums
            aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar,
            aten.neg.default, aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim,
            aten.cumsum.default, aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default,
            aten.upsample_nearest2d.default, aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.default,
            aten.upsample_bilinear2d.vec,
        ],
        _always,
    ),
    **dict.fromkeys(
        [aten.mul.Tensor, aten.mul.Scalar, aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default],
        _one_factor,
    ),
    **dict.fromkeys(
        [aten.div.Tensor, aten.div.Scalar, aten.convolution.default, aten.index.Tensor, aten.gather.default],
        _first_only,
    ),
    aten.addmm.default: _one_factor_after_bias,
    aten.baddbmm.default: _one_factor_after_bias,
    aten._to_copy.default: _to_floating,
    aten.where.self: _constant_condition,
}  # fmt: skip
"""Operator -> whether a node of it is affine in what depends on the inputs."""

NONLINEAR: dict[Any, str] = {operator: name for name, operator in elementwise.PRIMITIVES.items()}
"""Elementwise operator -> name of its record in `toolkit.ops.ELEMENTWISE`."""


SEVERAL = " where several operands depend on the input"
CONDITIONS: dict[Any, str] = {
    aten.where.self: " where the condition depends on the input",
    aten._to_copy.default: " for a conversion to integers",
}
"""What is not affine about affine operators, in words, where it is something else than several operands."""


def is_affine(node: fx.Node) -> bool:
    """Whether the node is an affine operator of what depends on the inputs (tuple access included)."""
    if node.target in AFFINE:
        return AFFINE[node.target](node)
    return getattr(node.target, "__name__", "") == "_getitem"


def refusal(node: fx.Node) -> str:
    """Why a node of a graph cannot be bounded; empty where it can."""
    if node.op != "call_function" or is_affine(node) or node.target in NONLINEAR:
        return ""
    why = CONDITIONS.get(node.target, SEVERAL) if node.target in AFFINE else ""
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
