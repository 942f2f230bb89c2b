"""Which element of a tensor of the ONNX file each neuron of a program is, found and verified by values at points.

Between the file and a program, layers are fused, channels folded and operators rewritten. Whatever was done, a neuron
that a certificate can speak of is an affine function of one element of a tensor that a nonlinear operator of the file
reads: ``neuron = scale * element + offset``. Values at random points say of which one; nothing is trusted with them, as
the checker bounds everything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.problem.evaluate_program import evaluate
from toolkit.problem.program import Program
from toolkit.proof.bounds import ContextBounds, Model, image
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


def neuron_elements(program: Program, model: Model, lower: Array, upper: Array) -> NeuronElements:
    """The elements of all neurons of a compiled program, in the order of the network's names.

    ``lower`` and ``upper``, ``(n,)``, are a box of the inputs, in and around which values are compared.
    """
    points = sample_points(lower, upper)
    values = list(tensor_values(model, points).values())
    given = torch.as_tensor(points)
    with torch.no_grad():
        _, layers = evaluate(program, given, torch.zeros_like(given), 0.0)
    parts = [layer_elements(z.value.double().cpu().numpy(), values) for z in layers]
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


def tensor_values(model: Model, points: Array) -> Mapping[str, Array]:
    """Values of the tensors that nonlinear operators of the file read, ``(B, size)`` each, as the checker reads it."""
    bounds = ContextBounds(model, len(points), crossed=np.zeros(len(points), bool))
    bounds.put(0, points, points)
    with np.errstate(all="ignore"):
        for step in model.steps:
            bounds.put(step.value, *image(bounds, step))
        return {name: (bounds.lower[v] + bounds.upper[v]) / 2 for name, v in model.network.names.items()}


def layer_elements(neurons: Array, tensors: Sequence[Array]) -> NeuronElements:
    """The elements of one layer's neurons, ``(B, n)``: a whole tensor where it is one, else each neuron's own."""
    size = neurons.shape[1]
    for number, values in enumerate(tensors):
        if values.shape == neurons.shape and bool(same(neurons, values).all()):
            return NeuronElements(np.full(size, number), np.arange(size), np.ones(size), np.zeros(size))
    return single_elements(neurons, tensors)


def same(found: Array, expected: Array) -> NDArray[np.bool_]:
    """Which columns of values ``(B, n)`` differ by rounding alone, ``(n,)``."""
    size = np.abs(expected).max(0) + np.abs(found).max(0)
    return np.abs(found - expected).max(0) <= tuned().certificates.same_value * size


def single_elements(neurons: Array, tensors: Sequence[Array]) -> NeuronElements:
    """For each neuron the element whose values at the points, moved and scaled, are the nearest, where they agree."""
    from scipy.spatial import cKDTree  # most programs need no search

    size = neurons.shape[1]
    nothing = NeuronElements(np.full(size, -1), np.zeros(size, np.int64), np.ones(size), np.zeros(size))
    if not tensors:
        return nothing
    elements = np.concatenate(tensors, 1)
    owner = np.repeat(np.arange(len(tensors)), [part.shape[1] for part in tensors])
    place = np.concatenate([np.arange(part.shape[1]) for part in tensors])
    _, nearest = cKDTree(directions(elements).T).query(directions(neurons).T)
    found = elements[:, nearest]
    scale, offset = affine_fit(found, neurons)
    agrees = same(scale * found + offset, neurons) & (scale != 0) & np.isfinite(scale)
    tensor = np.where(agrees, owner[nearest], -1)
    return NeuronElements(tensor, place[nearest], np.where(agrees, scale, 1.0), np.where(agrees, offset, 0.0))


def directions(values: Array) -> Array:
    """Columns ``(B, n)`` without what moving and scaling changes: their mean is 0, their length 1, the first is not
    negative."""
    values = values - values.mean(0)
    length = np.linalg.norm(values, axis=0)
    sign = np.where(values[0] < 0, -1.0, 1.0)
    return np.where(length > 0, sign * values / np.where(length > 0, length, 1.0), 0.0)


def affine_fit(given: Array, wanted: Array) -> tuple[Array, Array]:
    """Scale and offset, ``(n,)`` each, with which columns ``(B, n)`` come nearest to others."""
    moved, target = given - given.mean(0), wanted - wanted.mean(0)
    square = (moved**2).sum(0)
    scale = (moved * target).sum(0) / np.where(square > 0, square, 1.0)
    rounded = np.round(scale)
    scale = np.where(np.abs(scale - rounded) <= tuned().certificates.same_value * np.abs(scale), rounded, scale)
    offset = wanted.mean(0) - scale * given.mean(0)
    size = np.abs(wanted).max(0)
    return scale, np.where(np.abs(offset) <= tuned().certificates.same_value * size, 0.0, offset)
