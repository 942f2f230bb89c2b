"""Forward linear bounds: two linear functions of the input around every neuron, pushed from layer to layer.

With few inputs a layer costs as many columns as there are inputs, where CROWN's backward pass costs a row for every
neuron; in return every layer rounds its lines outward for good. So this is for wide layers and few inputs, and CROWN
then bounds again what is still unstable (the two together: Xu et al., NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds, rounding
from toolkit.bounds.relaxations import Lines
from toolkit.problem.affine import Affine, DenseAffine, sum_of
from toolkit.problem.program import Program

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
    """Whether forward bounds pay: some layer is wide, and all maps are matrices."""
    dense = all(isinstance(layer.affine, DenseAffine) for layer in program.layers)
    return dense and max((layer.affine.size for layer in program.layers), default=0) > WIDE


def input_band(box: Bounds) -> Band:
    """The inputs as functions of themselves."""
    count, inputs = box.lower.shape
    centre = torch.eye(inputs + 1, inputs, dtype=box.lower.dtype, device=box.lower.device).expand(count, -1, -1)
    return Band(centre, torch.zeros_like(centre))


def through_map(affine: Affine, sources: Sequence[Band]) -> Band:
    """The band of an affine map's value."""
    assert isinstance(affine, DenseAffine)
    parts = list(zip(affine.matrices, sources, strict=True))
    centre = sum_of([band.centre @ matrix.T for matrix, band in parts])
    centre[:, -1] += affine.bias
    return Band(centre, sum_of([band.half @ matrix.T.abs() for matrix, band in parts]))


def through_layer(band: Band, lines: Lines) -> Band:
    """The band of the activations, for lines of the layer, ``(B, size)``; all slopes are at least zero."""
    lower = (band.centre - band.half) * lines.lower_slope.unsqueeze(1)
    upper = (band.centre + band.half) * lines.upper_slope.unsqueeze(1)
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
