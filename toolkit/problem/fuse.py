"""Layers of one operator side by side made one layer: fewer and larger matrices, and neurons that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.program import INPUT, Layer, Program

Key = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Operator, sources and readers of a layer."""


@dataclass(frozen=True)
class Place:
    """Where the neurons of an old layer are: in which new one, and from which on."""

    layer: int
    start: int


def fuse_layers(program: Program) -> Program:
    """The program with layers stacked that have operator, sources and readers in common; all maps are matrices."""
    groups: dict[Key, list[int]] = {}
    for number, layer in enumerate(program.layers):
        groups.setdefault((layer.op, layer.affine.sources, _readers(program, number)), []).append(number)
    if len(groups) == len(program.layers):
        return program
    # A group stands where its first member did: the sources come before that, the readers after the last.
    places: dict[int, Place] = {}
    for new, members in enumerate(groups.values()):
        start = 0
        for number in members:
            places[number] = Place(new, start)
            start += program.layers[number].affine.size
    sizes = [sum(program.layers[number].affine.size for number in members) for members in groups.values()]
    layers: list[Layer] = []
    for members in groups.values():
        affine = _stacked([_moved(program.layers[number].affine, places, sizes) for number in members])
        start = layers[-1].stop if layers else 0
        layers.append(replace(program.layers[members[0]], affine=affine, start=start))
    return replace(program, layers=tuple(layers), features=_moved(program.features, places, sizes), rational=False)


def _readers(program: Program, number: int) -> tuple[int, ...]:
    return tuple(reader for reader, affine in enumerate(program.maps()) if number in affine.sources)


def _moved(affine: Affine, places: dict[int, Place], sizes: Sequence[int]) -> DenseAffine:
    """A map of old layers as a map of the new ones."""
    assert isinstance(affine, DenseAffine)
    found: dict[int, Tensor] = {}
    for source, matrix in zip(affine.sources, affine.matrices, strict=True):
        if source == INPUT:
            found[INPUT] = matrix
            continue
        place = places[source]
        whole = found.setdefault(place.layer, matrix.new_zeros(len(matrix), sizes[place.layer]))
        whole[:, place.start : place.start + matrix.shape[1]] = matrix
    sources = tuple(sorted(found))
    return DenseAffine(sources, tuple(found[source] for source in sources), affine.bias)


def _stacked(maps: Sequence[DenseAffine]) -> DenseAffine:
    """The rows of maps with the same sources, one after the other."""
    matrices = tuple(torch.cat(parts) for parts in zip(*(part.matrices for part in maps), strict=True))
    return DenseAffine(maps[0].sources, matrices, torch.cat([part.bias for part in maps]))
