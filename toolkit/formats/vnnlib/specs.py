"""Makes specifications: robustness, top-k, output ranges, agreement of two networks, monotonicity.

Every function returns the *unsafe* set as a :class:`Query`. Specifications of one network are of version 1.0, which
every tool reads, and :func:`toolkit.formats.vnnlib.convert_versions.upgrade` lifts them; those of two networks need
version 2.0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.query import (
    AtomBlock,
    Atoms,
    Formula,
    Network,
    Query,
    Relation,
    Tensor,
    TensorKind,
    conjoin,
    disjoin,
    map_blocks,
    offsets,
)
from toolkit.formats.vnnlib.vnnlib1 import flat_network
from toolkit.tuning import tuned

Array = NDArray[np.float64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputBox:
    """Closed bounds of each input element, flattened row-major, shape [n]; values of the input's element type."""

    lower: Array
    upper: Array


def linf_box(
    center: ArrayLike, epsilon: ArrayLike, low: ArrayLike = 0.0, high: ArrayLike = 1.0, dtype: str = "float32"
) -> InputBox:
    """The points of ``[low, high]`` within ``epsilon`` of the centre; each of these a number, or one for each element.

    Bounds are rounded inwards to ``dtype``, so that no reading of the decimals, in double or in single precision,
    leaves the ball. Where it holds no value of ``dtype`` (``epsilon`` near zero) it becomes the centre's nearest value.
    Raises InputError when the centre is outside of the range.
    """
    x = np.asarray(center, dtype=np.float64).reshape(-1)
    radius = np.broadcast_to(np.asarray(epsilon, dtype=np.float64), np.shape(center)).reshape(-1)
    if not (np.isfinite(x).all() and np.isfinite(radius).all() and (radius >= 0).all()):
        raise InputError("centre and epsilon must be finite numbers, and epsilon not negative")
    least, most = (np.broadcast_to(np.asarray(edge, np.float64).reshape(-1), x.shape) for edge in (low, high))
    outside = (x < least) | (x > most)
    if outside.any():
        first = int(np.argmax(outside))
        raise InputError(f"the centre leaves the range [{least[first]:g}, {most[first]:g}]: it is {x[first]:g} there")
    edges = interval_box(least, most, dtype)
    lower = np.maximum(_inward(*_exact_sum(x, -radius), dtype), edges.lower)
    upper = np.minimum(-_inward(*_exact_sum(-x, -radius), dtype), edges.upper)
    nearest = x.astype(dtype).astype(np.float64)
    thin = lower > upper
    return InputBox(np.where(thin, nearest, lower), np.where(thin, nearest, upper))


def interval_box(lower: ArrayLike, upper: ArrayLike, dtype: str = "float32") -> InputBox:
    """Given bounds, rounded inwards to ``dtype``. Raises InputError when that leaves nothing between them."""
    low, high = (np.asarray(bound, dtype=np.float64).reshape(-1) for bound in (lower, upper))
    if low.shape != high.shape or not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError("lower and upper bounds must be finite and of the same shape")
    zero = np.zeros_like(low)
    box = InputBox(_inward(low, zero, dtype), -_inward(-high, zero, dtype))
    if (box.lower > box.upper).any():
        raise InputError(f"no {dtype} value between the bounds of input {int(np.argmax(box.lower > box.upper))}")
    return box


def robustness(box: InputBox, label: int, num_outputs: int, target: int | None = None, lowest: bool = False) -> Query:
    """Unsafe: another output reaches the label's (``target`` alone, if given).

    ``lowest`` is for networks whose answer is the least output. A tie counts as unsafe: 1.0 has no strict comparison.
    """
    others = [target] if target is not None else [output for output in range(num_outputs) if output != label]
    _check_outputs([label, *others], num_outputs)
    if not others or label in others:
        raise InputError(f"nothing competes with output {label}")
    this, that = np.full(len(others), label), np.array(others)
    rows = _differences(that, this) if lowest else _differences(this, that)
    return _one_network(box, num_outputs, rows, disjoin(AtomBlock(i, i + 1) for i in range(len(others))))


def top_k(box: InputBox, label: int, num_outputs: int, k: int) -> Query:
    """Unsafe: ``k`` other outputs reach the label's at once, so that it may not be among the ``k`` largest."""
    _check_outputs([label], num_outputs)
    others = [output for output in range(num_outputs) if output != label]
    if not 1 <= k <= len(others):
        raise InputError(f"k = {k} is not between 1 and {len(others)}")
    most = tuned().specifications.most_subsets
    if math.comb(len(others), k) > most:
        raise UnsupportedError(f"top-{k} of {num_outputs} outputs takes more than {most} disjuncts")
    subsets = list(itertools.combinations(others, k))
    rows = _differences(np.full(len(subsets) * k, label), np.array(subsets).reshape(-1))
    return _one_network(box, num_outputs, rows, disjoin(AtomBlock(i * k, i * k + k) for i in range(len(subsets))))


def output_range(
    box: InputBox,
    num_outputs: int,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    outputs: Sequence[int] | None = None,
) -> Query:
    """Unsafe: one of ``outputs`` (all by default) is at or below ``low``, or at or above ``high``.

    The bounds are numbers, or one for each of these outputs.
    """
    chosen = np.arange(num_outputs) if outputs is None else np.array(outputs, dtype=np.int64)
    _check_outputs(chosen.tolist(), num_outputs)
    sides = [(bound, sign) for bound, sign in ((low, 1.0), (high, -1.0)) if bound is not None]
    if not sides:
        raise InputError("an output range needs a lower or an upper bound")
    values = [np.broadcast_to(np.asarray(bound, dtype=np.float64), chosen.shape) for bound, _ in sides]
    if not all(np.isfinite(value).all() for value in values):
        raise InputError("the bounds of an output range must be finite")
    rows = concatenate([_bounds(chosen, sign, value) for (_, sign), value in zip(sides, values, strict=True)])
    return _one_network(box, num_outputs, rows, disjoin(AtomBlock(i, i + 1) for i in range(len(rows))))


def agreement(
    box: InputBox, input_shape: Shape, output_shape: Shape, tolerance: float, dtype: str = "float32"
) -> Query:
    """Unsafe: on equal inputs, some output of ``f`` and ``g`` differs by more than ``tolerance``. Version 2.0."""
    f, g = _two_networks(input_shape, output_shape, dtype, equal=False)
    yf, yg = _variables(f.outputs[0]), _variables(g.outputs[0])
    apart = [_differences(left, right, Relation.LT, tolerance) for left, right in ((yg, yf), (yf, yg))]
    tie = _differences(_variables(f.inputs[0]), _variables(g.inputs[0]), Relation.EQ)
    unsafe = disjoin(AtomBlock(i, i + 1) for i in range(2 * len(yf)))
    return _two_copies(f, g, box, tie, concatenate(apart), unsafe)


def monotonicity(
    box: InputBox,
    input_shape: Shape,
    output_shape: Shape,
    feature: int,
    output: int,
    increasing: bool = True,
    dtype: str = "float32",
    tolerance: float = 0.0,
) -> Query:
    """Unsafe: raising one input (flat index) lowers an output, or raises it if ``increasing`` is false. Version 2.0.

    ``g`` is the same network as ``f``; its input is equal except for ``feature``, where it is not smaller. A change of
    up to ``tolerance`` is safe; with none, two equal inputs lie exactly on the edge, where rounding hides proofs.
    """
    f, g = _two_networks(input_shape, output_shape, dtype, equal=True)
    _check_outputs([output], f.outputs[0].size)
    xf, xg = _variables(f.inputs[0]), _variables(g.inputs[0])
    if not 0 <= feature < len(xf):
        raise InputError(f"input {feature} is not one of {len(xf)}")
    tie = _differences(xf, xg, np.where(np.arange(len(xf)) == feature, Relation.LE, Relation.EQ))
    yf, yg = _variables(f.outputs[0])[[output]], _variables(g.outputs[0])[[output]]
    drop = _differences(*((yg, yf) if increasing else (yf, yg)), Relation.LT, tolerance)
    return _two_copies(f, g, box, tie, drop, AtomBlock(0, 1))


def concatenate(parts: Sequence[Atoms]) -> Atoms:
    """Atoms one after the other."""
    return Atoms(
        relation=np.concatenate([part.relation for part in parts]),
        constant=np.concatenate([part.constant for part in parts]),
        starts=offsets(np.concatenate([np.diff(part.starts) for part in parts])),
        coefficient=np.concatenate([part.coefficient for part in parts]),
        monomial=np.concatenate([part.monomial for part in parts]),
    )


def _exact_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The rounded sum and its rounding error (Knuth's TwoSum): their exact sum is ``a + b``."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _inward(value: Array, error: Array, dtype: str) -> Array:
    """The least number of ``dtype`` that is at least ``value + error``, as a double."""
    rounded = value.astype(dtype)
    below = (rounded < value) | ((rounded == value) & (error > 0))
    up = np.nextafter(rounded, np.array(np.inf, dtype=dtype))
    return np.where(below, up, rounded).astype(np.float64)


def _variables(tensor: Tensor) -> NDArray[np.int64]:
    return np.arange(tensor.offset, tensor.offset + tensor.size)


def _bounds(variables: NDArray[np.int64], sign: ArrayLike, bound: Array) -> Atoms:
    """``sign * x <= sign * bound`` for each variable."""
    count = len(variables)
    signs = np.broadcast_to(np.asarray(sign, dtype=np.float64), (count,))
    relation = np.full(count, Relation.LE, dtype=np.int8)
    return Atoms(relation, 0.0 - signs * bound, np.arange(count + 1), signs.copy(), variables)


def _differences(
    left: NDArray[np.int64], right: NDArray[np.int64], relation: ArrayLike = Relation.LE, constant: float = 0.0
) -> Atoms:
    """``left - right + constant RELATION 0`` for each pair of variables, terms in variable order."""
    pairs = np.stack([left, right], axis=1)
    order = np.argsort(pairs, axis=1)
    signs = np.take_along_axis(np.broadcast_to([1.0, -1.0], pairs.shape), order, axis=1)
    count = len(pairs)
    relations = np.broadcast_to(np.asarray(relation, dtype=np.int8), (count,)).copy()
    monomials = np.take_along_axis(pairs, order, axis=1).reshape(-1)
    return Atoms(relations, np.full(count, constant), np.arange(count + 1) * 2, signs.reshape(-1), monomials)


def _box_atoms(first: int, box: InputBox) -> Atoms:
    """Upper and lower bound of each element in turn."""
    variables = np.repeat(np.arange(first, first + len(box.lower)), 2)
    signs = np.tile([1.0, -1.0], len(box.lower))
    return _bounds(variables, signs, np.stack([box.upper, box.lower], axis=1).reshape(-1))


def _one_network(box: InputBox, num_outputs: int, rows: Atoms, unsafe: Formula) -> Query:
    """Version 1.0: a box, and atoms over outputs numbered from zero with a formula numbered from zero."""
    inputs = len(box.lower)
    bounds = _box_atoms(0, box)
    shifted = Atoms(rows.relation, rows.constant, rows.starts, rows.coefficient, rows.monomial + inputs)
    formula = conjoin([AtomBlock(0, len(bounds)), _moved(unsafe, len(bounds))])
    return Query("1.0", (flat_network(inputs, num_outputs),), concatenate([bounds, shifted]), formula)


def _two_copies(f: Network, g: Network, box: InputBox, tie: Atoms, rows: Atoms, unsafe: Formula) -> Query:
    if len(box.lower) != f.inputs[0].size:
        raise InputError(f"the box has {len(box.lower)} dimensions, the input {f.inputs[0].size}")
    common = [_box_atoms(network.inputs[0].offset, box) for network in (f, g)]
    before = sum(map(len, common)) + len(tie)
    formula = conjoin([AtomBlock(0, before), _moved(unsafe, before)])
    return Query("2.0", (f, g), concatenate([*common, tie, rows]), formula)


def _two_networks(input_shape: Shape, output_shape: Shape, dtype: str, equal: bool) -> tuple[Network, Network]:
    inputs, outputs = math.prod(input_shape), math.prod(output_shape)

    def network(name: str, offset: int, equal_to: str | None = None) -> Network:
        x = Tensor(f"X_{name}", TensorKind.INPUT, dtype, tuple(input_shape), offset, inputs)
        y = Tensor(f"Y_{name}", TensorKind.OUTPUT, dtype, tuple(output_shape), offset + inputs, outputs)
        return Network(name, (x,), (y,), equal_to=equal_to)

    return network("f", 0), network("g", inputs + outputs, "f" if equal else None)


def _moved(formula: Formula, by: int) -> Formula:
    return map_blocks(formula, lambda block: AtomBlock(block.start + by, block.stop + by))


def _check_outputs(outputs: Sequence[int], num_outputs: int) -> None:
    wrong = next((output for output in outputs if not 0 <= output < num_outputs), None)
    if wrong is not None:
        raise InputError(f"output {wrong} is not one of {num_outputs}")
