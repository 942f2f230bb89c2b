"""Interval, CROWN and optimised bounds contain what the network computes; the closed-form gradient is the true one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import program_of
from programs_to_bound import (
    FEATURES,
    INPUTS,
    OPERATORS,
    random_boxes,
    random_multipliers,
    random_points,
    random_program,
    run,
    split_domain,
    splittable,
)
from torch import Tensor, nn

from toolkit.bounds.crown import bound_features, crown_bounds, rows_per_pass
from toolkit.bounds.dual_ascent import Adam, Polyak, Schedule, StepRule, evaluate, optimise, relax, supergradient
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.optimised_bound import Domain, onto_simplex
from toolkit.problem.program import Program
from toolkit.tuning import PerDevice

seeds = st.integers(0, 10_000)
operators = st.sampled_from(sorted(OPERATORS))
rules = st.sampled_from([Adam(), Polyak()])
few = settings(max_examples=25, deadline=None)
precisions = st.sampled_from([torch.float64, torch.float32])


def contains(bounds: Bounds, values: Tensor, slack: float = 0.0) -> bool:
    return bool((values >= bounds.lower - slack).all() and (values <= bounds.upper + slack).all())


def in_precision(program: Program, box: Bounds, dtype: torch.dtype) -> tuple[Program, Bounds]:
    return program.to(torch.device("cpu"), dtype), Bounds(box.lower.to(dtype), box.upper.to(dtype))


@few
@given(seeds, operators, precisions)
def test_bounds_contain_what_the_network_computes(seed: int, operator: str, dtype: torch.dtype) -> None:
    exact = random_program(seed, operator)
    program, box = in_precision(exact, random_boxes(seed), dtype)
    intervals, features = interval_bounds(program, box)
    crown = crown_bounds(program, box)
    rows = torch.eye(FEATURES, dtype=dtype).unsqueeze(0)
    _, low = bound_features(program, rows, box, crown)
    for points in random_points(box, 40, seed):
        pre, values = run(exact, points.double())
        assert contains(intervals, pre) and contains(crown, pre) and contains(features, values)
        assert bool((values >= low).all())


@few
@given(seeds, operators)
def test_crown_is_never_looser_than_intervals(seed: int, operator: str) -> None:
    program, box = random_program(seed, operator), random_boxes(seed)
    intervals, _ = interval_bounds(program, box)
    crown = crown_bounds(program, box, known=intervals)  # intervals of its own may differ in the last place
    assert bool((crown.lower >= intervals.lower).all() and (crown.upper <= intervals.upper).all())
    again = crown_bounds(program, box, known=crown)
    assert bool((again.lower >= crown.lower).all() and (again.upper <= crown.upper).all())


@few
@given(seeds, operators, st.floats(0, 1))
def test_intervals_of_a_smaller_box_are_inside(seed: int, operator: str, share: float) -> None:
    program, box = random_program(seed, operator), random_boxes(seed)
    inside = random_points(box, 1, seed)[0]
    smaller = Bounds(inside + share * (box.lower - inside), inside + share * (box.upper - inside))
    (outer, _), (inner, _) = interval_bounds(program, box), interval_bounds(program, smaller)
    assert contains(outer, inner.lower, 1e-9) and contains(outer, inner.upper, 1e-9)


def test_crown_in_several_passes_is_the_same(tune: Callable[..., None]) -> None:
    program, box = random_program(1), random_boxes(1)
    whole = crown_bounds(program, box)
    tune(crown={"coefficients": PerDevice(1, 1)})
    assert rows_per_pass(program, 4) == 1
    parts = crown_bounds(program, box)
    torch.testing.assert_close(parts.lower, whole.lower)
    torch.testing.assert_close(parts.upper, whole.upper)


def test_bounds_that_cross_are_not_mixed() -> None:
    first, second = (
        Bounds(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0]])),
        Bounds(torch.tensor([[2.0, 0.5]]), torch.tensor([[3.0, 0.7]])),
    )
    found = first.intersect(second)
    assert found.lower.tolist() == [[0.0, 0.5]]
    assert found.upper.tolist() == [[1.0, pytest.approx(0.7)]]


# --- split domains and multipliers ------------------------------------------------------------------------------------


def assert_below_the_atoms(program: Program, domain: Domain, lower: Tensor, seed: int) -> int:
    """At sampled points of the domain with its phases, the largest atom is not below the bound. Counts the points."""
    met = 0
    for points in random_points(domain.box, 150, seed):
        pre, features = run(program, points)
        inside = (pre * domain.phase >= 0).all(1)
        atoms = torch.einsum("bkf,bf->bk", domain.atoms, features) + domain.constants
        assert bool((atoms.amax(1) >= lower)[inside].all())
        met += int(inside.sum())
    return met


@few
@given(seeds, operators)
def test_any_multipliers_give_a_sound_bound(seed: int, operator: str) -> None:
    program, box = random_program(seed, operator), random_boxes(seed)
    domain = split_domain(program, box, seed)
    bound = evaluate(program, relax(program, domain), random_multipliers(domain, seed)).bound
    # The phases are those of one of the sampled points, so at least that one is inside.
    assert assert_below_the_atoms(program, domain, bound.lower, seed) >= len(box.lower)


@few
@given(seeds, operators, st.sampled_from([0, 1, 8]), rules)
def test_optimised_bounds_are_sound_and_no_worse_than_the_start(
    seed: int, operator: str, iterations: int, rule: StepRule
) -> None:
    program, box = random_program(seed, operator), random_boxes(seed)
    domain = split_domain(program, box, seed)
    start = random_multipliers(domain, seed)
    begin = evaluate(program, relax(program, domain), start).bound
    best = optimise(program, domain, start, Schedule(iterations, rule))
    assert bool((best.lower >= begin.lower).all())
    assert_below_the_atoms(program, domain, best.lower, seed)
    proof = evaluate(program, relax(program, domain), best.multipliers).bound
    torch.testing.assert_close(proof.lower, best.lower)
    assert bool((best.multipliers.alpha >= 0).all() and (best.multipliers.alpha <= 1).all())
    assert bool((best.multipliers.beta >= 0).all() and (best.multipliers.weight >= 0).all())
    torch.testing.assert_close(best.multipliers.weight.sum(1), torch.ones(len(box.lower), dtype=torch.float64))


@pytest.mark.parametrize("rule", [Adam(), Polyak()])
def test_optimisation_improves_bounds(rule: StepRule) -> None:
    """On average over random domains, some steps close a good part of the gap to the sampled minimum."""
    gains = []
    for seed in range(5):
        program, box = random_program(seed), random_boxes(seed)
        domain = split_domain(program, box, seed)
        domain = replace(domain, constants=domain.constants - 5)  # all bounds are negative, so that all should rise
        start = random_multipliers(domain, seed)
        before = optimise(program, domain, start, Schedule(0)).lower
        gains.append(optimise(program, domain, start, Schedule(20, rule, until_proved=False)).lower - before)
    assert float(torch.stack(gains)[:, :-1].median()) > 0.1


@pytest.mark.parametrize("field", ["alpha", "beta", "weight"])
@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_gradient_equals_finite_differences(operator: str, field: str) -> None:
    agree = torch.cat([torch.cat(gradient_agrees(seed, operator, field)) for seed in range(3)])
    # The bound is piecewise smooth: a step may cross a kink, but hardly ever does.
    assert len(agree) > 10
    assert float(agree.double().mean()) > 0.97


def gradient_agrees(seed: int, operator: str, field: str) -> list[Tensor]:
    """For every column of a random domain's multipliers, whether its rows that matter have the true derivative."""
    program, box = random_program(seed, operator), random_boxes(seed, 6)
    domain = split_domain(program, box, seed)
    point = random_multipliers(domain, seed)
    relaxed = relax(program, domain)
    gradient = supergradient(program, relaxed, evaluate(program, relaxed, point))
    value, found = getattr(point, field), getattr(gradient, field)
    relevant = {
        "alpha": (domain.bounds.lower < 0) & (domain.bounds.upper > 0) & splittable(program),
        "beta": domain.phase != 0,
        "weight": torch.ones_like(found, dtype=torch.bool),
    }[field]
    step, agree = 1e-7, []
    for column in range(value.shape[1]):
        direction = torch.zeros_like(value)
        direction[:, column] = step
        high, low = (
            evaluate(program, relaxed, replace(point, **{field: value + sign * direction})).bound.lower
            for sign in (1, -1)
        )
        difference, rows = (high - low) / (2 * step), relevant[:, column]
        agree.append(torch.isclose(difference, found[:, column], rtol=1e-4, atol=1e-5)[rows])
    return agree


def test_a_broken_step_never_replaces_a_good_bound() -> None:
    program, box = random_program(0), random_boxes(0)
    domain = split_domain(program, box, 0)
    broken = replace(domain, constants=domain.constants * torch.nan)
    bound = optimise(program, broken, random_multipliers(domain, 0), Schedule(3))
    assert not bool((bound.lower > 0).any())


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_projection_onto_the_simplex(values: list[float]) -> None:
    weight = onto_simplex(torch.tensor([values], dtype=torch.float64))
    assert bool((weight >= 0).all())
    assert float(weight.sum()) == pytest.approx(1)


def test_points_are_where_the_relaxation_is_least() -> None:
    program, box = random_program(3), random_boxes(3)
    domain = split_domain(program, box, 3)
    bound = evaluate(program, relax(program, domain), random_multipliers(domain, 3)).bound
    assert bound.point.shape == (4, INPUTS)
    assert contains(box, bound.point)


@pytest.mark.parametrize("constant", [1.7e308, -1.7e308])
def test_constants_beyond_the_precision_bound_nothing(constant: float) -> None:
    """What is finite in double precision may overflow in single: such a bound is infinite, and not NaN."""
    program = program_of(nn.Linear(2, 3), 2)
    affine = replace(program.features, bias=torch.full_like(program.features.bias, constant))
    single = replace(program, features=affine).to(torch.device("cpu"), torch.float32)
    box = Bounds(torch.zeros(1, 2), torch.ones(1, 2))
    features = interval_bounds(single, box)[1]
    assert bool((features.lower == -torch.inf).all())
    assert bool((features.upper == torch.inf).all())
