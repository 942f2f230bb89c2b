"""Which element of a tensor of the ONNX file each neuron of a program is, found and verified by values at points.

Between the file and a program, layers are fused, channels folded and operators rewritten. Whatever was done, a neuron
that a certificate can speak of is an affine function of one element of a tensor that a nonlinear operator of the file
reads: ``neuron = scale * element + offset``. Values at random points say of which one; nothing is trusted with them, as
the checker bounds everything again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.ops import RELAXATIONS
from toolkit.problem.affine import in_numpy
from toolkit.problem.program import INPUT, Program
from toolkit.proof.bounds import ContextBounds, Model, image
from toolkit.proof.network import AffineStep
from toolkit.tuning import tuned

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NeuronElements:
    """For each neuron of a program the element that it is: ``neuron = scale * element + offset``, all ``(n,)``."""

    tensor: NDArray[np.int64]
    """Position of the element's tensor among the names, or -1 where the neuron is no element."""
    index: NDArray[np.int64]
    scale: Array
    offset: Array

    def __len__(self) -> int:
        return len(self.tensor)

    @property
    def mostly(self) -> set[int]:
        """The tensor of most neurons, if they are elements of any."""
        known = self.tensor[self.tensor >= 0]
        return {int(np.bincount(known).argmax())} if len(known) else set()

    def shared(self, program: Program) -> set[int]:
        """Tensors of which an element is several neurons of one layer."""
        found = set[int]()
        for layer in program.layers:
            pairs = np.stack([self.tensor[layer.neurons], self.index[layer.neurons]], 1)
            pairs, count = np.unique(pairs[pairs[:, 0] >= 0], axis=0, return_counts=True)
            found.update(pairs[count > 1, 0].tolist())
        return found


@dataclass(frozen=True)
class NeuronValues:
    """Values of all neurons of a program at points, by which they are recognised."""

    points: Array
    """``(B, inputs)``."""
    layers: list[Array]
    """Values of each layer's neurons, ``(B, n)``."""

    @classmethod
    def of(cls, program: Program, lower: Array, upper: Array) -> NeuronValues:
        """The values at points in and around a box of the inputs, ``(n,)``."""
        points = sample_points(lower, upper)
        values: dict[int, torch.Tensor] = {INPUT: torch.as_tensor(points).to(program.device, program.dtype)}
        layers: list[Array] = []
        with torch.no_grad():
            for number, layer in enumerate(program.layers):
                z = layer.affine.apply([values[source] for source in layer.affine.sources])
                values[number] = RELAXATIONS[layer.op].function(z)
                layers.append(in_numpy(z))
        return cls(points, layers)


def neuron_elements(neurons: NeuronValues, model: Model) -> NeuronElements:
    """The elements of all neurons of a compiled program, in the order of the network's names."""
    tensors = [TensorValues(values) for values in tensor_values(model, neurons.points).values()]
    parts: list[NeuronElements] = []
    taken: set[int] = set()
    for layer in reversed(neurons.layers):  # of equal tensors, layers that come later are the later ones
        parts.insert(0, layer_elements(layer, tensors, taken))
        taken |= parts[0].mostly
    if not parts:
        return NeuronElements(*(np.zeros(0, kind) for kind in (np.int64, np.int64, float, float)))
    columns = zip(*((part.tensor, part.index, part.scale, part.offset) for part in parts), strict=True)
    return NeuronElements(*map(np.concatenate, columns))


def sample_points(lower: Array, upper: Array) -> Array:
    """Points in a box and around it, ``(B, n)``: where a box is small, values there tell little apart."""
    count = tuned().certificates.points
    share = np.random.default_rng(0).random((count, len(lower)))
    inside = lower + share * (upper - lower)
    around = inside + (2 * share[::-1] - 1) * (1 + np.abs(inside))
    return np.concatenate([inside[: count // 2], around[count // 2 :]])


def affine_value(step: AffineStep, values: Mapping[int, Array]) -> Array:
    """The value of an affine step, ``(B, n)``, from those before it."""
    value = np.sum([linear.forward(values[source]) for source, linear in step.terms], 0)
    return value if step.bias is None else value + step.bias


def tensor_values(model: Model, points: Array) -> Mapping[str, Array]:
    """Values of the tensors that nonlinear operators of the file read, ``(B, size)`` each, as the checker reads it."""
    bounds = ContextBounds(model, crossed=np.zeros(len(points), bool))
    bounds.put(0, points, points)
    with np.errstate(all="ignore"):
        for step in model.steps:
            if isinstance(step, AffineStep):
                value = affine_value(step, bounds.lower)
                bounds.put(step.value, value, value)
            else:
                bounds.put(step.value, *image(bounds, step))
        return {name: (bounds.lower[v] + bounds.upper[v]) / 2 for name, v in model.network.names.items()}


class TensorValues:
    """Values of the elements of one tensor, ``(B, n)``, among which the nearest to others are looked for."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self._sorted: dict[bool, tuple[NDArray[np.int64], Array]] = {}

    def middle(self, moved: bool) -> Array:
        """What is taken off each element before directions are compared, ``(n,)``."""
        return self.values.mean(0) if moved else np.zeros(self.values.shape[1])

    def nearest(self, wanted: Array, moved: bool) -> NDArray[np.int64]:
        """For each column, ``(B, m)``, the element whose values have the nearest direction, ``(m,)``: the nearest by
        several combinations of the values, of those that are the nearest by one."""
        limits = tuned().certificates
        mixing = np.random.default_rng(0).normal(size=(len(wanted), limits.compared_values))
        if moved not in self._sorted:
            known = directions(self.values - self.middle(moved)).T @ mixing
            order = known[:, 0].argsort()
            self._sorted[moved] = order, known[order]
        (order, known), aims = self._sorted[moved], directions(wanted).T @ mixing
        around = np.arange(-limits.compared_elements, limits.compared_elements)
        places = (np.searchsorted(known[:, 0], aims[:, 0])[:, None] + around).clip(0, len(order) - 1)
        best = np.linalg.norm(known[places] - aims[:, None], axis=2).argmin(1)
        return order[np.take_along_axis(places, best[:, None], 1)[:, 0]]


def layer_elements(neurons: Array, tensors: Sequence[TensorValues], taken: Collection[int] = ()) -> NeuronElements:
    """The elements of one layer's neurons, ``(B, n)``: a whole tensor where it is one, else each neuron's own.

    Later tensors come first, and after all others those that are ``taken`` by other layers.
    """
    size = neurons.shape[1]
    for number in sorted(range(len(tensors)), key=lambda number: (number in taken, -number)):
        values = tensors[number].values
        if values.shape == neurons.shape and bool(same(neurons, values).all()):
            return NeuronElements(np.full(size, number), np.arange(size), np.ones(size), np.zeros(size))
    return single_elements(neurons, tensors, taken)


def same(found: Array, expected: Array) -> NDArray[np.bool_]:
    """Which columns of values ``(B, n)`` differ by rounding alone, ``(n,)``."""
    size = np.abs(expected).max(0) + np.abs(found).max(0)
    return np.abs(found - expected).max(0) <= tuned().certificates.same_value * size


def single_elements(neurons: Array, tensors: Sequence[TensorValues], taken: Collection[int] = ()) -> NeuronElements:
    """For each neuron the element that it is a multiple of at the points, else one that it is an affine function of.

    Of several ones, that in the tensor of most neurons.
    """
    size = neurons.shape[1]
    found = NeuronElements(np.full(size, -1), np.zeros(size, np.int64), np.ones(size), np.zeros(size))
    for moved in (False, True):
        left = np.flatnonzero(found.tensor < 0)
        fits = [fitted(neurons[:, left], part, moved) for part in tensors] if len(left) else []
        agreeing = [int((fit.tensor >= 0).sum()) for fit in fits]
        for number in sorted(range(len(fits)), key=lambda number: (number in taken, -agreeing[number], -number)):
            fit, new = fits[number], (fits[number].tensor >= 0) & (found.tensor[left] < 0)
            found.tensor[left[new]], found.index[left[new]] = number, fit.index[new]
            found.scale[left[new]], found.offset[left[new]] = fit.scale[new], fit.offset[new]
    return found


def fitted(neurons: Array, elements: TensorValues, moved: bool) -> NeuronElements:
    """For each neuron, ``(B, n)``, the element whose values, scaled (and moved), are the nearest, where they agree."""
    middle = neurons.mean(0) if moved else np.zeros(neurons.shape[1])
    wanted = neurons - middle
    nearest = elements.nearest(wanted, moved)
    chosen, moves = elements.values[:, nearest], elements.middle(moved)[nearest]
    given = chosen - moves
    square = (given**2).sum(0)
    scale = (given * wanted).sum(0) / np.where(square > 0, square, 1.0)
    rounded = np.round(scale)
    limit = tuned().certificates.same_value
    scale = np.where(np.abs(scale - rounded) <= limit * np.abs(scale), rounded, scale)
    offset = middle - scale * moves
    offset = np.where(np.abs(offset) <= limit * np.abs(neurons).max(0), 0.0, offset)
    agrees = same(scale * chosen + offset, neurons) & (scale != 0) & np.isfinite(scale)
    return NeuronElements(np.where(agrees, 0, -1), nearest, scale, offset)


def directions(values: Array) -> Array:
    """Columns ``(B, n)`` without what scaling changes: their length is 1, their largest element is positive."""
    length = np.linalg.norm(values, axis=0)
    largest = np.take_along_axis(values, np.abs(values).argmax(0)[None], 0)
    return np.where(length > 0, np.where(largest < 0, -1.0, 1.0) * values / np.where(length > 0, length, 1.0), 0.0)
