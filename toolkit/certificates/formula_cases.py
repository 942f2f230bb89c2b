"""Which case and which atoms of the checker's formula each case of a query is.

Both readers make the disjunctive normal form of one text, and each leaves out or puts together what it knows of. A case
is recognised by its box and its atoms, up to positive factors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from toolkit.problem.cases import Cases
from toolkit.proof.formula import CaseFormula, FormulaAtom, FormulaCase
from toolkit.tuning import tuned

AtomKey = tuple[tuple[int, str], ...]
"""Variables with their coefficients, the constant with -1, divided by the largest coefficient, to 12 digits."""


@dataclass(frozen=True)
class StatedCase:
    """A case as the checker numbers it."""

    number: int
    atoms: Mapping[int, tuple[int, float]]
    """For the number of an atom in the query's cases that of the formula's, and the factor between them: the query's
    is so many times the formula's."""


def formula_cases(formula: CaseFormula, cases: Cases) -> list[list[StatedCase]]:
    """For each case of a query the cases of the formula that it stands for: none where none is recognised."""
    rows = {row: _row_key(cases, row) for row in range(len(cases.atoms)) if not _bounds_input(cases, row)}
    waiting: dict[frozenset[AtomKey], list[int]] = defaultdict(list)
    for case in range(len(cases)):
        waiting[frozenset(rows[row][0] for row in cases.rows_of(case).tolist() if row in rows)].append(case)
    found: list[list[StatedCase]] = [[] for _ in range(len(cases))]
    common = formula.common_part
    box = _ends(common)
    for number in range(len(formula.cases)):
        stated = formula.case(number)
        if stated.empty:
            continue
        own = [_atom_key(atom) for atom in stated.atoms]
        places = {key: (place, scale) for place, (key, scale) in reversed(list(enumerate(own)))}
        lower, upper = box if stated.lower is common.lower else _ends(stated)
        alike = [case for case in waiting.get(frozenset(places), ()) if _same_box(cases, case, lower, upper)]
        if alike:
            # Where a specification repeats a case, each of the search's cases gets one of the repetitions.
            case = min(alike, key=lambda case: len(found[case]))
            atoms = {
                row: (places[rows[row][0]][0], rows[row][1] / places[rows[row][0]][1])
                for row in cases.rows_of(case).tolist()
                if row in rows
            }
            found[case].append(StatedCase(number, atoms))
    return found


def impossible_cases(formula: CaseFormula, stated: Container[int]) -> Iterator[tuple[int, int]]:
    """Pairs (case, atom), by number in the formula, of cases that are not ``stated`` and have an atom that no input of
    the case's box satisfies."""
    for number in range(len(formula.cases)):
        if number in stated:
            continue
        case = formula.case(number)
        refuted = (place for place, atom in enumerate(case.atoms) if _impossible(formula, case, atom))
        if not case.empty and (atom := next(refuted, None)) is not None:
            yield number, atom


def _impossible(formula: CaseFormula, case: FormulaCase, atom: FormulaAtom) -> bool:
    """Whether an atom of inputs alone is false in all of the case's box, by more than rounding may change."""
    if any(variable >= formula.inputs for variable, _ in atom.coefficients):
        return False
    terms = [weight * (case.lower if weight > 0 else case.upper)[variable] for variable, weight in atom.coefficients]
    least = sum(terms, Fraction(atom.constant))
    return least > tuned().certificates.same_value * (sum(map(abs, terms)) + abs(atom.constant))


def common_case(formula: CaseFormula, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> int | None:
    """The number of what all cases have in common, where that has this box; None where it has another, or none."""
    part = formula.common_part
    ends = _ends(part)
    same = all(np.isfinite(end).all() for end in ends) and _near(ends[0], lower) and _near(ends[1], upper)
    return len(formula.cases) if same else None


def _ends(case: FormulaCase) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of a case's box, rounded."""
    lower, upper = (np.array([float(end) for end in ends]) for ends in (case.lower, case.upper))
    return lower, upper


def _bounds_input(cases: Cases, row: int) -> bool:
    """Whether an atom is about one input alone: the formula has it in its box."""
    monomials = cases.atoms.monomial[int(cases.atoms.starts[row]) : int(cases.atoms.starts[row + 1])]
    return len(set(monomials.tolist())) == 1 and bool(np.isin(monomials[0], cases.inputs))


def _row_key(cases: Cases, row: int) -> tuple[AtomKey, float]:
    atoms = cases.atoms
    terms = slice(int(atoms.starts[row]), int(atoms.starts[row + 1]))
    return _key(atoms.monomial[terms].tolist(), atoms.coefficient[terms].tolist(), float(atoms.constant[row]))


@lru_cache(maxsize=1 << 16)
def _atom_key(atom: FormulaAtom) -> tuple[AtomKey, float]:
    variables = [variable for variable, _ in atom.coefficients]
    return _key(variables, [float(weight) for _, weight in atom.coefficients], float(atom.constant))


def _key(variables: Sequence[int], weights: Sequence[float], constant: float) -> tuple[AtomKey, float]:
    """The key of an atom, and its largest coefficient."""
    total: dict[int, float] = defaultdict(float)
    for variable, weight in zip(variables, weights, strict=True):
        total[variable] += weight
    scale = max(map(abs, total.values()), default=0.0) or 1.0
    terms = [(variable, f"{weight / scale:.12g}") for variable, weight in sorted(total.items()) if weight]
    return ((-1, f"{constant / scale + 0.0:.12g}"), *terms), scale


def _same_box(cases: Cases, case: int, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> bool:
    """Whether the box of a case is this one, but for the rounding of its ends."""
    own = cases.lower[cases.region[case]], cases.upper[cases.region[case]]
    return _near(own[0], lower) and _near(own[1], upper)


def _near(mine: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return np.allclose(mine, other, rtol=tuned().certificates.same_value, atol=0)
