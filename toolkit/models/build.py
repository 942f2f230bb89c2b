"""From options to a network with fresh weights: one builder for each kind of options."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import singledispatch

import torch
from torch import nn

from toolkit.data.dataset import Dataset
from toolkit.data.input_space import PIXELS
from toolkit.errors import InputError
from toolkit.models.architecture_options import (
    Block,
    ConvNet,
    Mlp,
    ModelOptions,
    OnnxNet,
    PresetName,
    PresetNet,
    ResNet,
    Vgg,
)
from toolkit.models.imported import insert_batch_norms, read_network
from toolkit.models.layers import InputDomain, Normalise, Residual
from toolkit.models.structure import channel_sites
from toolkit.tuning import tuned

Shape = tuple[int, ...]

PRESETS: dict[PresetName, ConvNet] = {
    # "cifar_model_deep" of Li et al. (TMLR 2023), Table III: no batch normalisation after the hidden linear layer.
    "paper7": ConvNet(
        blocks=(
            Block(channels=32),
            Block(channels=64, kernel=4, stride=2),
            Block(channels=64),
            Block(channels=128, kernel=4, stride=2),
            Block(channels=128, kernel=4, stride=2),
        ),
        hidden=(100,),
    ),
    # Shi et al. (NeurIPS 2021), used by most certified training since: batch normalisation after every layer.
    "cnn_7layer_bn": ConvNet(
        blocks=(
            Block(channels=64),
            Block(channels=64),
            Block(channels=128, stride=2),
            Block(channels=128),
            Block(channels=128),
        ),
        hidden=(512,),
        hidden_batch_norm=True,
    ),
    "cnn_b": ConvNet(
        blocks=(
            Block(channels=32, kernel=5, stride=2, padding=2),
            Block(channels=128, kernel=4, stride=2),
        ),
        hidden=(250,),
    ),
    "cifar_small": ConvNet(
        blocks=(
            Block(channels=8, kernel=4, stride=2, batch_norm=False),
            Block(channels=16, kernel=4, stride=2, batch_norm=False),
        ),
        hidden=(100,),
    ),
    "digits_conv": ConvNet(blocks=(Block(channels=8, stride=2), Block(channels=16, stride=2)), hidden=(32,)),
}


def build_model(options: ModelOptions, dataset: Dataset, seed: int) -> nn.Sequential:
    """A network with torch's default initial weights, on the CPU, the same for the same seed.

    Raises:
        InputError: the images do not fit the architecture or the file, or a file has no channels to prune.
    """
    if dataset.tabular and not isinstance(options, OnnxNet | Mlp):
        raise InputError(
            f"architecture {options.architecture!r} is one for images; rows of numbers need 'mlp' or 'onnx'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = list(layers(options, dataset.input_shape, dataset.classes))
    domain = [InputDomain(dataset.space)] if dataset.space != PIXELS else []
    axes = len(dataset.input_shape) - 1
    row = [*domain, *([Normalise(dataset.mean, dataset.std, axes)] if options.normalise else []), *body]
    if isinstance(options, OnnxNet) and options.batch_norm:
        row = insert_batch_norms(row, dataset.train.images[: tuned().training.statistics_images])
    network = nn.Sequential(*row)
    if isinstance(options, OnnxNet) and options.batch_norm and not channel_sites(network):
        raise InputError(
            f"{options.file}: channels and neurons need a convolution or linear layer followed by a ReLU, in a line of "
            "layers with residual additions; there is none, so prune weights"
        )
    return network


@singledispatch
def layers(options: ModelOptions, shape: Shape, classes: int) -> Iterator[nn.Module]:
    """The layers after the normalisation, for inputs of ``shape`` (channels, height, width), or of so many features."""
    raise NotImplementedError(type(options).__name__)


@layers.register
def _(options: OnnxNet, shape: Shape, classes: int) -> Iterator[nn.Module]:
    yield from read_network(options.file, shape, classes)


@layers.register
def _(options: Mlp, shape: Shape, classes: int) -> Iterator[nn.Module]:
    yield nn.Flatten()
    yield from _head(math.prod(shape), options.hidden, classes)


@layers.register
def _(options: ConvNet, shape: Shape, classes: int) -> Iterator[nn.Module]:
    channels, height, width = shape
    for block in options.blocks:
        yield nn.Conv2d(channels, block.channels, block.kernel, block.stride, block.padding)
        if block.batch_norm:
            yield nn.BatchNorm2d(block.channels)
        yield nn.ReLU()
        channels, height, width = block.channels, _reduced(height, block), _reduced(width, block)
        if height < 1 or width < 1:
            raise InputError(f"images of {shape[1]}x{shape[2]} are too small for architecture {options.architecture!r}")
    yield nn.Flatten()
    yield from _head(channels * height * width, options.hidden, classes, options.hidden_batch_norm)


@layers.register
def _(options: PresetNet, shape: Shape, classes: int) -> Iterator[nn.Module]:
    preset = PRESETS[options.architecture]
    widths = options.channels or tuple(block.channels for block in preset.blocks)
    if len(widths) != len(preset.blocks):
        count = len(preset.blocks)
        raise InputError(f"architecture {options.architecture!r} has {count} convolutions, not {len(widths)}")
    blocks = tuple(
        block.model_copy(update={"channels": width}) for block, width in zip(preset.blocks, widths, strict=True)
    )
    hidden = preset.hidden if options.hidden is None else options.hidden
    return layers(preset.model_copy(update={"blocks": blocks, "hidden": hidden}), shape, classes)


@layers.register
def _(options: ResNet, shape: Shape, classes: int) -> Iterator[nn.Module]:
    width = options.width
    yield from _conv_bn(shape[0], width)
    yield nn.ReLU()
    channels = width
    for stage in range(3):
        for index in range((options.depth - 2) // 6):
            stride = 2 if stage > 0 and index == 0 else 1
            yield _basic_block(channels, width << stage, stride)
            yield nn.ReLU()
            channels = width << stage
    yield nn.AdaptiveAvgPool2d(1)
    yield nn.Flatten()
    yield nn.Linear(channels, classes)


@layers.register
def _(options: Vgg, shape: Shape, classes: int) -> Iterator[nn.Module]:
    if min(shape[1:]) < 32:
        raise InputError(f"images of {shape[1]}x{shape[2]} are too small for architecture 'vgg16_bn'; it needs 32x32")
    channels = shape[0]
    for repeats, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
        for _ in range(repeats):
            yield from _conv_bn(channels, options.width * factor)
            yield nn.ReLU()
            channels = options.width * factor
        yield nn.MaxPool2d(2)
    yield nn.Flatten()
    yield nn.Linear(channels * (shape[1] // 32) * (shape[2] // 32), classes)


def _head(features: int, hidden: tuple[int, ...], classes: int, batch_norm: bool = False) -> Iterator[nn.Module]:
    for width in hidden:
        yield nn.Linear(features, width)
        if batch_norm:
            yield nn.BatchNorm1d(width)
        yield nn.ReLU()
        features = width
    yield nn.Linear(features, classes)


def _reduced(size: int, block: Block) -> int:
    return (size + 2 * block.padding - block.kernel) // block.stride + 1


def _conv_bn(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)


def _basic_block(inputs: int, outputs: int, stride: int) -> Residual:
    main = nn.Sequential(*_conv_bn(inputs, outputs, stride), nn.ReLU(), *_conv_bn(outputs, outputs))
    if inputs == outputs and stride == 1:
        return Residual(main, nn.Identity())
    return Residual(main, nn.Sequential(*_conv_bn(inputs, outputs, stride, kernel=1)))
