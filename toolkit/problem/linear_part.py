"""The linear part of affine operators: what they do to differences, as fewer operators.

Without constants that are only added, a map needs no bias in its convolutions, which costs no pass over the values, and
a factor for each channel (batch normalisation, mostly) is part of the convolution's weight beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import Tensor, fx

from toolkit.ops import AffineForm
from toolkit.problem.operator_table import depends_on_input, form_of

aten = torch.ops.aten


class GraphRewriting:
    """A copy of a graph on its way to being another, with its constants."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.graph = fx.Graph()
        self.graph.output(self.graph.graph_copy(module.graph, {}))
        self.buffers = constants_of(module)

    def value(self, node: fx.Node) -> Tensor:
        """The constant that a node stands for."""
        return self.buffers[str(node.target)]

    def constant(self, value: Tensor, before: fx.Node) -> fx.Node:
        """A new constant, under a name that no other has: graphs that were rewritten before hold such names too."""
        name = next(name for number in count(len(self.buffers)) if (name := f"linear{number}") not in self.buffers)
        self.buffers[name] = value
        with self.graph.inserting_before(before):
            node = self.graph.create_node("get_attr", name)
        node.meta["shape"] = tuple(value.shape)
        return node

    def result(self) -> fx.GraphModule:
        """The graph with the constants that it still uses."""
        for node in reversed(list(self.graph.nodes)):
            if node.op == "get_attr" and not node.users:
                self.graph.erase_node(node)
        used = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        return with_buffers(self.graph, {name: value for name, value in self.buffers.items() if name in used})


def linear_part(module: fx.GraphModule) -> fx.GraphModule:
    """Operators that add no constants of their own and else do the same, for an affine graph.

    Operators whose constants are not known to be added keep them: `without_offset` takes away what they leave at zero.
    """
    rewriting = GraphRewriting(module)
    for node in list(rewriting.graph.nodes):
        form = form_of(node)
        if form is not None and form in _ADDED:
            _ADDED[form](rewriting, node)
    for node in list(rewriting.graph.nodes):
        if node.target is aten.mul.Tensor:
            _fold_factor(rewriting, node)
    return rewriting.result()


def without_offset(module: fx.GraphModule) -> fx.GraphModule:
    """A module of flat vectors less its value at zero."""
    sizes = [node.meta["shape"] for node in module.graph.nodes if node.op == "placeholder"]
    like = next((buffer for buffer in module.buffers() if buffer.is_floating_point()), torch.zeros(()))
    offset = module(*(like.new_zeros(size) for size in sizes)).detach()
    if not bool(offset.any()):
        return module
    rewriting = GraphRewriting(module)
    (output,) = (node for node in rewriting.graph.nodes if node.op == "output")
    value: Any = output.args[0]
    with rewriting.graph.inserting_before(output):
        rest = rewriting.graph.call_function(aten.sub.Tensor, (value, rewriting.constant(offset, output)))
    rest.meta["shape"] = tuple(offset.shape)
    value.meta["shape"] = tuple(offset.shape)
    output.args = (rest,)
    return rewriting.result()


def constants_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's constants by name; a tensor that has several names is listed under each."""
    return dict(module.named_buffers(remove_duplicate=False))


def with_buffers(graph: fx.Graph, buffers: dict[str, Tensor]) -> fx.GraphModule:
    """A module of a graph with these constants."""
    root = torch.nn.Module()
    for name, buffer in buffers.items():
        root.register_buffer(name, buffer)
    return fx.GraphModule(root, graph)


def _zero(rewriting: GraphRewriting, node: fx.Node, argument: Any) -> Any:
    """The argument, or zeros where it is a constant."""
    if isinstance(argument, fx.Node) and not depends_on_input(argument):
        return rewriting.constant(torch.zeros_like(rewriting.value(argument)), node)
    return argument if isinstance(argument, fx.Node) else 0


def _in_sum(rewriting: GraphRewriting, node: fx.Node) -> None:
    first, second = node.args
    plain = isinstance(first, fx.Node) and depends_on_input(first) and not depends_on_input(second)
    if plain and tuple(first.meta["shape"]) == tuple(node.meta["shape"]):  # type: ignore[union-attr]
        _replace(rewriting, node, first)  # type: ignore[arg-type]
    else:
        node.args = (_zero(rewriting, node, first), _zero(rewriting, node, second))


def _in_convolution(rewriting: GraphRewriting, node: fx.Node) -> None:
    node.args = (*node.args[:2], None, *node.args[3:])


def _in_product(rewriting: GraphRewriting, node: fx.Node) -> None:
    node.args = (_zero(rewriting, node, node.args[0]), *node.args[1:])


def _in_list(rewriting: GraphRewriting, node: fx.Node) -> None:
    parts: Any = node.args[0]
    node.args = ([_zero(rewriting, node, part) for part in parts], *node.args[1:])


def _in_padding(rewriting: GraphRewriting, node: fx.Node) -> None:
    node.args, node.kwargs = node.args[:2], {}  # zeros are the default


def _in_choice(rewriting: GraphRewriting, node: fx.Node) -> None:
    condition, chosen, other = node.args
    node.args = (condition, _zero(rewriting, node, chosen), _zero(rewriting, node, other))


_ADDED: dict[AffineForm, Callable[[GraphRewriting, fx.Node], None]] = {
    AffineForm.ADD: _in_sum,
    AffineForm.SUBTRACT: _in_sum,
    AffineForm.CONVOLUTION: _in_convolution,
    AffineForm.BIASED_PRODUCT: _in_product,
    AffineForm.JOIN: _in_list,
    AffineForm.PAD: _in_padding,
    AffineForm.CHOOSE: _in_choice,
}
"""Forms of operators that add constants, or put them beside values, and how to leave these out."""


def _replace(rewriting: GraphRewriting, node: fx.Node, by: fx.Node) -> None:
    node.replace_all_uses_with(by)
    rewriting.graph.erase_node(node)


def _fold_factor(rewriting: GraphRewriting, node: fx.Node) -> None:
    """Put a factor for each channel into the weight of the convolution before or after it, where there is one alone."""
    first, second = node.args
    if not isinstance(second, fx.Node) or not isinstance(first, fx.Node):
        return
    operand, factor = (first, second) if depends_on_input(first) else (second, first)
    shape = tuple(node.meta["shape"])
    scale = _per_channel(rewriting.value(factor), len(shape)) if tuple(operand.meta["shape"]) == shape else None
    if scale is None:
        return
    if _is_convolution(operand) and len(operand.users) == 1:
        _scale_weight(rewriting, operand, scale, of_result=True)
        _replace(rewriting, node, operand)
    elif len(node.users) == 1 and _is_convolution(reader := next(iter(node.users))) and reader.args[8] == 1:
        _scale_weight(rewriting, reader, scale, of_result=False)
        _replace(rewriting, node, operand)


def _is_convolution(node: fx.Node) -> bool:
    """Whether a node is a convolution one of whose weight's axes is the channels of its result."""
    return node.target is aten.convolution.default and bool(not node.args[6] or node.args[8] == 1)


def _per_channel(factor: Tensor, dims: int) -> Tensor | None:
    """A factor's values along the second of so many dimensions, ``(C,)`` or ``(1,)``, if it varies along no other."""
    shape = (1,) * (dims - factor.dim()) + tuple(factor.shape)
    varies = [dim for dim, size in enumerate(shape) if size != 1]
    return factor.reshape(-1) if set(varies) <= {1} else None


def _scale_weight(rewriting: GraphRewriting, node: fx.Node, scale: Tensor, of_result: bool) -> None:
    weight, transposed = rewriting.value(node.args[1]), node.args[6]  # type: ignore[arg-type]
    axis = int(of_result == bool(transposed))  # results are a convolution's first axis, a transposed one's second
    shape = [1] * weight.dim()
    shape[axis] = len(scale)
    node.args = (node.args[0], rewriting.constant(weight * scale.reshape(shape), node), *node.args[2:])
