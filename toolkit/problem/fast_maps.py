"""Maps of a reduced network in the forms that are the fastest to push back through: compressed rows, and stacks.

Maps of the input may be mostly zeros. A neuron of a first convolution sees a small window of the image, so its row of a
matrix has a few dozen entries among thousands. On a processor, products that skip the zeros are several times faster
than dense ones; a GPU gains nothing. Coefficients on the input are kept with the input's elements as the slow
dimension, as sparse products make them.

In a reduced residual network every layer reads every earlier one, through matrices of a few hundred rows. Pushed back
map by map, half of the time goes into adding up what each leaves on the input. So the matrices are put one below the
other by what they read: all that is pushed back to a source is one product.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.program import INPUT, Layer, Program, StackedMatrix
from toolkit.problem.sparse_products import mostly_zeros
from toolkit.tuning import tuned


@dataclass(frozen=True)
class SparseAffine(DenseAffine):
    """Matrices with a fast product for that of the input, which is the first source."""

    rows: Tensor
    """The input's matrix, ``(size, n)``: compressed rows, or dense where it has few zeros."""
    columns: Tensor
    """The transpose of the input's matrix, ``(n, size)``: compressed rows, or dense where it has few zeros."""

    def apply(self, values: Sequence[Tensor]) -> Tensor:
        result = self.bias + (self.rows @ values[0].T).T
        for matrix, value in zip(self.matrices[1:], values[1:], strict=True):
            result = torch.addmm(result, value, matrix.T)
        return result

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [self.transpose_input(rows), *(rows @ matrix for matrix in self.matrices[1:])]

    def transpose_input(self, rows: Tensor) -> Tensor:
        """The transpose for the input alone."""
        flat = rows.reshape(-1, self.size).T.contiguous()
        return (self.columns @ flat).T.unflatten(0, rows.shape[:2])


def with_sparse_maps(program: Program) -> Program:
    """The program with fast maps of its input, where one of them is mostly zeros and runs on a processor."""
    maps = [affine for affine in program.maps() if _reads_input(affine)]
    if program.device.type != "cpu" or not torch.backends.mkl.is_available() or not any(map(_is_sparse, maps)):
        return program
    layers = tuple(replace(layer, affine=_with_rows(layer.affine)) for layer in program.layers)
    return replace(program, layers=layers, features=_with_rows(program.features), rational=None)


def _reads_input(affine: Affine) -> bool:
    return isinstance(affine, DenseAffine) and affine.sources[:1] == (INPUT,)


def _is_sparse(affine: Affine) -> bool:
    assert isinstance(affine, DenseAffine)
    return mostly_zeros(affine.matrices[0], tuned().problem.most_filled_map)


def _with_rows(affine: Affine) -> Affine:
    if not _reads_input(affine):
        return affine
    assert isinstance(affine, DenseAffine)
    rows, columns = affine.matrices[0], affine.matrices[0].T.contiguous()
    if _is_sparse(affine):
        rows, columns = _compressed(rows), _compressed(columns)
    errors, slack, steps = affine.errors, affine.slack, affine.steps
    maps = (affine.sources, affine.matrices, affine.bias)
    return SparseAffine(*maps, rows, columns, errors=errors, slack=slack, steps=steps)


def _compressed(matrix: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that compressed rows are a beta feature
        return matrix.to_sparse_csr()


def with_stacks(program: Program) -> Program:
    """The program with stacks, where every layer reads the input and all earlier ones through matrices."""
    layers = program.layers
    if not all(isinstance(layer.affine, DenseAffine) for layer in layers) or not _worth_stacking(layers):
        return program
    return replace(program, stacks={source: _stack(program, source) for source in range(INPUT, len(layers) - 1)})


def _worth_stacking(layers: tuple[Layer, ...]) -> bool:
    complete = all(len(layer.affine.sources) == number + 1 for number, layer in enumerate(layers))
    return complete and len(layers) >= tuned().problem.least_input_readers


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
        matrix[layer.start - first : layer.stop - first] = affine.matrices[affine.sources.index(source)]
    return StackedMatrix(first, matrix)


def reads_sparsely(layer: Layer) -> bool:
    """Whether a layer's map of the input is kept in compressed rows."""
    return isinstance(layer.affine, SparseAffine) and layer.affine.columns.layout == torch.sparse_csr
