"""Collects the atoms of a formula: equal atoms are stored once, and occurrences are expanded with arrays at the end."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.vnnlib.dialect import lies_between_doubles
from toolkit.formats.vnnlib.polynomial import Monomial, Polynomial
from toolkit.formats.vnnlib.query import Atoms, Relation

Renumber = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From the codes used while reading to variable numbers."""

Terms = tuple[tuple[int, float], ...]
"""Pairs of a monomial's code and a coefficient. Codes of products are negative."""
_INEQUALITIES = (Relation.LE, Relation.LT)


class AtomTable:
    """Distinct atoms by number, and the sequence of their occurrences (``rows``)."""

    def __init__(self, is_output: Callable[[int], bool]) -> None:
        """An empty table; a variable's code is that of an output or not."""
        self._is_output = is_output
        self.rows = array("i")
        self._numbers: dict[tuple[int, float, Terms], int] = {}
        self._products: dict[Monomial, int] = {}

    def number(self, relation: int, constant: float, terms: Terms) -> int:
        """The number of an atom ``terms + constant RELATION 0``; its terms are sorted by code."""
        return self._numbers.setdefault((relation, constant, terms), len(self._numbers))

    def number_of(self, relation: int, polynomial: Polynomial) -> int:
        """The number of the atom ``polynomial RELATION 0``. Raises OverflowError when a coefficient is too large.

        Where an inequality about outputs has a constant c that lies between two doubles, it gets the lower one d and
        becomes strict: ``t + d < 0`` holds for all real numbers t with ``t + c <= 0``, and for no other double.
        """
        exact = polynomial.get((), Fraction(0))
        constant = float(exact)
        if relation in _INEQUALITIES and lies_between_doubles(exact) and self._has_output(polynomial):
            relation = int(Relation.LT)
            constant = constant if Fraction(constant) < exact else math.nextafter(constant, -math.inf)
        terms = [(self._code(monomial), float(c)) for monomial, c in polynomial.items() if monomial]
        return self.number(relation, constant, tuple(sorted(terms)))

    def _has_output(self, polynomial: Polynomial) -> bool:
        return any(self._is_output(code) for monomial in polynomial for code in monomial)

    def _code(self, monomial: Monomial) -> int:
        if len(monomial) == 1:
            return monomial[0]
        return -1 - self._products.setdefault(monomial, len(self._products))

    def finish(self, renumber: Renumber, num_variables: int) -> tuple[Atoms, tuple[Monomial, ...]]:
        """All occurrences as :class:`Atoms`, and the products their monomials refer to."""
        keys = list(self._numbers)
        flat = [term for _, _, terms in keys for term in terms]
        codes = np.array([code for code, _ in flat], dtype=np.int64)
        monomial = np.where(codes >= 0, renumber(codes), num_variables - 1 - codes)
        distinct = Atoms(
            relation=np.array([relation for relation, _, _ in keys], dtype=np.int8),
            constant=np.array([constant for _, constant, _ in keys], dtype=np.float64),
            starts=np.concatenate([[0], np.cumsum([len(terms) for _, _, terms in keys])]).astype(np.int64),
            coefficient=np.array([coefficient for _, coefficient in flat], dtype=np.float64),
            monomial=monomial,
        )
        products = tuple(tuple(renumber(np.array(product)).tolist()) for product in self._products)
        return distinct.take(np.asarray(self.rows, dtype=np.int64)), products
