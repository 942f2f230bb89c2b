"""Interval and backward bounds contain what they bound, and are exact where they must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from toolkit.errors import UnsupportedError
from toolkit.models.layers import Normalise
from toolkit.models.structure import relu_sites
from toolkit.training.differentiable_crown import backward, upper_bound
from toolkit.training.differentiable_intervals import Interval, image_box, propagate
from toolkit.training.training_attack import pgd, uniform_start

EPSILON = 0.05


def _images() -> torch.Tensor:
    return torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _points(net: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    labels = torch.zeros(len(images), dtype=torch.int64)
    attacked = [pgd(net, images, labels + k, EPSILON, generator, steps=8, step_size=0.4) for k in range(3)]
    return [uniform_start(images, EPSILON, generator) for _ in range(10)] + attacked


def test_intervals_contain_samples_and_attacks_at_every_layer(net: nn.Module) -> None:
    images = _images()
    output, trace = propagate(net, image_box(images, EPSILON))
    seen: dict[nn.Module, torch.Tensor] = {}
    for site in relu_sites(net):
        site.relu.register_forward_pre_hook(lambda module, inputs: seen.__setitem__(module, inputs[0].detach()))
    for x in _points(net, images):
        values = net(x).detach()
        assert bool(((output.lower <= values + 1e-9) & (values <= output.upper + 1e-9)).all())
        for relu, value in seen.items():
            assert bool(((trace[relu].lower <= value + 1e-9) & (value <= trace[relu].upper + 1e-9)).all())
    assert len(seen) == 4


def test_the_image_box_stays_in_the_unit_cube() -> None:
    box = image_box(torch.tensor([[0.0, 0.5, 1.0]]), 0.25)
    assert box.lower.tolist() == [[0, 0.25, 0.75]]
    assert box.upper.tolist() == [[0.25, 0.75, 1]]


def test_a_point_has_the_value_of_the_network(net: nn.Module) -> None:
    images = _images()
    output, _ = propagate(net, image_box(images, 0.0))
    assert torch.allclose(output.lower, net(images))
    assert torch.allclose(output.upper, net(images))


def test_backward_bounds_contain_samples_and_beat_intervals(net: nn.Module) -> None:
    images = _images()
    output, trace = propagate(net, image_box(images, EPSILON))
    improved = 0
    for row in torch.cat([torch.eye(3), -torch.eye(3)]).double():
        bound = upper_bound(net, row.expand(5, 3), trace)
        for x in _points(net, images):
            assert bool((net(x) @ row <= bound + 1e-9).all())
        interval = torch.where(row > 0, output.upper * row, output.lower * row).sum(1)
        improved += int((bound < interval).sum())
    assert improved >= 15


def test_backward_bounds_are_exact_without_relus() -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(Normalise((0.5,), (0.5,)), nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 2)).double()
    images = torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64)
    _, trace = propagate(linear, image_box(images, 0.1))
    row = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    x = images.clone().requires_grad_()
    value = (linear(x) * row).sum()
    (gradient,) = torch.autograd.grad(value, x)
    assert upper_bound(linear, row, trace).item() == pytest.approx((value + 0.1 * gradient.abs().sum()).item())


@pytest.mark.parametrize(
    ("lower", "upper", "row", "bound"),
    [
        (-1.0, 3.0, (1.0, -1.0), -9.0),  # chord 0.75 x + 0.75, minus x: largest at x = -1
        (-1.0, 3.0, (1.0, 0.0), 3.0),
        (-1.0, 3.0, (-1.0, 0.0), 1.0),  # the line x, as the upper side is longer
        (-3.0, 1.0, (-1.0, 0.0), 0.0),  # the line 0
        (1.0, 3.0, (-1.0, 0.0), -1.0),
        (-3.0, -1.0, (5.0, 0.0), 0.0),
    ],
)
def test_backward_bounds_of_one_relu(lower: float, upper: float, row: tuple[float, float], bound: float) -> None:
    """The outputs are relu(x) and x + 10; worked out by hand."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    net[0].weight.data.fill_(1.0)
    net[0].bias.data = torch.tensor([0.0, 10.0])
    _, trace = propagate(net, Interval(torch.tensor([[lower]]), torch.tensor([[upper]])))
    assert upper_bound(net, torch.tensor([row]), trace).item() == pytest.approx(bound)


def test_training_mode_uses_and_updates_the_statistics_of_the_clean_batch(net: nn.Module) -> None:
    images = _images()
    net.train()
    norm = net[2]
    before = norm.running_mean.clone()
    output, _ = propagate(net, image_box(images, 0.0, images))
    after = norm.running_mean.clone()
    assert output.point is not None
    assert torch.allclose(output.lower, output.point)
    assert not torch.equal(before, after)
    norm.running_mean = before
    net(images)
    assert torch.equal(norm.running_mean, after)


def test_unknown_layers_are_named() -> None:
    with pytest.raises(UnsupportedError, match="Softplus"):
        propagate(nn.Sequential(nn.Softplus()), image_box(torch.zeros(1, 2), 0.1))


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2},
    {"stride": (2, 3), "padding": (1, 0)},
    {"dilation": 2},
    {"groups": 2, "padding": 2, "stride": 3},
    {"bias": False, "stride": 4},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_backward_through_a_convolution_is_its_vector_jacobian_product(options: dict[str, Any]) -> None:
    layer = nn.Conv2d(4, 6, 3, **options).double()
    x = torch.rand(2, 4, 10, 11, dtype=torch.float64, requires_grad=True)
    _, trace = propagate(layer, Interval(x.detach(), x.detach()))
    value = layer(x)
    rows = torch.randn_like(value)
    (product,) = torch.autograd.grad(value, x, rows)
    found, constant = backward(layer, rows, trace)
    assert torch.allclose(found, product)
    assert torch.allclose((found * x).flatten(1).sum(1) + constant, (rows * value).flatten(1).sum(1))


def test_bounds_of_training_use_all_bits_of_single_precision() -> None:
    seen, products = [], torch.backends.cuda.matmul
    before = products.allow_tf32
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(lambda *_: seen.append(products.allow_tf32))
    try:
        products.allow_tf32 = True
        propagate(layer, image_box(torch.rand(1, 3), 0.1))
        assert seen == [False]
        assert products.allow_tf32
    finally:
        products.allow_tf32 = before
