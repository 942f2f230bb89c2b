"""Data sets of torchvision, downloaded once, with the normalisation and augmentation of the paper (section 4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolkit.data.dataset import Dataset, Split, hold_out, register
from toolkit.errors import FieldError, InputError

if TYPE_CHECKING:
    from toolkit.recipe import Data


@dataclass(frozen=True)
class VisionSource:
    """A torchvision class and how the literature treats its images."""

    constructor: str
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str


SOURCES = {
    "mnist": VisionSource("MNIST", 10, (0.1307,), (0.3081,), "none"),
    "fashion_mnist": VisionSource("FashionMNIST", 10, (0.286,), (0.315,), "crop_flip"),
    "cifar10": VisionSource("CIFAR10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "crop_flip"),
    "cifar100": VisionSource("CIFAR100", 100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), "crop_flip"),
    "svhn": VisionSource("SVHN", 10, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "crop"),
}


def conventional(dataset: Dataset) -> Dataset:
    """The data set with the classes, normalisation and augmentation that its name stands for, if it is known here.

    Raises:
        InputError: its images have another number of channels than those of that name.
    """
    source = SOURCES.get(dataset.name)
    if source is None:
        return dataset
    channels = dataset.input_shape[0]
    if channels != len(source.mean):
        raise FieldError("data.source", f"{dataset.name} has {len(source.mean)} channels, these images have {channels}")
    return replace(dataset, classes=source.classes, mean=source.mean, std=source.std, augmentation=source.augmentation)


@register(*SOURCES)
def load_vision(data: Data) -> Dataset:
    """MNIST, FashionMNIST, CIFAR-10, CIFAR-100 or SVHN from ``data.root``."""
    source = SOURCES[data.name]
    train, validation = hold_out(_load_split(data, source, train=True), data.validation)
    test = _load_split(data, source, train=False)
    return Dataset(data.name, train, validation, test, source.classes, source.mean, source.std, source.augmentation)


def _load_split(data: Data, source: VisionSource, *, train: bool) -> Split:
    import torchvision

    constructor = getattr(torchvision.datasets, source.constructor)
    part: dict[str, Any] = {"split": "train" if train else "test"} if data.name == "svhn" else {"train": train}
    try:
        raw = constructor(root=str(data.root), download=data.download, **part)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"data.name: {data.name} is not in {data.root} and cannot be fetched ({reason}); put its files there"
        ) from error
    return _to_split(raw)


def _to_split(raw: Any) -> Split:
    pixels = torch.as_tensor(np.asarray(raw.data))
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[-1] == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = getattr(raw, "targets", None)
    labels = raw.labels if labels is None else labels
    return Split(pixels.contiguous().float() / 255, torch.as_tensor(np.asarray(labels), dtype=torch.int64))
