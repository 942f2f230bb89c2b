"""Which network to build, as written in a recipe; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from toolkit.formats.onnx.model_file import load_proto
from toolkit.options import RecipeRecord, shorthand

PresetName = Literal["paper7", "cnn_7layer_bn", "cnn_b", "cifar_small", "digits_conv"]


class Block(RecipeRecord):
    """One convolution block: convolution, batch normalisation (optional), ReLU."""

    channels: PositiveInt
    kernel: PositiveInt = 3
    stride: PositiveInt = 1
    padding: Annotated[int, Field(ge=0)] = 1
    batch_norm: bool = True


class ConvNet(RecipeRecord):
    """Convolution blocks, then fully connected layers with ReLU, then the classifier."""

    architecture: Literal["conv"] = "conv"
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    hidden: tuple[PositiveInt, ...] = ()
    hidden_batch_norm: bool = False
    """Batch normalisation after the fully connected layers, too, but for the classifier."""
    normalise: bool = True


class PresetNet(RecipeRecord):
    """A named convolution net of the literature, with its widths as arguments.

    ``channels`` and ``hidden`` replace the preset's own widths; the kernels and strides stay.
    """

    architecture: PresetName
    channels: tuple[PositiveInt, ...] | None = None
    hidden: tuple[PositiveInt, ...] | None = None
    normalise: bool = True


class Mlp(RecipeRecord):
    """Fully connected layers with ReLU between them."""

    architecture: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (48, 48)
    normalise: bool = True


class ResNet(RecipeRecord):
    """CIFAR residual net of 6n + 2 layers with basic blocks (He et al., CVPR 2016, section 4.2)."""

    architecture: Literal["resnet"] = "resnet"
    depth: Annotated[int, Field(ge=8)] = 20
    width: PositiveInt = 16
    normalise: bool = True

    @model_validator(mode="after")
    def _check_depth(self) -> ResNet:
        if (self.depth - 2) % 6:
            raise ValueError(f"the depth of a residual net is 6n + 2 (8, 14, 20, ...), not {self.depth}")
        return self


class Vgg(RecipeRecord):
    """VGG16 with batch normalisation and one fully connected layer, for inputs of at least 32x32."""

    architecture: Literal["vgg16_bn"] = "vgg16_bn"
    width: PositiveInt = 64
    normalise: bool = True


class OnnxNet(RecipeRecord):
    """A trained network of one's own: the dense network of its chains, as it is in the file."""

    architecture: Literal["onnx"] = "onnx"
    file: Path
    """The network, ``.onnx`` or ``.onnx.gz``; a relative path starts at the recipe's folder."""
    batch_norm: bool = False
    """Insert batch normalisation, without effect at first, between convolutions or linear layers and ReLUs: pruning
    of channels and neurons needs it, and an export folds it away."""
    normalise: bool = False
    """Put the data set's normalisation before the network."""


ModelOptions = Annotated[
    ConvNet | PresetNet | Mlp | ResNet | Vgg | OnnxNet, Field(discriminator="architecture"), shorthand("architecture")
]


def identity(options: ModelOptions) -> dict[str, Any]:
    """Everything that tells networks apart; a file counts by its content, with weights that it keeps elsewhere.

    Raises:
        InputError: the file cannot be read.
        UnsupportedError: it is no network of tensors.
    """
    values: dict[str, Any] = options.model_dump(mode="json")
    if isinstance(options, OnnxNet):
        values["file"] = load_proto(options.file).sha256
    return values
