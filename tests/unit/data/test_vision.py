"""Data sets of torchvision, read from files in their own formats, with what the paper does to them."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from scipy.io import savemat

from toolkit.data.load import load_dataset
from toolkit.recipe import Data

RNG = np.random.default_rng(0)
Part = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images ``(N, C, H, W)`` and labels."""


def noise(count: int, channels: int, size: int, classes: int) -> Part:
    images = RNG.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    return images, np.arange(count) % classes


def write_idx(folder: str) -> Callable[[Path, Part, Part], None]:
    """Files of MNIST and FashionMNIST: big-endian sizes, then bytes."""

    def write(root: Path, train: Part, test: Part) -> None:
        raw = root / folder / "raw"
        raw.mkdir(parents=True)
        for name, (images, labels) in (("train", train), ("t10k", test)):
            head = struct.pack(">IIII", 0x803, len(images), *images.shape[2:])
            (raw / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
            (raw / f"{name}-labels-idx1-ubyte").write_bytes(
                struct.pack(">II", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()
            )

    return write


def write_cifar10(root: Path, train: Part, test: Part) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    parts = zip(np.array_split(train[0], 5), np.array_split(train[1], 5), strict=True)
    batches = {f"data_batch_{number}": part for number, part in enumerate(parts, 1)} | {"test_batch": test}
    for name, (images, labels) in batches.items():
        entry = {"data": images.reshape(len(images), -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def write_cifar100(root: Path, train: Part, test: Part) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir()
    for name, (images, labels) in (("train", train), ("test", test)):
        entry = {"data": images.reshape(len(images), -1), "fine_labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(number) for number in range(100)]}))


def write_svhn(root: Path, train: Part, test: Part) -> None:
    """Matlab files with the digit zero as class 10."""
    for name, (images, labels) in (("train", train), ("test", test)):
        classes = np.where(labels == 0, 10, labels).reshape(-1, 1)
        savemat(root / f"{name}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": classes.astype(np.uint8)})


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision takes files whose checksums are not those of the originals."""
    for source in (torchvision.datasets.CIFAR10, torchvision.datasets.SVHN):
        monkeypatch.setattr(source, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_load_meta", lambda self: None)


# Mean and deviation of each channel, and augmentation, are those of the paper's code (FashionMNIST: of its training).
@pytest.mark.parametrize(
    ("name", "write", "shape", "classes", "mean", "std", "augmentation"),
    [
        ("mnist", write_idx("MNIST"), (1, 28), 10, (0.1307,), (0.3081,), "none"),
        ("fashion_mnist", write_idx("FashionMNIST"), (1, 28), 10, (0.286,), (0.315,), "crop_flip"),
        ("cifar10", write_cifar10, (3, 32), 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "crop_flip"),
        ("cifar100", write_cifar100, (3, 32), 100, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762), "crop_flip"),
        ("svhn", write_svhn, (3, 32), 10, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "crop"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_files_in_the_formats_of_their_makers(
    tmp_path: Path, name: str, write: Any, shape: tuple[int, int], classes: int, mean: Any, std: Any, augmentation: str
) -> None:
    train, test = noise(40, *shape, classes), noise(12, *shape, classes)
    write(tmp_path, train, test)
    dataset = load_dataset(Data(name=name, root=tmp_path, download=False, validation=0.25))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (30, 10, 12)
    assert torch.equal(dataset.test.images, torch.from_numpy(test[0]).float() / 255)
    assert dataset.test.labels.tolist() == test[1].tolist()
    assert (dataset.classes, dataset.mean, dataset.std, dataset.augmentation) == (classes, mean, std, augmentation)
    together = torch.cat([dataset.train.images, dataset.validation.images]).flatten(1)
    wanted = torch.from_numpy(train[0]).flatten(1).float() / 255
    assert torch.equal(together.sum(1).sort().values, wanted.sum(1).sort().values)


@pytest.mark.usefixtures("unchecked")
def test_without_validation_all_images_are_trained_on(tmp_path: Path) -> None:
    write_svhn(tmp_path, noise(40, 3, 32, 10), noise(12, 3, 32, 10))
    dataset = load_dataset(Data(name="svhn", root=tmp_path, download=False, validation=0.0))
    assert (len(dataset.train), len(dataset.validation)) == (40, 0)
