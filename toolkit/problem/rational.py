"""Linear functions of the input in rational arithmetic: numpy arrays of Python's integers, with a common exponent.

Every double is an integer times a power of two, so networks whose phases are fixed are evaluated without any rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from toolkit.problem.affine import Affine, DenseAffine, in_numpy
from toolkit.problem.program import INPUT, Program

Integers = NDArray[np.object_]


@dataclass(frozen=True)
class Dyadic:
    """The numbers ``integers * 2**-bits``."""

    integers: Integers
    bits: int

    def __matmul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.integers @ other.integers, self.bits + other.bits)

    def __add__(self, other: Dyadic) -> Dyadic:
        bits = max(self.bits, other.bits)
        return Dyadic(self.finer(bits).integers + other.finer(bits).integers, bits)

    def finer(self, bits: int) -> Dyadic:
        """Write the numbers with a larger exponent ``bits``; their values stay."""
        return Dyadic(self.integers * (1 << (bits - self.bits)), bits)


def dyadic(values: Tensor | NDArray[np.float64]) -> Dyadic:
    """Finite doubles as integers with a common exponent, exactly."""
    array = np.asarray(in_numpy(values) if isinstance(values, Tensor) else values)
    mantissa, exponent = np.frexp(array)
    digits, shift = np.ldexp(mantissa, 53).astype(np.int64), exponent.astype(np.int64) - 53
    lowest = min(int(shift[digits != 0].min(initial=0)), 0)
    shifts = np.where(digits != 0, shift - lowest, 0)
    integers = np.empty(array.shape, dtype=object)
    integers.ravel()[:] = [int(d) << int(s) for d, s in zip(digits.ravel(), shifts.ravel(), strict=True)]
    return Dyadic(integers, -lowest)


@dataclass(frozen=True)
class RationalMap:
    """A dense affine map: one matrix for each source, and the bias as a column."""

    sources: tuple[int, ...]
    matrices: tuple[Dyadic, ...]
    bias: Dyadic

    @classmethod
    def of(cls, affine: Affine) -> RationalMap:
        """The map as it is stored; only of a rational program it is the network's. The map has to be dense."""
        assert isinstance(affine, DenseAffine)
        return cls(affine.sources, tuple(map(dyadic, affine.matrices)), dyadic(affine.bias.unsqueeze(1)))

    def of_forms(self, forms: dict[int, Dyadic]) -> Dyadic:
        """The values as linear functions of the input, ``(size, n + 1)``, for those of the sources."""
        columns = next(iter(forms.values())).integers.shape[1]
        constant = np.zeros((len(self.bias.integers), columns), dtype=object)
        constant[:, -1] = self.bias.integers[:, 0]
        total = Dyadic(constant, self.bias.bits)
        for source, matrix in zip(self.sources, self.matrices, strict=True):
            total = total + matrix @ forms[source]
        return total


@dataclass(frozen=True)
class RationalProgram:
    """A ReLU network of dense maps that were not rounded."""

    num_inputs: int
    layers: tuple[RationalMap, ...]
    features: RationalMap

    @classmethod
    def of(cls, program: Program) -> RationalProgram:
        """The program in rational arithmetic; see `is_rational`."""
        layers = tuple(RationalMap.of(layer.affine) for layer in program.layers)
        return cls(program.num_inputs, layers, RationalMap.of(program.features))

    def linear(self, phases: NDArray[np.int8]) -> tuple[Dyadic, Dyadic]:
        """Pre-activations ``(num_neurons, n + 1)`` and features ``(F, n + 1)`` where all neurons have these phases.

        A row is the coefficients on the input, and the constant.
        """
        forms = {INPUT: Dyadic(np.eye(self.num_inputs, self.num_inputs + 1, dtype=np.int64).astype(object), 0)}
        before, start = Dyadic(np.zeros((0, self.num_inputs + 1), dtype=object), 0), 0
        for number, layer in enumerate(self.layers):
            z = layer.of_forms(forms)
            active = phases[start : start + len(z.integers)] > 0
            start += len(active)
            forms[number] = Dyadic(z.integers * active[:, None].astype(object), z.bits)
            bits = max(before.bits, z.bits)
            before = Dyadic(np.concatenate([before.finer(bits).integers, z.finer(bits).integers]), bits)
        return before, self.features.of_forms(forms)


def is_rational(program: Program) -> bool:
    """Whether a program has a rational twin: dense maps without any rounding between ReLUs."""
    dense = all(isinstance(affine, DenseAffine) for affine in program.maps())
    relus = all(layer.op == "relu" for layer in program.layers)
    return dense and relus and program.rational is not None and program.rational()
