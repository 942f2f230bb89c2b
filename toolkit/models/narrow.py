"""Dense networks of the same architecture with fewer parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from toolkit.data.dataset import Dataset
from toolkit.errors import FieldError
from toolkit.models.architecture_options import ConvNet, Mlp, ModelOptions, OnnxNet, PresetNet, ResNet, Vgg
from toolkit.models.build import PRESETS, build_model


def narrowed(options: ModelOptions, dataset: Dataset, parameters: int) -> ModelOptions:
    """The architecture with all widths scaled by one factor, so that it has as nearly so many parameters as it can.

    Raises:
        InputError: the network is a file, whose widths are what they are.
    """
    low, high = 0.0, 1.0
    for _ in range(12):  # after which the factors differ by less than one channel of thousands
        middle = (low + high) / 2
        low, high = (middle, high) if _count(scaled(options, middle), dataset) <= parameters else (low, middle)
    return min(
        (scaled(options, low), scaled(options, high)), key=lambda found: abs(_count(found, dataset) - parameters)
    )


def _count(options: ModelOptions, dataset: Dataset) -> int:
    return sum(parameter.numel() for parameter in build_model(options, dataset, 0).parameters())


@singledispatch
def scaled(options: ModelOptions, factor: float) -> ModelOptions:
    """The architecture with its widths multiplied by a factor, each at least 1; one implementation for each type."""
    raise NotImplementedError(type(options).__name__)


def _widths(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(max(1, round(width * factor)) for width in widths)


@scaled.register
def _(options: ConvNet, factor: float) -> ModelOptions:
    channels = _widths([block.channels for block in options.blocks], factor)
    pairs = zip(options.blocks, channels, strict=True)
    blocks = tuple(block.model_copy(update={"channels": width}) for block, width in pairs)
    return options.model_copy(update={"blocks": blocks, "hidden": _widths(options.hidden, factor)})


@scaled.register
def _(options: PresetNet, factor: float) -> ModelOptions:
    preset = PRESETS[options.architecture]
    channels = options.channels or tuple(block.channels for block in preset.blocks)
    hidden = preset.hidden if options.hidden is None else options.hidden
    return options.model_copy(update={"channels": _widths(channels, factor), "hidden": _widths(hidden, factor)})


@scaled.register
def _(options: Mlp, factor: float) -> ModelOptions:
    return options.model_copy(update={"hidden": _widths(options.hidden, factor)})


@scaled.register
def _(options: ResNet | Vgg, factor: float) -> ModelOptions:
    return options.model_copy(update={"width": max(1, round(options.width * factor))})


@scaled.register
def _(options: OnnxNet, factor: float) -> ModelOptions:
    raise FieldError("chains.controls", f"{options.file} is a file, which has no narrow version; leave out 'narrow'")
