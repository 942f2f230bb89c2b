"""Physical removal gives exactly the network that the masks describe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toolkit.data.dataset import Dataset, Split
from toolkit.models.build import build_model
from toolkit.models.options import ModelOptions, PresetNet, ResNet, Vgg
from toolkit.models.structure import channel_sites, relu_sites
from toolkit.pruning.compress import compress
from toolkit.pruning.masks import channel_masks
from toolkit.training.intervals import image_box, propagate
from toolkit.training.loop import apply_masks


def _masked(options: ModelOptions, channels: int, size: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    split = Split(torch.zeros(1, channels, size, size), torch.zeros(1, dtype=torch.int64))
    dataset = Dataset("empty", split, split, split, 10, (0.4,) * channels, (0.2,) * channels)
    model = build_model(options, dataset, 0).double()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.normal_(generator=generator)
            module.bias.data.normal_(generator=generator)
            module.running_mean.normal_(generator=generator)
    live = {site.batch_norm: torch.rand(site.channels, generator=generator) < 0.5 for site in channel_sites(model)}
    for kept in live.values():
        kept[-1] = True
    apply_masks(model, channel_masks(model, live))
    return model.eval(), live


@pytest.mark.parametrize(
    ("options", "channels", "size"),
    [
        (PresetNet(architecture="paper7", channels=(6, 8, 8, 10, 10), hidden=(12,)), 3, 32),
        (PresetNet(architecture="paper7", channels=(6, 8, 8, 10, 10), hidden=(12,)), 1, 28),
        (PresetNet(architecture="digits_conv"), 1, 8),
        (ResNet(depth=14, width=6), 3, 32),
        (Vgg(width=3), 3, 32),
    ],
    ids=["paper7-rgb", "paper7-grey", "digits", "resnet14", "vgg16"],
)
def test_compressed_equals_masked(options: ModelOptions, channels: int, size: int) -> None:
    model, live = _masked(options, channels, size)
    small = compress(model, live, (channels, size, size)).eval()
    images = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(small(images), model(images), rtol=1e-9, atol=1e-9)
    masked_bounds, compressed_bounds = (propagate(net, image_box(images, 0.02))[0] for net in (model, small))
    assert torch.allclose(masked_bounds.lower, compressed_bounds.lower, rtol=1e-7, atol=1e-9)
    assert torch.allclose(masked_bounds.upper, compressed_bounds.upper, rtol=1e-7, atol=1e-9)
    modules = dict(small.named_modules())
    for name, kept in live.items():
        assert modules[name].num_features == int(kept.sum())
    assert len(relu_sites(small)) == len(relu_sites(model))


def test_the_original_is_left_alone() -> None:
    model, live = _masked(PresetNet(architecture="digits_conv"), 1, 8)
    before = [tuple(parameter.shape) for parameter in model.parameters()]
    compress(model, live, (1, 8, 8))
    assert [tuple(parameter.shape) for parameter in model.parameters()] == before
