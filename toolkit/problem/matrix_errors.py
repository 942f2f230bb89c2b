"""Matrices of doubles with how far their elements may be from the exact ones: arithmetic that counts its own rounding.

Most of what merging neurons computes is exact, since weights are stored in single precision: sums of numbers that are
all multiples of one power of two, and not too many of its multiples, round nowhere. Only where that cannot be seen an
error is carried along, relative to the sum of magnitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from toolkit.problem.affine import sum_of
from toolkit.problem.exactness import MANTISSA, unit_of
from toolkit.problem.sparse_products import product
from toolkit.problem.sum_rounding import gamma


@dataclass(frozen=True)
class MatrixWithErrors:
    """Values in double precision, and what their elements may be off by; None where all are exact."""

    value: Tensor
    error: Tensor | None = None

    def select(self, index: Tensor) -> MatrixWithErrors:
        """Some of the rows, by position."""
        return MatrixWithErrors(self.value[index], None if self.error is None else self.error[index])

    def plus(self, other: MatrixWithErrors) -> MatrixWithErrors:
        """The sum of two tensors, its rounding counted."""
        total = self.value + other.value
        reach = self.value.abs() + other.value.abs()
        unit = min(unit_of(self.value), unit_of(other.value))
        return MatrixWithErrors(total, _sum(_rounding(reach, unit, 2), self.error, other.error))

    def times(self, right: MatrixWithErrors) -> MatrixWithErrors:
        """The matrix product with a matrix, or with a vector."""
        reach = product(self.value.abs(), right.value.abs()) if right.value.dim() > 1 else _dot(self.value, right.value)
        own = _rounding(reach, unit_of(self.value) * unit_of(right.value), self.value.shape[-1])
        of_right = None if right.error is None else self.value.abs() @ right.error
        of_left = None if self.error is None else self.error @ (right.value.abs() + _or_zero(right.error))
        value = product(self.value, right.value) if right.value.dim() > 1 else self.value @ right.value
        return MatrixWithErrors(value, _sum(own, of_right, of_left))


def added_by_group(matrix: MatrixWithErrors, factor: MatrixWithErrors, member: Tensor, count: int) -> MatrixWithErrors:
    """Columns ``(rows, size)`` times factors ``(size,)``, added up over groups ``(size,)``: ``(rows, count)``."""

    def added(columns: Tensor) -> Tensor:
        return columns.new_zeros(len(columns), count).index_add_(1, member, columns)

    products, sizes = matrix.value * factor.value, matrix.value.abs()
    terms = 1 + int(member.bincount().max()) if len(member) else 1
    own = _rounding(added(products.abs()), unit_of(matrix.value) * unit_of(factor.value), terms)
    of_factor = None if factor.error is None else added(sizes * factor.error)
    of_matrix = None if matrix.error is None else added(matrix.error * (factor.value.abs() + _or_zero(factor.error)))
    return MatrixWithErrors(added(products), _sum(own, of_factor, of_matrix))


def scaled(values: MatrixWithErrors, factor: Tensor) -> MatrixWithErrors:
    """Values times factors that are powers of two, or zero, element by element: exact."""
    return MatrixWithErrors(values.value * factor, None if values.error is None else values.error * factor.abs())


def squared(values: MatrixWithErrors) -> MatrixWithErrors:
    """The squares of values, element by element."""
    square = values.value.square()
    own = _rounding(square, unit_of(values.value) ** 2, 1)
    of_values = None if values.error is None else values.error * (2 * values.value.abs() + values.error)
    return MatrixWithErrors(square, _sum(own, of_values))


def _dot(matrix: Tensor, vector: Tensor) -> Tensor:
    """Sums of the magnitudes in products of rows with a vector."""
    return matrix.abs() @ vector.abs()


def _or_zero(error: Tensor | None) -> Tensor | float:
    return 0.0 if error is None else error


def _sum(*errors: Tensor | None) -> Tensor | None:
    """The sum of errors, None where there are none."""
    found = [error for error in errors if error is not None]
    return sum_of(found) if found else None


def _rounding(reach: Tensor, unit: float, terms: int) -> Tensor | None:
    """What sums of multiples of a unit may lose, by the sums of their magnitudes; None where they lose nothing."""
    if not reach.numel() or float(reach.max()) <= unit * 2.0**MANTISSA:
        return None
    return gamma(terms + 2, reach.dtype) * reach
