"""Forward zonotopes contain what the network does, alone and as a help to the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import ResidualNetwork, boxes, mlp, points_in, program_of
from torch import Tensor

import toolkit.bounds.crown as many_boxes
from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.forward import ForwardPass, forward_bounds, has_wide_layer, strip
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.ops import RELAXATIONS
from toolkit.problem.affine import DenseAffine, GraphAffine
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import outward
from toolkit.tuning import PerDevice, tuned


def _program(smooth: bool = False) -> Program:
    torch.manual_seed(2)
    last = torch.nn.Sigmoid() if smooth else torch.nn.ReLU()
    return program_of(torch.nn.Sequential(mlp(3, 24, 24, 8), last, torch.nn.Linear(8, 2)), 3)


def _forward(program: Program, box: Bounds) -> list[Bounds]:
    """Bounds of every layer by zonotopes alone."""
    through = ForwardPass(program, box)
    found = []
    for number in range(len(program.layers)):
        found.append(through.bounds(number))
        through.advance(number, found[-1])
    return found


def _values(program: Program, points: Tensor) -> Tensor:
    """Exact pre-activations ``(P, num_neurons)``: the bounds of boxes that are points."""
    return crown_bounds(program, Bounds(points, points)).lower


@pytest.mark.parametrize("coefficients", [0, 24 * 7, 1 << 25])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
def test_bounds_contain_all_samples(radius: float, smooth: bool, coefficients: int, tune: Callable[..., None]) -> None:
    tune(zonotopes={"least_width": 8, "most_coefficients_per_box": coefficients})
    program = _program(smooth)
    box = boxes(program, radius)
    values = _values(program, points_in(box, 300))
    for layer, bounds in zip(program.layers, _forward(program, box), strict=True):
        assert bool((values[:, layer.neurons] >= bounds.lower - 1e-9).all())
        assert bool((values[:, layer.neurons] <= bounds.upper + 1e-9).all())


def _width(program: Program, box: Bounds) -> float:
    last = _forward(program, box)[-1]
    return float((last.upper - last.lower).sum())


def test_tighter_than_intervals_and_with_terms_than_without(tune: Callable[..., None]) -> None:
    tune(zonotopes={"least_width": 4})
    program = _program()
    box = boxes(program, 0.05, count=4)
    intervals, _ = interval_bounds(program, box)
    wide = float((intervals.upper - intervals.lower)[:, program.layers[-1].neurons].sum())
    with_terms = _width(program, box)
    tune(zonotopes={"most_coefficients_per_box": 0})
    without = _width(program, box)
    assert with_terms < 0.9 * without
    assert without < 0.7 * wide


def test_boxes_of_a_batch_do_not_touch_each_other(tune: Callable[..., None]) -> None:
    tune(zonotopes={"least_width": 4})
    program = _program()
    box = boxes(program, 0.3, count=3)
    together = _forward(program, box)
    for number in range(3):
        alone = _forward(program, box.select(torch.tensor([number])))
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one.lower[0], all_.lower[number])
            torch.testing.assert_close(one.upper[0], all_.upper[number])


@pytest.mark.parametrize("dense", [1 << 26, 0])
def test_neither_blocks_nor_parts_of_the_batch_change_bounds(
    dense: int, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    tune(problem={"most_dense_elements": dense})
    tune(zonotopes={"least_width": 4})
    program = _program()
    assert isinstance(program.layers[0].affine, DenseAffine) == (dense > 0)
    box = boxes(program, 0.3, count=5)
    intervals, _ = interval_bounds(program, box)
    whole = forward_bounds(program, box, intervals)
    tune(zonotopes={"block_coefficients": PerDevice(24 * 3, 24 * 3), "most_coefficients": 24 * 60})
    parts = forward_bounds(program, box, intervals)
    torch.testing.assert_close(parts.lower, whole.lower)
    torch.testing.assert_close(parts.upper, whole.upper)


@pytest.mark.parametrize("op", sorted(RELAXATIONS))
def test_strips_contain_their_operators(op: str) -> None:
    ends = torch.rand(2, 200, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 6 - 3
    if op in {"log", "sqrt", "rsqrt", "reciprocal"} or op.endswith("from_zero"):
        ends = ends.abs() + 0.1
    if op.endswith("from_one") or op == "share":
        ends = ends.abs() + 1.0
    lower, upper = ends.amin(0, keepdim=True), ends.amax(0, keepdim=True)
    slope, middle, error = strip(RELAXATIONS[op], Bounds(lower, upper))
    points = lower + torch.linspace(0, 1, 51, dtype=torch.float64).unsqueeze(1) * (upper - lower)
    distance = (RELAXATIONS[op].function(points) - slope * points - middle).abs()
    assert bool((distance <= error + 1e-12).all())


def test_exact_neurons_have_no_error() -> None:
    lower, upper = torch.tensor([[0.5, -3.0, 0.0, -1.0]]), torch.tensor([[2.0, -1.0, 1.0, 0.0]])
    slope, middle, error = strip(RELAXATIONS["relu"], Bounds(lower, upper))
    assert slope.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    assert not bool(middle.any()) and not bool(error.any())


@pytest.mark.parametrize("many", [0, 256])
def test_help_of_the_backward_pass_is_sound(
    many: int, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    monkeypatch.setattr(many_boxes, "has_wide_layer", lambda program: True)
    tune(crown={"most_neurons_per_box": many})
    program = _program()
    box = boxes(program, 0.2)
    empty = torch.zeros(1, 0, 3, dtype=program.dtype)
    known = crown_bounds(program, Bounds(box.lower - 0.1, box.upper + 0.1))
    found = many_boxes.tighten(program, box, known, HalfSpaces(empty, empty[..., 0]))
    values = _values(program, points_in(box, 300))
    assert bool((values >= found.bounds.lower - 1e-9).all())
    assert bool((values <= found.bounds.upper + 1e-9).all())
    assert float(found.contradiction) <= 0
    torch.testing.assert_close(
        found.influence.share.sum(1), torch.ones(len(found.influence.share), dtype=program.dtype)
    )


def test_matrices_and_operators_give_the_same_bounds(
    monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    tune(zonotopes={"least_width": 4})
    dense = program_of(_residual(), 1, 6, 6)
    tune(problem={"most_dense_elements": 0, "most_dense_convolution_elements": 0})
    operators = program_of(_residual(), 1, 6, 6)
    assert {type(layer.affine) for layer in dense.layers} == {DenseAffine}
    assert {type(layer.affine) for layer in operators.layers} == {GraphAffine}
    box = boxes(dense, 0.1, count=2)
    for one, other in zip(_forward(dense, box), _forward(operators, box), strict=True):
        torch.testing.assert_close(one.lower, other.lower, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(one.upper, other.upper, rtol=1e-6, atol=1e-6)


def _residual() -> torch.nn.Module:
    torch.manual_seed(3)
    return ResidualNetwork()


def test_no_boxes_have_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_boxes, "has_wide_layer", lambda program: True)
    program = _program()
    box = boxes(program, 0.2, count=0)
    none = torch.zeros(0, program.num_neurons, dtype=program.dtype)
    empty = torch.zeros(0, 1, 3, dtype=program.dtype)
    found = many_boxes.tighten(program, box, Bounds(none, none), HalfSpaces(empty, empty[..., 0]))
    assert found.bounds.lower.shape == found.bounds.upper.shape == none.shape
    assert found.influence.share.shape == (0, 3)


def test_only_wide_programs_use_them() -> None:
    assert not has_wide_layer(_program())
    assert has_wide_layer(program_of(mlp(2, tuned().zonotopes.least_width + 1, 1), 2))


@pytest.mark.parametrize("radius", [0.2, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("varying", [1, 5, 36])
def test_forward_bounds_of_operators_contain_all_samples(
    varying: int, dtype: torch.dtype, radius: float, tune: Callable[..., None]
) -> None:
    tune(problem={"most_dense_convolution_elements": 0})
    torch.manual_seed(3)
    exact = program_of(ResidualNetwork(), 1, 6, 6)
    assert any(isinstance(layer.affine, GraphAffine) for layer in exact.layers)
    program = exact.to(torch.device("cpu"), dtype)
    box = boxes(exact, radius)
    box.upper[:, varying:] = box.lower[:, varying:]
    values = _values(exact, points_in(box, 300))
    box = Bounds(*outward(box.lower, box.upper, dtype))
    intervals, _ = interval_bounds(program, box)
    found = forward_bounds(program, box, intervals)
    assert bool((values >= found.lower.double() - 1e-9).all())
    assert bool((values <= found.upper.double() + 1e-9).all())
    unknown = torch.full_like(intervals.lower, torch.inf)
    alone = forward_bounds(program, box, Bounds(-unknown, unknown))  # which must not need what others know
    assert bool((values >= alone.lower.double() - 1e-9).all())
    assert bool((values <= alone.upper.double() + 1e-9).all())
    assert radius < 0.1 or float((found.upper - found.lower).sum()) < float((intervals.upper - intervals.lower).sum())


INPUTS = 3


def branching(seed: int, widths: tuple[int, ...] = (5, 4, 6, 3, 5)) -> Program:
    """Layers that read the input and some of the layers before: chains, parallel branches, residuals, joins."""
    rng = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=rng, dtype=torch.float64)

    layers: list[Layer] = []
    for width in (*widths, 2):
        before = torch.arange(-1, len(layers))
        some = before[torch.rand(len(before), generator=rng) < 0.5].tolist() or [int(before[-1])]
        sizes = [INPUTS if source == INPUT else layers[source].affine.size for source in some]
        affine = DenseAffine(tuple(some), tuple(matrix(width, size) for size in sizes), matrix(1, width)[0])
        start = layers[-1].stop if layers else 0
        layers.append(Layer(f"layer{len(layers)}", ["relu", "relu", "tanh"][seed % 3], affine, start))
    features = layers.pop().affine
    return Program(INPUTS, tuple(layers), features, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("room", [tuned().zonotopes.most_coefficients_per_box, 40, 90])
@pytest.mark.parametrize("seed", range(40))
def test_errors_of_parallel_layers_are_not_one_error(seed: int, room: int, tune: Callable[..., None]) -> None:
    """Neurons of layers side by side err independently: what reads both must not see their errors cancel."""
    tune(zonotopes={"most_coefficients_per_box": room, "least_width": 0})
    program = branching(seed)
    centre = torch.randn(2, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    box = Bounds(centre - 0.7, centre + 0.7)
    found = forward_bounds(program, box, interval_bounds(program, box)[0])
    for row in range(2):
        shares = torch.rand(200, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + row))
        points = box.lower[row] + shares * (box.upper[row] - box.lower[row])
        values = crown_bounds(program, Bounds(points, points))
        assert bool((found.lower[row] <= values.upper).all())
        assert bool((values.lower <= found.upper[row]).all())
