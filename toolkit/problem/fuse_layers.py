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
class FusedPosition:
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
    places: dict[int, FusedPosition] = {}
    for new, members in enumerate(groups.values()):
        start = 0
        for number in members:
            places[number] = FusedPosition(new, start)
            start += program.layers[number].affine.size
    sizes = [sum(program.layers[number].affine.size for number in members) for members in groups.values()]
    layers: list[Layer] = []
    for members in groups.values():
        affine = _stacked([_moved(program.layers[number].affine, places, sizes) for number in members])
        start = layers[-1].stop if layers else 0
        layers.append(replace(program.layers[members[0]], affine=affine, start=start))
    return replace(program, layers=tuple(layers), features=_moved(program.features, places, sizes), rational=None)


def _readers(program: Program, number: int) -> tuple[int, ...]:
    return tuple(reader for reader, affine in enumerate(program.maps()) if number in affine.sources)


def _moved(affine: Affine, places: dict[int, FusedPosition], sizes: Sequence[int]) -> DenseAffine:
    """A map of old layers as a map of the new ones."""
    assert isinstance(affine, DenseAffine)
    sources, matrices = _at_places(affine.sources, affine.matrices, places, sizes)
    errors = None if affine.errors is None else _at_places(affine.sources, affine.errors, places, sizes)[1]
    return replace(affine, sources=sources, matrices=matrices, errors=errors)


def _at_places(
    sources: tuple[int, ...], matrices: tuple[Tensor, ...], places: dict[int, FusedPosition], sizes: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """The new sources of old ones, and matrices on them with the old ones' columns where these neurons are now."""
    found: dict[int, Tensor] = {}
    for source, matrix in zip(sources, matrices, strict=True):
        if source == INPUT:
            found[INPUT] = matrix
            continue
        place = places[source]
        whole = found.setdefault(place.layer, matrix.new_zeros(len(matrix), sizes[place.layer]))
        whole[:, place.start : place.start + matrix.shape[1]] = matrix
    ordered = tuple(sorted(found))
    return ordered, tuple(found[source] for source in ordered)


def _stacked(maps: Sequence[DenseAffine]) -> DenseAffine:
    """The rows of maps with the same sources, one after the other."""
    if len(maps) == 1:
        return maps[0]
    matrices = tuple(torch.cat(parts) for parts in zip(*(part.matrices for part in maps), strict=True))
    every = [part.element_errors() for part in maps]
    errors = None
    if any(part is not None for part in every):
        known = [part or tuple(map(torch.zeros_like, own.matrices)) for part, own in zip(every, maps, strict=True)]
        errors = tuple(torch.cat(parts) for parts in zip(*known, strict=True))
    slacks = [torch.zeros_like(part.bias) if part.slack is None else part.slack for part in maps]
    bias = torch.cat([part.bias for part in maps])
    return DenseAffine(maps[0].sources, matrices, bias, errors=errors, slack=torch.cat(slacks))
