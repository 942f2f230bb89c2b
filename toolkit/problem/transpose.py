"""The transpose of affine operators, batched: from coefficients on a result to those on the operands.

In general that is the operator's own vector-Jacobian product: a new affine operator has nothing to register.
The rules here are the ones a profile asked for: a batched gradient of a convolution costs ten times what the transposed
convolution does, and gradients of any kind import half of torch's compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from toolkit.problem.operator_table import depends_on_input, is_part
from toolkit.problem.sparse_products import product
from toolkit.registry import Registry

aten = torch.ops.aten

Contribution = tuple[fx.Node, Tensor]
Rule = Callable[[fx.Node, Tensor, "ConstantOperands"], list[Contribution]]
"""(node, coefficients on its value ``(R, *shape)``, constants) -> coefficients on each operand that varies."""


class ConstantOperands:
    """The constant operands of a graph's nodes."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module

    def of(self, argument: Any) -> Any:
        """The value of a constant argument; lists are resolved element by element."""
        if isinstance(argument, fx.Node):
            return getattr(self._module, str(argument.target))
        if isinstance(argument, (list, tuple)):
            return [self.of(item) for item in argument]
        return argument


RULES: Registry[Any, Rule] = Registry("transpose")
rule = RULES.register
"""Registers a fast transpose for operators."""


def transpose_graph(module: fx.GraphModule, rows: Tensor) -> list[Tensor]:
    """Coefficients ``(R, size of placeholder)`` on each placeholder of an affine graph with a flat output.

    ``rows`` is ``(R, size of output)``; every node of the graph carries its shape in ``meta["shape"]``.
    """
    nodes = list(module.graph.nodes)
    constants = ConstantOperands(module)
    pending: dict[fx.Node, Tensor] = {nodes[-1].args[0]: rows}
    for node in reversed(nodes[:-1]):
        if node.op != "call_function" or node not in pending:
            continue
        coefficients = pending.pop(node)
        if not coefficients.numel():
            continue  # an empty tensor gives nothing to its operands
        for operand, part in RULES.get(node.target, _by_gradient)(node, coefficients, constants):
            pending[operand] = pending[operand] + part if operand in pending else part
    placeholders = [node for node in nodes if node.op == "placeholder"]
    sizes = [torch.Size(node.meta["shape"]).numel() for node in placeholders]
    return [
        pending[node].reshape(len(rows), size) if node in pending else rows.new_zeros(len(rows), size)
        for node, size in zip(placeholders, sizes, strict=True)
    ]


def _by_gradient(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    """The vector-Jacobian product of any operator; the access to one of several results includes its producer."""
    call: Any = node.args[0] if is_part(node) else node
    operands = [operand for operand in call.all_input_nodes if depends_on_input(operand)]

    def apply(*values: Tensor) -> Tensor:
        given = dict(zip(operands, values, strict=True))

        def resolve(argument: Any) -> Any:
            return given[argument] if argument in given else constants.of(argument)

        result = call.target(*fx.node.map_arg(call.args, resolve), **fx.node.map_arg(call.kwargs, resolve))
        return result[node.args[1]] if call is not node else result

    # One sum over the batch instead of a batched gradient: the latter imports a computer algebra system.
    points = [coefficients.new_zeros(len(coefficients), *o.meta["shape"]).requires_grad_() for o in operands]
    with torch.enable_grad():
        total = (torch.func.vmap(apply)(*points) * coefficients).sum()
    parts = torch.autograd.grad(total, points, create_graph=coefficients.requires_grad)
    return list(zip(operands, parts, strict=True))


def _sum_to(coefficients: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo broadcasting: sum coefficients ``(R, *result)`` over the axes along which an operand was repeated."""
    return coefficients.sum_to_size((len(coefficients), *_aligned(shape, coefficients.dim() - 1))).reshape(
        len(coefficients), *shape
    )


def _aligned(shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (*[1] * (dims - len(shape)), *shape)


@rule(
    torch.reshape, aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.clone.default, aten.alias.default,
    aten.detach.default, aten.contiguous.default,
)  # fmt: skip
def _reshape(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    operand = node.args[0]
    assert isinstance(operand, fx.Node)
    return [(operand, coefficients.reshape(len(coefficients), *operand.meta["shape"]))]


@rule(aten.permute.default)
def _permute(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    dims = [d % len(node.args[1]) for d in node.args[1]]  # type: ignore[arg-type, union-attr, operator]
    inverse = [dims.index(d) + 1 for d in range(len(dims))]
    return [(node.args[0], coefficients.permute(0, *inverse))]  # type: ignore[list-item]


def _sum_terms(node: fx.Node, coefficients: Tensor, signs: tuple[float, float]) -> list[Contribution]:
    scale: Any = node.kwargs.get("alpha", 1)
    return [
        (operand, _sum_to(coefficients * sign if sign != 1 else coefficients, operand.meta["shape"]))
        for operand, sign in zip(node.args[:2], (signs[0], signs[1] * scale), strict=False)
        if isinstance(operand, fx.Node) and depends_on_input(operand)
    ]


@rule(aten.add.Tensor, aten.add.Scalar)
def _add(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    return _sum_terms(node, coefficients, (1, 1))


@rule(aten.sub.Tensor, aten.sub.Scalar)
def _sub(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    return _sum_terms(node, coefficients, (1, -1))


@rule(aten.mul.Tensor, aten.mul.Scalar)
def _mul(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    first, second = node.args
    operand, factor = (first, second) if depends_on_input(first) else (second, first)
    assert isinstance(operand, fx.Node)
    return [(operand, _sum_to(coefficients * constants.of(factor), operand.meta["shape"]))]


@rule(aten.mm.default)
def _mm(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    return _matrix_product(node.args[0], node.args[1], coefficients, constants)


@rule(aten.addmm.default)
def _addmm(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    if node.kwargs:
        return _by_gradient(node, coefficients, constants)
    bias, first, second = node.args
    parts = _matrix_product(first, second, coefficients, constants)
    if isinstance(bias, fx.Node) and depends_on_input(bias):
        parts.append((bias, _sum_to(coefficients, bias.meta["shape"])))
    return parts


def _matrix_product(first: Any, second: Any, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    if depends_on_input(first):
        return [(first, product(coefficients, constants.of(second).mT))]
    if depends_on_input(second):
        return [(second, constants.of(first).mT @ coefficients)]
    return []


@rule(aten.convolution.default)
def _convolution(node: fx.Node, coefficients: Tensor, constants: ConstantOperands) -> list[Contribution]:
    """The convolution of the opposite kind, with the rows as its batch: what the operator's input gradient computes.

    In single precision the former is up to twice as fast on a processor; in double the latter is, one to three times
    (measured on sixteen shapes).
    """
    operand, weight = node.args[0], constants.of(node.args[1])
    assert isinstance(operand, fx.Node)
    shape = operand.meta["shape"]
    stride, padding, dilation, transposed = (_list(argument) for argument in node.args[3:7])
    rows, batch = len(coefficients), shape[0]
    flat = coefficients.reshape(rows * batch, *coefficients.shape[2:])
    if flat.dtype == torch.float64 and flat.device.type == "cpu":
        like = flat.new_empty(rows * batch, *shape[1:])  # of which only the shape is looked at
        how = (None, stride, padding, dilation, transposed, _list(node.args[7]), node.args[8], [True, False, False])
        part = aten.convolution_backward(flat, like, weight, *how)[0]
        return [(operand, part.reshape(rows, *shape))]
    reached = [
        (length - 1) * s - 2 * p + d * (k - 1) + 1
        for length, s, p, d, k in zip(flat.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
    ]
    extra = [0] * len(reached) if transposed else [n - r for n, r in zip(shape[2:], reached, strict=True)]
    part = aten.convolution(flat, weight, None, stride, padding, dilation, not transposed, extra, node.args[8])
    return [(operand, part.reshape(rows, *shape))]


def _list(argument: Any) -> Any:
    """A list argument of an operator as a plain list."""
    return list(argument) if isinstance(argument, (list, tuple)) else argument
