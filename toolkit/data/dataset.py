"""What a data set is: three splits of tensors in memory, and the registry of data sets by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from toolkit.data.input_space import PIXELS, InputSpace
from toolkit.registry import Registry

if TYPE_CHECKING:
    from toolkit.recipe import Data


@dataclass(frozen=True)
class Split:
    """Images ``(N, C, H, W)`` float32 in [0, 1], or rows of numbers ``(N, n)``, and labels ``(N,)`` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all images and labels, in hexadecimal digits."""
        tensors = (self.images, self.labels)
        state = hashlib.sha256(json.dumps([tuple(tensor.shape) for tensor in tensors]).encode())
        for tensor in tensors:
            state.update(tensor.contiguous().cpu().numpy().data)
        return state.hexdigest()

    def to(self, device: torch.device | str) -> Split:
        """Move images and labels to another device."""
        return Split(self.images.to(device), self.labels.to(device))

    def first(self, count: int) -> Split:
        """The first ``count`` images."""
        return Split(self.images[:count], self.labels[:count])

    def of_class(self, label: int) -> Split:
        """The images with this label."""
        chosen = self.labels == label
        return Split(self.images[chosen], self.labels[chosen])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels in order, at most ``size`` at a time, channels last in memory."""
        return zip(map(channels_last, self.images.split(size)), self.labels.split(size), strict=True)


def channels_last(images: Tensor) -> Tensor:
    """Images ``(N, C, H, W)`` with the channels of a pixel side by side in memory, other tensors as they are.

    Layers keep the order of their input. Convolutions of a few channels are up to four times as fast in this one.
    """
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits and what a model needs to know about them."""

    name: str
    train: Split
    validation: Split
    """Held out of training, for scores and choices; may be empty."""
    test: Split
    classes: int
    mean: tuple[float, ...]
    """Per channel of the [0, 1] images, or per feature; the model's first layer subtracts it."""
    std: tuple[float, ...]
    augmentation: str = "none"
    space: InputSpace = PIXELS

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image; of rows the number of features."""
        return tuple(self.train.images.shape[1:])

    @property
    def tabular(self) -> bool:
        """Whether its inputs are rows of numbers and no images."""
        return len(self.input_shape) == 1

    @cached_property
    def digest(self) -> str:
        """Hash of everything that training can see of it, 16 hexadecimal digits."""
        tensors = (self.train.images, self.train.labels, self.validation.images, self.validation.labels)
        shapes = [tuple(tensor.shape) for tensor in tensors]
        facts = [self.classes, self.mean, self.std, self.augmentation, asdict(self.space), shapes]
        state = hashlib.sha256(json.dumps(facts).encode())
        for tensor in tensors:
            state.update(tensor.contiguous().numpy().data)
        return state.hexdigest()[:16]


Loader = Callable[["Data"], Dataset]
LOADERS: Registry[str, Loader] = Registry("data set", folder="toolkit.data")
register = LOADERS.register
"""Makes a loader known under some names, or under prefixes that end in a colon and precede a path."""


def some(split: Split, count: int, seed: int = 0) -> Split:
    """Randomly chosen images, the same for every run; a smaller choice is part of a larger one."""
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:count]
    return Split(split.images[chosen], split.labels[chosen])


def hold_out(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split]:
    """A random division into training and validation images, the same for every run."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    count = round(fraction * len(split))
    rest, held = order[count:], order[:count]
    return Split(split.images[rest], split.labels[rest]), Split(split.images[held], split.labels[held])


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, rounded to four digits so that they read well in the exported net."""
    flat = images.transpose(0, 1).flatten(1)
    mean, std = flat.mean(1), flat.std(1).clamp_min(1e-3)
    return tuple(round(value, 4) for value in mean.tolist()), tuple(round(value, 4) for value in std.tolist())
