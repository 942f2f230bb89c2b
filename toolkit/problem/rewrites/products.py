"""Products of operands that both vary: ``x y = ((x + y)^2 - (x - y)^2) / 4``, so that all nonlinearity is unary."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from toolkit.errors import UnsupportedError
from toolkit.problem.rewrites.elementwise import cube, square
from toolkit.problem.rewrites.rewrite_record import divisor, rewrite, several
from toolkit.tuning import tuned

aten = torch.ops.aten


@rewrite(aten.mul.Tensor, when=several)
def product(x: Tensor, y: Tensor) -> Tensor:
    """Two squares; of one tensor with itself, one."""
    if x is y:
        return square(x)
    return (square(x + y) - square(x - y)) * 0.25


@rewrite(aten.div.Tensor, when=divisor)
def quotient(x: Tensor, y: Tensor) -> Tensor:
    """The product with the reciprocal, ``(x / s) (1 / (y / c)) (s / c)``, for s and c about as large as x and y.

    Any powers of two would be right. But the squares of a sum and a difference are only worth something, as bounds and
    as numbers, where both terms are of one magnitude, and a reciprocal's is the opposite of the divisor's.
    """
    below = magnitude(y)
    above = torch.maximum(magnitude(x), below * tuned().problem.least_dividend_share)
    return (x * (1 / above)) * torch.reciprocal(y * (1 / below)) * (above / below)


def magnitude(x: Tensor) -> Tensor:
    """Powers of two next above the absolute values of the traced example, as constants; 1 where these say nothing."""
    with _disable_current_modes():
        mantissa, exponent = torch.frexp(x.detach())
        known = torch.isfinite(x) & (mantissa != 0)
        return torch.where(known, torch.ldexp(torch.ones_like(x), exponent.clamp(-60, 60)), 1.0)


@rewrite(aten.mm.default, aten.bmm.default, when=several)
def matrix_product(x: Tensor, y: Tensor) -> Tensor:
    """All products of elements, ``(..., n, k, m)``, summed over k."""
    return (x.unsqueeze(-1) * y.unsqueeze(-3)).sum(-2)


@rewrite(aten.mv.default, aten.dot.default, when=several)
def vector_product(x: Tensor, y: Tensor) -> Tensor:
    """Products of elements, summed over the last axis."""
    return (x * y).sum(-1)


@rewrite(aten.addmm.default, aten.baddbmm.default, when=lambda varies: sum(varies[1:]) > 1)
def biased_matrix_product(bias: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta bias + alpha x y."""
    return bias * beta + matrix_product(x, y) * alpha


@rewrite(aten.prod.dim_int)
def product_along(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """One product after the other."""
    result = reduce(torch.mul, x.split(1, dim))
    return result if keepdim else result.squeeze(dim)


@rewrite(aten.pow.Tensor_Scalar)
def power(x: Tensor, exponent: float) -> Tensor:
    """Integers and halves, by squares, cubes, products, roots and reciprocals."""
    if exponent < 0:
        return torch.reciprocal(power(x, -exponent))
    if exponent == 0.5:
        return torch.sqrt(x)
    most = tuned().problem.most_exponent
    if not float(exponent).is_integer() or exponent > most:
        raise UnsupportedError(
            f"a power with exponent {exponent:g} has no bounding rule; integers of at most {most} and 0.5 have"
        )
    return _natural_power(x, int(exponent))


def _natural_power(x: Tensor, exponent: int) -> Tensor:
    if exponent < 2:
        return x if exponent else torch.ones(x.shape, dtype=x.dtype, device=x.device)
    if exponent % 2 == 0:
        return square(_natural_power(x, exponent // 2))
    return cube(x) if exponent == 3 else x * _natural_power(x, exponent - 1)
