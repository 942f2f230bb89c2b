"""The checker's reader of specifications, against the verifier's and by hand."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from toolkit.formats.vnnlib.read import read_query
from toolkit.proof.formula import CaseFormula, load_formula
from toolkit.proof.network import UnreadableError

HEAD = "(declare-const X_0 Real)(declare-const X_1 Real)\n(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
BOX = "(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 -1) (<= X_1 1e0)))\n"
SECOND = """(vnnlib-version <2.0>)
(declare-network N (declare-input X real [1, 2]) (declare-output Y real [2]))
"""


def formula(tmp_path: Path, text: str) -> CaseFormula:
    path = tmp_path / "s.vnnlib"
    path.write_text(text)
    return load_formula(path)


def holds(found: CaseFormula, point: list[Fraction]) -> list[bool]:
    """Which cases a point of inputs and outputs is in."""
    result = []
    for number in range(len(found.cases)):
        case = found.case(number)
        inside = all(low <= x <= high for low, x, high in zip(case.lower, point, case.upper, strict=False))
        for atom in case.atoms:
            value = sum(weight * point[variable] for variable, weight in atom.coefficients) + atom.constant
            inside &= value < 0 if atom.strict else value <= 0
        result.append(inside)
    return result


ASSERTIONS = {
    "(assert (<= Y_0 Y_1))": lambda x, y, p, q: p <= q,
    "(assert (or (< Y_0 0.5) (and (> Y_1 X_0) (= Y_0 1))))": lambda x, y, p, q: p < 0.5 or (q > x and p == 1),
    "(assert (!= Y_0 Y_1))": lambda x, y, p, q: p != q,
    "(assert (<= (+ Y_0 (* -2 Y_1) 0.25) (- X_0)))": lambda x, y, p, q: p - 2 * q + 0.25 <= -x,
    "(assert (<= (- Y_0 Y_1 1) 0))(assert (or (>= X_1 0.5) (<= X_0 0.5)))":
        lambda x, y, p, q: p - q - 1 <= 0 and (y >= 0.5 or x <= 0.5),
    "(assert (and (or (<= Y_0 0) (<= Y_1 0)) (or (>= Y_0 0.5) (>= Y_1 0.5))))":
        lambda x, y, p, q: (p <= 0 or q <= 0) and (p >= 0.5 or q >= 0.5),
    "(assert ((<= (* 2 0.5 Y_0) (* Y_1 2.0))))": lambda x, y, p, q: p <= 2 * q,
}  # fmt: skip


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("text", ASSERTIONS)
def test_truth(tmp_path, text, second):
    """A point is in a case exactly when it has what is asserted."""
    whole = HEAD + BOX + "; a comment (with <= 1)\n" + text
    if second:
        names = {"X_0": "X[0,0]", "X_1": "X[0, 1]", "Y_0": "Y[0]", "Y_1": "Y [1]"}
        whole = SECOND + BOX + text
        for name, other in names.items():
            whole = whole.replace(name, other)
    found = formula(tmp_path, whole)
    for point in itertools.product((0, Fraction(1, 2), 1), (-1, Fraction(1, 2), 1), *[(-1, 0, Fraction(1, 2), 1)] * 2):
        assert any(holds(found, list(point))) == ASSERTIONS[text](*point)


def test_order_of_cases_and_numbers(tmp_path):
    found = formula(
        tmp_path, HEAD + BOX + "(assert (or (<= Y_0 0.1) (!= Y_1 2e-1)))(assert (or (>= Y_0 1) (>= Y_1 1)))"
    )
    said = [[(atom.coefficients, atom.constant, atom.strict) for atom in found.case(n).atoms] for n in range(6)]
    first, second = ((3, Fraction(1)),), ((3, Fraction(-1)),)
    assert said[0] == [(((2, Fraction(1)),), Fraction(-1, 10), False), (((2, Fraction(-1)),), Fraction(1), False)]
    assert [case[0] for case in said[2:]] == [(first, Fraction(-1, 5), True)] * 2 + [(second, Fraction(1, 5), True)] * 2
    assert [case[1][0] for case in said] == [((2, Fraction(-1)),), second] * 3


@pytest.mark.parametrize("text", [
    HEAD + BOX + "(assert (<= (* Y_0 Y_1) 0))", HEAD + BOX + "(assert (<= Y_2 0))",
    HEAD + BOX + "(assert (not (<= Y_0 0)))",
    HEAD + BOX + "(assert (<= Y_0 1 2))", HEAD + BOX + "(assert (<= Y_0 nan))", HEAD + BOX + "(assert (<= Y_0 1)",
    HEAD + BOX + "(assert (<= Y_0 1)))", HEAD + BOX + "(assert (or))", HEAD + BOX + '(assert (<= Y_0 "5" 1))',
    HEAD + BOX + "(push 1)", HEAD + "(assert (>= X_0 0))" + "(assert (<= Y_0 1))", "(declare-const X_1 Real)",
    "(declare-const X_0 Int)", HEAD + BOX + "(assert " + "(and " * 300 + "(<= Y_0 0)" + ")" * 301,
    SECOND + "(assert (<= Z[0] 1))", SECOND + "(assert (<= X[0,2] 1))", SECOND + "(assert (<= X[0] 1))",
    SECOND + SECOND[23:], SECOND.replace("(declare-output", "(declare-hidden h real [1] \"t\") (declare-output"),
    HEAD + BOX + "(assert (<= Y_0 1/3))", HEAD + BOX + "(assert (/ Y_0 2))",
    HEAD + BOX + "(assert (= Y_0 0) (= Y_0 1))",
])  # fmt: skip
def test_what_is_not_read_is_refused(tmp_path, text):
    with pytest.raises(UnreadableError, match="vnnlib"):
        formula(tmp_path, text).case(0)


@pytest.mark.parametrize("sign", ["<=", "<", ">=", ">", "=", "!="])
def test_as_the_verifier_reads_it(tmp_path, sign):
    """Both readers find the same cases with a point in them."""
    rng = np.random.default_rng(3)
    for _ in range(10):
        numbers = [f"{x:.3f}" for x in rng.normal(size=6)]
        text = HEAD + BOX + (
            f"(assert (or (and ({sign} Y_0 (* {numbers[0]} Y_1)) (>= X_0 {abs(float(numbers[1]))}))"
            f" (<= (+ Y_0 Y_1 (* {numbers[2]} X_1)) {numbers[3]})))"
            f"(assert (or (<= Y_1 {numbers[4]}) (>= Y_0 {numbers[5]})))"
        )  # fmt: skip
        found = formula(tmp_path, text)
        query = read_query(tmp_path / "s.vnnlib")
        for point in rng.normal(size=(50, 4)).round(2):
            exact = [Fraction(float(x)) for x in point]
            inside = 0 <= point[0] <= 1 and -1 <= point[1] <= 1
            assert any(holds(found, exact)) == (inside and bool(query.holds(point)))


@pytest.mark.parametrize(("text", "empty"), [
    ("(> X_0 0.5)(<= X_0 0.5)", True),
    ("(<= X_0 0.5)(> X_0 0.5)", True),
    ("(< X_0 0.5)(>= X_0 0.5)(<= X_0 3)", True),
    ("(> (* -2 X_0) -1)(>= X_0 0.5)", True),
    ("(>= X_0 0.5)(<= X_0 0.5)", False),
    ("(>= X_0 0.5)(<= X_0 0.5)(< X_0 0.75)", False),
    ("(> X_0 0.25)(<= X_0 0.5)", False),
    ("(< Y_0 Y_0)", True),
    ("(<= Y_0 Y_0)", False),
    ("(< 1 1)", True),
    ("(<= 1 0.5)", True),
    ("(<= 1 1)", False),
    ("(>= X_0 X_0)", False),
])  # fmt: skip
@pytest.mark.parametrize("common", [True, False])
def test_cases_without_a_point(tmp_path, text, empty, common):
    """Strict ends that meet, and atoms without variables that are false, leave no point; in all cases, or in one."""
    whole = f"(and {text})" if common else f"(or (and {text}) (<= Y_0 7))"
    found = formula(tmp_path, f"{HEAD}{BOX}(assert {whole})")
    assert [found.case(number).empty for number in range(len(found.cases))] == [empty] + [False] * (not common)


def test_unequal_to_itself_is_two_cases_without_a_point(tmp_path):
    """An output cannot be less than itself, nor greater."""
    found = formula(tmp_path, f"{HEAD}{BOX}(assert (!= Y_0 Y_0))")
    assert [found.case(number).empty for number in range(2)] == [True, True]
