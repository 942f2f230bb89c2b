"""Data sets by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.data.dataset import LOADERS, Dataset, some
from toolkit.data.vision import conventional
from toolkit.errors import FieldError

if TYPE_CHECKING:
    from toolkit.recipe import Data


def load_dataset(data: Data) -> Dataset:
    """Loads a data set by its recipe entry.

    Raises:
        InputError: the name is unknown, or its files are missing or malformed.
    """
    where = data.source or data.name
    kind, colon, _ = where.partition(":")
    loader = LOADERS.loaded().get(kind + colon)
    if loader is None:
        known = ", ".join(sorted(name for name in LOADERS if not name.endswith(":")))
        raise FieldError(
            "data.name", f"no data set {where!r}; there are {known}, npz:FILE, csv:FILE and folder:DIRECTORY"
        )
    dataset = replace(loader(data.model_copy(update={"name": where})), name=data.name)
    _check_kind(data, dataset, kind)
    dataset = dataset if dataset.tabular else conventional(dataset)
    dataset = standardised(dataset, data)
    if data.augmentation is not None:
        dataset = replace(dataset, augmentation=data.augmentation)
    return dataset if data.train is None else replace(dataset, train=some(dataset.train, data.train))


ROWS_ALONE = ("radii", "clip", "scale", "label_column", "drop", "test")
"""Keys of a data set's entry that only rows of numbers have."""


def _check_kind(data: Data, dataset: Dataset, kind: str) -> None:
    """Raise InputError for keys that images, or rows of numbers, do not have."""
    if dataset.tabular:
        if data.augmentation not in (None, "none"):
            raise FieldError("data.augmentation", "rows of numbers are not changed at random")
        return
    if data.classes and kind != "folder":
        raise FieldError("data.classes", "only the classes of a folder have names, which are those of its folders")
    wrong = next((key for key in ROWS_ALONE if getattr(data, key)), None)
    if wrong is not None:
        raise FieldError(f"data.{wrong}", "is for rows of numbers (npz:FILE, csv:FILE), and these are images")


def standardised(dataset: Dataset, data: Data) -> Dataset:
    """The data set with the mean and the deviation that its entry gives, one number for all channels or one for each.

    Raises:
        InputError: there are more or fewer numbers than channels.
    """
    channels = dataset.input_shape[0]
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) not in (1, channels):
            raise FieldError(
                f"data.{key}",
                f"{len(values)} numbers for {'rows' if dataset.tabular else 'images'} of {channels} "
                f"{'features' if dataset.tabular else 'channels'}",
            )
    mean, std = (
        own if values is None else values * (channels // len(values))
        for values, own in ((data.mean, dataset.mean), (data.std, dataset.std))
    )
    return replace(dataset, mean=mean, std=std)
