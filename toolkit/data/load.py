"""Data sets by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolkit.data.dataset import LOADERS, Dataset, some
from toolkit.data.vision import conventional
from toolkit.errors import InputError

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
        raise InputError(f"data.name: no data set {where!r}; known: {', '.join(sorted(LOADERS))}")
    dataset = conventional(replace(loader(data.model_copy(update={"name": where})), name=data.name))
    return dataset if data.train is None else replace(dataset, train=some(dataset.train, data.train))
