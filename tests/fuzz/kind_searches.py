"""Kinds about whole searches on bounded programs: no proof of a problem that has a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from choices import Choices
from exact_reference import values_of
from kind_programs import small_zonotopes, with_twins
from kinds import Wrong, kind
from scenes import (
    CPU,
    EIGHTHS,
    PIECEWISE_LINEAR,
    PLAIN,
    SIGNS,
    TOTAL,
    TRIED,
    Array,
    approximate,
    random_box,
    random_points,
    random_program,
)

from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.problem.specialise_cases import specialised
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.search_task import SearchResult, SearchTask
from toolkit.search.strategy import prove
from toolkit.settings import Settings
from toolkit.tuning import tuned, using

SECONDS = 1.0
"""Time limit of one search."""


@dataclass(frozen=True)
class SearchProblem:
    """A problem in double precision, and a point ``(n,)`` that is a witness of it, if one is known."""

    problem: Problem
    witness: Array | None


def random_settings(choices: Choices) -> Settings:
    """Settings that must not matter, and limits that keep a search short."""
    return Settings(
        timeout=SECONDS,
        device="cpu",
        strategy=choices.of(("auto", "relu", "input")),
        batch=choices.of((64, 1, 2, 7)),
        alpha_iterations=choices.of((3, 0, 20)),
        beta_iterations=choices.of((2, 0, 6)),
        attack_restarts=choices.of((0, 0, 2)),
        attack_steps=5,
        clipped_neurons=choices.of((32, 0, 1)),
        max_domains=choices.of((100, 20, 400)),
        processes=1,
        seed=choices.below(3),
    )


def least_of(problem: Problem, case: int, points: Array) -> Array:
    """The largest atom of a case at points ``(P, n)``, from the true features there."""
    features = values_of(problem.program, points).features
    rows = problem.rows[case]
    return (features @ problem.weights[rows].numpy().T + problem.offsets[rows].numpy()).max(1)


def random_problem(choices: Choices, program: Program, boxes: int, cases: int) -> Problem:
    """Cases of one or two atoms each, in boxes, about a program's features."""
    corners = [random_box(choices, program.num_inputs) for _ in range(boxes)]
    lower, upper = (torch.as_tensor(np.stack(side)) for side in zip(*corners, strict=True))
    atoms = choices.between(1, 2)
    shape = (cases * atoms, program.features.size)
    weights = np.array([choices.of((1.0, -1.0, 0.0, 0.5, 2.0)) for _ in range(shape[0] * shape[1])]).reshape(shape)
    region = torch.tensor([min(case, boxes - 1) for case in range(cases)])
    rows = torch.arange(shape[0]).reshape(cases, atoms)
    offsets = torch.zeros(shape[0], dtype=torch.float64)
    return Problem(lower, upper, region, rows, torch.as_tensor(weights), offsets, program)


def placed(choices: Choices, problem: Problem) -> SearchProblem:
    """The problem with its atoms moved so that the best of many points is a witness, just so or not at all."""
    witness = None
    for case in range(problem.num_cases):
        box = int(problem.region[case])
        points = random_points(choices, problem.lower[box].numpy(), problem.upper[box].numpy(), TRIED)
        atoms = approximate(problem.program, points)[:, problem.program.num_neurons :] @ problem.weights.numpy().T
        best = points[atoms[:, problem.rows[case].numpy()].max(1).argmin()]
        least = float(least_of(problem, case, best[None])[0])
        margin = choices.of((1e-3, 0.0, 0.1, -1e-3, -0.05, -0.5))
        room = 1e-12 * (1 + abs(least))
        problem.offsets[problem.rows[case]] -= least + (margin + room if margin >= 0 else margin)
        if margin >= 0 and np.isfinite(least):
            witness = best
    return SearchProblem(problem, witness)


def searched(choices: Choices, posed: SearchProblem, dtype: torch.dtype) -> list[SearchResult]:
    """What a search comes to on each part of a problem, in some precision; nothing where time is up."""
    problem, settings = posed.problem, random_settings(choices)
    with ExitStack() as stack:
        if choices.chance(0.3):
            stack.enter_context(small_zonotopes(choices))
            stack.enter_context(using(tuned().changed(roots={"forward_neurons_per_input": 0})))
        stack.enter_context(torch.no_grad())
        parts = list(specialised(problem)) if choices.chance(0.5) else None
        problems = [problem] if parts is None else [part.problem for part in parts]
        try:
            return [prove(task_of(one.to(CPU, dtype), settings, judge_of(posed.problem))) for one in problems]
        except OutOfTime:
            return []


def judge_of(problem: Problem) -> Callable[[Any, int], bool]:
    """Accepts a point that is a witness in the truth: of the nearest box, wherever rounding has put it."""

    def accept(point: Any, region: int) -> bool:
        lower, upper = problem.lower.numpy(), problem.upper.numpy()
        found = np.clip(point.detach().double().numpy(), lower, upper)
        return any(
            least_of(problem, case, found[int(problem.region[case])][None])[0] <= 0 for case in range(problem.num_cases)
        )

    return accept


def task_of(problem: Problem, settings: Settings, accept: Callable[[Any, int], bool]) -> SearchTask:
    """A task that tells nobody."""
    clock = Clock.started(settings.timeout)
    return SearchTask(problem, settings, clock, accept, lambda event: None, lambda **facts: None, lambda *spent: None)


def judge_search(choices: Choices, posed: SearchProblem, dtype: torch.dtype) -> int:
    """Raise Wrong where a problem with a witness is proved."""
    found = searched(choices, posed, dtype)
    if posed.witness is not None and found and all(one.proved for one in found):
        raise Wrong(f"proved by {found[-1].by}", f"there is a witness at {posed.witness.tolist()}")
    return len(found)


@kind(share=4)
def searches(choices: Choices) -> int:
    """Root bounds, ascent and branch and bound on programs with branches; their best points are witnesses."""
    ops, dtype = choices.of((PIECEWISE_LINEAR, PIECEWISE_LINEAR, TOTAL)), choices.of((torch.float64, torch.float32))
    program = random_program(choices, choices.of((SIGNS, EIGHTHS, PLAIN)), ops)
    problem = random_problem(choices, with_twins(choices, program), choices.of((1, 1, 2)), choices.of((1, 1, 2, 3)))
    return judge_search(choices, placed(choices, problem), dtype)


# --- one input: the exact answer -----------------------------------------------------------------------------------


Fractions = tuple[Fraction, ...]


class Line:
    """A network of one input with ReLUs, without rounding: its features at all points where it may bend."""

    def __init__(self, program: Program, lower: float, upper: float) -> None:
        self._maps = [_fractions_of(affine) for affine in program.maps()]
        self._known: dict[Fraction, list[Fractions]] = {}
        points = {Fraction(lower), Fraction(upper)}
        for number in range(len(program.layers)):
            values = [(x, self._values(x)[number]) for x in sorted(points)]
            points |= {x for x, _ in crossings(values)}
        self.features = [(x, self._values(x)[-1]) for x in sorted(points)]

    def _values(self, x: Fraction) -> list[Fractions]:
        """What all maps come to at an input."""
        if x not in self._known:
            values: dict[int, Fractions] = {INPUT: (x,)}
            self._known[x] = []
            for number, (sources, rows, bias) in enumerate(self._maps):
                joined = [value for source in sources for value in values[source]]
                z = tuple(dot(row, joined) + constant for row, constant in zip(rows, bias, strict=True))
                self._known[x].append(z)
                values[number] = tuple(max(value, Fraction(0)) for value in z)
        return self._known[x]

    def lowest(self, problem: Problem, case: int) -> tuple[Fraction, Fraction]:
        """The least value of a case's largest atom, and where it is."""
        rows = problem.rows[case].tolist()
        weights, offsets = problem.weights.tolist(), problem.offsets.tolist()
        atoms = [
            (x, tuple(dot(map(Fraction, weights[row]), features) + Fraction(offsets[row]) for row in rows))
            for x, features in self.features
        ]
        differences = [(x, (values[0] - values[-1],)) for x, values in atoms]
        between = [
            (x, tuple(a + share * (b - a) for a, b in zip(atoms[at][1], atoms[at + 1][1], strict=True)))
            for at in range(len(atoms) - 1)
            for x, share in crossings(differences[at : at + 2])
        ]
        return min((max(values), x) for x, values in [*atoms, *between])


def _fractions_of(affine: Any) -> tuple[tuple[int, ...], list[Fractions], Fractions]:
    rows = torch.cat(affine.matrices, 1).tolist()
    return affine.sources, [tuple(map(Fraction, row)) for row in rows], tuple(map(Fraction, affine.bias.tolist()))


def crossings(values: list[tuple[Fraction, Fractions]]) -> set[tuple[Fraction, Fraction]]:
    """Where values cross zero between neighbouring points, between which they are linear, and the share of the way."""
    return {
        (x + (y - x) * a / (a - b), a / (a - b))
        for (x, left), (y, right) in pairwise(values)
        for a, b in zip(left, right, strict=True)
        if a * b < 0
    }


def dot(row: Iterable[Fraction], values: Iterable[Fraction]) -> Fraction:
    """A product without rounding."""
    return sum((w * value for w, value in zip(row, values, strict=True) if w and value), Fraction(0))


def touching(choices: Choices, problem: Problem) -> SearchProblem:
    """Thresholds at, or one unit in the last place beside, the true extreme, or a little away from it."""
    witness = None
    line = Line(problem.program, float(problem.lower[0, 0]), float(problem.upper[0, 0]))
    for case in range(problem.num_cases):
        offset = -(float(line.lowest(problem, case)[0]) + choices.of((0.0, 1e-9, -1e-9, 1e-4, -1e-4)))
        for _ in range(choices.of((0, 1, 2))):
            offset = np.nextafter(offset, choices.of((np.inf, -np.inf)))
        problem.offsets[problem.rows[case]] += offset
        least, place = line.lowest(problem, case)
        if least <= 0:
            witness = np.array([float(place)])
    return SearchProblem(problem, witness)


@kind(share=3)
def lines(choices: Choices) -> int:
    """Searches on networks of one input, whose true extremes are known exactly, with thresholds at and beside them."""
    numbers, dtype = choices.of((SIGNS, EIGHTHS, PLAIN)), choices.of((torch.float64, torch.float32))
    program = with_twins(choices, random_program(choices, numbers, PIECEWISE_LINEAR, inputs=1, depth=3))
    problem = random_problem(choices, program, 1, choices.of((1, 1, 2)))
    return judge_search(choices, touching(choices, problem), dtype)
