"""Text of atoms: constants as the shortest decimals that read back to the same double, comparisons, polynomials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache

import numpy as np

from toolkit.errors import UnsupportedError
from toolkit.formats.vnnlib.names import namer
from toolkit.formats.vnnlib.query import AtomBlock, Query

_SIGNS = [("<=", ">="), ("<", ">"), ("==", "=="), ("!=", "!=")]
"""By the number of the relation: the sign, and the sign with its sides exchanged."""


def decimal(value: float) -> str:
    """The shortest decimal without exponent that reads back to ``value``; with a decimal point."""
    text = repr(float(value))
    if "e" not in text:
        return text
    text = format(Decimal(text), "f")
    return text if "." in text else text + ".0"


def portable(value: float) -> str:
    """A decimal for version 2. Raises UnsupportedError for subnormal numbers, which the ``vnnlib`` package refuses."""
    if 0 < abs(value) < np.finfo(np.float64).tiny:
        raise UnsupportedError(f"the constant {value} is too close to zero for version 2")
    return decimal(value)


def integer(value: float) -> str:
    """A constant of an integer type. Raises UnsupportedError for a fraction."""
    if value != int(value):
        raise UnsupportedError(f"the constant {value} stands beside a tensor of integer type")
    return str(int(value))


class AtomWriter:
    """Writes the atoms of one query."""

    def __init__(self, query: Query, real: Callable[[float], str] = decimal) -> None:
        """``real`` writes the constants beside tensors of real and floating types."""
        self._real = real
        self._name = cache(namer(query))
        self._num_variables = query.num_variables
        self._products = query.products
        atoms = query.atoms
        self._relation, self._constant = atoms.relation.tolist(), atoms.constant.tolist()
        self._starts = atoms.starts.tolist()
        self._coefficient, self._monomial = atoms.coefficient.tolist(), atoms.monomial.tolist()
        integers = [tensor for tensor in query.tensors if "int" in tensor.dtype]
        self._integers = [range(tensor.offset, tensor.offset + tensor.size) for tensor in integers]

    def texts(self, block: AtomBlock) -> Iterator[str]:
        """The comparisons of a block."""
        for row in range(block.start, block.stop):
            span = slice(self._starts[row], self._starts[row + 1])
            yield self._atom(row, self._coefficient[span], self._monomial[span])

    def _atom(self, row: int, coefficients: list[float], monomials: list[int]) -> str:
        sign, mirrored = _SIGNS[self._relation[row]]
        constant = self._constant[row]
        number = integer if self._is_integer(monomials) else self._real
        if coefficients == [-1.0]:
            return f"({mirrored} {self._factors(monomials[0])} {number(constant)})"
        if constant == 0 and coefficients == [1.0, -1.0]:
            return f"({sign} {self._factors(monomials[0])} {self._factors(monomials[1])})"
        if constant == 0 and coefficients == [-1.0, 1.0]:
            return f"({sign} {self._factors(monomials[1])} {self._factors(monomials[0])})"
        terms = [self._term(c, m, number) for c, m in zip(coefficients, monomials, strict=True)] or [number(0.0)]
        left = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
        return f"({sign} {left} {number(0.0 - constant)})"

    def _term(self, coefficient: float, monomial: int, number: Callable[[float], str]) -> str:
        if coefficient == 1:
            return self._factors(monomial)
        if coefficient == -1:
            return f"(- {self._factors(monomial)})"
        return f"(* {number(coefficient)} {' '.join(self._names(monomial))})"

    def _factors(self, monomial: int) -> str:
        names = self._names(monomial)
        return names[0] if len(names) == 1 else f"(* {' '.join(names)})"

    def _names(self, monomial: int) -> list[str]:
        return [self._name(variable) for variable in self._variables(monomial)]

    def _variables(self, monomial: int) -> tuple[int, ...]:
        beyond = monomial - self._num_variables
        return (monomial,) if beyond < 0 else self._products[beyond]

    def _is_integer(self, monomials: list[int]) -> bool:
        return any(self._variables(monomials[0])[0] in integers for integers in self._integers) if monomials else False
