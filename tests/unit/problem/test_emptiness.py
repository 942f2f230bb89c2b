"""Cases without any input: none is lost that has one, and what intervals can refute is left out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from toolkit.errors import UnsupportedError
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases

INPUTS = 3


def text(lower: np.ndarray, upper: np.ndarray, assertion: str) -> str:
    """A query about a box of three inputs."""
    lines = [f"(declare-const X_{k} Real)" for k in range(INPUTS)] + ["(declare-const Y_0 Real)"]
    lines += [
        f"(assert (and (>= X_{k} {a}) (<= X_{k} {b})))" for k, (a, b) in enumerate(zip(lower, upper, strict=True))
    ]
    return "\n".join([*lines, f"(assert {assertion})"])


def random_polynomial(generator: np.random.Generator) -> tuple[str, list[tuple[int, tuple[int, ...]]]]:
    """A sum of monomials of small integer coefficients, as text and as terms."""
    terms = []
    for _ in range(int(generator.integers(1, 4))):
        degree = int(generator.integers(1, 4))
        variables = tuple(generator.integers(0, INPUTS, degree).tolist())
        terms.append((int(generator.choice([-3, -2, -1, 1, 2, 3])), variables))
    parts = [f"(* {c} {' '.join(f'X_{v}' for v in variables)})" for c, variables in terms]
    return f"(+ 0 {' '.join(parts)})", terms


def value(terms: list[tuple[int, tuple[int, ...]]], point: np.ndarray) -> int:
    return int(sum(c * np.prod([point[v] for v in variables]) for c, variables in terms))


@pytest.mark.parametrize("seed", range(40))
def test_no_case_with_an_integer_point_is_left_out(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lower = generator.integers(-3, 3, INPUTS)
    upper = lower + generator.integers(0, 3, INPUTS)
    polynomial, terms = random_polynomial(generator)
    points = [np.array(p) for p in itertools.product(*(range(a, b + 1) for a, b in zip(lower, upper, strict=True)))]
    values = [value(terms, point) for point in points]
    least, most = min(values), max(values)
    for sign, bound in (("<=", least), (">=", most), ("==", values[0]), ("<", least + 1), (">", most - 1)):
        assert len(compile_cases(parse_query(text(lower, upper, f"({sign} {polynomial} {bound})")))), (sign, bound)
    limit = sum(abs(c) * 5 ** len(variables) for c, variables in terms)
    for sign, bound in (("<", -limit), (">", limit), ("==", limit + 1)):
        assert not len(compile_cases(parse_query(text(lower, upper, f"({sign} {polynomial} {bound})")))), sign


@pytest.mark.parametrize(
    ("assertion", "cases"),
    [
        ("(>= (* X_0 X_1) 4.5)", 0),
        ("(> (* X_0 X_1) 4)", 0),
        ("(>= (* X_0 X_1) 4)", 1),
        ("(< (* X_2 X_2) 0)", 0),
        ("(<= (* X_2 X_2) 0)", 1),
        ("(> (* 0.1 X_0) 0.2)", 0),
        ("(>= (* 0.1 X_0) 0.2)", 1),
        ("(< Y_0 Y_0)", 0),
        ("(<= Y_0 Y_0)", 1),
        ("(!= (+ Y_0 X_0) (+ X_0 Y_0))", 0),
        ("(or (< 1 0) (> (* 3 X_0 X_1) 12.5) (<= Y_0 X_0))", 1),
        ("(and (<= Y_0 0) (>= (- X_0 X_1) 2.5))", 0),
        ("(>= (* X_0 X_1 X_2 Y_0) 1000)", 1),
    ],
)
def test_what_intervals_refute(assertion: str, cases: int) -> None:
    box = np.array([0, 0, -1]), np.array([2, 2, 1])
    assert len(compile_cases(parse_query(text(*box, assertion)))) == cases


def test_products_of_large_numbers_refute_nothing_by_overflow() -> None:
    box = np.array([0, 0, 0]), np.array([1, 1, 1])
    lines = text(*box, "(<= (+ (* X_0 X_0 X_0) (* -1 X_1)) 0)").replace("(<= X_0 1)", f"(<= X_0 {10**200})")
    assert len(compile_cases(parse_query(lines))) == 1


@pytest.mark.parametrize("on", ["X", "Y"])
def test_more_cases_than_fit_are_refused_before_they_are_written_out(on: str) -> None:
    count = 200
    names = [f"{letter}_{k}" for letter in "XY" for k in range(count)]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (and (>= X_{k} 0) (<= X_{k} 1)))" for k in range(count)]
    lines += [f"(assert (or {' '.join(f'(<= {on}_{k} 0.{j}1)' for j in range(1, 10))}))" for k in range(6)]
    lines += [f"(assert (or (<= Y_{k} 0) (>= Y_{k} 1)))" for k in range(100, 100 if on == "X" else 101)]
    with pytest.raises(UnsupportedError, match="split the query"):
        compile_cases(parse_query("\n".join(lines)))
