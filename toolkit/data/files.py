"""The user's own data: images of ``npz:FILE`` and ``folder:DIRECTORY``, and rows of ``npz:FILE``."""

from __future__ import annotations

import zipfile
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.data.dataset import Dataset, Split, channel_statistics, hold_out, register
from toolkit.data.tabular_dataset import load_arrays
from toolkit.errors import FieldError, InputError

if TYPE_CHECKING:
    from toolkit.recipe import Data

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".webp"}


@register("npz:")
def load_npz(data: Data) -> Dataset:
    """Arrays x_train, y_train, x_test, y_test; images uint8, or floats in [0, 1], of shape (N, H, W), (N, H, W, C) or
    (N, C, H, W); or rows of numbers (N, n)."""
    path = data.base / data.name.partition(":")[2]
    try:
        arrays = np.load(path)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: not an npz file of named arrays")
        with arrays:
            if any(name in arrays and arrays[name].ndim == 2 for name in ("x_train", "x_test")):
                return load_arrays(data, path)
            train, test = (_npz_split(arrays, part, path) for part in ("train", "test"))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot read the data set: {error}") from error
    return assemble(data, train, test, "crop_flip" if train.images.shape[1] == 3 else "none")


def assemble(data: Data, train: Split, test: Split, augmentation: str) -> Dataset:
    """A data set whose validation split, classes and statistics come from the training images."""
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{tuple(train.images.shape[1:])} and {tuple(test.images.shape[1:])}"
        raise FieldError("data.name", f"{data.name}: training and test images differ in shape: {shapes}")
    classes = int(torch.cat([train.labels, test.labels]).max()) + 1
    mean, std = channel_statistics(train.images)
    train, validation = hold_out(train, data.validation)
    return Dataset(data.name, train, validation, test, classes, mean, std, augmentation)


def _npz_split(arrays: Any, part: str, path: Path) -> Split:
    for key in (f"x_{part}", f"y_{part}"):
        if key not in arrays:
            raise InputError(f"{path}: no array {key!r}; needed: x_train, y_train, x_test, y_test")
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if labels.shape != images.shape[:1] or len(labels) == 0 or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(f"{path}: y_{part} is not one class number for each of the {len(images)} images")
    pixels = _unit_pixels(_channels_first(images, f"{path}: x_{part}"), f"{path}: x_{part}")
    return Split(pixels, torch.from_numpy(labels.astype(np.int64)))


def _unit_pixels(images: NDArray[Any], where: str) -> Tensor:
    """Pixels in [0, 1] of whole numbers of eight bits, or of floats that are there already."""
    if images.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    if images.dtype.kind != "f":
        raise InputError(f"{where} has type {images.dtype}; images are uint8, 0 to 255, or floats in [0, 1]")
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not (low >= 0 and high <= 1):  # true of NaN
        raise InputError(
            f"{where} has values from {low:.4g} to {high:.4g}; floats have to be in [0, 1]: undo what standardised or "
            "scaled them, and name the mean and the deviation that the network wants"
        )
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _channels_first(images: NDArray[Any], where: str) -> NDArray[Any]:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] in (1, 3, 4):
        return images.transpose(0, 3, 1, 2)
    if images.ndim == 4:
        return images
    raise InputError(f"{where} has shape {images.shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W)")


@register("folder:")
def load_folder(data: Data) -> Dataset:
    """Image files in ``DIRECTORY/train/CLASS/`` and ``DIRECTORY/test/CLASS/``, all of one size.

    One of each class in turn: the first test images, which are those that are verified, are of all classes.
    """
    root = data.base / data.name.partition(":")[2]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; it holds train/CLASS/ and test/CLASS/")
    missing = [part for part in ("train", "test") if not (root / part).is_dir()]
    if missing:
        raise InputError(
            f"{root}: no folder {missing[0]}/ in it; images to train on have to be in train/CLASS/, others in "
            "test/CLASS/"
        )
    found = sorted(folder.name for folder in root.glob("train/*") if folder.is_dir())
    classes = list(data.classes) or found
    if sorted(classes) != found:
        raise FieldError(
            "data.classes", f"{', '.join(classes)} are not the classes of {root / 'train'}: {', '.join(found)}"
        )
    train, test = (_folder_split(root / part, classes) for part in ("train", "test"))
    return assemble(data, train, test, "crop_flip")


def _folder_split(folder: Path, classes: list[str]) -> Split:
    groups = [
        [(file, label) for file in sorted((folder / name).glob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        for label, name in enumerate(classes)
    ]
    files = [pair for turn in zip_longest(*groups) for pair in turn if pair is not None]
    if not files:
        raise InputError(f"{folder}: no images in sub-folders, one for each class ({', '.join(classes) or 'none'})")
    images = [_read_image(file) for file, _ in files]
    for (file, _), image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{file}: shape {image.shape} differs from {images[0].shape}; all images need one size")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Split(pixels.float() / 255, torch.tensor([label for _, label in files]))


def _read_image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: cannot read the image: {error}") from error
