"""Clipping keeps every point that counts, and its bounds are those of linear programming where they can be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from toolkit.bounds.clip_boxes import HalfSpaces, centred, clip_box, minimum_within, polytopes
from toolkit.bounds.interval import Bounds
from toolkit.tuning import tuned, using


def _random(seed: int, inputs: int, count: int, spaces: int) -> tuple[Bounds, HalfSpaces, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    centre, radius = draw(count, inputs), draw(count, inputs).abs()
    return (
        Bounds(centre - radius, centre + radius),
        HalfSpaces(draw(count, spaces, inputs), draw(count, spaces)),
        generator,
    )


def _points(box: Bounds, generator: torch.Generator) -> torch.Tensor:
    """Random points ``(B, P, n)``, half of them corners."""
    share = torch.rand(len(box.lower), 400, box.lower.shape[1], generator=generator, dtype=torch.float64)
    share[:, :200] = share[:, :200].round()
    points = box.lower.unsqueeze(1) + share * (box.upper - box.lower).unsqueeze(1)
    return torch.minimum(points, box.upper.unsqueeze(1))


def _inside(points: torch.Tensor, spaces: HalfSpaces) -> torch.Tensor:
    return ((points @ spaces.coefficients.mT + spaces.offset.unsqueeze(1)) <= 0).all(2)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_clipping_keeps_the_points_of_all_half_spaces(seed: int, inputs: int, count: int) -> None:
    box, spaces, generator = _random(seed, inputs, 5, count)
    clipped = clip_box(box, spaces)
    points = _points(box, generator)
    stays = (points >= clipped.lower.unsqueeze(1)) & (points <= clipped.upper.unsqueeze(1))
    assert bool(stays.all(2)[_inside(points, spaces)].all())
    assert bool((clipped.lower >= box.lower).all())
    assert bool((clipped.upper <= box.upper).all())


def test_clipping_with_one_half_space_is_as_tight_as_a_box_can_be() -> None:
    # x + 2 y <= 1 in [0, 2] x [0, 2].
    box = Bounds(torch.zeros(1, 2, dtype=torch.float64), torch.full((1, 2), 2.0, dtype=torch.float64))
    rows = HalfSpaces(torch.tensor([[[1.0, 2.0]]], dtype=torch.float64), torch.tensor([[-1.0]], dtype=torch.float64))
    clipped = clip_box(box, rows)
    torch.testing.assert_close(clipped.upper, torch.tensor([[1.0, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(clipped.lower, box.lower)


def test_contradicting_half_spaces_cross_the_sides() -> None:
    box = Bounds(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    # x <= 0.25 and x >= 0.5
    rows = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    clipped = clip_box(box, HalfSpaces(rows, torch.tensor([[-0.25, 0.5]], dtype=torch.float64)))
    assert float(clipped.lower) > float(clipped.upper)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_broken_half_spaces_clip_nothing(broken: float) -> None:
    box = Bounds(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    rows = torch.tensor([[[broken, 1.0]]], dtype=torch.float64)
    clipped = clip_box(box, HalfSpaces(rows, torch.zeros(1, 1, dtype=torch.float64)))
    assert torch.equal(clipped.lower, box.lower)
    assert torch.equal(clipped.upper, box.upper)


def _linear_program(objective: np.ndarray, box: Bounds, spaces: HalfSpaces) -> float:
    """The exact minimum over the box and its half-spaces; infinite where they have no common point."""
    sides = list(zip(box.lower[0].tolist(), box.upper[0].tolist(), strict=True))
    found = linprog(objective, spaces.coefficients[0].numpy(), -spaces.offset[0].numpy(), bounds=sides, method="highs")
    return float(found.fun) if found.success else float("inf")


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_minimum_is_below_the_linear_program_and_above_the_box(seed: int, inputs: int, count: int) -> None:
    box, spaces, generator = _random(seed, inputs, 1, count)
    rows = torch.randn(4, inputs, generator=generator, dtype=torch.float64)
    owner = torch.zeros(4, dtype=torch.int64)
    found = minimum_within(rows, torch.zeros(4, dtype=torch.float64), polytopes(box, spaces), owner)
    plain = minimum_within(rows, torch.zeros(4, dtype=torch.float64), polytopes(box, _none(spaces)), owner)
    exact = torch.tensor([_linear_program(row, box, spaces) for row in rows.numpy()], dtype=torch.float64)
    assert bool((found <= exact + 1e-9).all())
    assert bool((found >= plain).all())


def _none(spaces: HalfSpaces) -> HalfSpaces:
    return HalfSpaces(spaces.coefficients[:, :0], spaces.offset[:, :0])


def _gaps(seed: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How far bounds with one half-space, and without it, stay below the linear program's."""
    box, spaces, generator = _random(seed, inputs, 1, 1)
    # Through the centre, so that box and half-space meet.
    spaces = HalfSpaces(
        spaces.coefficients, -(spaces.coefficients @ ((box.lower + box.upper) / 2).unsqueeze(2))[..., 0]
    )
    rows = torch.randn(4, inputs, generator=generator, dtype=torch.float64)
    zero, owner = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    exact = torch.tensor([_linear_program(row, box, spaces) for row in rows.numpy()], dtype=torch.float64)
    with_space, without = (minimum_within(rows, zero, polytopes(box, some), owner) for some in (spaces, _none(spaces)))
    return exact - with_space, exact - without


@given(st.integers(0, 10**6), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_one_half_space_is_used_in_full(seed: int, inputs: int) -> None:
    gap, _ = _gaps(seed, inputs)
    torch.testing.assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-7)


@given(st.integers(0, 10**6), st.integers(9, 300))
@settings(max_examples=40, deadline=None)
def test_tangents_meet_at_the_best_multiplier_in_many_dimensions(seed: int, inputs: int) -> None:
    with using(tuned().changed(clipping={"tried_multipliers": 12})):
        gap, before = _gaps(seed, inputs)
    assert bool((gap >= -1e-7).all())
    assert bool((gap <= 0.02 * before + 1e-7).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(10))
def test_least_values_allow_for_offsets_that_cancel(seed: int, dtype: torch.dtype) -> None:
    """In rational arithmetic: at boxes far from the origin, a function's offset takes away nearly all of its value."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    count, inputs = 40, 1 + seed % 3
    centre, rows = draw(count, inputs) * 1000, draw(count, inputs)
    radius = draw(count, inputs).abs() * 1e-4
    box = Bounds(centre - radius, centre + radius)
    offset = draw(count) * 1e-3 - (rows * centre).sum(1)
    least = centred(rows, offset, box).minimum().tolist()
    sides = zip(rows.tolist(), box.lower.tolist(), box.upper.tolist(), strict=True)
    terms = [[Fraction(a) * Fraction(l if a > 0 else u) for a, l, u in zip(*row, strict=True)] for row in sides]
    exact = [sum(row, Fraction(d)) for row, d in zip(terms, offset.tolist(), strict=True)]
    assert all(Fraction(found) <= value for found, value in zip(least, exact, strict=True))
