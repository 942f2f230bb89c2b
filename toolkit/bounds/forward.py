"""Forward linear bounds: two linear functions of the input around every neuron, pushed from layer to layer.

With few inputs a layer costs as many columns as there are inputs, where CROWN's backward pass costs a row for every
neuron; in return every layer rounds its lines outward for good. So this is for wide layers and few inputs, and CROWN
then bounds again what is still unstable (the two together: Xu et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.crown import intersect
from toolkit.bounds.interval import Bounds, concatenate, rounding
from toolkit.bounds.relaxations import RELAXATIONS, Lines
from toolkit.problem.affine import Affine, DenseAffine, sum_of
from toolkit.problem.program import INPUT, Program

WIDE = 512
"""Neurons of a layer from which on forward bounds are worth their price."""


@dataclass(frozen=True)
class Band:
    """``centre - half <= neuron <= centre + half``, both linear: ``(B, n + 1, size)``, the constants in the last row.

    ``half`` is at least zero on the box; its coefficients may have any sign.
    """

    centre: Tensor
    half: Tensor


def suits(program: Program) -> bool:
    """Whether forward bounds pay where inputs are few: some layer is wide."""
    return max((layer.affine.size for layer in program.layers), default=0) > WIDE


def forward_bounds(program: Program, box: Bounds, known: Bounds, check: Callable[[], None] = lambda: None) -> Bounds:
    """Pre-activation bounds of all neurons, ``(B, num_neurons)``, never looser than the ``known`` ones.

    Costs two passes for each input that varies in some box ``(B, n)``. ``check`` is called before every layer and may
    raise to stop the work.
    """
    varying = (box.lower < box.upper).any(0).nonzero().squeeze(1)
    inner = Bounds(box.lower[:, varying], box.upper[:, varying])
    bands = {INPUT: _varying_band(box, varying)}
    layers: list[Bounds] = []
    for number, layer in enumerate(program.layers):
        check()
        bands[number] = through_map(layer.affine, [bands[source] for source in layer.affine.sources])
        old = Bounds(known.lower[:, layer.neurons], known.upper[:, layer.neurons])
        layers.append(intersect(old, band_bounds(bands[number], inner)))
        bands[number] = through_layer(
            bands[number], RELAXATIONS[layer.op].lines(layers[-1].lower, layers[-1].upper, None)
        )
    return concatenate(layers, box)


def _varying_band(box: Bounds, varying: Tensor) -> Band:
    """The inputs as functions of those that vary; the others are constants."""
    count, inputs = box.lower.shape
    centre = box.lower.new_zeros(count, len(varying) + 1, inputs)
    centre[:, -1] = box.lower.index_fill(1, varying, 0.0)
    centre[:, torch.arange(len(varying), device=varying.device), varying] = 1.0
    return Band(centre, torch.zeros_like(centre))


def input_band(box: Bounds) -> Band:
    """The inputs as functions of themselves."""
    count, inputs = box.lower.shape
    centre = torch.eye(inputs + 1, inputs, dtype=box.lower.dtype, device=box.lower.device).expand(count, -1, -1)
    return Band(centre, torch.zeros_like(centre))


def through_map(affine: Affine, sources: Sequence[Band]) -> Band:
    """The band of an affine map's value."""
    if isinstance(affine, DenseAffine):
        parts = list(zip(affine.matrices, sources, strict=True))
        centre = sum_of([band.centre @ matrix.T for matrix, band in parts])
        half = sum_of([band.half @ matrix.T.abs() for matrix, band in parts])
    else:
        centre = _by_columns(affine.apply, [band.centre for band in sources]) - affine.bias
        half = _by_columns(affine.radius, [band.half for band in sources])
        half[:, -1] += rounding(half.dtype) * affine.bias.abs()  # which every column has met and lost again
    centre[:, -1] += affine.bias
    return Band(centre, half)


def _by_columns(function: Callable[[list[Tensor]], Tensor], parts: list[Tensor]) -> Tensor:
    """A map of vectors on each row of ``(B, columns, size)`` tensors."""
    return function([part.flatten(0, 1) for part in parts]).unflatten(0, parts[0].shape[:2])


def through_layer(band: Band, lines: Lines) -> Band:
    """The band of the activations, for lines of the layer, ``(B, size)``, with slopes of any sign."""
    below, above = lines.lower_slope.unsqueeze(1), lines.upper_slope.unsqueeze(1)
    lower = below * band.centre - below.abs() * band.half
    upper = above * band.centre + above.abs() * band.half
    lower[:, -1] += lines.lower_offset
    upper[:, -1] += lines.upper_offset
    return Band((lower + upper) / 2, (upper - lower) / 2)


def band_bounds(band: Band, box: Bounds) -> Bounds:
    """Bounds ``(B, size)`` of a band over its box, less an allowance for rounding."""
    return Bounds(_least(band.centre - band.half, box), -_least(-band.centre - band.half, box))


def _least(function: Tensor, box: Bounds) -> Tensor:
    coefficients, constant = function[:, :-1], function[:, -1]
    centre, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
    allowance = rounding(function.dtype)
    widened = radius + allowance * torch.maximum(box.lower.abs(), box.upper.abs())
    middle = (centre.unsqueeze(1) @ coefficients).squeeze(1)
    spread = (widened.unsqueeze(1) @ coefficients.abs()).squeeze(1)
    return middle - spread + constant - allowance * constant.abs()
