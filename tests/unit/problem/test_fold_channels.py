"""Networks made larger by ``relu(z) - relu(-z) = z`` are folded back to what they were, exactly or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from toolkit.attack.gradient_attack import forward
from toolkit.problem.fold_channels import exact_sum, fold_splits, multiples
from toolkit.problem.merge_neurons import merge_neurons
from toolkit.problem.program import Program, build_program
from toolkit.problem.trace import trace

SIDE = 6


def program_of(module: nn.Module) -> Program:
    """The program of a network of one image with two channels."""
    module = module.eval().requires_grad_(False)
    size = 2 * SIDE * SIDE
    return build_program(trace(lambda x: module(x.reshape(1, 2, SIDE, SIDE)).reshape(-1), [torch.zeros(size)]))


def split(layer: nn.Module, generator: torch.Generator, scale: Tensor) -> list[nn.Module]:
    """Layers that compute what one does: both signs of every channel, scaled, through ReLUs, and their difference.

    As bias, the first has a part of the layer's, the last the rest.
    """
    assert isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None
    outputs = len(layer.bias)
    part = torch.randn(outputs, generator=generator).round(decimals=0)
    weight = torch.cat([layer.weight, -layer.weight])
    bias = torch.cat([part, -part])
    order = torch.randperm(2 * outputs, generator=generator)
    column = scale[order]
    mix = torch.cat([torch.eye(outputs), -torch.eye(outputs)], 1)[:, order] / column
    if isinstance(layer, nn.Conv2d):
        first: nn.Module = nn.Conv2d(layer.in_channels, 2 * outputs, layer.kernel_size, layer.stride, layer.padding)
        last: nn.Module = nn.Conv2d(2 * outputs, outputs, 1)
        mix = mix.reshape(*mix.shape, 1, 1)
    else:
        first, last = nn.Linear(layer.in_features, 2 * outputs), nn.Linear(2 * outputs, outputs)
    first.weight = nn.Parameter(weight[order] * column.reshape(-1, *[1] * (weight.dim() - 1)))
    first.bias = nn.Parameter(bias[order] * column)
    last.weight, last.bias = nn.Parameter(mix), nn.Parameter(layer.bias - part)
    return [first, nn.ReLU(), last]


def networks(seed: int, scales: list[float]) -> tuple[Program, Program]:
    """A random network, and one with some of its layers split."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3),
    ]  # fmt: skip
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.bias.copy_(torch.randint(-64, 64, layer.bias.shape, generator=generator) / 64)  # type: ignore
        larger: list[nn.Module] = []
        for number, layer in enumerate(layers):
            chosen = isinstance(layer, (nn.Conv2d, nn.Linear)) and (number == (0, 2, 5, 7)[seed % 4] or seed >= 4)
            count = 2 * len(layer.bias) if chosen else 0  # type: ignore[arg-type]
            scale = torch.tensor(scales)[torch.randint(len(scales), (count,), generator=generator)]
            larger += split(layer, generator, scale) if chosen else [layer]
    return program_of(nn.Sequential(*layers)), program_of(nn.Sequential(*larger))


@pytest.mark.parametrize("seed", range(6))
def test_what_is_split_is_folded_back(seed: int) -> None:
    original, larger = networks(seed, [0.5, 1.0, 2.0, 8.0])
    points = torch.randn(20, original.num_inputs, dtype=torch.float64)
    torch.testing.assert_close(forward(larger, points), forward(original, points), rtol=1e-12, atol=1e-12)
    assert [layer.affine.size for layer in larger.layers] == [layer.affine.size for layer in original.layers]
    assert all(layer.affine.sources == (number - 1,) for number, layer in enumerate(larger.layers))


@pytest.mark.parametrize("seed", range(3))
def test_a_factor_that_was_rounded_is_not_folded(seed: int) -> None:
    """Rows that are parallel up to rounding are not: they stay, and compute what they do."""
    original, larger = networks(seed, [0.3, 1.7])
    points = torch.randn(20, original.num_inputs, dtype=torch.float64)
    torch.testing.assert_close(forward(larger, points), forward(original, points), rtol=1e-4, atol=1e-4)
    assert larger.num_neurons > original.num_neurons


def test_channels_that_are_read_in_both_ways_keep_one_relu() -> None:
    """``2 relu(z) + 3 relu(-2 z)`` is ``8 relu(z) - 6 z``."""
    torch.manual_seed(0)
    first, last = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 1, 2)
    with torch.no_grad():
        first.weight[1], first.bias[1] = -2 * first.weight[0], -2 * first.bias[0]  # type: ignore[index]
    program = program_of(nn.Sequential(first, nn.ReLU(), last))
    assert [(layer.affine.size, layer.affine.sources) for layer in program.layers] == [(16, (-1,))]
    assert program.features.sources == (-1, 0)
    points = torch.randn(20, program.num_inputs)
    expected = last(torch.relu(first(points.reshape(-1, 2, SIDE, SIDE)))).flatten(1).double()
    torch.testing.assert_close(forward(program, points.double()), expected, rtol=1e-4, atol=1e-5)


def test_scaled_neurons_of_matrices_are_merged() -> None:
    torch.manual_seed(0)
    weight, bias, last = torch.randn(3, 4), torch.randn(3), torch.randn(2, 9)
    many = torch.cat([weight, 4 * weight, -0.5 * weight]), torch.cat([bias, 4 * bias, -0.5 * bias])
    program = build_program(trace(lambda x: last @ torch.relu(many[0] @ x + many[1]), [torch.zeros(4)]))
    merged = merge_neurons(program)
    assert (program.num_neurons, merged.num_neurons) == (9, 3)
    points = torch.randn(50, 4, dtype=torch.float64)
    torch.testing.assert_close(forward(merged, points), forward(program, points), rtol=1e-12, atol=1e-12)


def test_multiples_are_found_by_powers_of_two_alone() -> None:
    rows = torch.tensor([[0.0, 3.0, -1.0], [0.0, -6.0, 2.0], [0.0, 9.0, -3.0], [0.0, 0.0, 0.0], [0.0, 0.75, -0.25]])
    found = multiples(rows.double())
    assert found.kept.tolist() == [0, 2, 3]
    assert found.member.tolist() == [0, 0, 1, 2, 0]
    assert found.factor.tolist() == [1, -2, 1, 1, 0.25]


def test_rows_that_underflow_where_they_are_scaled_are_multiples_of_none() -> None:
    """An eighth of the least double is zero: by that the rows would be equal."""
    least = 2.0**-1074
    found = multiples(torch.tensor([[4.0, least], [4.0, 0.0], [8.0, 0.0]], dtype=torch.float64))
    assert found.kept.tolist() == [0, 1]
    assert found.member.tolist() == [0, 1, 1]


def test_a_sum_that_would_be_rounded_is_none() -> None:
    one = torch.tensor([1.0], dtype=torch.float64)
    assert exact_sum(one, one * 2.0**-52) is not None
    assert exact_sum(one, one * 2.0**-53) is None
    assert exact_sum(one * 1e308, one * 1e308) is None


def test_weights_whose_sum_would_be_rounded_are_not_merged() -> None:
    first, last = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        first.weight[1], first.bias[1] = first.weight[0], first.bias[0]  # type: ignore[index]
        last.weight.copy_(torch.tensor([1.0, 2.0**-60]).reshape(1, 2, 1, 1))
    assert program_of(nn.Sequential(first, nn.ReLU(), last)).num_neurons == 2 * SIDE * SIDE


def test_a_graph_without_splits_is_left_alone() -> None:
    module = trace(lambda x: torch.relu(x @ torch.eye(4)), [torch.zeros(1, 4)])
    assert fold_splits(module) is module
