"""Random bounded programs with boxes, points of these, and the true values there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from choices import Choices
from exact_reference import ExactValues, above, below, values_of
from kinds import Wrong
from numpy.typing import NDArray
from torch import Tensor

from toolkit.bounds.interval import Bounds
from toolkit.ops import RELAXATIONS
from toolkit.problem.affine import DenseAffine
from toolkit.problem.program import INPUT, Layer, Program

Array = NDArray[np.float64]
CPU = torch.device("cpu")
TOTAL = ("relu", "sigmoid", "tanh", "square", "sin", "erf", "atan", "exp", "softplus", "cube", "sign", "floor", "round")
"""Operators that are defined everywhere."""
PIECEWISE_LINEAR = ("relu",)


@dataclass(frozen=True)
class Numbers:
    """A way to draw weights."""

    name: str
    top: int = 32
    """Largest mantissa."""
    scale: float = 1 / 8
    exponents: tuple[int, ...] = (0,)
    """Powers of two by which one row or column may be scaled."""
    zeros: float = 0.2
    """Share of numbers that are zero."""

    def array(self, choices: Choices, *shape: int) -> Array:
        """An array of such numbers."""
        flat = [self.number(choices) for _ in range(int(np.prod(shape)))]
        return np.array(flat, dtype=np.float64).reshape(shape)

    def number(self, choices: Choices) -> float:
        """One such number."""
        zeros = round(2 * self.top * self.zeros)
        drawn = max(0, choices.below(2 * self.top + 1 + zeros) - zeros)
        value = (drawn + 1) // 2 * (self.scale if drawn % 2 else -self.scale)
        return value * 2.0 ** choices.of(self.exponents) if value and len(self.exponents) > 1 else value


EIGHTHS = Numbers("eighths")
"""Numbers that hardly any sum of a small network rounds."""
SIGNS = Numbers("signs", 2, 1.0)
"""Small integers, whose sums cancel often: absolute values, copies, differences of what is equal."""
PLAIN = Numbers("plain", 1 << 20, 2.0**-19)
"""Numbers that every product rounds."""
SINGLE = Numbers("single", 1 << 40, 2.0**-39)
"""Numbers that single precision rounds."""
EXTREME = Numbers("extreme", 1 << 12, 2.0**-11, (0, 30, -30, 60, -60, 100, -100, 10, -10))
"""Numbers of very different sizes."""


WIRINGS = ("chain", "parallel", "all", "any", "parallel")
"""What the maps of a program read: the layer before, the inputs alone but for the last ones, all, or some of them."""


def read_by(choices: Choices, wiring: str, sizes: dict[int, int], last: bool) -> list[int]:
    """The sources of a map; ``last`` says that there is only the map of the features after it, or none."""
    order = sorted(sizes)
    if wiring == "all" or (wiring == "parallel" and last):
        return order
    base = {"chain": order[-1], "parallel": INPUT}.get(wiring)
    chosen = {choices.of(order[::-1]) if base is None else base}
    return sorted(chosen | {source for source in order if choices.chance(0.1 if base is not None else 0.3)})


def dense(choices: Choices, numbers: Numbers, sizes: dict[int, int], rows: int) -> DenseAffine:
    """A map with so many rows of sources, whose sizes are given."""
    matrices = [numbers.array(choices, rows, size) for size in sizes.values()]
    tensors = tuple(torch.as_tensor(matrix) for matrix in matrices)
    return DenseAffine(tuple(sizes), tensors, torch.as_tensor(numbers.array(choices, rows)))


def random_program(choices: Choices, numbers: Numbers, ops: Sequence[str], inputs: int = 3, depth: int = 4) -> Program:
    """A program of a few layers."""
    count, length = choices.of((1, *range(1, inputs + 1), inputs)), choices.of((1, 3, 2, 3, depth))
    wiring, width = choices.of(WIRINGS), choices.of((4, 3, 8))
    sizes, layers = {INPUT: count}, list[Layer]()
    for number in range(length):
        op, rows = choices.of(ops), choices.between(1, width)
        read = read_by(choices, wiring, sizes, number == length - 1)
        affine = dense(choices, numbers, {source: sizes[source] for source in read}, rows)
        layers.append(Layer(f"{op}_{number}", op, affine, layers[-1].stop if layers else 0))
        sizes[number] = rows
    read = read_by(choices, wiring, sizes, True)
    features = dense(choices, numbers, {source: sizes[source] for source in read}, choices.between(1, 2))
    return Program(count, tuple(layers), features, CPU, torch.float64)


def random_box(choices: Choices, size: int, centre: float = 2.0) -> tuple[Array, Array]:
    """A box whose corners are multiples of a small power of two; some sides are points."""
    far = choices.of((0, 16, 4))
    middle = np.array([choices.signed(far) for _ in range(size)]) * centre / 16
    radius = np.array([choices.of((4, 16, 1, 0, 40)) for _ in range(size)]) / 16
    return middle - radius, middle + radius


TRIED = 200
"""Points of a box of which those are taken where some neuron or feature is least or largest."""


def telling_points(choices: Choices, program: Program, lower: Array, upper: Array, count: int) -> Array:
    """Points of a box ``(count, n)``: those where neurons and features are extreme among many, and others."""
    points = random_points(choices, lower, upper, TRIED)
    z = approximate(program, points)
    ends = np.concatenate([z.argmin(0), z.argmax(0)])
    numbers = np.unique(np.concatenate([ends[::-1][: count - 3], np.arange(3)]))[:count]
    return points[np.concatenate([numbers, np.full(count - len(numbers), numbers[0])])]


def approximate(program: Program, points: Array) -> Array:
    """Pre-activations and features, ``(P, num_neurons + F)``, in double precision."""
    values, found = {INPUT: torch.as_tensor(points)}, []
    for number, affine in enumerate(program.maps()):
        found.append(affine.apply([values[source] for source in affine.sources]))
        if number < len(program.layers):
            values[number] = RELAXATIONS[program.layers[number].op].function(found[-1])
    return torch.nan_to_num(torch.cat(found, 1)).numpy()


def random_points(choices: Choices, lower: Array, upper: Array, count: int) -> Array:
    """Points of a box ``(count, n)``: many of their coordinates are at its ends."""
    shares = np.random.default_rng(choices.seed()).integers(0, 65, (count, len(lower))) / 64
    shares[: count // 2] = np.round(shares[: count // 2])
    return np.clip(lower + shares * (upper - lower), lower, upper)


def shown(point: Array) -> str:
    """The first coordinates of a point."""
    first = ", ".join(repr(float(value)) for value in point[:6])
    return f"[{first}{', ...' if len(point) > 6 else ''}]"


@dataclass(frozen=True)
class Scene:
    """A program, boxes ``(B, n)``, points ``(B, P, n)`` and the truth there."""

    program: Program
    box: Bounds
    points: Array
    truth: tuple[ExactValues, ...]
    """Exact values at sampled points, one entry for each box."""

    @property
    def dtype(self) -> torch.dtype:
        return self.program.dtype

    def tensor(self, values: Any) -> Tensor:
        """Numbers in the program's precision."""
        return torch.as_tensor(values, dtype=torch.float64).to(self.dtype)

    def neurons(self, label: str, bounds: Bounds, rows: Sequence[int] | None = None, kept: Any = None) -> int:
        """Judge bounds of neurons, ``(B, N)``; only of some boxes, at some points ``(B, P)``, where these are given."""
        for row, number in enumerate(range(len(self.truth)) if rows is None else rows):
            pre = self.truth[number].pre
            wrong = above(bounds.lower[row], pre) | below(bounds.upper[row], pre)
            if kept is not None:
                wrong &= kept[number][:, None]
            if wrong.any():
                point, neuron = np.argwhere(wrong)[0]
                raise Wrong(
                    f"{label}: neuron bounds",
                    f"box {number}, neuron {neuron}: {pre[point, neuron]!r} at {shown(self.points[number][point])}, "
                    f"bounds {float(bounds.lower[row, neuron])!r}, {float(bounds.upper[row, neuron])!r}",
                )
        return len(self.truth)

    def least(self, label: str, lower: Tensor, values: list[Array], kept: Any = None) -> int:
        """Judge lower bounds ``(B, R)`` of quantities whose values at points ``(P, R)`` are given for each box."""
        for number, truth in enumerate(values):
            wrong = above(lower[number], truth)
            if kept is not None:
                wrong &= kept[number][:, None]
            if wrong.any():
                point, row = np.argwhere(wrong)[0]
                raise Wrong(
                    label,
                    f"box {number}, row {row}: {truth[point, row]!r} at {shown(self.points[number][point])}, "
                    f"lower bound {float(lower[number, row])!r}",
                )
        return len(values)


def scene_of(choices: Choices, program: Program, dtype: torch.dtype, boxes: int = 2, count: int = 16) -> Scene:
    """Random boxes of a program, the last of them perhaps a point, in some precision."""
    corners = [random_box(choices, program.num_inputs) for _ in range(choices.between(1, boxes))]
    points = np.stack([telling_points(choices, program, lower, upper, count) for lower, upper in corners])
    truth = tuple(values_of(program, of_box) for of_box in points)
    lower, upper = (torch.as_tensor(np.stack(side)).to(dtype) for side in zip(*corners, strict=True))
    return Scene(program.to(CPU, dtype), Bounds(lower, upper), points, truth)
