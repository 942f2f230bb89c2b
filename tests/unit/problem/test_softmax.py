"""Softmax with attention masks and scores far apart: exact programs, finite bounds, and nothing proved of NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from toolkit.attack.gradient_attack import forward
from toolkit.bounds.crown import bound_features, crown_bounds
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.errors import UnsupportedError
from toolkit.problem.program import Program, build_program
from toolkit.problem.trace import trace

LOWEST = float(torch.finfo(torch.float32).min)
MASKS = [-1e4, -1e9, LOWEST, -torch.inf]
SEEDS = range(12)


class Attention:
    """Scores that are linear in the inputs, masked at random, and the shares of their softmax along some axis."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def pick(values: list[float]) -> float:
            return values[int(torch.randint(len(values), (), generator=generator))]

        self.axis = int(torch.randint(3, (), generator=generator))
        shape = torch.randint(1, 5, (3,), generator=generator).tolist()
        self.masked = torch.rand(shape, generator=generator) < pick([0.0, 0.3, 0.7])
        self.masked.transpose(self.axis, -1)[..., 0] = False
        self.fill, self.scale = pick(MASKS), pick([0.1, 1.0, 100.0, 1e5])
        self.weight = torch.randn(self.masked.numel(), 3, generator=generator)
        self.by_choice = seed % 2 == 0
        self.points = torch.rand(8, 3, generator=generator, dtype=torch.float64) - 0.5

    def scores(self, x: Tensor) -> Tensor:
        return ((self.weight.to(x.dtype) @ x) * self.scale).reshape(self.masked.shape)

    def shares(self, x: Tensor) -> Tensor:
        fill = torch.tensor(self.fill, dtype=x.dtype)
        scores = self.scores(x)
        if self.by_choice:
            scores = torch.where(self.masked, fill, scores)
        else:
            scores = scores + torch.where(self.masked, fill, torch.zeros_like(fill))
        return torch.softmax(scores, self.axis).reshape(-1)

    def program(self) -> Program:
        return build_program(trace(self.shares, [torch.zeros(3)]))


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_shares_are_computed_exactly(seed: int) -> None:
    attention = Attention(seed)
    expected = torch.stack([attention.shares(point) for point in attention.points])
    torch.testing.assert_close(forward(attention.program(), attention.points), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_of_far_scores_are_finite_and_enclose_the_shares(seed: int, dtype: torch.dtype) -> None:
    attention = Attention(seed)
    program = attention.program().to(torch.device("cpu"), dtype)
    centre = attention.points[:1].to(dtype)
    box = Bounds(centre - 0.01, centre + 0.01)
    bounds = crown_bounds(program, box)
    _, features = interval_bounds(program, box)
    rows = torch.eye(program.features.size, dtype=dtype).unsqueeze(0)
    _, low = bound_features(program, rows, box, bounds)
    _, high = bound_features(program, -rows, box, bounds)
    inside = [attention.shares(box.lower[0].double() + share * 0.02) for share in torch.rand(20, 3).double()]
    # Allowances for rounding add up magnitudes: of the lowest numbers of single precision, double precision holds some.
    if attention.fill != LOWEST or dtype == torch.float64:
        for side in (low, high, features.lower, features.upper):
            assert bool(torch.isfinite(side).all())
    for shares in inside:
        assert bool((low[0].double() <= shares + 1e-12).all()) and bool((shares <= -high[0].double() + 1e-12).all())
        assert bool((features.lower <= shares + 1e-12).all()) and bool((shares <= features.upper + 1e-12).all())


@pytest.mark.parametrize("gap", [100.0, 800.0, 1e5, 2.0**100])
def test_a_score_far_below_another_has_no_share(gap: float) -> None:
    program = build_program(
        trace(lambda x: torch.softmax(x * gap - torch.tensor([2.0, 0, 1]) * gap, 0), [torch.zeros(3)])
    )
    box = Bounds(torch.full((1, 3), -0.1, dtype=torch.float64), torch.full((1, 3), 0.1, dtype=torch.float64))
    _, features = interval_bounds(program, box)
    assert float(features.upper[0, 0]) < 1e-30 and float(features.lower[0, 1]) > 1 - 1e-12
    rows = torch.eye(3, dtype=torch.float64).unsqueeze(0)
    _, low = bound_features(program, rows, box, crown_bounds(program, box))
    assert float(low[0, 0]) <= math.exp(-2 * gap)  # the share at the centre of the box is no larger


@pytest.mark.parametrize("gap", [1.0, 800.0, 1e5, 2.0**100])
def test_logarithms_of_shares_have_finite_bounds_however_far_scores_are_apart(gap: float) -> None:
    def logarithms(x: Tensor) -> Tensor:
        scores = x * gap - torch.arange(5).to(x.dtype) * gap
        return torch.cat([torch.log_softmax(scores, 0), torch.logsumexp(scores, 0, keepdim=True)])

    program = build_program(trace(logarithms, [torch.zeros(5)]))
    box = Bounds(torch.full((1, 5), -0.1, dtype=torch.float64), torch.full((1, 5), 0.1, dtype=torch.float64))
    _, features = interval_bounds(program, box)
    for point in torch.rand(20, 5, dtype=torch.float64) * 0.2 - 0.1:
        value = logarithms(point)
        torch.testing.assert_close(forward(program, point.unsqueeze(0))[0], value, rtol=1e-9, atol=1e-9)
        assert bool((features.lower[0] <= value).all()) and bool((value <= features.upper[0]).all())
    assert float((features.upper - features.lower).max()) < 8 * gap


def test_a_row_that_is_masked_altogether_is_refused() -> None:
    mask = torch.tensor([[0.0, -torch.inf], [-torch.inf, -torch.inf]])
    with pytest.raises(UnsupportedError, match="not a number"):
        trace(lambda x: torch.softmax(x.reshape(2, 2) + mask, 1).reshape(-1), [torch.zeros(4)])


def test_a_large_mask_that_only_overflows_in_single_precision_is_no_infinite_one() -> None:
    """Twice the lowest number on both scores leaves their shares as they were, over the real numbers."""
    lowest = torch.finfo(torch.float32).min
    mask = torch.tensor([lowest, lowest])
    program = build_program(trace(lambda x: torch.softmax(x + mask + mask, 0), [torch.zeros(2)]))
    assert program.num_neurons


def test_what_a_mask_leaves_out_is_still_not_proved_where_it_is_undefined() -> None:
    """``log x - inf`` is not a number for x = 0 alone, but for every x below."""
    mask = torch.tensor([0.0, 0.0, -torch.inf])

    def shares(x: Tensor) -> Tensor:
        return torch.softmax(torch.cat([x[:2], torch.log(x[2:])]) + mask, 0)

    program = build_program(trace(shares, [torch.ones(3)]))
    box = Bounds(torch.full((1, 3), -1.0, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64))
    _, features = interval_bounds(program, box)
    assert not bool(torch.isfinite(features.lower[0, 2]) & torch.isfinite(features.upper[0, 2]))
    _, features = interval_bounds(program, Bounds(box.upper / 2, box.upper))
    assert float(features.upper[0, 2]) < 1e-300
