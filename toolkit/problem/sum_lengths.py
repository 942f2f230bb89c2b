"""How many terms affine operators add up: what the rounding of a sum grows with (Higham 2002, section 3.1).

Two numbers a form of operator. The comparison with onnxruntime evaluates a graph, and must not allow for more than one
evaluation can lose: it counts the terms of a *value*. Bounds use a graph both ways: they count the terms of a value or
of a *coefficient* that is pushed back through it, whichever are more, and that of a bias or a factor.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

from torch import fx

from toolkit.ops import AffineForm
from toolkit.problem.operator_table import form_of

Count = Callable[[fx.Node], int]


def value_terms(node: fx.Node) -> int:
    """At most how many terms one operator adds for a value, by ``node.meta["shape"]``; moving values counts as one."""
    form = form_of(node)
    return max(1, LENGTHS[form][0](node)) if form in LENGTHS else 1


def sum_terms(graph: fx.GraphModule) -> int:
    """Most terms of one value of an affine graph, and of one coefficient that is pushed back through it.

    Counts of operators one after the other are added up: so do the factors of their sums, to first order, and
    `toolkit.problem.sum_rounding.gamma` has the rest.
    """
    return sum(_terms_both_ways(node) for node in graph.graph.nodes if node.op == "call_function")


def is_composed(graph: fx.GraphModule) -> bool:
    """Whether elements of the graph's matrix are themselves sums of products: two operators in it compute."""
    return sum(_terms_both_ways(node) > 0 for node in graph.graph.nodes if node.op == "call_function") > 1


def _terms_both_ways(node: fx.Node) -> int:
    form = form_of(node)
    return LENGTHS[form][1](node) if form in LENGTHS else _all_elements(node)


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["shape"])


def _shapes(node: fx.Node) -> list[tuple[int, ...]]:
    """Shapes of a node's tensor operands."""
    return [_shape(operand) for operand in node.all_input_nodes if "shape" in operand.meta]


def _none(node: fx.Node) -> int:
    return 0


def _all_elements(node: fx.Node) -> int:
    """Terms of one value of an operator that is not known better: at most the elements of its largest tensor."""
    shapes = [*_shapes(node), *([_shape(node)] if "shape" in node.meta else [])]
    return max((prod(shape) for shape in shapes), default=1)


def _repeats(node: fx.Node) -> int:
    """How often an operand's element is read, for operators that repeat elements evenly."""
    return max((-(-prod(_shape(node)) // max(1, prod(shape))) for shape in _shapes(node)), default=1)


def _repeats_if_any(node: fx.Node) -> int:
    found = _repeats(node)
    return found if found > 1 else 0


def _of_overlaps(node: fx.Node) -> int:
    """How many windows of ``unfold(x, axis, size, step)`` read one element; those at the ends are in fewer."""
    size, step = cast(int, node.args[2]), cast(int, node.args[3])
    found = -(-size // step)
    return found if found > 1 else 0


def _of_operands(node: fx.Node) -> int:
    """Two operands, and the broadcasting of the smaller one."""
    return 1 + _repeats(node)


def _inner(position: int) -> Count:
    """Length of the inner dimension of a product, the last of this operand."""
    return lambda node: _shape(node.args[position])[-1]


def _longest_side(node: fx.Node) -> int:
    """The longest side of the matrices that are multiplied."""
    return 1 + max((side for shape in _shapes(node) for side in shape[-2:]), default=1)


def _of_convolution(node: fx.Node) -> int:
    """Weights that meet in one value."""
    weight = _shape(node.args[1])
    transposed, groups = cast(bool, node.args[6]), cast(int, node.args[8])
    if transposed:  # the weight is (inputs, outputs of a group, *kernel)
        return weight[0] // groups * prod(weight[2:])
    return prod(weight[1:])


def _of_convolution_both_ways(node: fx.Node) -> int:
    outputs, inputs, *window = _shape(node.args[1])
    return 1 + max(outputs, inputs) * prod(window)


def _added(node: fx.Node) -> int:
    """At most all elements of the operand for each of the result, and as many times as windows overlap."""
    return -(-prod(_shape(node.args[0])) // max(1, prod(_shape(node))))


def _of_window(node: fx.Node) -> int:
    kernel: Any = node.args[1]
    return prod(kernel) if len(kernel) > 1 else kernel[0] ** 2


def _of_channel(node: fx.Node) -> int:
    """All elements of one channel: windows are no larger, and no more of them meet in an element."""
    return max((prod(shape[-2:]) for shape in _shapes(node)), default=1)


def _along(node: fx.Node) -> int:
    return _shape(node.args[0])[cast(int, node.args[1])]


LENGTHS: dict[AffineForm | None, tuple[Count, Count]] = {
    **dict.fromkeys(
        [AffineForm.MOVE, AffineForm.JOIN, AffineForm.SPLIT, AffineForm.REARRANGE, AffineForm.NEGATE, AffineForm.PAD],
        (_none, _none),
    ),
    AffineForm.COPY: (_none, _repeats_if_any),
    AffineForm.WINDOWS: (_none, _of_overlaps),
    **dict.fromkeys(
        [AffineForm.ADD, AffineForm.SUBTRACT, AffineForm.FACTOR, AffineForm.DIVIDE, AffineForm.CHOOSE],
        (_none, _of_operands),
    ),
    **dict.fromkeys([AffineForm.TOTAL, AffineForm.MEAN], (_added, lambda node: 1 + _added(node))),
    AffineForm.PRODUCT: (_inner(0), _longest_side),
    AffineForm.BIASED_PRODUCT: (_inner(1), _longest_side),
    AffineForm.CONVOLUTION: (_of_convolution, _of_convolution_both_ways),
    AffineForm.CUMULATE: (_along, _all_elements),
    AffineForm.POOL: (_of_window, _of_channel),
    AffineForm.POOL_TO_SIZE: (lambda node: 4 * _added(node), _of_channel),
    AffineForm.BILINEAR: (lambda node: 4, _all_elements),
}
"""Forms that add up, repeat or move: terms of a value (none: one), and both ways; others count all of their elements.
"""
