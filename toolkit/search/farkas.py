"""Refuting systems of linear inequalities over a box in rational arithmetic, by multipliers guessed in doubles.

A system ``a_i . x + b_i <= 0`` (or ``< 0``) has no solution in a box when some non-negative combination of its rows is
positive everywhere in the box, or nowhere negative while a strict row takes part (Farkas). A linear program in floating
point finds the multipliers; which of them vanish, and which columns cancel, then determines them as rationals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from toolkit.tuning import tuned

Row = list[Fraction]
"""Coefficients of the unknowns, then the constant."""
TOLERANCES = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
"""The smallest that HiGHS takes: rows are scaled, and what a leaf is open by may be a small share of their range."""


@dataclass(frozen=True)
class LinearSystem:
    """Inequalities over the box [-1, 1]^n, of magnitude one each: ``row . (u, 1) <= 0``, some of them strict."""

    rows: list[Row]
    strict: list[bool]

    @classmethod
    def over_box(
        cls, rows: Sequence[Row], strict: Sequence[bool], lower: Sequence[Fraction], upper: Sequence[Fraction]
    ) -> LinearSystem:
        """Rows over a box, in the coordinates in which it is [-1, 1]^n, without those that all of it satisfies."""
        centre = [(l + u) / 2 for l, u in zip(lower, upper, strict=True)]
        radius = [(u - l) / 2 for l, u in zip(lower, upper, strict=True)]
        moved = [(_moved(row, centre, radius), s) for row, s in zip(rows, strict, strict=True)]
        kept = [(row, s) for row, s in moved if s or row[-1] + sum(map(abs, row[:-1]), Fraction(0)) > 0]
        return cls([row for row, _ in kept], [s for _, s in kept])

    def combined(self, multipliers: Sequence[Fraction]) -> Fraction:
        """The least value of a combination of the rows in the box."""
        used = [(y, row) for y, row in zip(multipliers, self.rows, strict=True) if y]
        columns = [sum((y * row[j] for y, row in used), Fraction(0)) for j in range(len(self.rows[0]))]
        return columns[-1] - sum(map(abs, columns[:-1]), Fraction(0))

    def refuted_by(self, multipliers: Sequence[Fraction]) -> bool:
        """Whether a combination with these multipliers shows that no point of the box solves the system."""
        if any(y < 0 for y in multipliers):
            return False
        least = self.combined(multipliers)
        return least > 0 or (least == 0 and any(y > 0 and s for y, s in zip(multipliers, self.strict, strict=True)))

    def refuted_alone(self, number: int) -> bool:
        """Whether no point of the box solves one row."""
        return self.refuted_by([Fraction(int(k == number)) for k in range(len(self.rows))])


def _moved(row: Row, centre: Sequence[Fraction], radius: Sequence[Fraction]) -> Row:
    *coefficients, constant = row
    moved = [a * r for a, r in zip(coefficients, radius, strict=True)]
    moved.append(constant + sum((a * c for a, c in zip(coefficients, centre, strict=True)), Fraction(0)))
    scale = sum(map(abs, moved), Fraction(0))
    return [entry / scale for entry in moved] if scale else moved


def refute(system: LinearSystem) -> tuple[bool, NDArray[np.float64] | None]:
    """Whether the system is refuted, else a point in [-1, 1]^n that solves it or nearly, where one was found."""
    if not system.rows:
        return False, None
    if any(map(system.refuted_alone, range(len(system.rows)))):
        return True, None
    point = None
    for relaxed in _relaxations(system):
        solution = _minimised(system, relaxed)
        if solution is None:
            continue
        multipliers, point = solution
        if system.refuted_by(_rational(system, multipliers, relaxed)):
            return True, None
    return False, point


def _relaxations(system: LinearSystem) -> list[NDArray[np.bool_]]:
    """Which rows may be violated: by how much they must be, at least, is what refutes.

    The strict ones first, over the solutions of the others; where these have none, the others by themselves.
    """
    strict = np.array(system.strict)
    return [part for part in (strict, ~strict) if part.any()]


def _minimised(
    system: LinearSystem, relaxed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Multipliers of all rows and the point of ``min t: relaxed rows <= t, strict or other rows before them <= 0``."""
    from scipy.optimize import linprog  # half a second that most queries need not pay

    table = np.array([[float(entry) for entry in row] for row in system.rows])
    hard = ~relaxed & ~np.array(system.strict)
    used = relaxed | hard
    rows = np.concatenate([table[used, :-1], -relaxed[used, None].astype(float)], 1)
    cost = [0.0] * (table.shape[1] - 1) + [1.0]
    ranges = [(-1.0, 1.0)] * (table.shape[1] - 1) + [(None, None)]
    result = linprog(cost, A_ub=rows, b_ub=-table[used, -1], bounds=ranges, method="highs", options=TOLERANCES)
    if not result.success:
        return None
    multipliers = np.zeros(len(table))
    multipliers[used] = np.maximum(-result.ineqlin.marginals, 0)
    return multipliers, result.x[:-1]


def _rational(system: LinearSystem, guess: NDArray[np.float64], relaxed: NDArray[np.bool_]) -> list[Fraction]:
    """Rational multipliers near the guess whose combination has zeros exactly where the guess nearly has."""
    support = np.flatnonzero(guess > tuned().exact.zero_tolerance).tolist()
    table = np.array([[float(entry) for entry in row] for row in system.rows])
    columns = np.flatnonzero(np.abs(guess @ table[:, :-1]) < tuned().exact.zero_tolerance).tolist()
    equations = [[system.rows[i][j] for i in support] + [Fraction(0)] for j in columns]
    equations.append([Fraction(int(relaxed[i])) for i in support] + [Fraction(1)])
    found = solve(equations, [Fraction(guess[i]).limit_denominator(tuned().exact.most_denominator) for i in support])
    multipliers = [Fraction(0)] * len(guess)
    for i, value in zip(support, found, strict=True):
        multipliers[i] = value
    return multipliers


def solve(equations: list[list[Fraction]], guess: Sequence[Fraction]) -> list[Fraction]:
    """A solution of linear equations, the right-hand side last, that keeps the guess where they leave it free.

    Equations that contradict those before them are ignored.
    """
    rows, pivots = [list(row) for row in equations], list[tuple[int, int]]()
    for column in range(len(guess)):
        taken = {row for row, _ in pivots}
        chosen = next((k for k, row in enumerate(rows) if k not in taken and row[column]), None)
        if chosen is None:
            continue
        factor = rows[chosen][column]
        rows[chosen] = [entry / factor for entry in rows[chosen]]
        for k, row in enumerate(rows):
            if k != chosen and row[column]:
                rows[k] = [a - row[column] * b for a, b in zip(row, rows[chosen], strict=True)]
        pivots.append((chosen, column))
    solution = list(guess)
    free = set(range(len(guess))) - {column for _, column in pivots}
    for number, column in pivots:
        *coefficients, constant = rows[number]
        solution[column] = constant - sum((coefficients[k] * solution[k] for k in free), Fraction(0))
    return solution
