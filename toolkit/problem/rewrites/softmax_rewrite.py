"""Softmax and its logarithm, so that bounds are finite however far apart scores are.

A softmax is ``1 / (1 + sum of exp(x_j - x_i) over j != i)``: tighter than a quotient (Wei et al. 2023, the
exponential-reciprocal form), with differences that the affine map before it forms, and with exponentials cut off where
they no longer matter (`toolkit.ops.softmax_parts`). Of two scores it is a sigmoid, of one it is 1.
Scores that are minus infinity whatever the input, those of an attention mask, are left out: their exponentials are
zero.

Logarithms of sums of exponentials have no limits between which they stay; they are written as a tournament of
``log(exp a + exp b) = a + softplus(b - a)``, which grows as its scores do and never overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.errors import UnsupportedError
from toolkit.problem.rewrites.elementwise import exp_below_cap, share, softplus
from toolkit.problem.rewrites.rewrite_record import rewrite

aten = torch.ops.aten


@rewrite(aten._softmax.default, masked=True)
def softmax(x: Tensor, dim: int, half_to_float: bool = False, masked: Tensor | None = None) -> Tensor:
    """Shares along an axis; ``masked`` (of x's shape) are scores known to be minus infinity.

    Raises UnsupportedError where all scores of a row are masked: the quotient 0 / 0 is not a number.
    """
    if not x.dim():
        return torch.ones(x.shape, dtype=x.dtype)
    last = x.transpose(dim, -1)
    if masked is None or not bool(masked.any()):
        return _shares(last).transpose(dim, -1)
    allowed = ~masked.transpose(dim, -1)
    if not bool(allowed.any(-1).all()):
        raise UnsupportedError("a softmax all of whose scores are masked by minus infinity is not a number; mask with "
                               "a large negative number where whole rows are masked")  # fmt: skip
    return _shares_of_some(last, allowed).transpose(dim, -1)


def _shares(x: Tensor) -> Tensor:
    """The softmax along the last axis."""
    size = x.shape[-1]
    if size == 1:
        return torch.ones(x.shape, dtype=x.dtype)
    if size == 2:
        return torch.sigmoid(x - x.flip(-1))
    differences = (x.unsqueeze(-2) - x.unsqueeze(-1)).reshape(*x.shape[:-1], -1)  # x_j - x_i at i * size + j
    others = (~torch.eye(size, dtype=torch.bool)).reshape(-1).nonzero().squeeze(1)
    powers = exp_below_cap(differences.index_select(-1, others))
    return share(1 + powers.reshape(*x.shape, size - 1).sum(-1))


@dataclass(frozen=True)
class _ScoreRows:
    """Rows with the same number k of scores that count: positions of these in the flat scores, ``(R, k)``."""

    positions: Tensor

    @property
    def count(self) -> int:
        return self.positions.shape[1]

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Positions of every score (first) and every other score of its row (second), ``(R k (k - 1),)`` each."""
        first = self.positions.unsqueeze(2).expand(-1, -1, self.count)
        second = self.positions.unsqueeze(1).expand(-1, self.count, -1)
        others = ~torch.eye(self.count, dtype=torch.bool)
        return first[:, others].flatten(), second[:, others].flatten()


def _shares_of_some(x: Tensor, allowed: Tensor) -> Tensor:
    """The softmax along the last axis over the allowed scores; the others' shares are zero."""
    rows = _rows_by_count(allowed)
    several = [group for group in rows if group.count > 1]
    shape = x.shape
    place = torch.zeros(x.numel(), dtype=torch.int64)  # where each share is found; first the zero, then the one
    for group in rows:
        place[group.positions] = 1
    fixed = torch.tensor([0.0, 1.0], dtype=x.dtype)
    if not several:
        return fixed[place].reshape(shape)
    pairs = [group.pairs() for group in several]
    first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
    flat = x.reshape(-1)
    powers = exp_below_cap(flat.index_select(0, second) - flat.index_select(0, first))
    parts = powers.split([len(pair) for pair, _ in pairs])
    sums = [part.reshape(-1, group.count - 1).sum(-1) for part, group in zip(parts, several, strict=True)]
    place[torch.cat([group.positions.flatten() for group in several])] = 2 + torch.arange(sum(map(len, sums)))
    return torch.cat([fixed, share(1 + torch.cat(sums))]).index_select(0, place).reshape(shape)


def _rows_by_count(allowed: Tensor) -> list[_ScoreRows]:
    rows = allowed.reshape(-1, allowed.shape[-1])
    counts = rows.sum(-1)
    start = torch.arange(len(rows)).unsqueeze(1) * rows.shape[1]
    positions = start + torch.arange(rows.shape[1])
    return [
        _ScoreRows(positions[counts == count][rows[counts == count]].reshape(-1, count))
        for count in torch.unique(counts).tolist()
    ]


@rewrite(aten._log_softmax.default, masked=True)
def log_softmax(x: Tensor, dim: int, half_to_float: bool = False, masked: Tensor | None = None) -> Tensor:
    """``x_i`` less the logarithm of the sum of all exponentials.

    Raises UnsupportedError where scores are minus infinity, as their logarithms are.
    """
    if masked is not None and bool(masked.any()):
        raise UnsupportedError("a logarithm of a softmax with scores of minus infinity is infinite; mask with a large "
                               "negative number")  # fmt: skip
    if not x.dim() or x.shape[dim] == 1:
        return torch.zeros(x.shape, dtype=x.dtype)
    last = x.transpose(dim, -1)
    return -_log_sum_exp(last.unsqueeze(-2) - last.unsqueeze(-1)).transpose(dim, -1)


@rewrite(aten.logsumexp.default)
def log_sum_exp(x: Tensor, dim: Sequence[int], keepdim: bool = False) -> Tensor:
    """The logarithm of the sum of exponentials along axes."""
    axes = sorted({d % x.dim() for d in dim}) if dim else list(range(x.dim()))
    rest = [axis for axis in range(x.dim()) if axis not in axes]
    result = _log_sum_exp(x.permute([*rest, *axes]).reshape([*(x.shape[axis] for axis in rest), -1])) if axes else x
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    return result.reshape(kept) if keepdim else result


def _log_sum_exp(x: Tensor) -> Tensor:
    """Along the last axis, pair by pair in logarithmic depth."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
        pairs = first + softplus(second - first)
        x = torch.cat([pairs, rest], -1) if rest.shape[-1] else pairs
    return x.squeeze(-1)
