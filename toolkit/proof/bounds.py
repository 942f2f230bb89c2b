"""Rigorous linear bounds of a network's values over many contexts at once: intervals, and CROWN's backward pass.

A context is a box of inputs with what else is known there; `ContextBounds` has the ranges of all values in a batch of
them. `backward` pushes linear functionals of values back to the input (Zhang et al., Efficient Neural Network
Robustness Certification with General Activation Functions, 2018): an affine step by its adjoint, a nonlinear one by a
line below where the coefficient is positive and one above where it is negative. The minimum over the box follows.

Rounding. A coefficient that a sum of n products gives is off by at most ``gamma(n)`` times the sum of their
magnitudes; what the functional loses by that is at most ``gamma(n) |a| |A| s``, where s has the largest magnitudes of
the source in the context. ``|A| s`` is one number for each value, computed once (`ContextBounds.error`), so a backward
pass has one more inner product a step and no second matrix product. Underflow costs at most a constant, far below
anything that matters. What overflows becomes infinite or NaN, and every comparison is written so that it proves
nothing. Arithmetic is a parameter: with `NumberSystem.exact` the same code computes in rationals, without errors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from toolkit.proof.linear_maps import Array, BlockMatrix, Convolution, Pick, exact_copy
from toolkit.proof.network import Activation, AffineStep, MaxStep, ProofNetwork, Step, sources

LOWEST = -(2.0**1023)
"""In place of minus infinity, above which even an element that knows nothing is."""
ADAPTIVE = 255
"""The slope that leaves the choice to the checker; 0 to 254 are parts of the range that is allowed."""
ELEMENTS = 1 << 17
"""Coefficients of one layer that are computed at once: few enough for a cache, and what bounds the memory."""
MOST_TERMS = 1 << 30
"""More than the terms of all sums of one pass."""
TANH_ERROR = 2.0**-45
"""What numpy's tanh may be off by: about two hundred times what is documented."""

Pair = tuple[Array, Array]
is_rational = np.frompyfunc(lambda number: isinstance(number, int | Fraction), 1, 1)
rational = np.frompyfunc(lambda number: number if isinstance(number, Fraction) else Fraction(number), 1, 1)


@dataclass(frozen=True)
class NumberSystem:
    """Doubles with their roundings, or rationals without any."""

    exact: bool = False

    def gamma(self, terms: int) -> Any:
        """The relative error of a sum of so many products: ``n u / (1 - n u)``, with room for rounding this itself."""
        return 0 if self.exact else terms * 2.0**-53 / (1 - terms * 2.0**-52)

    def wider(self, numbers: Array, terms: int) -> Array:
        """Sums of so many magnitudes, raised above what their own rounding may have taken off."""
        return numbers if self.exact else numbers * (1 + 4 * self.gamma(terms + 8)) + self.floor

    @property
    def floor(self) -> Any:
        """More than underflow can cost in one sum of fewer than 2^30 products."""
        return 0 if self.exact else 2.0**-980

    def down(self, numbers: Array) -> Array:
        """The next double below."""
        with np.errstate(all="ignore"):
            return numbers if self.exact else np.nextafter(numbers, -np.inf)

    def up(self, numbers: Array) -> Array:
        """The next double above."""
        return -self.down(-numbers)

    def zeros(self, *shape: int) -> Array:
        """Zeros to add to."""
        return np.zeros(shape, object if self.exact else float)

    def box(self, lower: Sequence[Fraction], upper: Sequence[Fraction]) -> tuple[Array, Array]:
        """Rational ends of ranges, doubles moved outward."""
        if self.exact:
            return np.array([lower], object), np.array([upper], object)
        return np.array([[double_below(end) for end in lower]]), np.array([[-double_below(-end) for end in upper]])

    def numbers(self, values: Array) -> Array:
        """Doubles in this arithmetic."""
        return rational(values) if self.exact else values

    def parameters(self, step: Activation) -> list[Any]:
        """The numbers of an activation; infinite ends stay what they are."""
        return [Fraction(x) if self.exact and math.isfinite(x) else x for x in step.parameters]

    def finite(self, numbers: Array) -> Array:
        """Where there is a number of this arithmetic: a float among rationals is none."""
        return np.asarray(is_rational(numbers), bool) if self.exact else np.isfinite(numbers)


def double_below(number: Fraction) -> float:
    """The largest double, or minus infinity, that is not above a rational number."""
    found = float(min(max(number, Fraction(-sys.float_info.max)), Fraction(sys.float_info.max)))
    numerator, denominator = found.as_integer_ratio()
    return found if numerator * number.denominator <= number.numerator * denominator else math.nextafter(found, -np.inf)


@dataclass(frozen=True)
class Model:
    """A network in one arithmetic."""

    network: ProofNetwork
    arithmetic: NumberSystem
    steps: list[Step]
    read: dict[int, list[Activation | MaxStep]]
    """Nonlinear steps by the value that they read."""
    grids: dict[int, int]
    """Positions of the images that convolutions give, by the number of elements of these."""

    @classmethod
    def of(cls, network: ProofNetwork, exact: bool = False) -> Model:
        """Prepare a network. Raises ValueError where it has no exact form."""
        if exact and any(isinstance(step, Activation) and step.name == "tanh" for step in network.steps):
            raise ValueError("a sigmoid or tanh")
        steps = [exact_step(step) if exact and isinstance(step, AffineStep) else step for step in network.steps]
        others = [step for step in steps if not isinstance(step, AffineStep)]
        read = {value: [step for step in others if step.source == value] for value in {step.source for step in others}}
        maps = [linear for step in network.steps if isinstance(step, AffineStep) for _, linear in step.terms]
        grids = {linear.outputs: math.prod(linear.window.out) for linear in maps if isinstance(linear, Convolution)}
        return cls(network, NumberSystem(exact), steps, read, grids)

    def in_box(self, lower: Array, upper: Array) -> Model:
        """The model in a box ``(1, n)``. Where most inputs hardly vary, matrices that read the input are of the others,
        and what they make of these inputs is in the bias; all else that reads it reads all of it."""
        start, network, few = ContextBounds(self), self.network, len(self.network.sizes)
        start.put(0, lower, upper)
        varies = (upper - lower > 2.0**-50 * start.size[0])[0]
        kept = np.flatnonzero(varies)
        if not 0 < 2 * len(kept) <= len(varies) or self.arithmetic.exact:
            return self
        steps: list[Step] = [AffineStep(few, ((0, Pick(len(varies), len(kept), kept)),)), *network.steps]
        for number, step in enumerate(steps[1:], 1):
            linear = step.terms[0][1] if isinstance(step, AffineStep) and sources(step) == [0] else None
            if isinstance(step, AffineStep) and isinstance(linear, BlockMatrix) and linear.blocks == 1:
                alone = replace(linear, matrix=np.where(varies[:, None], 0, linear.matrix))
                low, high = affine_image(start, replace(step, terms=((0, alone),)))
                bias, room = (low / 2 + high / 2)[0], self.arithmetic.up(high - low)[0]
                others = replace(linear, inputs=len(kept), matrix=linear.matrix[kept])
                steps[number] = AffineStep(step.value, ((few, others),), bias, room)
        return Model.of(replace(network, sizes=[*network.sizes, len(kept)], steps=steps))


def exact_step(step: AffineStep) -> AffineStep:
    """A step with rational matrices."""
    terms = tuple((source, exact_copy(linear, rational)) for source, linear in step.terms)
    return replace(step, terms=terms, bias=None if step.bias is None else rational(step.bias))


@dataclass(eq=False)
class ContextBounds:
    """Ranges ``(B, n)`` of values in B contexts; what all contexts share may have one row."""

    model: Model
    lower: dict[int, Array] = field(default_factory=dict)
    upper: dict[int, Array] = field(default_factory=dict)
    size: dict[int, Array] = field(default_factory=dict)
    """Largest magnitudes."""
    error: dict[int, Array] = field(default_factory=dict)
    """Of an affine step's value: what a functional loses for a coefficient of 1, when it is pushed back."""
    lost: Any = 0
    """What underflow may take off any functional, ``(B,)``."""
    crossed: Array = field(default_factory=lambda: np.zeros(0, bool))
    """Contexts in which a lower bound is above an upper one: there is no point in them."""
    lines: dict[int, RangeLines] = field(default_factory=dict)
    """Lines with adaptive slopes, by the step's value."""
    space: Pair | None = None
    """Half-spaces ``g . x + d <= 0`` that all counterexamples are in, ``(B, n)`` and ``(B,)``; zeros for none."""

    def put(self, value: int, lower: Array, upper: Array) -> None:
        """Set a value's range. What is no number becomes infinite."""
        if not self.model.arithmetic.exact:
            lower, upper = np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
        elif not (self.model.arithmetic.finite(lower) & self.model.arithmetic.finite(upper)).all():
            raise ArithmeticError("a range is not rational")
        self.lower[value], self.upper[value] = lower, upper
        self.size[value] = np.maximum(abs(lower), abs(upper))
        self.crossed = self.crossed | (lower > upper).any(1)

    def narrowed(self, count: int, facts: Sequence[Fact]) -> ContextBounds:
        """These bounds, of one context, for many below it, with what is known there. Magnitudes stay those here."""
        result = replace(self, lower=dict(self.lower), upper=dict(self.upper), lines={})
        result.crossed = np.broadcast_to(self.crossed, count)
        for fact in facts:
            low, high = (np.repeat(ends[fact.value], count, 0) for ends in (result.lower, result.upper))
            fact.apply(low, high)
            result.lower[fact.value], result.upper[fact.value] = low, high
            result.crossed = result.crossed | (low > high).any(1)
        return result

    def adaptive(self, step: Activation) -> RangeLines:
        """Lines of a step with slopes chosen here."""
        if step.value not in self.lines:
            ranges = self.lower[step.source], self.upper[step.source], self.size[step.source]
            self.lines[step.value] = lines_of(step, ranges, np.array([[ADAPTIVE]]), self.model.arithmetic)
        return self.lines[step.value]


class Fact(NamedTuple):
    """Elements of a value, each in one context of a batch, are in these ranges, infinite where nothing is said."""

    value: int
    contexts: Array
    indices: Array
    lower: Array
    upper: Array

    def apply(self, lower: Array, upper: Array) -> None:
        """Intersect ranges with this, in place."""
        np.maximum.at(lower, (self.contexts, self.indices), self.lower)
        np.minimum.at(upper, (self.contexts, self.indices), self.upper)


# Lines


@dataclass(frozen=True)
class RangeLines:
    """``lower_slope z + lower_offset <= f(z) <= upper_slope z + upper_offset`` in ranges, ``(B, n)`` each."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array
    loss: Any = 0
    """What rounding may cost for a coefficient of 1, in its product with a slope and in the sum of offsets."""

    def rounded(self, size: Array, arithmetic: NumberSystem) -> RangeLines:
        """The lines with their loss, for values of this size at most."""
        slopes = np.maximum(abs(self.lower_slope), abs(self.upper_slope))
        offsets = np.maximum(abs(self.lower_offset), abs(self.upper_offset))
        return replace(self, loss=arithmetic.gamma(4) * slopes * size + arithmetic.gamma(slopes.shape[1] + 8) * offsets)


def lines_of(step: Activation, ranges: Sequence[Array], alpha: Array, arithmetic: NumberSystem) -> RangeLines:
    """Lines of an activation whose operand has these lower and upper ends and magnitudes; ``alpha`` are bytes, each a
    part of the slopes that are allowed, or `ADAPTIVE`. What makes the lines is told where they are that, and the parts.
    """
    (l, u, size), part = ranges, rational(alpha.astype(int)) / 254 if arithmetic.exact else alpha / 254
    make = {"bend": bend_lines, "clip": clip_lines, "tanh": tanh_lines}[step.name]
    with np.errstate(all="ignore"):
        return make(arithmetic.parameters(step), l, u, (alpha == ADAPTIVE, part), arithmetic).rounded(size, arithmetic)


def enclosing(low: Array, high: Array, points: Sequence[Pair], bent: Array, arithmetic: NumberSystem) -> RangeLines:
    """Lines of these slopes below and above a function that is linear between points ``(z, f(z))``, where it is
    ``bent``; elsewhere it is both lines, without an offset. It may be off by a unit in the last place."""

    def offset(slope: Array, sign: int) -> Array:
        pairs = ((f, slope * z) for z, f in points)
        offsets = (f - y - sign * (4 * arithmetic.gamma(2) * (abs(f) + abs(y)) + arithmetic.floor) for f, y in pairs)
        return np.where(bent, reduce(np.minimum if sign > 0 else np.maximum, offsets), 0 * slope)

    return RangeLines(low, offset(low, 1), high, offset(high, -1))


def bend_lines(factor: Sequence[Any], l: Array, u: Array, alpha: Pair, arithmetic: NumberSystem) -> RangeLines:
    """``max(z, a z)``, or min where a > 1: a ReLU with a = 0, a leaky one, the absolute value with a = -1."""
    (a,), (adaptive, part), one = factor, alpha, 1 + 0 * l
    active, unstable = l >= 0, ~((l >= 0) | (u <= 0))
    stable = np.where(active, one, a * one)
    chord = np.where(unstable, (u - a * l) / np.where(unstable, u - l, one), stable)
    free = np.where(adaptive, np.where(u > -l, one, a * one), a + part * (1 - a))
    free = np.where(unstable, free, stable)
    points = [(l, a * l), (0 * l, 0 * l), (u, u)]
    return enclosing(*((free, chord) if a <= 1 else (chord, free)), points, unstable, arithmetic)


def clip_lines(ends: Sequence[Any], l: Array, u: Array, alpha: Pair, arithmetic: NumberSystem) -> RangeLines:
    """Lines of the clip ``min(max(z, a), b)``, on intervals [l, u]."""
    (a, b), (adaptive, part) = ends, alpha

    def f(z: Array) -> Array:
        return np.minimum(np.maximum(z, a), b)

    first, last = np.minimum(np.maximum(l, a), u), np.minimum(np.maximum(l, b), u)

    def steepness(z: Array, y: Array) -> Array:
        """The slope from one point to another further right; 0 where they are one."""
        return np.where(y > z, (f(y) - f(z)) / np.where(y > z, y - z, 1 + 0 * z), 0 * z)

    steep_low, steep_high = steepness(first, u), steepness(l, last)

    def slope(steep: Array, bent: Array, straight: Array) -> Array:
        """A slope from 0 to the steepest one, where a part of this length of the range has a bend before it."""
        chosen = np.where(adaptive, np.where(straight > bent, steep, 0 * l), part * steep)
        return np.where(bent > 0, chosen, steep)

    low, high = slope(steep_low, first - l, u - first), slope(steep_high, u - last, last - l)
    inside = (l >= a) & (u <= b)
    low, high = np.where(inside, 1 + 0 * l, low), np.where(inside, 1 + 0 * l, high)
    points = [(z, f(z)) for z in (l, first, last, u)]
    return enclosing(low, high, points, ~inside, arithmetic)


def tanh_lines(numbers: Sequence[Any], l: Array, u: Array, alpha: Pair, arithmetic: NumberSystem) -> RangeLines:
    """``shift + height tanh(scale z)``; scale and height are powers of two, so that their products are exact."""
    (scale, height, shift), (adaptive, part) = numbers, alpha
    low, below = below_tanh(scale * l, scale * u, adaptive, part)
    high, minus_above = below_tanh(-scale * u, -scale * l, adaptive, 1 - part)
    slack = 2.0**-50 * (1 + np.abs(below) + np.abs(minus_above))
    steep = height * scale
    return RangeLines(steep * low, shift + height * below - slack, steep * high, shift - height * minus_above + slack)


def below_tanh(l: Array, u: Array, adaptive: Array, part: Array) -> tuple[Array, Array]:
    """A line below tanh in ranges: any slope, then an offset that is right for it.

    The slope: of the tangent at a point where tanh is convex in the range, of the chord where it is concave, and in
    between of the line from the upper end that touches it. The offset: ``tanh(z) - slope z`` is concave right of 0,
    with its minimum at an end, and convex left of it, above its tangent at any point.
    """
    top, bottom = np.tanh(u), np.tanh(l)
    chord = (top - bottom) / np.where(u > l, u - l, 1.0)
    inner, outer = np.minimum(u, 0.0), l + 0.0
    for _ in range(12):
        middle = (inner + outer) / 2
        t = np.tanh(middle)
        touches = t + (1 - t * t) * (u - middle) > top
        inner, outer = np.where(touches, middle, inner), np.where(touches, outer, middle)
    point = np.where(u <= 0, l + np.where(adaptive, 0.5, part) * (u - l), outer)
    slope = 1 - np.tanh(point) ** 2
    slope = np.where((l >= 0) | ((u > 0) & (1 - bottom * bottom >= chord)) | ~(u > l), np.maximum(chord, 0.0), slope)
    left, right = np.minimum(l, 0.0), np.minimum(u, 0.0)
    flat = np.minimum(np.maximum(-np.arctanh(np.sqrt(np.clip(1 - slope, 0.0, 1 - 2.0**-53))), left), right)
    t = np.tanh(flat)
    tilt = 1 - t * t - slope
    convex = t - slope * flat + np.minimum(tilt * (left - flat), tilt * (right - flat))
    start = np.maximum(l, 0.0)
    concave = np.minimum(np.tanh(start) - slope * start, top - slope * u)
    found = np.minimum(np.where(l < 0, convex, concave), np.where(u > 0, concave, convex))
    return slope, found - 8 * TANH_ERROR * (1 + np.abs(l) + np.abs(u))


# Intervals


def image(bounds: ContextBounds, step: Step) -> tuple[Array, Array]:
    """The range of a step's value from those of its sources."""
    if isinstance(step, AffineStep):
        return affine_image(bounds, step)
    l, u = bounds.lower[step.source], bounds.upper[step.source]
    if isinstance(step, MaxStep):
        l, u = (np.append(x, np.full((len(x), 1), -np.inf), 1)[:, step.windows] for x in (l, u))
        return l.max(2), u.max(2)
    if step.name == "clip":
        a, b = bounds.model.arithmetic.parameters(step)
        return np.minimum(np.maximum(l, a), b), np.minimum(np.maximum(u, a), b)
    if step.name == "tanh":
        scale, height, shift = step.parameters
        low, high = (shift + height * np.tanh(scale * end) for end in (l, u))
        return low - 4 * TANH_ERROR, high + 4 * TANH_ERROR
    return bend_image(bounds.model.arithmetic.parameters(step)[0], l, u, bounds.model.arithmetic)


def bend_image(a: Any, l: Array, u: Array, arithmetic: NumberSystem) -> tuple[Array, Array]:
    """The range of ``max(z, a z)``, or min where a > 1."""
    if a == 0:
        return np.maximum(l, 0), np.maximum(u, 0)
    ends = [np.where(z < 0, a * z, z) for z in (l, u)]
    ends.append(np.where((l < 0) & (u > 0), 0 * l, ends[0]))
    return arithmetic.down(np.minimum.reduce(ends)), arithmetic.up(np.maximum.reduce(ends))


def affine_image(bounds: ContextBounds, step: AffineStep) -> tuple[Array, Array]:
    """The range by midpoints and radii (Rump, Fast and parallel interval arithmetic, 1999), and the step's errors."""
    arithmetic, total = bounds.model.arithmetic, 1 + len(step.terms)
    half = Fraction(1, 2) if arithmetic.exact else 0.5
    middle = radius = error = arithmetic.zeros(1, bounds.model.network.sizes[step.value])
    for source, linear in step.terms:
        l, u, size = bounds.lower[source], bounds.upper[source], bounds.size[source]
        m = l * half + u * half
        r = arithmetic.up(np.maximum(arithmetic.up(u - m), arithmetic.up(m - l)))
        terms = linear.terms[0] + 2
        loss = arithmetic.gamma(terms + total) + linear.slack
        back = arithmetic.gamma(linear.terms[1] + 2) + linear.slack
        spread, reach = np.split(linear.magnitude.forward(np.concatenate([r, size])), 2)
        middle = middle + linear.forward(m)
        radius = radius + arithmetic.wider(spread, terms) + arithmetic.wider(reach, terms) * loss
        error = error + arithmetic.wider(reach, terms) * back
    if step.bias is not None:
        middle = middle + step.bias
        radius = radius + arithmetic.gamma(total + 2) * abs(step.bias) + step.room
        error = error + arithmetic.gamma(len(step.bias) + 2) * abs(step.bias) + step.room
    bounds.error[step.value] = arithmetic.wider(error, total + 2)
    radius = arithmetic.wider(radius, total + 2)
    return arithmetic.down(middle - radius), arithmetic.up(middle + radius)


Watch = Callable[[int, int], None]
"""Called before backward passes, with the value that they narrow and how many of them are left."""


def fresh_bounds(
    model: Model, lower: Array, upper: Array, facts: Sequence[Fact], watch: Watch = lambda value, passes: None,
    above: ContextBounds | None = None, space: Pair | None = None,
) -> ContextBounds:  # fmt: skip
    """Bounds in the order of the steps: intervals, then CROWN with adaptive slopes, within what is known by facts, and
    in half-spaces.

    Where a context is given that all of these are in, its ranges take the place of intervals.
    """
    bounds = ContextBounds(model, crossed=np.zeros(len(lower), bool), space=space)

    def put(value: int, low: Array, high: Array) -> None:
        low, high = low.copy(), high.copy()
        if above is not None and (value in model.read or value == 0):
            low, high = np.maximum(low, above.lower[value]), np.minimum(high, above.upper[value])
        for fact in facts:
            if fact.value == value:
                fact.apply(low, high)
        bounds.put(value, low, high)

    with np.errstate(all="ignore"):
        put(0, lower, upper)
        reach = abs(bounds.size[0]).sum(1)
        for step in model.steps:
            bounds.lost = model.arithmetic.floor * (1 + reach)
            low, high = image(bounds, step)
            wider = 0 if above is None or step.value not in model.read else np.inf  # where `above` takes its place
            put(step.value, low - wider, high + wider)
            reach = reach + bounds.size[step.value].sum(1)
            if step.value in model.read:
                put(step.value, *crown(bounds, step, watch))
                reach = reach + bounds.size[step.value].sum(1)
        bounds.lost = model.arithmetic.floor * (1 + reach)
    return bounds


def nonlinear_in(step: Activation | MaxStep, l: Array, u: Array) -> Array:
    """Elements of a step's source in whose ranges the step is not linear."""
    if isinstance(step, MaxStep) or step.name == "tanh":
        return l < u
    ends = (0.0,) if step.name == "bend" else step.parameters
    return np.logical_or.reduce([(l < end) & (u > end) for end in ends])


def crown(bounds: ContextBounds, step: Step, watch: Watch) -> tuple[Array, Array]:
    """The ranges of a step's value, narrowed by backward passes for the elements that need it: first at the end nearer
    to zero, which may be enough to make what reads the element linear, then at the other one.

    Elements at one position of an image follow each other: they depend on few positions of what is before them.
    """
    value, l, u = step.value, bounds.lower[step.value].copy(), bounds.upper[step.value].copy()
    widest = max(size.shape[1] for other, size in bounds.size.items() if other != value)
    most, grid = max(1, ELEMENTS // widest), bounds.model.grids.get(l.shape[1], 1)
    needed, nearer = np.broadcast_to(~bounds.crossed[:, None], l.shape), -l < u
    for side in (nearer, ~nearer):
        bent = reduce(np.logical_or, [nonlinear_in(reader, l, u) for reader in bounds.model.read[value]])
        needed = needed & (bent | (value in bounds.model.network.loose))
        pairs = np.argwhere(needed)
        pairs = pairs[np.argsort(pairs[:, 1] % grid, kind="stable")]
        for start in range(0, len(pairs), most):
            watch(value, len(pairs) - start)
            owner, index = pairs[start : start + most].T
            below = side[owner, index]
            least = backward(bounds, of_elements(bounds, step, owner, index, np.where(below, 1, -1))).least
            Fact(value, owner, index, np.where(below, least, -np.inf), np.where(below, np.inf, -least)).apply(l, u)
    return l, u


# The backward pass


class Rows(NamedTuple):
    """R functionals: the context of each, coefficients ``(R, n)`` on values, a constant, what is lost already."""

    owner: Array
    start: dict[int, Array]
    constant: Array
    loss: Any = 0
    slopes: Callable[[int], Array | None] = lambda source: None
    """Bytes of the slopes for steps that read this value, ``(R, n)`` or ``(1, n)``; None: all adaptive."""


def of_elements(bounds: ContextBounds, step: Step, owner: Array, index: Array, signs: Array) -> Rows:
    """Elements of a step's value times signs, pushed back through the step where that is one matrix."""
    arithmetic, signs = bounds.model.arithmetic, bounds.model.arithmetic.numbers(signs)[:, None]
    source, linear = step.terms[0] if isinstance(step, AffineStep) and len(step.terms) == 1 else (0, None)
    if isinstance(step, AffineStep) and isinstance(linear, BlockMatrix) and linear.blocks == 1:
        constant = arithmetic.zeros(len(owner)) if step.bias is None else signs[:, 0] * step.bias[index]
        loss = bounds.error[step.value][owner % len(bounds.error[step.value]), index]
        return Rows(owner, {source: signs * linear.matrix.T[index]}, constant, loss)
    unit = arithmetic.zeros(len(owner), bounds.lower[step.value].shape[1])
    unit[np.arange(len(owner)), index] = signs[:, 0]
    return Rows(owner, {step.value: unit}, arithmetic.zeros(len(owner)))


class LowerBound(NamedTuple):
    """Each row's functional is at least ``coefficients . x + constant`` at the points of its context, so ``least``,
    which is minus infinity where it would be no number."""

    least: Array
    coefficients: Array
    constant: Array


def inner_products(coefficients: Array, table: Array) -> Array:
    """Inner products of rows, one or several each, with those of a table, or with its only row."""
    return coefficients @ table[0] if len(table) == 1 else np.einsum("r...n,rn->r...", coefficients, table)


def best_multipliers(b: Array, g: Array, d: Array, lower: Array, upper: Array) -> Array:
    """For rows ``b``, the m >= 0, ``(R, 1)``, by which the least value of ``b x + m (g x + d)`` over boxes is greatest:
    it is concave in m, and rises less after each m at which a coefficient changes its sign."""
    flips = np.divide(-b, g, out=0 * (b + g), where=g != 0)
    order = np.where(flips > 0, flips, np.inf).astype(float).argsort(1)
    rise = d + (g * np.where((b > 0) | ((b == 0) & (g > 0)), lower, upper)).sum(1, keepdims=True)
    falls = np.take_along_axis(np.where(flips > 0, abs(g) * (upper - lower), 0), order, 1).cumsum(1)
    passed = np.minimum((rise > falls).sum(1), (flips > 0).sum(1) - 1).clip(0)
    return np.maximum(0, np.take_along_axis(flips, np.take_along_axis(order, passed[:, None], 1), 1))


class Pass:
    """A backward pass under way: coefficients, constant and loss of the rows."""

    def __init__(self, bounds: ContextBounds, rows: Rows) -> None:
        self.bounds, self.rows, self.arithmetic = bounds, rows, bounds.model.arithmetic
        self.owner = rows.owner[:1] if (rows.owner == rows.owner[:1]).all() else rows.owner
        self.coefficients, self.constant = dict(rows.start), rows.constant
        self.loss = rows.loss + self.of(np.asarray(bounds.lost))

    def of(self, table: Array) -> Array:
        """Rows of a table of contexts, for each functional; one row where all share it."""
        return table if len(table) == 1 else table[self.owner]

    def add_constant(self, more: Array) -> None:
        """Add to the constants."""
        self.constant = self.constant + more
        self.loss = self.loss + self.arithmetic.gamma(2) * abs(self.constant)

    def add(self, value: int, more: Array) -> None:
        """Add to the coefficients on a value."""
        if value in self.coefficients:
            more = self.coefficients[value] + more
            reach = inner_products(abs(more), self.of(self.bounds.size[value]))
            self.loss = self.loss + self.arithmetic.gamma(2) * reach
        self.coefficients[value] = more

    def affine(self, step: AffineStep, a: Array) -> None:
        """Push coefficients through an affine step."""
        self.loss = self.loss + inner_products(abs(a), self.of(self.bounds.error[step.value]))
        if step.bias is not None:
            self.add_constant(a @ step.bias)
        for source, linear in step.terms:
            self.add(source, linear.adjoint(a))

    def activation(self, step: Activation, a: Array) -> None:
        """Replace the step by its lines."""
        given = self.rows.slopes(step.source)
        if given is None:
            lines = RangeLines(*map(self.of, vars(self.bounds.adaptive(step)).values()))
        else:
            ranges = [self.of(end[step.source]) for end in (self.bounds.lower, self.bounds.upper, self.bounds.size)]
            lines = lines_of(step, ranges, given, self.arithmetic)
        up, down = np.maximum(a, 0), np.minimum(a, 0)
        self.add_constant(inner_products(up, lines.lower_offset) + inner_products(down, lines.upper_offset))
        self.loss = self.loss + inner_products(abs(a), lines.loss)
        self.add(step.source, up * lines.lower_slope + down * lines.upper_slope)

    def maximum(self, step: MaxStep, a: Array) -> None:
        """Replace maxima by the element with the greatest lower bound, which may be shown to be the maximum."""
        low, high = self.bounds.lower[step.source], self.bounds.upper[step.source]
        nothing = np.full((len(low), 1), -np.inf)  # in place -1
        lows = np.append(np.maximum(low, LOWEST), nothing, 1)[:, step.windows]
        highs = np.append(high, nothing, 1)[:, step.windows]
        chosen = lows.argmax(2)
        others = np.where(np.arange(lows.shape[2]) == chosen[..., None], -np.inf, highs).max(2)
        decided = (others <= lows.max(2)) & (lows.max(2) > LOWEST)
        chosen, decided, top = self.of(chosen), self.of(decided), self.of(highs.max(2))
        through = np.where(decided, a, np.maximum(a, 0))
        offsets = np.where(decided, 0, np.minimum(a, 0)) * np.where(decided, 0, top)
        self.loss = self.loss + self.arithmetic.gamma(a.shape[1] + 2) * abs(offsets).sum(1)
        self.add_constant(offsets.sum(1))
        for number, tap in enumerate(step.windows.T):
            pushed, here = self.arithmetic.zeros(len(a), low.shape[1]), tap >= 0
            pushed[:, tap[here]] = np.where(chosen == number, through, 0)[:, here]
            self.add(step.source, pushed)

    def finish(self) -> LowerBound:
        """The least values over the boxes."""
        bounds, arithmetic, inputs = self.bounds, self.arithmetic, self.bounds.lower[0].shape[1]
        a = self.coefficients.get(0, arithmetic.zeros(len(self.constant), inputs))
        g, d = self.bounds.space or (arithmetic.zeros(1, inputs), arithmetic.zeros(1))
        used = np.flatnonzero(a.any(0) | g.any(0))
        # magnitudes: the ranges of a context below may be narrower than those that these are of
        lower, upper, size = (self.of(end[0][:, used]) for end in (bounds.lower, bounds.upper, bounds.size))
        b, g, d = a[:, used], self.of(g[:, used]), self.of(d)[:, None]
        m = arithmetic.zeros(len(b), 1)
        if g.any():  # the least value of b + m g is at most that of b in the half-space
            m = np.append(m, best_multipliers(b, g, d, lower, upper), 1)
        c, reach = (x[:, None] + m[..., None] * y[:, None] for x, y in ((b, g), (abs(b), abs(g))))
        more = inner_products(np.maximum(c, 0), lower) + inner_products(np.minimum(c, 0), upper) + m * d
        reach = arithmetic.wider(inner_products(reach, size) + m * abs(d), inputs + 8)
        value = np.fmax.reduce(more - arithmetic.gamma(2 * inputs + 16) * reach, 1)
        least = value + self.constant
        wide = arithmetic.wider(self.loss + arithmetic.gamma(4) * (abs(value) + abs(least)), MOST_TERMS)
        least = arithmetic.down(least - wide)
        return LowerBound(np.where(arithmetic.finite(least), least, -np.inf), a, arithmetic.down(self.constant - wide))


def backward(bounds: ContextBounds, rows: Rows) -> LowerBound:
    """Push functionals back to the input and bound them from below."""
    with np.errstate(all="ignore"):
        state = Pass(bounds, rows)
        for step in reversed(bounds.model.steps):
            if (a := state.coefficients.pop(step.value, None)) is not None:
                push: Any = {AffineStep: state.affine, MaxStep: state.maximum, Activation: state.activation}[type(step)]
                push(step, a)
        return state.finish()
