"""The truth about small bounded programs: values at points in exact arithmetic, or with hundreds of bits.

Every number in a computer is an integer times a power of two. Sums, products and maxima of such numbers are again, so
networks of piecewise-linear operators are evaluated without any rounding; other operators take mpmath's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import torch
from kinds import Unsuited
from numpy.typing import NDArray

from toolkit.problem.affine import DenseAffine
from toolkit.problem.program import INPUT, Program

BITS = 500
"""Of numbers that are not exact."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Scaled:
    """Numbers ``integers * 2 ** -shift``."""

    integers: Array
    shift: int

    def raised(self, shift: int) -> Array:
        """The integers for a larger shift."""
        return self.integers * (1 << (shift - self.shift))


def scaled(values: Array) -> Scaled:
    """Finite doubles as they are."""
    values = np.asarray(values, dtype=np.float64)
    mantissa, exponent = np.frexp(values)
    integers = (mantissa * (1 << 53)).astype(np.int64)
    zeros = np.where(integers == 0, 0, np.frexp((integers & -integers).astype(np.float64))[1] - 1)
    shifts = np.where(integers == 0, 0, 53 - exponent - zeros)
    shift = int(max(0, shifts.max(initial=0)))
    powers = np.array([1 << int(shift - s) for s in shifts.reshape(-1)], dtype=object).reshape(values.shape)
    return Scaled((integers >> zeros).astype(object) * powers, shift)


def floats(values: Scaled) -> NDArray[np.float64]:
    """The nearest doubles."""
    one = 1 << values.shift
    return np.array([_divided(v, one) for v in values.integers.reshape(-1)]).reshape(values.integers.shape)


def _divided(value: int, one: int) -> float:
    try:
        return value / one
    except OverflowError:
        return np.inf if value > 0 else -np.inf


def added(parts: list[Scaled]) -> Scaled:
    """The sum of arrays of one shape."""
    shift = max(part.shift for part in parts)
    total: Any = 0
    for part in parts:
        total = total + part.raised(shift)
    return Scaled(total, shift)


EXACT: dict[str, Callable[[Scaled], Scaled]] = {
    "relu": lambda z: Scaled(np.where(z.integers > 0, z.integers, 0), z.shift),
    "square": lambda z: Scaled(z.integers**2, 2 * z.shift),
    "cube": lambda z: Scaled(z.integers**3, 3 * z.shift),
    "sign": lambda z: Scaled(np.where(z.integers > 0, 1, np.where(z.integers < 0, -1, 0)).astype(object), 0),
    "floor": lambda z: Scaled(z.integers // (1 << z.shift), 0),
    "round": lambda z: Scaled(np.frompyfunc(lambda n: round(Fraction(n, 1 << z.shift)), 1, 1)(z.integers), 0),
}
"""Operators that keep numbers exact."""

FAR = 3000
"""Arguments of transcendental functions beyond which a case is left out: their values take too long."""


def near(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function of arguments that are not too large; of others there is no case."""

    def guarded(z: Any) -> Any:
        if abs(z) > FAR:
            raise Unsuited
        return function(z)

    return guarded


CLOSE: dict[str, Callable[[Any], Any]] = {
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "square": lambda z: z * z,
    "cube": lambda z: z * z * z,
    "sign": mpmath.sign,
    "floor": mpmath.floor,
    "round": mpmath.nint,
    "sigmoid": near(lambda z: 1 / (1 + mpmath.exp(-z))),
    "tanh": near(mpmath.tanh),
    "erf": near(mpmath.erf),
    "atan": near(mpmath.atan),
    "exp": near(mpmath.exp),
    "sin": near(mpmath.sin),
    "softplus": near(lambda z: mpmath.log(1 + mpmath.exp(z))),
}
"""Operators as functions of one of mpmath's numbers."""


@dataclass(frozen=True)
class ExactValues:
    """What a program comes to at points: pre-activations ``(P, num_neurons)`` and features ``(P, F)``, the nearest
    doubles."""

    pre: NDArray[np.float64]
    features: NDArray[np.float64]


def values_of(program: Program, points: Array) -> ExactValues:
    """The program's values at points ``(P, n)`` of doubles."""
    evaluate = _exactly if all(layer.op in EXACT for layer in program.layers) else _closely
    return evaluate(program, points)


def _parts(affine: Any) -> tuple[tuple[int, ...], list[Array], Array]:
    assert isinstance(affine, DenseAffine)
    return affine.sources, [matrix.double().numpy() for matrix in affine.matrices], affine.bias.double().numpy()


def _exactly(program: Program, points: Array) -> ExactValues:
    values: dict[int, Scaled] = {INPUT: scaled(points)}
    pre: list[Array] = []

    def through(affine: Any) -> Scaled:
        sources, matrices, bias = _parts(affine)
        terms = [_times(values[source], scaled(matrix)) for source, matrix in zip(sources, matrices, strict=True)]
        return added([*terms, scaled(np.broadcast_to(bias, terms[0].integers.shape))])

    for number, layer in enumerate(program.layers):
        z = through(layer.affine)
        pre.append(floats(z))
        values[number] = EXACT[layer.op](z)
    return ExactValues(_joined(pre, points), floats(through(program.features)))


def _times(values: Scaled, matrix: Scaled) -> Scaled:
    return Scaled(np.dot(values.integers, matrix.integers.T), values.shift + matrix.shift)


def _closely(program: Program, points: Array) -> ExactValues:
    with mpmath.workprec(BITS):
        values: dict[int, Array] = {INPUT: numbers(points)}
        pre: list[Array] = []

        def through(affine: Any) -> Array:
            sources, matrices, bias = _parts(affine)
            total = numbers(np.broadcast_to(bias, (len(points), len(bias))))
            for source, matrix in zip(sources, matrices, strict=True):
                total = total + np.dot(values[source], numbers(matrix).T)
            return total

        for number, layer in enumerate(program.layers):
            z = through(layer.affine)
            pre.append(z.astype(np.float64))
            values[number] = np.frompyfunc(CLOSE[layer.op], 1, 1)(z)
        return ExactValues(_joined(pre, points), through(program.features).astype(np.float64))


def numbers(values: Array) -> Array:
    """Doubles as mpmath's numbers."""
    return np.frompyfunc(mpmath.mpf, 1, 1)(np.asarray(values, dtype=np.float64))


def _joined(pre: list[Array], points: Array) -> Array:
    return np.concatenate(pre, axis=1) if pre else np.zeros((len(points), 0))


def above(bound: torch.Tensor, values: Array) -> Array:
    """Where a lower bound is above the truth: by more than the place in which the nearest double may be off."""
    return bound.double().numpy() > np.nextafter(values, np.inf)


def below(bound: torch.Tensor, values: Array) -> Array:
    """Where an upper bound is below the truth, likewise."""
    return bound.double().numpy() < np.nextafter(values, -np.inf)
