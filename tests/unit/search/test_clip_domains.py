"""Clipped neuron bounds hold wherever a domain has a violation, and narrowing domains by them raises their bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs_to_bound import random_boxes, random_multipliers, random_points, random_program, run, split_domain
from torch import Tensor

from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.crown import TightenedBounds
from toolkit.bounds.dual_ascent import evaluate, optimise, relax
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Domain
from toolkit.problem.program import Program
from toolkit.run.clock import Clock
from toolkit.search.clip_domains import RECLIPPED_SCHEDULE, clip_neurons, narrow


def violations(program: Program, domain: Domain, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Pre-activations ``(B, N)`` of sampled points, and which are violations of their domains."""
    found = []
    for points in random_points(domain.box, 300, seed):
        pre, features = run(program, points)
        atoms = torch.einsum("bkf,bf->bk", domain.atoms, features) + domain.constants
        found.append((pre, (pre * domain.phase >= 0).all(1) & (atoms <= 0).all(1)))
    return found


def violated_domain(seed: int, operator: str) -> tuple[Program, Domain]:
    """Domains with violations, but not at every point: their atoms are shifted to a low value at a sampled point."""
    program, box = random_program(seed, operator), random_boxes(seed)
    domain = split_domain(program, box, seed, atoms=1)
    _, features = run(program, random_points(box, 2, seed)[1])
    value = torch.einsum("bkf,bf->bk", domain.atoms, features)
    return program, replace(domain, constants=-value - 1e-6)


def clipped(program: Program, domain: Domain, seed: int) -> TightenedBounds:
    linear = evaluate(program, relax(program, domain), random_multipliers(domain, seed)).linear
    chosen = torch.rand(domain.phase.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    return clip_neurons(program, domain, HalfSpaces(linear.coefficients, linear.offset), chosen)


def contains_violations(program: Program, domain: Domain, bounds: Bounds, seed: int) -> int:
    """Whether neuron bounds hold at all sampled violations; how many there were."""
    met = 0
    for pre, violated in violations(program, domain, seed):
        inside = (pre >= bounds.lower - 1e-9) & (pre <= bounds.upper + 1e-9)
        assert bool(inside[violated].all())
        met += int(violated.sum())
    return met


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["relu", "sigmoid", "tanh"]))
def test_bounds_hold_at_every_violation(seed: int, operator: str) -> None:
    program, domain = violated_domain(seed, operator)
    found = clipped(program, domain, seed)
    met = contains_violations(program, domain, found.bounds, seed)
    assert met >= len(domain.phase)
    assert bool((found.contradiction <= 0).all())
    assert bool((found.bounds.lower >= domain.bounds.lower).all())


def test_bounds_become_narrower() -> None:
    gains = []
    for seed in range(20):
        program, domain = violated_domain(seed, "relu")
        found = clipped(program, domain, seed).bounds
        before, after = (float((b.upper - b.lower).sum()) for b in (domain.bounds, found))
        gains.append(1 - after / before)
    assert sum(gains) / len(gains) > 0.01


def test_neurons_with_contradicting_bounds_leave_no_violation() -> None:
    program, domain = violated_domain(1, "relu")
    nowhere = HalfSpaces(torch.zeros(len(domain.phase), 1, 3, dtype=torch.float64), torch.ones(len(domain.phase), 1))
    known = replace(domain, bounds=Bounds(domain.bounds.lower, domain.bounds.lower - 1))
    found = clip_neurons(program, known, nowhere, torch.ones_like(domain.phase, dtype=torch.bool))
    assert bool((found.contradiction > 0).all())
    assert bool((found.bounds.lower <= found.bounds.upper).all())


@pytest.mark.parametrize("count", [0, 2, 100])
def test_narrowing_keeps_every_violation_and_never_lowers_a_bound(count: int) -> None:
    rises = []
    for seed in range(15):
        program, domain = violated_domain(seed, "relu")
        start = optimise(program, domain, random_multipliers(domain, seed), RECLIPPED_SCHEDULE)
        bounds, bound, _ = narrow(program, domain, start, count, Clock.started(60))
        assert contains_violations(program, domain, bounds, seed) > 0
        assert bool((bound.lower >= start.lower).all())
        assert bool((bound.lower <= 1e-9).all())  # every domain has a violation
        rises.append(float((bound.lower - start.lower).mean()))
    assert (sum(rises) > 0) == (count > 0)
