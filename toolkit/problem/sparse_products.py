"""Products with matrices that are mostly zeros, such as the selections and comparisons of lattice networks."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.tuning import tuned


def mostly_zeros(matrix: Tensor, share: float) -> bool:
    """Whether a matrix is large and at most this share of it is not zero."""
    size = matrix.numel()
    return size >= tuned().problem.least_counted_elements and int(torch.count_nonzero(matrix)) <= share * size


def product(rows: Tensor, matrix: Tensor) -> Tensor:
    """``rows @ matrix``, for ``(..., n)`` and ``(n, m)``; a zero of the matrix contributes nothing."""
    if not mostly_zeros(matrix, tuned().problem.most_filled_product):
        return rows @ matrix
    flat = rows.reshape(-1, rows.shape[-1])
    return torch.sparse.mm(matrix.T.to_sparse(), flat.T).T.reshape(*rows.shape[:-1], matrix.shape[1])
