"""Kinds about specifications: every reader and writer, and the normal form, against a brute-force evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
from choices import Choices
from kinds import Unsuited, Wrong, kind
from vnnlib_formulas import COMPARE, VARIABLES, text, truth

from toolkit.errors import UnsupportedError
from toolkit.formats.vnnlib.convert_versions import downgrade, upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import parse_query
from toolkit.formats.vnnlib.write import format_query
from toolkit.problem.cases import Cases, compile_cases

FLAT = ["X_0", "X_1", "X_2", "Y_0", "Y_1"]
SHAPED = ["X[0,0]", "X[0,1]", "X[0,2]", "Y[0]", "Y[1]"]
HEAD = "".join(f"(declare-const {name} Real)\n" for name in FLAT)
NEW_HEAD = """(vnnlib-version <2.0>)
(declare-network N (declare-input X real [1,3]) (declare-output Y real [2]))
"""
CONSTANTS = ("0.0", "1.0", "-1.0", "0.5", "-0.0", "2.25", "-1.5", "0.125", "-3.0")
EXPONENTS = ("5e-1", "-1.5E0", "25e-2", "2.5e+1")
"""Which version 2.0 does not know."""
BLANKS = (" ", "\n", "\t", "  ", " ; a note (\n", "\r\n")
VALUES = (0.0, 1.0, -1.0, 0.5, 0.125, -1.5, 2.25, -3.0, 1.0625)
MOST_CASES = 2000

Formula = Any


def random_term(choices: Choices, constants: tuple[str, ...], depth: int = 2) -> Any:
    """A variable, a constant, or a sum, difference or product of terms."""
    sort = choices.of(("variable", "variable", "constant", *(("sum",) if depth else ())))
    if sort == "variable":
        return choices.below(VARIABLES)
    if sort == "constant":
        return choices.of(constants)
    terms = [random_term(choices, constants, depth - 1) for _ in range(choices.between(1, 3))]
    return (choices.of("+-*"), *terms)


def random_formula(choices: Choices, constants: tuple[str, ...], depth: int = 3) -> Formula:
    """A comparison, or a conjunction or disjunction of formulas."""
    if not depth or not choices.chance(0.4):
        return (choices.of([*COMPARE]), *(random_term(choices, constants) for _ in range(2)))
    parts = [random_formula(choices, constants, depth - 1) for _ in range(choices.between(1, 3))]
    return (choices.of(("and", "or")), *parts)


def random_box(choices: Choices) -> list[Formula]:
    """Bounds of all inputs, by constants on either side of the sign; some inputs are fixed."""
    found: list[Formula] = []
    for number in range(3):
        low, high = choices.of((("-1.0", "1.0"), ("0.5", "0.5"), ("-3.0", "2.25"), ("1.0", "0.0")))
        found.append(("<=", low, number) if choices.chance(0.5) else (">=", number, low))
        found.append(("<=", number, high) if choices.chance(0.5) else (">=", high, number))
    return found


def covers(cases: Cases, query: Query, point: np.ndarray) -> bool:
    """Whether some case has the point in its box and all of its atoms true there."""
    inside = ((cases.lower <= point[cases.inputs]) & (point[cases.inputs] <= cases.upper)).all(1)
    holds = cases.atoms.compare(cases.atoms.values(query.monomials(point)))
    return any(inside[region] and holds[cases.rows_of(case)].all() for case, region in enumerate(cases.region))


def agree(label: str, found: bool, expected: bool, written: str, point: np.ndarray) -> None:
    """Raise Wrong where they differ."""
    if found != expected:
        raise Wrong(label, f"{found}, but {expected} at {point.tolist()} of {written}")


def written(query: Query, version: str | None = None) -> str:
    """A query's text."""
    return "\n".join(format_query(query, version))


@kind(share=8)
def specifications(choices: Choices) -> int:
    """Random formulas in both dialects: what is read, written, converted and put into cases is true where they are."""
    constants = CONSTANTS + (EXPONENTS if choices.chance(0.3) else ())
    formulas = [random_formula(choices, constants) for _ in range(choices.between(1, 3))]
    formulas = [*random_box(choices), *formulas]
    if choices.chance(0.3):
        formulas = [("and", *formulas)]
    dialects = {"1.0": (HEAD, FLAT)} if constants != CONSTANTS else {"1.0": (HEAD, FLAT), "2.0": (NEW_HEAD, SHAPED)}
    blank = np.random.default_rng(choices.seed())
    texts = {
        version: head + "\n".join(f"(assert {text(f, names, lambda: str(blank.choice(BLANKS)))})" for f in formulas)
        for version, (head, names) in dialects.items()
    }
    queries = {version: parse_query(body) for version, body in texts.items()}
    queries |= rewritten(queries["1.0"])
    normal = {version: normal_form(query) for version, query in queries.items()}
    points = [np.array([choices.of(VALUES) for _ in range(VARIABLES)]) for _ in range(4)]
    for point in points:
        expected = all(truth(formula, point) for formula in formulas)
        for version, query in queries.items():
            agree(f"{version} holds", query.holds(point), expected, texts["1.0"], point)
            cases = normal[version]
            if cases is not None:
                agree(f"{version} cases", covers(cases, query, point), expected, texts["1.0"], point)
    return len(points) * len(queries)


def rewritten(query: Query) -> dict[str, Query]:
    """The query written and read again, converted to 2.0 and back."""
    newer = parse_query(written(upgrade(query, [(1, 3)], [(2,)], "real")))
    return {
        "written": parse_query(written(query)),
        "upgraded": newer,
        "downgraded": parse_query(written(downgrade(newer))),
    }


def normal_form(query: Query) -> Cases | None:
    """The query's cases, where there are not too many."""
    try:
        return compile_cases(query, MOST_CASES)
    except UnsupportedError as error:
        if "more than the limit" in str(error):
            return None
        raise Unsuited from None
