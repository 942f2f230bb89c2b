"""Channels that are split by ``relu(z) - relu(-z) = z`` folded back, before a graph is cut into layers.

Where one ReLU is between two convolutions, or two products with matrices, channels whose weights and bias are multiples
of each other by plus or minus a power of two need one ReLU: ``relu(t z) = t relu(z)`` for positive t, and ``-t relu(z)
+ t z`` for negative. The reader's weights are collected on the ReLU and on ``z`` itself. Those on the ReLU often cancel
altogether, as in networks that were made larger so (ReluSplitter, Xu et al. 2025): then the two layers are one again.

Multiples by powers of two are exact. Weights are added up in double precision, and channels stay as they are where such
a sum is not exact, so that the graph computes the same function over the real numbers.

Convolution networks that are split so took 6 to 36 times as long as those that they were made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from toolkit.problem.linear_part import GraphRewriting
from toolkit.problem.operator_table import depends_on_input

aten = torch.ops.aten


@dataclass(frozen=True)
class RowMultiples:
    """Which rows are multiples of which, by plus or minus a power of two."""

    kept: Tensor
    """Positions of the rows that stand for all others, ``(K,)``."""
    member: Tensor
    """Position among these of what each row is a multiple of, ``(N,)``."""
    factor: Tensor
    """By how much, ``(N,)``."""


def multiples(rows: Tensor, comparable: Tensor | None = None) -> RowMultiples:
    """Groups of parallel rows of a matrix, ``(N, n)``, up to factors that are powers of two and their negatives.

    Rows that are not ``comparable``, ``(N,)``, carry rounding: each is a group of its own.
    """
    rows = rows + 0.0  # -0.0 becomes 0.0
    first = (rows != 0).to(torch.int8).argmax(1, keepdim=True)
    mantissa, exponent = torch.frexp(rows.gather(1, first))
    factor = torch.ldexp(torch.where(mantissa < 0, -1.0, 1.0).to(rows.dtype), exponent)
    key = (rows / factor + 0.0).contiguous().numpy()
    same = (torch.from_numpy(key) * factor == rows).all(1)  # but for underflow, all are
    exact = (same if comparable is None else same & comparable).tolist()
    seen: dict[bytes | int, int] = {}
    kept: list[int] = []
    member = []
    for index, row in enumerate(key):
        member.append(seen.setdefault(row.tobytes() if exact[index] else index, len(seen)))
        if member[-1] == len(kept):
            kept.append(index)
    first_of = torch.tensor(kept, dtype=torch.int64)
    members = torch.tensor(member, dtype=torch.int64)
    size = factor.squeeze(1)
    return RowMultiples(first_of, members, size / size[first_of[members]])


def fold_splits(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with channels merged that are split; the graph itself where there are none."""
    rewriting = GraphRewriting(module)
    changed = [_fold(rewriting, node) for node in list(rewriting.graph.nodes) if node.target is aten.relu.default]
    return rewriting.result() if any(changed) else module


def _fold(rewriting: GraphRewriting, relu: fx.Node) -> bool:
    """Merge the channels of one ReLU; whether there were any."""
    before: Any = relu.args[0]
    if len(before.users) != 1 or len(relu.users) != 1:
        return False
    maker, reader = _linear(rewriting, before), _linear(rewriting, next(iter(relu.users)))
    if maker is None or reader is None or (maker.convolves, relu) != (reader.convolves, reader.source):
        return False
    merged = _merged(maker, reader)
    if merged is None:
        return False
    _write(rewriting, relu, maker, reader, merged)
    return True


@dataclass(frozen=True)
class LinearOperator:
    """A convolution, or a product with a matrix, with its constants."""

    node: fx.Node
    source: fx.Node
    weight: Tensor
    """``(out, in, ...)``."""
    bias: Tensor | None
    """``(out,)``."""
    convolves: bool

    def rows(self) -> Tensor:
        """All that makes a channel of the result, ``(out, in * ... + 1)``."""
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        return torch.cat([self.weight.flatten(1), bias.unsqueeze(1)], 1)

    @property
    def pointwise(self) -> bool:
        """Whether every position of the result depends on that position of the source alone."""
        if not self.convolves:
            return True
        stride, padding = self.node.args[3], self.node.args[4]
        ones = all(size == 1 for size in self.weight.shape[2:])
        return ones and all(s == 1 for s in stride) and not any(padding)  # type: ignore[union-attr, arg-type]


def _linear(rewriting: GraphRewriting, node: fx.Node) -> LinearOperator | None:
    """A node as what it is, if it is a plain convolution, or a product of a row with a constant matrix."""
    if node.target is aten.convolution.default:
        source, weight, bias, transposed, groups = (node.args[index] for index in (0, 1, 2, 6, 8))
        axis = 0
        if transposed or groups != 1:
            return None
    elif node.target is aten.addmm.default and not node.kwargs:
        bias, source, weight = node.args
        axis = 1
    elif node.target is aten.mm.default:
        source, weight = node.args
        bias, axis = None, 1
    else:
        return None
    if not depends_on_input(source) or depends_on_input(weight) or depends_on_input(bias):
        return None
    matrix = rewriting.value(weight).transpose(0, axis)  # type: ignore[arg-type]
    shift = None if bias is None else rewriting.value(bias)  # type: ignore[arg-type]
    if matrix.dtype != torch.float64 or (shift is not None and shift.shape != (len(matrix),)):
        return None
    return LinearOperator(node, source, matrix, shift, axis == 0)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MergedLayers:
    """Two layers whose channels between them are merged."""

    weight: Tensor
    """Weights of the K channels of the first layer that are kept, ``(K, in, ...)``."""
    bias: Tensor | None
    bent: Tensor
    """Numbers of the kept channels that are read through a ReLU."""
    straight: Tensor
    """Numbers of the kept channels that are read without a ReLU."""
    on_bent: Tensor
    """Weights of the second layer on ReLUs."""
    on_straight: Tensor


def _merged(maker: LinearOperator, reader: LinearOperator) -> MergedLayers | None:
    """The layers with their channels merged; None where nothing is to be merged, or not exactly."""
    groups = multiples(maker.rows())
    if len(groups.kept) == len(groups.member):
        return None
    bent = _collected(reader.weight, groups, groups.factor.abs())
    straight = _collected(reader.weight, groups, groups.factor.clamp(max=0))
    if bent is None or straight is None:
        return None
    on_bent, on_straight = (_living(weights) for weights in (bent, straight))
    if not len(on_bent) and not len(on_straight):
        return None  # nothing depends on the layer: not worth a case of its own
    return MergedLayers(
        maker.weight[groups.kept],
        None if maker.bias is None else maker.bias[groups.kept],
        on_bent,
        on_straight,
        bent[:, on_bent],
        straight[:, on_straight],
    )


def _living(weights: Tensor) -> Tensor:
    """Channels that have a weight other than zero."""
    return (weights != 0).transpose(0, 1).flatten(1).any(1).nonzero().squeeze(1)


def _collected(weights: Tensor, groups: RowMultiples, factor: Tensor) -> Tensor | None:
    """A reader's weights times factors, added up over each group, ``(out, K, ...)``; None if not exact."""
    total = weights.new_zeros(len(weights), len(groups.kept), *weights.shape[2:])
    for channel, member in enumerate(groups.member.tolist()):
        part = weights[:, channel] * factor[channel]
        found = exact_sum(total[:, member], part)
        if found is None:
            return None
        total[:, member] = found
    return total


def exact_sum(a: Tensor, b: Tensor) -> Tensor | None:
    """The sum of two tensors, if no element of it had to be rounded (by Knuth's error term, which is exact)."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    return total if bool(torch.isfinite(total).all()) and not bool(error.any()) else None


def _write(
    rewriting: GraphRewriting, relu: fx.Node, maker: LinearOperator, reader: LinearOperator, merged: MergedLayers
) -> None:
    """Put the merged layers in the place of the reader's node."""
    whole = None if len(merged.bent) else _composed(merged, reader)
    if whole is not None:
        result = _apply(rewriting, maker, maker.source, *whole, reader.node)
    else:
        left = _apply(rewriting, maker, maker.source, merged.weight, merged.bias, reader.node)
        result = _read(rewriting, relu, left, reader, merged)
    reader.node.replace_all_uses_with(result)
    for node in (reader.node, relu, maker.node):
        rewriting.graph.erase_node(node)


def _composed(merged: MergedLayers, reader: LinearOperator) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of both layers as one, where each result is one channel times a power of two, exactly."""
    matrix = merged.on_straight.flatten(1)
    mantissa, _ = torch.frexp(matrix)
    plain = bool(((mantissa.abs() == 0.5) | (mantissa == 0)).all()) and bool(((matrix != 0).sum(1) <= 1).all())
    if not reader.pointwise or not plain:
        return None
    channel, factor = merged.straight[(matrix != 0).to(torch.int8).argmax(1)], matrix.sum(1)
    weight = merged.weight[channel] * factor.reshape(-1, *[1] * (merged.weight.dim() - 1))
    if merged.bias is None or reader.bias is None:
        return weight, reader.bias if merged.bias is None else merged.bias[channel] * factor
    bias = exact_sum(merged.bias[channel] * factor, reader.bias)
    return None if bias is None else (weight, bias)


def _read(
    rewriting: GraphRewriting, relu: fx.Node, left: fx.Node, reader: LinearOperator, merged: MergedLayers
) -> fx.Node:
    """The reader's result from ReLUs of some channels, and from others as they are."""
    parts: list[fx.Node] = []
    bias = reader.bias
    for channels, weight, bends in (
        (merged.bent, merged.on_bent, True),
        (merged.straight, merged.on_straight, False),
    ):
        if not len(channels):
            continue
        part = _chosen(rewriting, left, channels, reader.node)
        part = _call(rewriting, aten.relu.default, (part,), part.meta["shape"], reader.node) if bends else part
        parts.append(_apply(rewriting, reader, part, weight, bias, reader.node))
        bias = None
    if len(parts) == 1:
        return parts[0]
    return _call(rewriting, aten.add.Tensor, tuple(parts), reader.node.meta["shape"], reader.node)


def _chosen(rewriting: GraphRewriting, node: fx.Node, channels: Tensor, before: fx.Node) -> fx.Node:
    shape = node.meta["shape"]
    if len(channels) == shape[1]:
        return node
    index = rewriting.constant(channels, before)
    return _call(rewriting, aten.index_select.default, (node, 1, index), (shape[0], len(channels), *shape[2:]), before)


def _apply(
    rewriting: GraphRewriting,
    like: LinearOperator,
    source: fx.Node,
    weight: Tensor,
    bias: Tensor | None,
    before: fx.Node,
) -> fx.Node:
    """A layer of the kind of another, with other constants."""
    old = like.node.meta["shape"]
    shape = (old[0], len(weight), *old[2:])
    shift = None if bias is None else rewriting.constant(bias.contiguous(), before)
    if like.convolves:
        args = (source, rewriting.constant(weight.contiguous(), before), shift, *like.node.args[3:])
        return _call(rewriting, aten.convolution.default, args, shape, before)
    matrix = rewriting.constant(weight.T.contiguous(), before)
    if shift is None:
        return _call(rewriting, aten.mm.default, (source, matrix), shape, before)
    return _call(rewriting, aten.addmm.default, (shift, source, matrix), shape, before)


def _call(
    rewriting: GraphRewriting, target: Any, args: tuple[Any, ...], shape: tuple[int, ...], before: fx.Node
) -> fx.Node:
    with rewriting.graph.inserting_before(before):
        node = rewriting.graph.call_function(target, args)
    node.meta["shape"] = shape
    return node
