"""Closing steps in double precision: what single precision cannot tell from zero, and nothing else."""

from __future__ import annotations

import pytest
import torch
from distance import Distance

from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.optimised_bound import adaptive_multipliers
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Binding, Problem, compile_problem
from toolkit.problem.sum_rounding import outward
from toolkit.search.phase_domains import PhaseSpace, in_double, unsplit_domains
from toolkit.search.search_task import with_rounding_errors

TEXT = """
(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (>= X_0 0.5))(assert (<= X_0 1.0))(assert (>= X_1 0.5))(assert (<= X_1 1.0))
(assert (<= Y_0 {0}))
"""
CPU = torch.device("cpu")


def closed(below: float, with_double: bool = True) -> tuple[float, float]:
    """The bound of a network of least value 2 less some number, in single precision and after the closing step."""
    query = parse_query(TEXT.format(f"{2 - below:.12f}"))
    bindings = {query.networks[0].name: Binding(Distance(), ((1, 2),), (torch.float32,))}
    double = compile_problem(query, bindings).to(CPU, torch.float64)
    single = double.to(CPU, torch.float32)
    exact, _ = interval_bounds(double.program, Bounds(double.lower, double.upper))
    rounded = Bounds(*outward(exact.lower, exact.upper, torch.float32))
    beside = with_rounding_errors(double, exact) if with_double else None
    space = space_of(with_rounding_errors(single, exact), rounded, beside)
    cases = torch.arange(single.num_cases)
    domain = unsplit_domains(space.problem, rounded, cases)
    multipliers = adaptive_multipliers(domain.bounds, torch.ones(len(cases), 1))
    bound = evaluate(space.problem.program, relax(space.problem.program, domain), multipliers).bound
    return float(bound.lower), float(in_double(space, cases, domain, bound).lower)


def space_of(problem: Problem, root: Bounds, double: Problem | None) -> PhaseSpace:
    return PhaseSpace(problem, root, torch.zeros(0, dtype=torch.int64), double=double)


@pytest.mark.parametrize("below", [3e-7, 1e-6])
def test_what_rounding_hides_is_proved_in_double_precision(below: float) -> None:
    single, after = closed(below)
    assert single <= 0 < after <= below
    assert closed(below, with_double=False) == (single, single)


@pytest.mark.parametrize("below", [-1e-9, 0.0, -1e-3])
def test_what_is_not_true_is_not_proved(below: float) -> None:
    single, after = closed(below)
    assert single <= 0 and after <= 0
