"""One example (or several) of every affine operator: its operands, and the constants it is used with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


class Variable:
    """Stands in an example's arguments for the operand that varies, of the given shape."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __repr__(self) -> str:
        return f"x{list(self.shape)}"


@dataclass(frozen=True)
class OperatorExample:
    """A call of an operator with one or more `Variable` operands among its arguments."""

    operator: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def variables(self) -> list[Variable]:
        """The operands that vary, in order; lists are searched."""
        return [value for value in _leaves(self.arguments) if isinstance(value, Variable)]

    def __str__(self) -> str:
        return f"{self.operator}({', '.join(map(_describe, self.arguments))}, {self.options})"


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _describe(value: Any) -> str:
    return f"x{list(value.shape)}" if isinstance(value, (Variable, torch.Tensor)) else str(value)


def _constant(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + len(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


X = Variable


def _moves() -> list[tuple[Any, ...]]:
    return [
        (aten.view.default, X(2, 3), [3, 2]),
        (aten._unsafe_view.default, X(2, 3), [6]),
        (aten.reshape.default, X(2, 3), [1, 6]),
        (aten.permute.default, X(2, 3, 4), [2, 0, -2]),
        (aten.t.default, X(2, 3)),
        (aten.transpose.int, X(2, 3, 2), 0, 2),
        (aten.squeeze.default, X(1, 3, 1)),
        (aten.squeeze.dim, X(1, 3), 0),
        (aten.squeeze.dims, X(1, 3, 1), [0, 2]),
        (aten.unsqueeze.default, X(3), 1),
        (aten.expand.default, X(2, 1), [3, 2, 4]),
        (aten.clone.default, X(3)),
        (aten.alias.default, X(3)),
        (aten.detach.default, X(3)),
        (aten.cat.default, [X(2, 2), _constant(2, 1), X(2, 3)], 1),
        (aten.stack.default, [X(3), X(3)], 1),
        (aten.slice.Tensor, X(5, 2), 0, 1, 5, 2),
        (aten.select.int, X(3, 4), 1, -1),
        (aten.index_select.default, X(3, 2), 0, torch.tensor([2, 0, 2])),
        (aten.split.Tensor, X(5), 2),
        (aten.split_with_sizes.default, X(2, 5), [1, 4], 1),
        (aten.unbind.int, X(2, 3), 1),
        (aten.chunk.default, X(5), 2),
        (aten.repeat.default, X(2, 3), [2, 1, 2]),
        (aten.flip.default, X(2, 3), [1]),
        (aten.constant_pad_nd.default, X(1, 1, 2, 2), [1, 0, 2, 1], -0.5),
        (aten.reflection_pad2d.default, X(1, 1, 3, 3), [1, 2, 0, 1]),
        (aten.replication_pad2d.default, X(1, 1, 2, 3), [1, 2, 0, 1]),
        (aten.contiguous.default, X(2, 3)),
        (aten.pixel_shuffle.default, X(1, 4, 1, 2), 2),
        (aten.unfold.default, X(5), 0, 3, 1),
        (aten.diagonal.default, X(3, 3), 1),
        (aten.roll.default, X(2, 3), [1], [1]),
        (aten.index.Tensor, X(3, 4), [None, torch.tensor([3, 1, 1])]),
        (aten.gather.default, X(2, 3), 1, torch.tensor([[2, 2], [0, 1]])),
        (aten._to_copy.default, X(3)),
        (aten.where.self, torch.tensor([True, False, True]), X(3), _constant(3)),
        (aten.where.self, torch.tensor([True, False, True]), X(3), X(1)),
    ]


def _sums() -> list[tuple[Any, ...]]:
    return [
        (aten.add.Scalar, X(3), -1.5),
        (aten.sub.Scalar, X(3), 2.0),
        (aten.neg.default, X(3)),
        (aten.sum.default, X(2, 3)),
        (aten.sum.dim_IntList, X(2, 3, 2), [0, -1]),
        (aten.mean.default, X(2, 3)),
        (aten.mean.dim, X(2, 3, 2), [1], True),
        (aten.cumsum.default, X(2, 3), 1),
        (aten.avg_pool2d.default, X(1, 2, 4, 4), [2, 3], [2, 1], [1, 1]),
        (aten._adaptive_avg_pool2d.default, X(1, 2, 3, 5), [2, 2]),
        (aten.upsample_nearest2d.default, X(1, 1, 2, 3), [4, 5]),
        (aten.upsample_nearest2d.vec, X(1, 1, 2, 2), None, [2.0, 1.5]),
        (aten.upsample_bilinear2d.default, X(1, 1, 2, 3), [5, 4], False),
        (aten.upsample_bilinear2d.vec, X(1, 1, 2, 2), None, True, [2.0, 1.5]),
    ]


def _products() -> list[tuple[Any, ...]]:
    return [
        (aten.mul.Tensor, X(2, 1), _constant(3)),
        (aten.mul.Tensor, _constant(2, 3), X(3)),
        (aten.mul.Scalar, X(3), -2.5),
        (aten.div.Tensor, X(2, 3), _constant(3)),
        (aten.div.Scalar, X(3), -4.0),
        (aten.mm.default, X(2, 3), _constant(3, 4)),
        (aten.mm.default, _constant(4, 2), X(2, 3)),
        (aten.bmm.default, X(2, 1, 3), _constant(2, 3, 2)),
        (aten.bmm.default, _constant(2, 2, 3), X(2, 3, 1)),
        (aten.mv.default, _constant(4, 3), X(3)),
        (aten.mv.default, X(4, 3), _constant(3)),
        (aten.dot.default, X(3), _constant(3)),
        (aten.addmm.default, _constant(4), X(2, 3), _constant(3, 4)),
        (aten.addmm.default, X(4), X(2, 3), _constant(3, 4)),
        (aten.baddbmm.default, X(2, 1, 2), X(2, 1, 3), _constant(2, 3, 2)),
    ]


def _convolutions() -> list[tuple[Any, ...]]:
    return [
        # (input, weight, bias, stride, padding, dilation, transposed, output padding, groups)
        (X(1, 2, 4, 3), _constant(3, 2, 2, 2), _constant(3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        (X(1, 2, 5, 4), _constant(4, 1, 3, 2), None, [2, 3], [1, 1], [1, 2], False, [0, 0], 2),
        (X(1, 2, 3, 3), _constant(2, 3, 2, 2), _constant(3), [2, 2], [1, 0], [1, 1], True, [1, 0], 1),
        (X(1, 2, 6), _constant(3, 2, 3), _constant(3), [2], [1], [1], False, [0], 1),
    ]


def _scaled() -> list[OperatorExample]:
    return [
        OperatorExample(aten.add.Tensor, (X(2, 3), X(3)), {"alpha": -2.0}),
        OperatorExample(aten.add.Tensor, (X(3), _constant(2, 3)), {"alpha": 3.0}),
        OperatorExample(aten.sub.Tensor, (X(2, 1), X(3)), {"alpha": 2.5}),
        OperatorExample(aten.sub.Tensor, (_constant(3), X(3))),
        OperatorExample(aten.addmm.default, (_constant(4), X(2, 3), _constant(3, 4)), {"alpha": -2.0, "beta": 0.5}),
        OperatorExample(aten.addmm.default, (X(4), _constant(2, 3), X(3, 4)), {"beta": 3.0}),
        OperatorExample(aten.baddbmm.default, (_constant(2, 1, 2), X(2, 1, 3), _constant(2, 3, 2)), {"alpha": -1.5}),
    ]


def _examples() -> list[OperatorExample]:
    plain = [
        OperatorExample(operator, tuple(arguments)) for operator, *arguments in [*_moves(), *_sums(), *_products()]
    ]
    return [*plain, *(OperatorExample(aten.convolution.default, call) for call in _convolutions()), *_scaled()]


EXAMPLES = _examples()


def evaluator(example: OperatorExample) -> Callable[[torch.Tensor], torch.Tensor]:
    """The operator as a function of one flat vector, ``(n,)``: its variable operands one after the other."""
    shapes = [variable.shape for variable in example.variables]

    def run(flat: torch.Tensor) -> torch.Tensor:
        pieces = iter(flat.split([torch.Size(shape).numel() for shape in shapes]))
        arguments = _fill(example.arguments, lambda variable: next(pieces).reshape(variable.shape))
        result = example.operator(*arguments, **example.options)
        parts = result if isinstance(result, (list, tuple)) else [result]
        return torch.cat([part.reshape(-1) for part in parts])

    return run


def graph_of(example: OperatorExample) -> fx.GraphModule:
    """The graph of `evaluator`, written node by node so that it has exactly the example's operator."""
    graph, root = fx.Graph(), torch.nn.Module()
    sizes = [torch.Size(variable.shape).numel() for variable in example.variables]
    flat = _node(graph.placeholder("x"), (sum(sizes),))
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    pieces = [
        _call(graph, aten.slice.Tensor, (flat, 0, start, start + size))
        for start, size in zip(starts, sizes, strict=True)
    ]
    operands = iter(
        _call(graph, aten.reshape.default, (piece, list(variable.shape)))
        for piece, variable in zip(pieces, example.variables, strict=True)
    )

    def constant(tensor: torch.Tensor) -> fx.Node:
        name = f"c{len(dict(root.named_buffers()))}"
        root.register_buffer(name, tensor)
        return _node(graph.get_attr(name), tuple(tensor.shape))

    arguments = _fill(example.arguments, lambda variable: next(operands), constant)
    node = graph.call_function(example.operator, arguments, example.options)
    shapes = _result_shapes(example)
    parts = [_node(node, shapes[0])]
    if _is_tuple(example):
        parts = [_node(graph.call_function(_getitem, (node, i)), shape) for i, shape in enumerate(shapes)]
    flats = [_call(graph, aten.reshape.default, (part, [-1])) for part in parts]
    graph.output(_call(graph, aten.cat.default, (flats,)))
    return fx.GraphModule(root, graph)


def _getitem(parts: Any, index: int) -> torch.Tensor:
    return parts[index]


def _fill(
    value: Any, variable: Callable[[Variable], Any], constant: Callable[[torch.Tensor], Any] = lambda t: t
) -> Any:
    """An argument with its variables and its constants replaced."""
    if isinstance(value, Variable):
        return variable(value)
    if isinstance(value, torch.Tensor):
        return constant(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_fill(item, variable, constant) for item in value)
    return value


def _results(example: OperatorExample) -> Any:
    arguments = _fill(example.arguments, lambda v: torch.zeros(v.shape, dtype=torch.float64))
    return example.operator(*arguments, **example.options)


def _is_tuple(example: OperatorExample) -> bool:
    return isinstance(_results(example), (list, tuple))


def _result_shapes(example: OperatorExample) -> list[tuple[int, ...]]:
    results = _results(example)
    return [tuple(result.shape) for result in (results if isinstance(results, (list, tuple)) else [results])]


def _node(node: fx.Node, shape: tuple[int, ...]) -> fx.Node:
    node.meta["shape"] = shape
    return node


def _call(graph: fx.Graph, operator: Any, arguments: tuple[Any, ...]) -> fx.Node:
    """A call whose result has the shape that its operands' shapes give."""
    empty = fx.node.map_arg(arguments, lambda node: torch.zeros(node.meta["shape"]))
    return _node(graph.call_function(operator, arguments), tuple(operator(*empty).shape))
