"""Architectures: the counts of the paper, shapes, and images that are too small."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from toolkit.data.dataset import Dataset, Split
from toolkit.errors import InputError
from toolkit.models.architecture_options import Block, ConvNet, Mlp, ModelOptions, PresetNet, ResNet, Vgg
from toolkit.models.build import build_model
from toolkit.models.structure import channel_sites, count_relus
from toolkit.pruning.masks import weight_masks


def _dataset(channels: int, size: int, classes: int = 10) -> Dataset:
    split = Split(torch.zeros(1, channels, size, size), torch.zeros(1, dtype=torch.int64))
    return Dataset("empty", split, split, split, classes, (0.4,) * channels, (0.2,) * channels)


@pytest.mark.parametrize(
    ("channels", "size", "relus", "parameters", "conv_weights"),
    [(3, 32, 75_876, 670_870, 463_712), (1, 28, 57_700, 580_694, 463_136)],
)
def test_paper_net_has_the_published_counts(
    channels: int, size: int, relus: int, parameters: int, conv_weights: int
) -> None:
    model = build_model(PresetNet(architecture="paper7"), _dataset(channels, size), 0)
    assert count_relus(model, (channels, size, size)) == relus
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(mask.numel() for mask in weight_masks(model, ("conv",)).values()) == conv_weights
    assert sum(site.channels for site in channel_sites(model)) == 416


@pytest.mark.parametrize(
    "options",
    [
        PresetNet(architecture="cnn_7layer_bn"),
        PresetNet(architecture="cnn_b"),
        PresetNet(architecture="cifar_small", channels=(3, 5), hidden=()),
        PresetNet(architecture="paper7", channels=(1, 2, 3, 4, 5)),
        Mlp(hidden=(7,)),
        ConvNet(blocks=(Block(channels=3, batch_norm=False),)),
        ResNet(depth=8, width=4),
        Vgg(width=2),
    ],
    ids=lambda options: options.architecture,
)
def test_every_architecture_maps_images_to_classes(options: ModelOptions) -> None:
    dataset = _dataset(3, 32, classes=7)
    model = build_model(options, dataset, 1).eval()
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    same = build_model(options, dataset, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    build_model(Mlp(), _dataset(1, 8), 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_normalisation_is_the_first_layer() -> None:
    model = build_model(Mlp(), _dataset(3, 4), 0)
    assert torch.allclose(model[0](torch.full((1, 3, 4, 4), 0.6)), torch.ones(1, 3, 4, 4))
    assert len(build_model(Mlp(normalise=False), _dataset(3, 4), 0)) == len(model) - 1


def test_resnet20_has_the_usual_size() -> None:
    model = build_model(ResNet(), _dataset(3, 32), 0)
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    shortcuts = 16 * 32 + 32 * 64
    assert weights == 268_336 + shortcuts


def test_only_channels_inside_residual_blocks_are_prunable() -> None:
    sites = channel_sites(build_model(ResNet(depth=8, width=4), _dataset(3, 32), 0))
    assert [site.channels for site in sites] == [4, 8, 16]
    assert all(".main." in site.layer for site in sites)


@pytest.mark.parametrize("options", [PresetNet(architecture="paper7"), Vgg()], ids=lambda o: o.architecture)
def test_images_too_small_are_an_input_error(options: ModelOptions) -> None:
    with pytest.raises(InputError, match="too small"):
        build_model(options, _dataset(1, 3), 0)


def test_wrong_widths_are_errors() -> None:
    with pytest.raises(InputError, match="5 convolutions"):
        build_model(PresetNet(architecture="paper7", channels=(1, 2)), _dataset(3, 32), 0)
    with pytest.raises(ValidationError, match="6n"):
        ResNet(depth=18)
