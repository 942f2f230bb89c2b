"""The matrices of a program, one below the other by what they read: all that is pushed back to a source is one product.

In a reduced residual network every layer reads every earlier one, through matrices of a few hundred rows. Pushed back
map by map, half of the time goes into adding up what each leaves on the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.problem.affine import DenseAffine
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sparse_affine import SparseAffine
from toolkit.tuning import tuned


@dataclass(frozen=True)
class StackedMatrix:
    """What later layers read of one source."""

    first: int
    """Number of the first neuron whose map is in the stack."""
    matrix: Tensor
    """Coefficients of the neurons from ``first`` on, ``(num_neurons - first, size of source)``."""


def with_stacks(program: Program) -> Program:
    """The program with stacks, where most layers read most earlier ones through matrices."""
    layers = program.layers
    if not all(isinstance(layer.affine, DenseAffine) for layer in layers) or not _worth_stacking(layers):
        return program
    return replace(program, stacks={source: _stack(program, source) for source in range(INPUT, len(layers) - 1)})


def _worth_stacking(layers: tuple[Layer, ...]) -> bool:
    pairs = len(layers) * (len(layers) + 1) / 2
    maps = sum(len(layer.affine.sources) for layer in layers)
    return (
        sum(INPUT in layer.affine.sources for layer in layers) >= tuned().problem.least_input_readers
        and maps >= tuned().problem.least_mapped_share * pairs
    )


def _stack(program: Program, source: int) -> StackedMatrix:
    size = program.num_inputs if source == INPUT else program.layers[source].affine.size
    later = program.layers[source + 1 :]
    while source == INPUT and later and reads_sparsely(later[0]):
        later = later[1:]  # they skip their zeros instead
    first = later[0].start if later else program.num_neurons
    matrix = torch.zeros(program.num_neurons - first, size, dtype=program.dtype, device=program.device)
    for layer in later:
        affine = layer.affine
        assert isinstance(affine, DenseAffine)
        if source in affine.sources:
            matrix[layer.start - first : layer.stop - first] = affine.matrices[affine.sources.index(source)]
    return StackedMatrix(first, matrix)


def reads_sparsely(layer: Layer) -> bool:
    """Whether a layer's map of the input is kept in compressed rows."""
    return isinstance(layer.affine, SparseAffine) and layer.affine.columns.layout == torch.sparse_csr
