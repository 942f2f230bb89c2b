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
from toolkit.data.rows import IMAGE_SUFFIXES
from toolkit.data.tabular_dataset import load_arrays
from toolkit.errors import FieldError, InputError

if TYPE_CHECKING:
    from toolkit.recipe import Data

GREY_MODES = {"1", "L", "LA"}
"""What the imaging library calls files of shades of grey."""


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
    return assemble(data, train, test)


def assemble(data: Data, train: Split, test: Split) -> Dataset:
    """A data set whose validation split, classes and statistics come from the training images; colour ones are cut out
    and mirrored at random in training."""
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{tuple(train.images.shape[1:])} and {tuple(test.images.shape[1:])}"
        raise FieldError("data.name", f"{data.name}: training and test images differ in shape: {shapes}")
    classes = int(torch.cat([train.labels, test.labels]).max()) + 1
    mean, std = channel_statistics(train.images)
    augmentation = "crop_flip" if train.images.shape[1] == 3 else "none"
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
    """Image files in ``DIRECTORY/train/CLASS/`` and ``DIRECTORY/test/CLASS/``, all of one size: of one channel where
    all of them are grey, else of three.

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
    train, test = (_labelled_files(root / part, classes) for part in ("train", "test"))
    images = [_read_image(file) for file, _ in (*train, *test)]
    pixels = torch.from_numpy(_stacked(images, [file for file, _ in (*train, *test)])).float() / 255
    parts = zip(pixels.split([len(train), len(test)]), (train, test), strict=True)
    splits = [Split(values, torch.tensor([label for _, label in pairs])) for values, pairs in parts]
    return assemble(data, *splits)


def _labelled_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The images in the folders of the classes with their class numbers, one of each class in turn."""
    groups = [
        [(file, label) for file in sorted((folder / name).glob("*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        for label, name in enumerate(classes)
    ]
    files = [pair for turn in zip_longest(*groups) for pair in turn if pair is not None]
    if not files:
        raise InputError(f"{folder}: no images in sub-folders, one for each class ({', '.join(classes) or 'none'})")
    return files


def _stacked(images: list[NDArray[np.uint8]], files: list[Path]) -> NDArray[np.uint8]:
    """Images ``(N, C, H, W)`` of one size, grey ones with three channels where others are in colour."""
    for file, image in zip(files, images, strict=True):
        if image.shape[:2] != images[0].shape[:2]:
            raise InputError(
                f"{file}: {image.shape[1]}x{image.shape[0]} pixels, and {files[0]} has "
                f"{images[0].shape[1]}x{images[0].shape[0]}; all images need one size"
            )
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[:, None]
    return np.stack([image if image.ndim == 3 else np.stack([image] * 3, 2) for image in images]).transpose(0, 3, 1, 2)


def _read_image(path: Path) -> NDArray[np.uint8]:
    """One image, ``(H, W)`` of a grey file, else ``(H, W, 3)``."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: cannot read the image: {error}") from error
