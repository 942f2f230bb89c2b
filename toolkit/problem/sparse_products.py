"""Products with matrices that are mostly zeros, such as the selections and comparisons of lattice networks."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_FILLED_SHARE = 0.02
"""Share of elements that are not zero below which a sparse product is the faster one (measured on one core)."""
LEAST_COUNTED_ELEMENTS = 1 << 16
"""Elements of a matrix from which on it is worth counting the zeros."""


def mostly_zeros(matrix: Tensor, share: float) -> bool:
    """Whether a matrix is large and at most this share of it is not zero."""
    return matrix.numel() >= LEAST_COUNTED_ELEMENTS and int(torch.count_nonzero(matrix)) <= share * matrix.numel()


def product(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix``, for ``(..., n)`` and ``(n, m)``; a zero of the matrix contributes nothing."""
    if not mostly_zeros(matrix, MOST_FILLED_SHARE):
        return rows @ matrix
    flat = rows.reshape(-1, rows.shape[-1])
    return torch.sparse.mm(matrix.T.to_sparse(), flat.T).T.reshape(*rows.shape[:-1], matrix.shape[1])
