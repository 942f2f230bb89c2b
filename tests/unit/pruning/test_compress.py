"""Physical removal gives exactly the network that the masks describe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toolkit.data.dataset import Dataset, Split
from toolkit.errors import UnsupportedError
from toolkit.models.architecture_options import ConvNet, ModelOptions, PresetNet, ResNet, Vgg
from toolkit.models.build import build_model
from toolkit.models.structure import ChannelSite, channel_sites, relu_sites
from toolkit.pruning import compress as compressing
from toolkit.pruning.compress import compress, without_norms
from toolkit.pruning.masks import channel_masks
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.training_loop import apply_masks


def _masked(options: ModelOptions, channels: int, size: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    split = Split(torch.zeros(1, channels, size, size), torch.zeros(1, dtype=torch.int64))
    dataset = Dataset("empty", split, split, split, 10, (0.4,) * channels, (0.2,) * channels)
    model = build_model(options, dataset, 0).double()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
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
        (ConvNet(blocks=({"channels": 4},), hidden=(9, 7), hidden_batch_norm=True), 1, 8),
    ],
    ids=["paper7-rgb", "paper7-grey", "digits", "resnet14", "vgg16", "dense"],
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
    folded = without_norms(small, (nn.Linear,))
    assert torch.allclose(folded(images), model(images), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in folded.modules())


def test_the_original_is_left_alone() -> None:
    model, live = _masked(PresetNet(architecture="digits_conv"), 1, 8)
    before = [tuple(parameter.shape) for parameter in model.parameters()]
    compress(model, live, (1, 8, 8))
    assert [tuple(parameter.shape) for parameter in model.parameters()] == before


def _block(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()


def _random_network(seed: int) -> nn.Sequential:
    """A convolution with prunable channels, and after it layers of random kinds, depthwise and grouped ones too."""
    generator = torch.Generator().manual_seed(seed)

    def pick(*choices: int) -> int:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    layers, width = [*_block(nn.Conv2d(1, 8, 3, padding=1))], 8
    for _ in range(pick(1, 2, 3)):
        out = pick(8, 16)
        groups = pick(1, 1, 2, 4, width) if out % width == 0 else 1
        layers += [*([nn.MaxPool2d(3, 1, 1)] if pick(0, 1) else []), *_block(nn.Conv2d(width, out, 3, 1, 1, 1, groups))]
        width = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 36, 3))


@pytest.mark.parametrize("seed", range(60))
def test_only_channels_that_are_added_up_are_removed(seed: int) -> None:
    torch.manual_seed(seed)
    model = _random_network(seed).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.8)
    live = {}
    for site in channel_sites(model):
        live[site.batch_norm] = torch.rand(site.channels) < 0.6
        live[site.batch_norm][0] = True
    apply_masks(model, channel_masks(model, live))
    images = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    small = compress(model.eval(), live, (1, 6, 6))
    assert torch.allclose(small(images), model(images), rtol=1e-9, atol=1e-9)


def test_readers_that_do_not_add_channels_up_are_no_sites() -> None:
    for groups, after in ((8, ()), (2, ()), (1, (nn.Flatten(2),)), (1, (nn.Tanh(),))):
        reader = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        model = nn.Sequential(*_block(nn.Conv2d(1, 8, 3, padding=1)), *after, *_block(reader), nn.Flatten())
        assert channel_sites(model) == []
    shared = _block(nn.Conv2d(8, 8, 3, padding=1))
    twice = nn.Sequential(*_block(nn.Conv2d(1, 8, 3)), *shared, *shared, nn.Flatten(), nn.Linear(8, 2))
    assert channel_sites(twice) == []


def test_a_smaller_network_that_is_another_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    model = nn.Sequential(
        *_block(nn.Conv2d(1, 8, 3, padding=1)), *_block(reader), nn.Flatten(), nn.Linear(128, 3)
    ).eval()
    nn.init.uniform_(model[4].bias, 0.5, 1.0)
    live = {"1": torch.arange(8) % 2 == 0}
    for part in (model[1].weight, model[1].bias):
        part.data[~live["1"]] = 0
    monkeypatch.setattr(compressing, "channel_sites", lambda model: [ChannelSite("0", "1", 8)])
    with pytest.raises(UnsupportedError, match="computes something else"):
        compress(model, live, (1, 4, 4))
