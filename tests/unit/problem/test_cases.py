"""Cases: the same set of points as the formula, whatever its shape; boxes that do not leak; clear refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.query import Query, Relation
from toolkit.formats.vnnlib.read import parse_query, read_query
from toolkit.problem.cases import Cases, compile_cases

DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
UNIT = "(assert (>= X_0 -4))(assert (<= X_0 4))(assert (>= X_1 -4))(assert (<= X_1 4))"


def compiled(body: str, **options) -> Cases:
    return compile_cases(parse_query(DECLARED + body), **options)


def covers(cases: Cases, query: Query, point: np.ndarray) -> bool:
    """Whether the point lies in some case."""
    true = cases.atoms.compare(cases.atoms.values(query.monomials(point)))
    x = point[cases.inputs]
    inside = ((cases.lower <= x) & (x <= cases.upper)).all(axis=1)
    return any(inside[cases.region[c]] and true[cases.rows_of(c)].all() for c in range(len(cases)))


def boxes(cases: Cases) -> list[list[tuple[float, float]]]:
    sides = zip(cases.lower[cases.region].tolist(), cases.upper[cases.region].tolist(), strict=True)
    return [list(zip(lower, upper, strict=True)) for lower, upper in sides]


def test_a_robustness_query_shares_one_region() -> None:
    cases = compiled(UNIT + "(assert (or (and (>= Y_0 Y_1)) (and (>= Y_1 3) (<= Y_0 1))))")
    assert cases.inputs.tolist() == [0, 1]
    assert (cases.lower.tolist(), cases.upper.tolist()) == ([[-4, -4]], [[4, 4]])
    assert (cases.region.tolist(), cases.starts.tolist(), cases.rows.tolist()) == ([0, 0], [0, 1, 3], [0, 1, 2])
    assert cases.atoms.relation.tolist() == [Relation.LE] * 3
    matrix, constant = cases.dense(np.array([2, 3]))
    assert matrix.tolist() == [[-1, 1], [0, -1], [1, 0]]
    assert constant.tolist() == [0, 3, -1]


def test_dense_refuses_other_variables_and_products() -> None:
    mixed = compiled(UNIT + "(assert (<= (+ Y_0 X_0) 0))")
    assert mixed.dense(np.arange(4))[0].tolist() == [[1, 0, 1, 0]]
    for cases in (mixed, compiled(UNIT + "(assert (<= (* Y_0 Y_1) 0))")):
        with pytest.raises(UnsupportedError, match="not linear"):
            cases.dense(np.array([2, 3]))


def test_boxes_do_not_leak_between_disjuncts() -> None:
    cases = compiled(
        "(assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (<= Y_0 0))"
        " (and (>= X_0 2) (<= X_0 3) (>= X_1 2) (<= X_1 3) (>= Y_0 1))))"
    )
    assert boxes(cases) == [[(0, 1), (0, 1)], [(2, 3), (2, 3)]]
    assert cases.rows.tolist() == [0, 1]


def test_disjunctions_multiply_and_later_conjuncts_reach_all() -> None:
    first = "(and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1))"
    second = "(and (>= X_0 2) (<= X_0 3) (>= X_1 2) (<= X_1 3))"
    both = f"(assert (or {first} {second}))(assert (or (and (<= Y_0 0)) (and (<= Y_1 0)) (and (<= Y_0 Y_1))))"
    cases = compiled(both + "(assert (<= Y_1 0.045))")
    assert len(cases) == 6
    assert cases.region.tolist() == [0, 0, 0, 1, 1, 1]
    last = int(np.flatnonzero(cases.atoms.constant == -0.045)[0])
    assert all(last in cases.rows_of(case) for case in range(6))
    assert len(cases.atoms) == 4


def test_points_intersections_and_empty_boxes() -> None:
    point = "(assert (= X_0 0.5))(assert (and (<= X_1 2) (<= X_1 1) (>= X_1 0) (>= X_1 -1)))"
    assert boxes(compiled(point + "(assert (<= Y_0 0))")) == [[(0.5, 0.5), (0, 1)]]
    assert len(compiled(UNIT + "(assert (>= X_0 5))")) == 0
    some = compiled(UNIT + "(assert (or (and (>= X_0 5) (<= Y_0 0)) (and (>= X_0 3) (<= Y_1 0))))")
    assert boxes(some) == [[(3, 4), (-4, 4)]]
    assert len(some.atoms) == 1


def test_strict_bounds_widen_the_box_and_stay_as_atoms() -> None:
    cases = compiled(UNIT + "(assert (< X_0 1))")
    assert boxes(cases) == [[(-4, 1), (-4, 4)]]
    assert (cases.atoms.relation.tolist(), cases.atoms.constant.tolist()) == ([Relation.LT], [-1])
    assert len(compiled(UNIT + "(assert (> X_0 4))")) == 0
    assert len(compiled(UNIT + "(assert (< X_0 -4))")) == 0


def test_equalities_and_inequalities_of_outputs() -> None:
    equal = compiled(UNIT + "(assert (= Y_0 1))")
    assert (equal.atoms.relation.tolist(), equal.starts.tolist()) == ([Relation.LE] * 2, [0, 2])
    unequal = compiled(UNIT + "(assert (!= Y_0 1))(assert (!= Y_1 Y_0))")
    assert unequal.starts.tolist() == [0, 2, 4, 6, 8]
    assert set(unequal.atoms.relation.tolist()) == {Relation.LT}


def test_scaled_bounds_are_rounded_outwards_and_kept() -> None:
    cases = compiled(UNIT + "(assert (<= (* 3 X_0) 1))(assert (>= (* 3 X_1) 1))")
    ((low0, up0), (low1, up1)) = boxes(cases)[0]
    assert (low0, up1) == (-4, 4)
    assert Fraction(low1) <= Fraction(1, 3) <= Fraction(up0)
    assert up0 - low1 < 1e-15
    assert len(cases.atoms) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("(assert (<= X_0 1))(assert (>= X_0 0))", "no lower bound for X_1:"),
        ("(assert (>= X_1 0))(assert (= X_0 0))", "no upper bound for X_1:"),
        ("(assert (<= Y_0 0))", "no lower bound for X_0, X_1:"),
        ("(assert (= X_0 0))(assert (or (and (<= X_1 1) (>= X_1 0)) (and (<= X_1 2))))", "no lower bound for X_1:"),
    ],
)
def test_unbounded_inputs_are_named(body: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled(body)


def test_too_many_cases_are_counted_not_built() -> None:
    choice = "(assert (or (<= Y_0 1) (<= Y_0 2) (<= Y_0 3) (<= Y_0 4)))"
    with pytest.raises(UnsupportedError, match=f"{4**40} cases"):
        compiled(UNIT + choice * 40)
    assert len(compiled(UNIT + choice * 2, limit=16)) == 16
    with pytest.raises(UnsupportedError, match="limit of 15"):
        compiled(UNIT + choice * 2, limit=15)


TWO = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [2]) (declare-output Y_f real []))
(declare-network g (isomorphic-to f) (declare-input X_g real [2]) (declare-output Y_g real []))
(assert (and (<= X_f[0] 0.7) (>= X_f[0] 0.1) (<= X_f[1] 1.0) (>= X_f[1] 0.0)))
(assert (or (> Y_f Y_g) (< Y_f (- Y_g 0.5))))
"""


def test_bounds_of_tied_inputs_are_implied() -> None:
    tied = compile_cases(parse_query(TWO + "(assert (== X_f[0] X_g[0]))(assert (== X_g[1] (+ X_f[1] 0.1)))"))
    assert tied.inputs.tolist() == [0, 1, 3, 4]
    assert len(tied) == 2
    assert tied.lower[0].tolist() == [0.1, 0.0, 0.1, 0.1]
    assert tied.upper[0, 2] == 0.7
    assert 1.1 <= tied.upper[0, 3] <= np.nextafter(1.1, 2)
    with pytest.raises(InputError, match=r"no upper bound for X_g\[1\]:"):
        compile_cases(parse_query(TWO + "(assert (== X_f[0] X_g[0]))(assert (<= X_f[1] X_g[1]))"))


def test_a_box_that_contradicts_implied_bounds_has_no_case() -> None:
    tied = TWO + "(assert (== X_f[0] X_g[0]))(assert (== X_f[1] X_g[1]))"
    cases = compile_cases(parse_query(tied + "(assert (or (>= X_g[0] 2.0) (<= X_g[1] 0.5)))"))
    assert cases.upper.tolist() == [[0.7, 1.0, 0.7, 0.5]]
    assert len(cases) == 2
    assert len(compile_cases(parse_query(tied + "(assert (>= X_g[0] 2.0))"))) == 0


def test_bounds_from_a_sum_hold_every_solution() -> None:
    body = "(assert (<= (+ (* 3.0 X_g[0]) (* -2.0 X_f[0])) 1.0))(assert (>= (+ X_g[0] X_g[1]) -1.0))"
    body += "(assert (>= X_g[0] -1.0))(assert (<= X_g[1] 5.0))"
    cases = compile_cases(parse_query(TWO + body))
    assert 0.8 <= cases.upper[0, 2] < 0.8 + 1e-12
    assert -1.8 - 1e-12 < cases.lower[0, 3] <= -1.8


NUMBERS = st.sampled_from(["-2", "-1", "0", "0.5", "1", "2"])
NAMES = st.sampled_from(["X_0", "X_1", "Y_0", "Y_1"])
PRODUCTS = st.tuples(st.just("*"), NAMES, st.one_of(NAMES, st.just("2"))).map(lambda words: f"({' '.join(words)})")
SIDES = st.one_of(NAMES, NUMBERS, PRODUCTS)
SIGNS = st.sampled_from(["<=", "<", ">=", ">", "=", "!="])
LITERALS = st.tuples(SIGNS, SIDES, SIDES).map(lambda words: f"({' '.join(words)})")
FORMULAS = st.recursive(
    LITERALS,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda pair: f"({pair[0]} {' '.join(pair[1])})"
    ),
    max_leaves=8,
)
POINTS = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0]), min_size=4, max_size=4).map(np.array)


@given(st.lists(FORMULAS, min_size=1, max_size=3), st.lists(POINTS, min_size=5, max_size=5))
@settings(deadline=None, max_examples=200)
def test_cases_are_the_formula(formulas: list[str], points: list[np.ndarray]) -> None:
    query = parse_query(DECLARED + UNIT + "".join(f"(assert {formula})" for formula in formulas))
    cases = compile_cases(query)
    assert set(cases.atoms.relation.tolist()) <= {Relation.LE, Relation.LT}
    for point in points:
        assert covers(cases, query, point) == query.holds(point)


def real_files() -> list[Path]:
    root = os.environ.get("VNNCOMP_DIR")
    return sorted(Path(root).glob("*/vnnlib/*.vnnlib*")) if root else []


@pytest.mark.slow
@pytest.mark.skipif(not real_files(), reason="needs VNNCOMP_DIR")
def test_every_real_file_compiles() -> None:
    for path in real_files():
        cases = compile_cases(read_query(path))
        assert len(cases) > 0, path
        assert (cases.lower <= cases.upper).all(), path
        assert len(cases.starts) == len(cases) + 1, path


@pytest.mark.parametrize(("atoms", "compares"), [
    ("(<= Y_0 Y_1)", True),
    ("(or (< Y_0 Y_1) (>= (* 2 Y_0) (* 2 Y_1)))", True),
    ("(and (<= Y_0 Y_1) (<= (+ X_0 X_1) 1))", True),
    ("(<= Y_0 (+ Y_1 1))", False),
    ("(<= Y_0 (* 2 Y_1))", False),
    ("(<= (+ Y_0 Y_1) 0)", False),
    ("(<= Y_0 X_0)", False),
    ("(<= Y_0 0)", False),
    ("(and (<= Y_0 Y_1) (<= Y_1 0.5))", False),
    ("(or (<= Y_0 Y_1) (<= Y_0 (* 2 Y_1)))", False),
    ("(<= (+ Y_0 X_0) (+ Y_1 X_0 X_1))", False),
    ("(<= (* Y_0 Y_1) (* Y_1 Y_0 Y_0))", False),
])  # fmt: skip
def test_what_only_compares_elements_of_an_output(atoms: str, compares: bool) -> None:
    """Any function that rises in every element keeps the truth of such atoms, and of no others."""
    query = parse_query(f"{DECLARED}{UNIT}(assert {atoms})")
    [output] = query.networks[0].outputs
    assert compile_cases(query).only_compares(output) == compares


def test_small_outputs_are_used_as_a_whole(tune: Callable[..., None]) -> None:
    """Of three elements one is mentioned; with a limit of two elements that one alone is used."""
    text = f"{DECLARED}(declare-const Y_2 Real){UNIT}(assert (<= Y_1 0))"
    for limit, used in ((3, [2, 3, 4]), (2, [3])):
        tune(problem={"small_output": limit})
        assert compile_cases(parse_query(text)).used.tolist() == used


def test_a_case_that_is_empty_lacks_no_bounds() -> None:
    """The first disjunct has no points, and no upper bound either; in the second all inputs are bounded."""
    cases = compiled("(assert (>= X_1 0))(assert (<= X_1 1))(assert (>= X_0 0))"
                     "(assert (or (and (>= X_1 2) (<= Y_0 0)) (and (<= X_0 3) (<= Y_0 0))))")  # fmt: skip
    assert boxes(cases) == [[(0, 3), (0, 1)]]
