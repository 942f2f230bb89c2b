"""Forward linear bounds contain what the network does, alone and as a help to the backward pass."""

from __future__ import annotations

import pytest
import torch
from programs import Residual, boxes, mlp, points_in, program_of

import toolkit.bounds.boxes as many_boxes
from toolkit.bounds.clip import HalfSpaces
from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.forward import (
    WIDE,
    Band,
    band_bounds,
    forward_bounds,
    input_band,
    suits,
    through_layer,
    through_map,
)
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.relaxations import RELAXATIONS, Lines
from toolkit.problem import affine
from toolkit.problem.affine import GraphAffine
from toolkit.problem.compile import outward
from toolkit.problem.program import INPUT, Program


def _program(smooth: bool = False) -> Program:
    torch.manual_seed(2)
    last = torch.nn.Sigmoid() if smooth else torch.nn.ReLU()
    return program_of(torch.nn.Sequential(mlp(3, 24, 24, 8), last, torch.nn.Linear(8, 2)), 3)


def _forward(program: Program, box: Bounds) -> list[Bounds]:
    """Bounds of every layer by forward bands alone."""
    bands: dict[int, Band] = {INPUT: input_band(box)}
    found = []
    for number, layer in enumerate(program.layers):
        band = through_map(layer.affine, [bands[source] for source in layer.affine.sources])
        found.append(band_bounds(band, box))
        bands[number] = through_layer(band, RELAXATIONS[layer.op].lines(found[-1].lower, found[-1].upper, None))
    return found


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
def test_bounds_contain_all_samples(smooth: bool, radius: float) -> None:
    program = _program(smooth)
    box = boxes(program, radius)
    points = points_in(box, 300)
    values = crown_bounds(program, Bounds(points, points)).lower
    for layer, bounds in zip(program.layers, _forward(program, box), strict=True):
        assert bool((values[:, layer.neurons] >= bounds.lower - 1e-9).all())
        assert bool((values[:, layer.neurons] <= bounds.upper + 1e-9).all())


def test_tighter_than_intervals_on_small_boxes() -> None:
    program = _program()
    box = boxes(program, 0.02, count=4)
    intervals, _ = interval_bounds(program, box)
    layer = program.layers[-1]
    bounds = _forward(program, box)[-1]
    wide = (intervals.upper - intervals.lower)[:, layer.neurons]
    assert float((bounds.upper - bounds.lower).sum()) < 0.7 * float(wide.sum())


@pytest.mark.parametrize("many", [0, 256])
def test_help_of_the_backward_pass_is_sound(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_boxes, "suits", lambda program: True)
    monkeypatch.setattr(many_boxes, "MANY_ROWS", many)
    program = _program()
    box = boxes(program, 0.2)
    empty = torch.zeros(1, 0, 3, dtype=program.dtype)
    known = crown_bounds(program, Bounds(box.lower - 0.1, box.upper + 0.1))
    found = many_boxes.tighten(program, box, known, HalfSpaces(empty, empty[..., 0]))
    points = points_in(box, 300)
    values = crown_bounds(program, Bounds(points, points)).lower
    assert bool((values >= found.bounds.lower - 1e-9).all())
    assert bool((values <= found.bounds.upper + 1e-9).all())
    assert float(found.contradiction) <= 0
    torch.testing.assert_close(found.reach.share.sum(1), torch.ones(len(found.reach.share), dtype=program.dtype))


def test_only_wide_programs_use_them() -> None:
    assert not suits(_program())
    assert suits(program_of(mlp(2, WIDE + 1, 1), 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("varying", [1, 5, 36])
def test_forward_bounds_of_operators_contain_all_samples(
    varying: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affine, "DENSE_CONVOLUTION_LIMIT", -1)
    torch.manual_seed(3)
    exact = program_of(Residual(), 1, 6, 6)
    assert any(isinstance(layer.affine, GraphAffine) for layer in exact.layers)
    program = exact.to(torch.device("cpu"), dtype)
    box = boxes(exact, 0.2)
    box.upper[:, varying:] = box.lower[:, varying:]
    points = points_in(box, 300)
    values = crown_bounds(exact, Bounds(points, points)).lower
    box = Bounds(*outward(box.lower, box.upper, dtype))
    intervals, _ = interval_bounds(program, box)
    found = forward_bounds(program, box, intervals)
    assert bool((values >= found.lower.double() - 1e-9).all())
    assert bool((values <= found.upper.double() + 1e-9).all())
    assert float((found.upper - found.lower).sum()) < float((intervals.upper - intervals.lower).sum())


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_slopes_of_any_sign(sign: float) -> None:
    band = Band(torch.tensor([[[1.0], [0.5]]]), torch.tensor([[[0.0], [0.25]]]))  # x + 1/2, give or take 1/4
    slope, zero = torch.full((1, 1), 2.0 * sign), torch.zeros(1, 1)
    through = through_layer(band, Lines(slope, zero, slope, zero))
    bounds = band_bounds(through, Bounds(torch.zeros(1, 1), torch.ones(1, 1)))
    ends = sorted([2 * sign * 0.25, 2 * sign * 1.75])
    assert float(bounds.lower) == pytest.approx(ends[0], abs=1e-4)
    assert float(bounds.upper) == pytest.approx(ends[1], abs=1e-4)
