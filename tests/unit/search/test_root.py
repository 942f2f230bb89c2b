"""Root bounds that contradict each other prove nothing: the arithmetic is wrong somewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from programs import mlp, program_of
from searches import random_problem

from toolkit.bounds.interval import Bounds
from toolkit.errors import DisagreementError
from toolkit.problem.affine import DenseAffine
from toolkit.run.clock import Clock
from toolkit.run.events import silent
from toolkit.search.root import check_consistent, root_bounds


def test_bounds_that_cross_over_a_box_are_an_error() -> None:
    program = program_of(mlp(2, 3, 2), 2)
    lower, upper = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    check_consistent(program, Bounds(lower, upper))
    check_consistent(program, Bounds(lower, lower))
    upper[1, 2] = -1e-12
    with pytest.raises(DisagreementError, match=r"contradict each other: from 0\.0 to -1e-12"):
        check_consistent(program, Bounds(lower, upper))


def test_error_bounds_below_zero_are_noticed() -> None:
    """As where an allowance for rounding has the wrong sign: at a point, the intervals of neurons cross."""
    problem = random_problem(1.0, 3, 4)
    first = problem.program.layers[0]
    assert isinstance(first.affine, DenseAffine)
    wrong = replace(first.affine, slack=torch.full_like(first.affine.bias, -1e-3))
    program = replace(problem.program, layers=(replace(first, affine=wrong), *problem.program.layers[1:]))
    for point in (problem, replace(problem, upper=problem.lower)):
        root_bounds(point, Clock.started(60), silent)
    with pytest.raises(DisagreementError, match="contradict each other"):
        root_bounds(replace(problem, program=program, upper=problem.lower), Clock.started(60), silent)
