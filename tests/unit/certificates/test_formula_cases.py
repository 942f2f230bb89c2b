"""The cases of both readers of specifications are matched: atoms have the same values, up to the factors given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from toolkit.certificates.formula_cases import formula_cases
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import compile_cases
from toolkit.proof.formula import load_formula

BOX = "(assert (and (>= X_0 -1) (<= X_0 0.1) (>= X_1 0) (<= X_1 2)))"
ASSERTIONS = {
    "one atom": BOX + "(assert (<= (+ (* 2 Y_0) (* -0.5 Y_1)) 0.3))",
    "atoms of both": BOX
    + "(assert (>= Y_0 Y_1)) (assert (or (<= Y_0 0.1) (>= Y_1 (+ X_0 0.2)) (and (<= Y_0 1) (<= Y_1 2))))",
    "boxes of their own": "(assert (or (and (>= X_0 0) (<= X_0 0.1) (>= X_1 0) (<= X_1 1) (<= Y_0 1))"
    " (and (>= X_0 0.2) (<= X_0 0.3) (>= X_1 0) (<= X_1 1) (<= Y_0 1))"
    " (and (>= X_0 0.3) (<= X_0 0.2) (>= X_1 0) (<= X_1 1) (<= Y_0 1))))",
    "an equation": BOX + "(assert (= Y_0 0.7))",
}


@pytest.mark.parametrize("assertions", ASSERTIONS.values(), ids=ASSERTIONS.keys())
def test_atoms_have_the_same_values(tmp_path: Path, assertions: str) -> None:
    path = tmp_path / "p.vnnlib"
    names = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    path.write_text(names + assertions)
    cases, formula = compile_cases(read_query(path)), load_formula(path)
    found = formula_cases(formula, cases)
    points = np.random.default_rng(0).normal(size=(5, 4))
    values = cases.atoms.values(points)
    open_cases = [number for number in range(len(formula.cases)) if not formula.case(number).empty]
    assert sorted(stated.number for part in found for stated in part) == open_cases and len(found) == len(open_cases)
    for case, part in enumerate(found):
        for stated in part:
            own = formula.case(stated.number)
            assert np.allclose([float(end) for end in own.lower], cases.lower[cases.region[case]])
            assert set(stated.atoms) == set(cases.rows_of(case).tolist())
            for row, (number, factor) in stated.atoms.items():
                atom = own.atoms[number]
                theirs = sum(float(w) * points[:, v] for v, w in atom.coefficients) + float(atom.constant)
                assert np.allclose(values[:, row], factor * theirs) and factor > 0


def test_cases_that_are_repeated_are_each_found(tmp_path: Path) -> None:
    path = tmp_path / "p.vnnlib"
    names = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    path.write_text(names + BOX + "(assert (or (<= Y_0 0.1) (<= (* 2 Y_0) 0.2) (<= Y_1 0.1)))")
    cases, formula = compile_cases(read_query(path)), load_formula(path)
    assert [[stated.number for stated in part] for part in formula_cases(formula, cases)] == [[0], [1], [2]]
