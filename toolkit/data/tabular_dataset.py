"""The user's own rows of numbers: ``csv:FILE``, and ``npz:FILE`` whose arrays have two dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.data.dataset import Dataset, Split, hold_out, register
from toolkit.data.input_space import OPEN, InputSpace
from toolkit.data.rows import DataRows, RowSource, class_numbers, in_order, read_rows, whole_range
from toolkit.errors import FieldError, InputError

if TYPE_CHECKING:
    from toolkit.recipe import Data

TEST_SHARE = 0.25
"""Part of each class of a table that is kept for tests where no table of tests is given."""
MOST_CLASSES = 2**31
"""Where numbers of classes end; larger labels are none."""
SPLIT_SEED = 0
"""Seed of that split: every run tests on the same rows, whatever the seed of the experiment."""


@register("csv:")
def load_table(data: Data) -> Dataset:
    """A table with a header and a column of labels; a quarter of each class is for tests unless ``test`` has them."""
    path = data.base / data.name.partition(":")[2]
    rows = _read(str(path), data)
    if data.test is None:
        return _assembled(data, rows, None)
    test = in_order(_read(str(data.base / data.test), data), rows.features)
    if test.features != rows.features:
        missing = ", ".join(sorted(set(rows.features) ^ set(test.features)))
        raise FieldError("data.test", f"{data.test} and {path} differ in their columns of features ({missing[:200]})")
    return _assembled(data, rows, test)


def load_arrays(data: Data, path: Path) -> Dataset:
    """Arrays x_train and x_test ``(N, n)`` of numbers with labels y_train and y_test."""
    if data.test is not None:
        raise FieldError("data.test", f"{path} has its own test rows, x_test")
    train, test = (_read(f"{path}:x_{part}", data) for part in ("train", "test"))
    return _assembled(data, train, test)


def _read(place: str, data: Data) -> DataRows:
    """All rows of a file, with labels. Raises InputError."""
    rows = read_rows(RowSource(place, ":", None, data.label_column, data.drop, unlabelled=False), -1)
    if rows.labels is None:
        raise InputError(f"{place}: no labels beside it; needed: x_train, y_train, x_test, y_test")
    if rows.values.ndim != 2:
        raise InputError(f"{place}: has shape {rows.values.shape}; rows of numbers are (N, n) in both parts")
    if not rows.values.size:
        raise InputError(f"{place}: no features in it")
    return rows


def _assembled(data: Data, train: DataRows, test: DataRows | None) -> Dataset:
    """The data set of rows; without rows for tests some are taken from those to train on."""
    parts = {"rows to train on": train} | ({} if test is None else {"test rows": test})
    names = data.classes or tuple(sorted({name for rows in parts.values() for name in rows.class_names}))
    scale, low, high = _units(data, all(rows.pixels for rows in parts.values()))
    splits = []
    for part, rows in parts.items():
        try:
            splits.append(_split(rows, names, scale, (low, high)))
        except InputError as error:
            raise InputError(f"{data.name}, {part}: {error}") from None
    features = splits[0].images.shape[1]
    if splits[-1].images.shape[1] != features:
        raise InputError(f"{data.name}: {features} features to train on and {splits[-1].images.shape[1]} in tests")
    if len(data.radii) not in (0, features):
        count = len(data.radii)
        raise FieldError("data.radii", f"{count} numbers; one is needed, or one for each of {features} features")
    learnt, tested = splits if test is not None else _divided(splits[0], data.name)
    _check_classes(learnt, data.name)
    classes = len(names) or 1 + max(int(split.labels.max()) for split in splits)
    mean, std = _statistics(learnt.images)
    learnt, validation = hold_out(learnt, data.validation)
    space = InputSpace(low, high, data.radii)
    return Dataset(data.name, learnt, validation, tested, classes, mean, std, space=space)


def _units(data: Data, eight_bits: bool) -> tuple[float, float, float]:
    """What values are divided by, and the range that they are in then, in single precision."""
    scale = data.scale or (255.0 if eight_bits else 1.0)
    given = data.clip or ((0.0, 255.0 / scale) if eight_bits else (-OPEN, OPEN))
    low, high = (float(np.float32(min(max(edge, -OPEN), OPEN))) for edge in given)
    if not low < high:
        raise FieldError("data.clip", f"{low:g} {high:g}: the first number must be below the second")
    return scale, low, high


def _split(rows: DataRows, names: tuple[str, ...], scale: float, limits: tuple[float, float]) -> Split:
    """Rows and class numbers in single precision. Raises InputError."""
    assert rows.labels is not None
    with np.errstate(over="ignore"):
        values = (rows.values.astype(np.float64) / scale).astype(np.float32)
    _check_values(rows, values, limits)
    least, most = whole_range(rows.labels)
    if not names and not 0 <= least <= most < MOST_CLASSES:
        wrong = least if least < 0 else most
        raise InputError(f"a label is {wrong}; classes are counted from 0, unless --classes names them in order")
    count = len(names) or most + 1
    return Split(torch.from_numpy(values), torch.from_numpy(class_numbers(rows.labels, rows, names, count)))


def _check_values(rows: DataRows, values: NDArray[np.float32], limits: tuple[float, float]) -> None:
    """Raise InputError for numbers that are not finite in single precision, or not within the limits."""
    low, high = limits
    for wrong, problem in (
        (~np.isfinite(values), "is not finite in single precision; leave the row out, or look at --scale"),
        ((values < low) | (values > high), f"is not between {low:g} and {high:g} (--clip, after --scale)"),
    ):
        if wrong.any():
            row, column = np.argwhere(wrong)[0].tolist()
            name = rows.features[column] if rows.features else column
            raise InputError(f"row {row}, feature {name}: {rows.values[row, column]:g} {problem}")


def _divided(split: Split, name: str) -> tuple[Split, Split]:
    """Rows to train on and rows for tests, of each class its part, in random order."""
    generator = np.random.default_rng(SPLIT_SEED)
    order, labels = generator.permutation(len(split)), split.labels.numpy()
    tested = np.zeros(len(split), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        tested[members[: round(TEST_SHARE * len(members))]] = True
    if not tested.any():
        raise InputError(f"{name}: no class has three rows, so that one could be kept for tests; add --test FILE")
    learnt, kept = order[~tested[order]], order[tested[order]]
    return Split(split.images[learnt], split.labels[learnt]), Split(split.images[kept], split.labels[kept])


def _check_classes(split: Split, name: str) -> None:
    if len(split.labels.unique()) < 2:
        raise InputError(f"{name}: its {len(split)} rows to train on have one class only; two are needed")


def _statistics(rows: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each feature, as scikit-learn's ``StandardScaler``: 1 where it is constant."""
    wide = rows.double()
    mean, std = wide.mean(0), wide.std(0, unbiased=False)
    rounding = len(rows) * torch.finfo(wide.dtype).eps * mean.abs()
    std = torch.where(std > rounding, std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())
