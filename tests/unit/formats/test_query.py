"""The query itself: exact truth at the boundary, the algebra of formulas, and its sparse rows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from toolkit.formats.vnnlib.query import (
    And,
    AtomBlock,
    Atoms,
    Or,
    Query,
    Relation,
    conjoin,
    count_disjuncts,
    disjoin,
    disjuncts,
    offsets,
    ranges,
)
from toolkit.formats.vnnlib.vnnlib1 import flat_network


def query_of(rows: list[tuple[Relation, float, list[float]]], products: tuple[tuple[int, ...], ...] = ()) -> Query:
    """A conjunction of dense rows over three inputs, one output and the products."""
    width = 4 + len(products)
    atoms = Atoms(
        relation=np.array([relation for relation, _, _ in rows], dtype=np.int8),
        constant=np.array([constant for _, constant, _ in rows]),
        starts=np.arange(len(rows) + 1) * width,
        coefficient=np.array([row for _, _, row in rows]).reshape(-1),
        monomial=np.tile(np.arange(width), len(rows)),
    )
    return Query("1.0", (flat_network(3, 1),), atoms, AtomBlock(0, len(rows)), products)


def test_cancellation_does_not_decide() -> None:
    point = np.array([1e16, 1.0, -1e16, 0.0])
    assert query_of([(Relation.LT, 0.5, [-1, -1, -1, 0])]).holds(point)
    assert not query_of([(Relation.LE, 0.0, [1, 1, 1, 0])]).holds(point)
    assert query_of([(Relation.EQ, -1.0, [1, 1, 1, 0])]).holds(point)


def test_products_are_exact_at_the_boundary() -> None:
    x = 1.0 + 2.0**-30
    square = query_of([(Relation.LT, -(x * x), [0, 0, 0, 0, 1])], ((0, 0),))
    exact = Fraction(x) ** 2 < Fraction(x * x)
    assert square.holds(np.array([x, 0, 0, 0])) == exact


numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, min_size=4, max_size=4), st.sampled_from(Relation))
def test_sums_have_the_sign_of_the_rational_value(row: list[float], point: list[float], relation: Relation) -> None:
    exact = sum(Fraction(a) * Fraction(x) for a, x in zip(row, point, strict=True))
    constant = -float(exact)
    value = exact + Fraction(constant)
    expected = [value <= 0, value < 0, value == 0, value != 0][relation]
    assert query_of([(relation, constant, row)]).holds(np.array(point)) == expected


def test_nothing_holds_for_nan_and_infinities_are_ordered() -> None:
    for relation in Relation:
        assert not query_of([(relation, 0.0, [1, 0, 0, 0])]).holds(np.array([np.nan, 0, 0, 0]))
    assert query_of([(Relation.LE, 0.0, [1.0, 1, 1, 1])]).holds(np.array([-np.inf, 0, 0, 0]))


def test_conjunctions_and_disjunctions_flatten() -> None:
    a, b, c = AtomBlock(0, 1), AtomBlock(1, 3), AtomBlock(5, 6)
    assert conjoin([a, conjoin([b, c])]) == And((AtomBlock(0, 3), c))
    assert conjoin([a]) == a
    assert disjoin([a, disjoin([b, c])]) == Or((a, b, c))
    assert disjoin([b]) == b


def test_disjuncts_in_the_order_of_the_text() -> None:
    a, b, c, d = (AtomBlock(2 * i, 2 * i + 1) for i in range(4))
    formula = conjoin([disjoin([a, conjoin([b, disjoin([c, d])])]), disjoin([a, d])])
    assert count_disjuncts(formula) == 6
    assert disjuncts(formula) == [(a, a), (a, d), (b, c, a), (b, c, d), (b, d, a), (b, d, d)]
    assert disjuncts(And(())) == [()]
    assert disjuncts(Or(())) == []


def test_rows_with_no_terms_and_repeated_rows() -> None:
    atoms = Atoms(np.zeros(3, np.int8), np.array([1.0, -1.0, 0.0]), np.array([0, 0, 2, 3]), np.ones(3), np.arange(3))
    assert atoms.values(np.array([1.0, 2.0, 4.0])).tolist() == [1, 2, 4]
    assert atoms.row_of_term.tolist() == [1, 1, 2]
    taken = atoms.take(np.array([2, 0, 1, 1]))
    assert (taken.starts.tolist(), taken.monomial.tolist()) == ([0, 1, 1, 3, 5], [2, 0, 1, 0, 1])
    assert len(atoms.take(np.array([], dtype=np.int64)).values(np.ones(3))) == 0


def test_ranges_and_offsets() -> None:
    assert ranges(np.array([3, 0, 7]), np.array([5, 0, 8])).tolist() == [3, 4, 7]
    assert offsets(np.array([2, 0, 1])).tolist() == [0, 2, 2, 3]
