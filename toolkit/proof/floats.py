"""What evaluations of a network in a floating-point type may be off by, anywhere in a box.

Inputs are points of the box, or what these are rounded to. Operations round to nearest; numbers below the least normal
one may be taken for zero. Between nonlinear operators a network is a polynomial: sums of products of constants, one of
them or none with a number that comes in. In whatever order they are added up, with fused multiplications or without,
with constants of operators that follow each other multiplied beforehand or not: a product meets at most as many
roundings as all operators on its way have, so that a sum is off by ``n u / (1 - n u)`` times the magnitudes of its
products (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). What underflows, once for each
rounding and each factor, takes with it the factors that are left.

The errors are a network of their own, the *drift*: it has the affine maps without constants, and for a nonlinear step
``f(z + d) - f(z)``, which is ``d`` times a difference quotient. Lines with the middle of what that may be are a
relaxation, and `toolkit.proof.bounds.backward` bounds what all errors together change in a functional.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from toolkit.proof.bounds import ContextBounds, RangeLines, Rows, affine_image, backward
from toolkit.proof.linear_maps import Array, Pick
from toolkit.proof.network import Activation, AffineStep, MaxStep, ProofNetwork, Step

TYPES = {1: (2.0**-24, 2.0**-126, 2.0**126), 11: (2.0**-53, 2.0**-1022, 2.0**1022)}
"""Of float32 and float64, by ONNX's numbers: the relative error of an operation, the least normal number, and one that
is far from the largest."""
QUOTIENT_ROUNDINGS = 16
"""More than what a quotient or a normalisation by constants takes, with the relative error that these have here."""
HIDDEN_FACTOR = 2.0**20
"""More than a factor in what is computed from constants, which is read as one number here."""


def unsuited(network: ProofNetwork) -> str:
    """Why errors of evaluations have no bound here; empty where they have."""
    if len(network.types) != 1 or not network.types <= TYPES.keys():
        return "the network is not of one type, float32 or float64, or computes constants that are rounded"
    names = {step.name for step in network.steps if isinstance(step, Activation)}
    smooth = "tanh" in names or (network.compared >= 0).any()
    return "nothing is known of how a sigmoid, tanh or softmax rounds" if smooth else ""


@dataclass(frozen=True)
class Products:
    """Elements of a value as sums of products, since the last nonlinear steps."""

    mass: Array
    """Sums of magnitudes."""
    roundings: int
    """At most so many meet a product."""
    reach: float
    """More than every sum of magnitudes of products or of parts of them."""


class FloatErrors:
    """Errors of all values in one context, whose bounds are given."""

    def __init__(self, bounds: ContextBounds) -> None:
        self.bounds, self.arithmetic = bounds, bounds.model.arithmetic
        self.unit, self.least, self.most = TYPES[next(iter(bounds.model.network.types))]
        self.products: dict[int, Products] = {}
        steps = [without_constant(bounds.model.network.sizes, step) for step in bounds.model.steps]
        self.drift = ContextBounds(replace(bounds.model, steps=steps), crossed=np.zeros(1, bool))
        with np.errstate(all="ignore"):
            self.enter(0, self.unit * bounds.size[0] + self.least)
            for step, drifting in zip(bounds.model.steps, steps, strict=True):
                if isinstance(step, AffineStep) and isinstance(drifting, AffineStep):
                    self.products[step.value] = self.sums(step)
                    self.drift.put(step.value, *affine_image(self.drift, drifting))
                elif isinstance(step, Activation):
                    self.activation(step)
                elif isinstance(step, MaxStep):
                    error = np.append(self.of(step.source), [[0.0]], 1)[:, step.windows].max(2)
                    self.drift.error[step.value] = error
                    self.enter(step.value, error + self.least)
            total = sum(size.sum() for size in self.drift.size.values())
            self.drift.lost = self.arithmetic.floor * (1 + np.full(1, total))

    def enter(self, value: int, error: Array) -> None:
        """Set the error of an input, or of what a nonlinear step gives."""
        error = self.arithmetic.wider(error, 8)
        mass = self.arithmetic.wider(self.bounds.size[value] + error, 8)
        self.drift.put(value, -error, error)
        self.products[value] = Products(mass, 0, np.maximum(1.0, mass.max()))

    def sums(self, step: AffineStep) -> Products:
        """The products of an affine step's value."""
        mass = np.zeros((1, self.bounds.model.network.sizes[step.value])) if step.bias is None else abs(step.bias)[None]
        roundings, reach = 0, max(1.0, mass.max())
        for source, linear in step.terms:
            below, met, quotient = self.products[source], linear.terms[0], linear.slack > 0
            mass = mass + self.arithmetic.wider(linear.magnitude.forward(below.mass), met)
            roundings = max(roundings, below.roundings + met + quotient * QUOTIENT_ROUNDINGS)
            factor = max(1.0, abs(linear.coefficients).max()) * HIDDEN_FACTOR**quotient
            reach += 2.0 * max(1, met) * factor * below.reach
        return Products(self.arithmetic.wider(mass, 8), roundings + len(step.terms), reach)

    def rounding(self, value: int) -> Array:
        """What the sums of a value are off by, for numbers that come in as they are."""
        products, lost = self.products[value], self.products[value].roundings * self.unit
        gamma = lost / (1 - lost) if lost < 0.5 and products.reach < self.most else np.inf
        underflow = 4 * (products.roundings + 1) * self.least * products.reach
        return self.arithmetic.wider(gamma * products.mass + underflow, 16)

    def of(self, value: int) -> Array:
        """What a value is off by."""
        return self.arithmetic.wider(self.drift.size[value] + self.rounding(value), 8)

    def activation(self, step: Activation) -> None:
        """The lines of a step's drift, and its error."""
        source, rounding, error = step.source, self.rounding(step.source), self.of(step.source)
        l, u = self.bounds.lower[source] - error, self.bounds.upper[source] + error
        low, high = quotients(step, self.arithmetic.down(l), self.arithmetic.up(u))
        middle, half = (low + high) / 2, (high - low) / 2 + self.arithmetic.gamma(8) * (abs(low) + abs(high))
        products = 0.0 if step.name == "clip" or abs(step.parameters[0]) in {0.0, 1.0} else abs(step.parameters[0])
        own = self.unit * products * (self.bounds.size[source] + error) + self.least
        spread = self.arithmetic.wider(half * error + abs(middle) * rounding + own, 16)
        lines = RangeLines(middle, -spread, middle, spread).rounded(self.drift.size[source], self.arithmetic)
        self.drift.lines[step.value] = lines
        self.enter(step.value, abs(middle) * self.drift.size[source] + spread)

    def change(self, input_part: Array, output_part: Array) -> Array:
        """What functionals of inputs and outputs, ``(K, n)`` each, may be off by, ``(K,)``; infinite if unknown."""
        output = self.bounds.model.network.output
        with np.errstate(all="ignore"):
            loss = abs(output_part) @ self.rounding(output)[0] + abs(input_part) @ self.drift.size[0][0]
            rows = Rows(np.zeros(len(loss), int), {output: output_part}, np.zeros(len(loss)), loss)
            return -backward(self.drift, rows).least


def without_constant(sizes: list[int], step: Step) -> Step:
    """A step of the drift: an affine one without its constant; a maximum as what nothing goes through."""
    if isinstance(step, MaxStep):
        nothing = Pick(sizes[step.source], sizes[step.value], np.full(sizes[step.value], -1))
        return AffineStep(step.value, ((step.source, nothing),))
    return replace(step, bias=None) if isinstance(step, AffineStep) else step


def quotients(step: Activation, l: Array, u: Array) -> tuple[Array, Array]:
    """The least and the greatest difference quotients between numbers of ranges."""
    if step.name == "bend":
        ends = np.where(u <= 0, step.parameters[0], 1.0), np.where(l >= 0, 1.0, step.parameters[0])
        return np.minimum(*ends), np.maximum(*ends)
    a, b = step.parameters
    return np.where((l >= a) & (u <= b), 1.0, 0.0), np.where((u <= a) | (l >= b), 0.0, 1.0)
