"""Sparse and dense products agree."""

from __future__ import annotations

import torch

from toolkit.problem.sparse_products import product
from toolkit.tuning import tuned


def test_products_with_mostly_zero_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    size = int(tuned().problem.least_counted_elements ** 0.5) + 1
    matrix = torch.randn(size, size + 3, generator=generator, dtype=torch.float64)
    sparse = matrix * (torch.rand(matrix.shape, generator=generator) < 0.01)
    rows = torch.randn(2, 5, size, generator=generator, dtype=torch.float64)
    for factor in (matrix, sparse):
        torch.testing.assert_close(product(rows, factor), rows @ factor)
    assert product(rows, sparse).shape == (2, 5, size + 3)
