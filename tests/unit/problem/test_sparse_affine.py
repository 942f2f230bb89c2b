"""Maps with skipped zeros are the same maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.problem.affine import DenseAffine
from toolkit.problem.fast_maps import SparseAffine, with_sparse_maps
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.tuning import tuned

INPUTS, FIRST, SECOND = 2048, 40, 30
mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="compressed rows need MKL")


def matrix(rows: int, columns: int, density: float) -> Tensor:
    values = torch.randn(rows, columns, dtype=torch.float64)
    return values * (torch.rand(rows, columns) < density)


def program_of(density: float) -> Program:
    """Two layers, both of which read the input, the first through a matrix of this density."""
    torch.manual_seed(0)
    first = DenseAffine((INPUT,), (matrix(FIRST, INPUTS, density),), torch.randn(FIRST, dtype=torch.float64))
    maps = (matrix(SECOND, INPUTS, 1), matrix(SECOND, FIRST, 1))
    second = DenseAffine((INPUT, 0), maps, torch.randn(SECOND, dtype=torch.float64))
    features = DenseAffine((1,), (matrix(3, SECOND, 1),), torch.zeros(3, dtype=torch.float64))
    layers = (Layer("a", "relu", first, 0), Layer("b", "relu", second, FIRST))
    return Program(INPUTS, layers, features, torch.device("cpu"), torch.float64)


@mkl
def test_products_are_those_of_the_dense_maps() -> None:
    dense, fast = program_of(0.02), with_sparse_maps(program_of(0.02))
    values = [torch.randn(5, INPUTS, dtype=torch.float64), torch.randn(5, FIRST, dtype=torch.float64)]
    for before, after in zip(dense.maps()[:2], fast.maps()[:2], strict=True):
        assert isinstance(after, SparseAffine)
        own = values[: len(before.sources)]
        torch.testing.assert_close(after.apply(own), before.apply(own))
        torch.testing.assert_close(after.radius(own), before.radius(own))
        for rows in (torch.randn(5, 3, before.size, dtype=torch.float64), before.bias.expand(1, 2, -1)):
            for new, old in zip(after.transpose(rows), before.transpose(rows), strict=True):
                torch.testing.assert_close(new, old)
    assert fast.features is dense.features or not isinstance(fast.features, SparseAffine)


@mkl
def test_only_mostly_zero_and_large_matrices_are_compressed() -> None:
    fast = with_sparse_maps(program_of(0.02))
    first, second = (layer.affine for layer in fast.layers)
    assert isinstance(first, SparseAffine)
    assert isinstance(second, SparseAffine)
    assert first.rows.layout == first.columns.layout == torch.sparse_csr
    assert second.rows.layout == second.columns.layout == torch.strided
    assert tuned().problem.least_counted_elements <= FIRST * INPUTS
    filled = program_of(0.5)
    assert with_sparse_maps(filled) is filled


def test_another_precision_has_plain_maps() -> None:
    other = with_sparse_maps(program_of(0.02)).to(torch.device("cpu"), torch.float32)
    assert not any(isinstance(affine, SparseAffine) for affine in other.maps())
