"""Whether the affine maps of a graph are stored without any rounding, so that rational arithmetic may rely on them.

Numbers on a grid of spacing ``2**-fine`` and of magnitude below ``2**large`` are exact doubles where ``fine + large``
is at most 53. Constants have a grid; a product adds both numbers, a sum takes the finer grid and the larger magnitude.
A map is written out by pushing unit vectors through its operators, forwards or backwards, so every sum is bounded by
its magnitudes along rows and along columns. What cannot be judged in this way counts as rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from toolkit.ops import AffineForm
from toolkit.problem.operator_table import form_of

MANTISSA = 53
"""Bits of a double."""


@dataclass(frozen=True)
class Grid:
    """Numbers that are multiples of ``2**-fine`` and of magnitude at most ``2**large``; both at least 0."""

    fine: int = 0
    large: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether doubles hold all such numbers."""
        return self.fine + self.large <= MANTISSA

    def times(self, other: Grid) -> Grid:
        """The grid of products of numbers on two grids."""
        return Grid(self.fine + other.fine, self.large + other.large)

    def plus(self, other: Grid) -> Grid:
        """The grid of sums of numbers on two grids."""
        return Grid(max(self.fine, other.fine), max(self.large, other.large) + 1)

    def wider(self, factor: float) -> Grid:
        """The grid of sums of so many numbers on this one."""
        return Grid(self.fine, self.large + math.ceil(math.log2(max(factor, 1.0))))


UNIT = Grid()
UNKNOWN = Grid(MANTISSA, 1.0)


def grid_of(values: Any) -> Grid:
    """The grid of constants. Their magnitude is the largest sum of magnitudes along any axis."""
    array = np.abs(np.asarray(values, dtype=np.float64))
    if not np.isfinite(array).all():
        return UNKNOWN
    mantissa, exponent = np.frexp(array[array != 0])
    if not len(mantissa):
        return UNIT
    digits = np.ldexp(mantissa, MANTISSA).astype(np.int64)
    trailing = np.log2((digits & -digits).astype(np.float64)).astype(np.int64)
    finest = int((MANTISSA - exponent - trailing).max())
    sums = max([float(array.max()), *(float(array.sum(axis).max()) for axis in range(array.ndim))])
    # Of a convolution's weight, what one output or one input takes part in is all axes but one of the first two.
    if array.ndim > 2:
        flat = array.reshape(*array.shape[:2], -1)
        sums = max(sums, float(flat.sum((1, 2)).max()), float(flat.sum((0, 2)).max()))
    return Grid(max(finest, 0), max(math.ceil(math.log2(sums)) + 1, 0))


def computed_exactly(module: fx.GraphModule, cuts: Callable[[fx.Node], bool]) -> bool:
    """Whether no operator of a traced graph rounds anything between its inputs, its ``cuts`` and its output.

    That is for the constants as they stand there: whether these were rounded, ``meta["folded"]`` of a trace tells.
    """
    return _Reading(module, cuts).exact()


def unit_of(values: Any) -> float:
    """A power of two, one or less, that all values are multiples of; zero where some are not finite."""
    grid = grid_of(values)
    return 0.0 if grid is UNKNOWN else 2.0**-grid.fine


@dataclass(frozen=True)
class PowerOfTwoUnits:
    """Powers of two, one or less, that what an affine graph computes is multiples of."""

    coefficients: float = 1.0
    constants: float = 1.0
    """Unit of the value at zero; one where nothing was added yet."""

    def times(self, unit: float) -> PowerOfTwoUnits:
        """The units of products with multiples of a unit."""
        return PowerOfTwoUnits(self.coefficients * unit, self.constants * unit)

    def plus(self, other: PowerOfTwoUnits) -> PowerOfTwoUnits:
        """The units of sums of two graphs' results."""
        return PowerOfTwoUnits(min(self.coefficients, other.coefficients), min(self.constants, other.constants))


def units_of(module: fx.GraphModule) -> PowerOfTwoUnits:
    """The units of an affine graph's result; zeros where an operator is not a move, a sum or a product."""
    buffers = dict(module.named_buffers(remove_duplicate=False))
    found: dict[fx.Node, PowerOfTwoUnits] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            found[node] = PowerOfTwoUnits()
        elif node.op == "call_function":
            form = form_of(node)
            known = form in _MOVES | _COPIES | {AffineForm.TOTAL}
            if not known and (node.kwargs or form not in _SUMS | _PRODUCTS | set(_BIASED)):
                return PowerOfTwoUnits(0.0, 0.0)
            found[node] = _result_units(node, found, buffers, known)
        elif node.op == "output":
            return found.get(node.args[0], PowerOfTwoUnits())
    return PowerOfTwoUnits(0.0, 0.0)


def _result_units(
    node: fx.Node, found: dict[fx.Node, PowerOfTwoUnits], buffers: dict[str, Tensor], moved: bool
) -> PowerOfTwoUnits:
    """The units of one operator's result, by those of its operands."""
    form = form_of(node)
    added = node.args[_BIASED[form][0]] if form in _BIASED else None
    result, factor = PowerOfTwoUnits(), 1.0
    for operand in [*node.all_input_nodes, *(argument for argument in node.args if isinstance(argument, float))]:
        if operand in found:
            result = result.plus(found[operand])
        elif moved or form in _SUMS or operand is added:
            result = result.plus(PowerOfTwoUnits(1.0, unit_of(_constant(operand, buffers))))
        else:
            factor *= unit_of(_constant(operand, buffers))
    return result.times(factor)


def lossless(unit: float, magnitudes: Sequence[Tensor]) -> bool:
    """Whether sums of multiples of a unit, in double precision, round nowhere, by the sums of their magnitudes.

    A sum inside an affine graph is no larger a multiple of its own unit than the result, which has its products with
    multiples of the units of all factors on the way. This is finer than what `computed_exactly` can tell without the
    magnitudes of the results.
    """
    return all(float(part.max()) <= unit * 2.0**MANTISSA for part in magnitudes if part.numel())


def _constant(argument: Any, buffers: dict[str, Tensor]) -> Any:
    return buffers[str(argument.target)].double().numpy() if isinstance(argument, fx.Node) else argument


_MOVES = frozenset({AffineForm.MOVE, AffineForm.JOIN, AffineForm.SPLIT, AffineForm.CONVERT, AffineForm.NEGATE})
"""Forms of operators that move each element to one place."""
_COPIES = frozenset({AffineForm.COPY, AffineForm.SELECT})
"""Forms of operators that may move an element to many places."""
_SUMS = frozenset({AffineForm.ADD, AffineForm.SUBTRACT})
_PRODUCTS = frozenset({AffineForm.FACTOR, AffineForm.PRODUCT})
_BIASED = {AffineForm.BIASED_PRODUCT: (0, 1, 2), AffineForm.CONVOLUTION: (2, 0, 1)}
"""Positions of what is added to a product, and of its factors."""


class _Reading:
    """The grids of a graph's nodes, one after the other."""

    def __init__(self, module: fx.GraphModule, cuts: Callable[[fx.Node], bool]) -> None:
        self._module, self._cuts = module, cuts
        self._buffers = dict(module.named_buffers(remove_duplicate=False))
        self._grids: dict[fx.Node, Grid] = {}

    def exact(self) -> bool:
        for node in self._module.graph.nodes:
            if node.op == "placeholder":
                self._grids[node] = UNIT
            elif node.op == "call_function":
                if not all(grid.exact for grid in self._operands(node)):
                    return False
                grid = UNIT if self._cuts(node) else self._result(node)
                self._grids[node] = grid.wider(len(node.users))
            elif node.op == "output":
                return all(grid.exact for grid in self._operands(node))
        return False

    def _operands(self, node: fx.Node) -> list[Grid]:
        return [self._grids[operand] for operand in node.all_input_nodes if operand in self._grids]

    def _result(self, node: fx.Node) -> Grid:
        form = form_of(node)
        if form in _MOVES:
            return self._joined(node, node.args[0])
        if form in _COPIES:
            return self._joined(node, node.args[0]).wider(self._size(node))
        if node.kwargs:
            return UNKNOWN
        if form in _SUMS and len(node.args) == 2:
            return self._value(node, node.args[0]).plus(self._value(node, node.args[1]))
        if form in _PRODUCTS:
            return self._value(node, node.args[0]).times(self._value(node, node.args[1]))
        if form in _BIASED:
            added, *factors = (node.args[position] for position in _BIASED[form])
            product = self._value(node, factors[0]).times(self._value(node, factors[1]))
            return product if added is None else product.plus(self._value(node, added))
        if form is AffineForm.TOTAL:
            operand: Any = node.args[0]
            return self._value(node, operand).wider(self._size(operand))
        return UNKNOWN

    def _joined(self, node: fx.Node, operand: Any) -> Grid:
        """The grid of several tensors side by side, or of one."""
        if not isinstance(operand, (list, tuple)):
            return self._value(node, operand, copied=False)
        grids = [self._value(node, part, copied=False) for part in operand]
        return Grid(max(grid.fine for grid in grids), max(grid.large for grid in grids))

    def _value(self, node: fx.Node, operand: Any, copied: bool = True) -> Grid:
        """The grid of an operand: a number, a constant, or what was computed, copied where it is broadcast."""
        if not isinstance(operand, fx.Node):
            return grid_of(operand)
        if operand.op == "get_attr":
            return grid_of(self._buffers[str(operand.target)].double().numpy())
        grid = self._grids[operand]
        elementwise = form_of(node) in _SUMS | _PRODUCTS
        return grid.wider(self._size(node) / max(self._size(operand), 1)) if copied and elementwise else grid

    @staticmethod
    def _size(node: fx.Node) -> float:
        return float(math.prod(node.meta["shape"]))
