"""From rows as they are stored to points and boxes in the units and the layout of a network's input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.data.rows import DataRows
from toolkit.errors import InputError, one_line
from toolkit.formats.points import read_numbers
from toolkit.formats.vnnlib.specs import InputBox, linf_box

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowUnits:
    """How stored values become what the network reads: ``(value / scale - mean) / std``; and the ball around it.

    Arrays hold one number, or one for each feature or channel.
    """

    epsilon: Array
    """Radius in the maximum norm, of ``value / scale``."""
    clip: tuple[float, float] | None = None
    """Least and largest ``value / scale``; None where there is no limit but that of pixels."""
    scale: float | None = None
    """What values are divided by; 255 for whole numbers of eight bits and 1 for others where it is None."""
    mean: Array | None = None
    std: Array | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.epsilon).all() and (self.epsilon >= 0).all()):
            raise InputError("--epsilon: finite numbers that are not negative are needed")
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"--scale {self.scale}: a number above 0 is needed")
        if self.std is not None and not (np.isfinite(self.std).all() and (self.std > 0).all()):
            raise InputError("--std: numbers above 0 are needed")
        if self.mean is not None and not np.isfinite(self.mean).all():
            raise InputError("--mean: finite numbers are needed")
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            low, high = self.clip
            raise InputError(f"--clip {low:g} {high:g}: the first number must be below the second")

    @property
    def unscaled(self) -> bool:
        """Whether nothing is said about what values have to be divided by."""
        return self.scale is None and self.mean is None and self.std is None


@dataclass(frozen=True, eq=False)
class RowPoints:
    """Rows as inputs of a network, and the box around each."""

    points: Array
    """``(N, n)`` in the order of the network's flattened input."""
    radius: Array
    """``(n,)``."""
    low: Array
    """``(n,)``, least value of every input."""
    high: Array
    rows: DataRows
    dtype: str
    """Element type of the network's input."""

    def boxes(self) -> Iterator[InputBox]:
        """The box of each row in turn, with bounds rounded inwards to the element type."""
        for number, point in zip(self.rows.numbers, self.points, strict=True):
            try:
                yield linf_box(point, self.radius, self.low, self.high, self.dtype)
            except InputError as error:
                raise InputError(f"row {number}: {error}; look at --clip, --scale, --mean and --std") from None


def given_numbers(given: str | ArrayLike, option: str) -> Array:
    """What an option says: a number, numbers between commas, a file of numbers, or an array. Raises InputError."""
    if not isinstance(given, str):
        try:
            return np.asarray(given, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InputError(f"{option}: not an array of numbers ({one_line(error)})") from None
    if not given.strip():
        raise InputError(f"{option}: it is empty; give a number, numbers between commas, or a file of them")
    try:
        return np.array([_number(part) for part in given.split(",")])
    except ValueError:
        return _numbers_of_file(given, option)


def _number(text: str) -> float:
    """A number, also as a quotient: 2/255. Raises ValueError."""
    above, line, below = text.partition("/")
    if line and float(below) == 0:
        raise ValueError(text)
    return float(above) / float(below) if line else float(above)


def _numbers_of_file(text: str, option: str) -> Array:
    try:
        return read_numbers(text)
    except InputError as error:
        raise InputError(
            f"{option} {text}: neither a number, nor numbers between commas, nor a file: {error}"
        ) from None


def in_network_units(rows: DataRows, units: RowUnits, shape: tuple[int, ...], dtype: str) -> RowPoints:
    """The rows as inputs of a network of this input shape, whose leading dimension is 1. Raises InputError."""
    eight_bits = rows.values.dtype == np.uint8
    largest = float(np.iinfo(np.uint8).max) if eight_bits else 1.0
    scale = units.scale or largest
    layout = rows.values.shape[1:]
    mean = _spread(np.zeros(1) if units.mean is None else units.mean, layout, "--mean")
    std = _spread(np.ones(1) if units.std is None else units.std, layout, "--std")
    limits = np.finfo(dtype)
    low, high = units.clip or ((0.0, largest / scale) if rows.pixels else (-np.inf, np.inf))
    values = np.asarray(rows.values, dtype=np.float64) / scale
    edges = [np.clip((edge - mean) / std, float(limits.min), float(limits.max)) for edge in (low, high)]
    radius = _spread(units.epsilon, layout, "--epsilon") / std
    points, radii, lows, highs = (
        arranged(part, shape) for part in ((values - mean) / std, radius[None], edges[0][None], edges[1][None])
    )
    held = (np.abs(points) <= float(limits.max)).all(1)
    if not held.all():
        row = rows.numbers[int(np.argmin(held))]
        raise InputError(
            f"row {row} has numbers that are not finite, or too large for {dtype}; choose others with --rows, or look "
            "at --scale, --mean and --std"
        )
    return RowPoints(points, radii[0], lows[0], highs[0], rows, dtype)


def _spread(numbers: Array, layout: tuple[int, ...], option: str) -> Array:
    """One number for each element of a row of this shape: from one, one for each element, or one for each channel."""
    size = int(np.prod(layout))
    if numbers.size == 1:
        return np.full(layout, float(numbers.reshape(-1)[0]))
    if numbers.size == size:
        return numbers.reshape(layout)
    if len(layout) == 3 and numbers.size == layout[0]:
        return np.broadcast_to(numbers.reshape(-1, 1, 1), layout)
    if len(layout) == 3 and numbers.size == layout[2]:
        return np.broadcast_to(numbers, layout)
    channels = f", or one for each channel of {layout}" if len(layout) == 3 else ""
    raise InputError(f"{option}: {numbers.size} numbers; one is needed, or one for each of {size} features{channels}")


def _remedy(own: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What to do about rows that have another number of values than a network's input."""
    if shape and shape[0] > 1:
        return "export the network for one sample, or with an open batch"
    if len(own) > 1:
        return "images are taken as they are: resize them to what the network was trained on"
    return "choose the array of its inputs, or the network that belongs to it"


def arranged(values: Array, shape: tuple[int, ...]) -> Array:
    """Rows ``(N, ...)`` as ``(N, n)`` in the order of a network's input; channels move where the shapes say so."""
    wanted, own = shape[1:], values.shape[1:]
    size = int(np.prod(shape))
    if int(np.prod(own)) != size:
        raise InputError(
            f"a row has {int(np.prod(own))} numbers, shape {own}, but the network's input has {size}, shape {shape}"
            f"; {_remedy(own, shape)}"
        )
    if len(own) == len(wanted) == 3 and own != wanted:
        if (own[2], *own[:2]) == wanted:
            values = values.transpose(0, 3, 1, 2)
        elif (*own[1:], own[0]) == wanted:
            values = values.transpose(0, 2, 3, 1)
        else:
            raise InputError(f"rows have the shape {own}, and the network's input {wanted}")
    return np.ascontiguousarray(values).reshape(len(values), size)
