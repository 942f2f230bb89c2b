"""Rows of a user's own data with their labels: arrays, tables, folders of images, data sets by name.

Values are as they are stored; `toolkit.data.row_units` brings them into the units of a network. Needs no torch but for
data sets by name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.formats.points import read_array, readable, split_place

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".webp"})
PREDICTED = "predicted"
"""In place of labels: what the network itself answers."""
MEASURED = "of a regressor, `prunecert spec output-range` asks how far an output can move around an input"
"""What to do with a network that has no classes."""
LABEL_COLUMNS = ("label", "class", "target", "y", "species")
"""Names under which the column of labels is looked for."""
LABEL_KEYS = (
    ("x", "y"),
    ("X", "y"),
    ("images", "labels"),
    ("image", "label"),
    ("data", "target"),
    ("inputs", "targets"),
)
"""Beginnings of the name of an array of inputs, and what stands in their place in that of its labels."""


@dataclass(frozen=True)
class RowSource:
    """Where rows and labels are, and which of them are meant."""

    data: str
    """FILE.npy, FILE.npz:KEY, FILE.csv, a folder of images, or the name of a data set."""
    rows: str | None = None
    """``N``, ``A:B`` or ``A:B:STEP``, as in Python; without it up to ``most`` of them, evenly spread."""
    labels: str | None = None
    """A file of labels, ``FILE.npz:KEY``, or ``predicted``."""
    label_column: str | None = None
    """Column of a table that has the labels."""
    drop: tuple[str, ...] = ()
    """Columns of a table that are neither features nor labels."""
    most: int = 100
    """Rows that are taken where ``rows`` does not say which."""
    unlabelled: bool = True
    """Whether rows without labels are of use, too."""

    def chosen(self, count: int) -> range:
        """Numbers of the chosen rows of ``count``. Raises InputError where there are none."""
        every = range(count)
        if not every:
            raise InputError(f"{self.data}: no rows in it")
        if self.rows is None:
            return every[:: max(1, -(-count // self.most))]
        try:
            parts = [int(part) if part.strip() else None for part in self.rows.split(":")]
            found = every[slice(*parts)] if len(parts) > 1 else every[parts[0] : parts[0] + 1]  # type: ignore[operator]
        except (ValueError, TypeError):
            raise InputError(f"--rows {self.rows}: expected a number, A:B or A:B:STEP") from None
        if not found:
            raise InputError(f"--rows {self.rows}: no rows; {self.data} has {count}, counted from 0")
        return found


@dataclass(frozen=True, eq=False)
class DataRows:
    """The chosen rows of a user's data with their labels, in the units in which they are stored."""

    values: NDArray[Any]
    """``(N, ...)``: features, or images as ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``."""
    labels: NDArray[Any] | None
    """``(N,)`` class numbers or names; None where there are none."""
    numbers: range
    """Number of each row in the data, counted from 0."""
    total: int
    """Number of rows that the data has, chosen or not."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in their order, where the data has one."""
    features: tuple[str, ...] = ()
    """Names of the features in their order, of a table."""
    label_column: str = ""
    """Column of a table that was taken for the labels although its name does not say so."""
    pixels: bool = field(default=False)
    """Whether values are known to be pixels: between 0 and 255 in whole numbers, or else between 0 and 1."""

    def __len__(self) -> int:
        return len(self.values)


def read_rows(source: RowSource, size: int) -> DataRows:
    """The chosen rows, for a network of ``size`` inputs, which tells grey images from colour. Raises InputError."""
    path, key = split_place(source.data)
    rows = _reader(path)(source, path, key, size)
    if source.labels == PREDICTED:
        return replace(rows, labels=None)
    if source.labels is not None:
        every = _read_labels(source.labels, rows)
        labels = every[list(rows.numbers)] if len(every) == rows.total else every
        return replace(rows, labels=labels, class_names=rows.class_names or _sorted_names(every))
    return rows


Reader = Callable[[RowSource, Path, str, int], DataRows]


def _reader(path: Path) -> Reader:
    """How a place is read, by its suffix; a folder is one of images, and what is no path a data set's name."""
    by_suffix: dict[str, Reader] = {".npy": _from_array, ".npz": _from_array, ".csv": _from_table}
    if str(path).startswith(("npz:", "folder:")):  # as recipes write it
        return _from_data_set
    if path.suffix.lower() in by_suffix:
        return by_suffix[path.suffix.lower()]
    return _from_folder if path.is_dir() else _from_data_set


def _from_array(source: RowSource, path: Path, key: str, size: int) -> DataRows:
    """An array of rows, and of an archive the labels beside it."""
    with readable(path):
        names = _names(path)
        key = key or next((first for first, _ in _label_pairs(names)), "")
        values = read_array(path, key)
        partner = dict(_label_pairs(names)).get(key)
        labels = None if partner is None else read_array(path, partner)
    if values.dtype.kind not in "fiub" or not values.ndim:
        raise InputError(f"{source.data}: an array of {values.dtype} and shape {values.shape}, not rows of numbers")
    if values.size == size and (values.ndim == 1 or values.shape[0] != 1):
        values = values[None]  # one row without a dimension for rows
    chosen = source.chosen(len(values))
    if labels is not None and labels.shape[:1] != values.shape[:1]:
        raise InputError(f"{path}: {partner} has {len(np.atleast_1d(labels))} labels, {key} has {len(values)} rows")
    picked = values[chosen.start : chosen.stop : chosen.step]
    own = None if labels is None else _one_each(labels, f"{path}:{partner}")
    named = () if own is None else _sorted_names(own)
    own = None if own is None else own[list(chosen)]
    return DataRows(picked, own, chosen, len(values), named, pixels=values.dtype == np.uint8)


def _sorted_names(labels: NDArray[Any]) -> tuple[str, ...]:
    """The names among labels in alphabetical order; none where labels are numbers."""
    names = tuple(sorted({_text(label) for label in labels.tolist()})) if labels.dtype.kind in "US" else ()
    return () if all(_is_number(name) for name in names) else names


def _names(path: Path) -> list[str]:
    """Names of the arrays of an archive; none of a file of one array."""
    if path.suffix.lower() != ".npz":
        return []
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return []
    with loaded:
        return list(loaded.files)


def _label_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Arrays of an archive with those of their labels; those of a test set come first."""
    pairs = [
        (name, label + name[len(value) :])
        for value, label in LABEL_KEYS
        for name in names
        if name.startswith(value) and label + name[len(value) :] in names
    ]
    return sorted(pairs, key=lambda pair: "test" not in pair[0])


def _from_table(source: RowSource, path: Path, key: str, size: int) -> DataRows:
    """A table with a header: one column of labels, the others features in their order.

    A column without a name numbers the rows, as pandas writes it, and is no feature.
    """
    with readable(path), path.open(newline="", encoding="utf-8-sig") as file:
        delimiter = _delimiter(file.readline())
        file.seek(0)
        lines = [line for line in csv.reader(file, skipinitialspace=True, delimiter=delimiter) if line]
    if len(lines) < 2:
        raise InputError(f"{path}: no rows below a header")
    header, body = [name.strip() for name in lines[0]], lines[1:]
    if _looks_like_row(header, body):
        raise InputError(
            f"{path}: its first line, {_some(header)[:80]}, is a row of numbers; a header with the names of "
            "the columns is needed above it"
        )
    label = _label_column(source, path, header)
    supposed = _words_alone(source, header, body, size) if label is None and source.labels is None else None
    if supposed is not None:
        label = supposed
    elif label is None and source.labels is None:
        raise InputError(
            f"{path}: no column that is plainly the label; add --label-column NAME, one of {_some(header)}"
            f"{', or --labels predicted' if source.unlabelled else ''}"
        )
    unknown = [name for name in source.drop if name not in header]
    if unknown:
        raise InputError(f"--drop {unknown[0]}: {path} has the columns {', '.join(header)}")
    features = [k for k, name in enumerate(header) if name and name not in source.drop and k != label]
    chosen = source.chosen(len(body))
    values = np.empty((len(chosen), len(features)))
    for row, number in zip(values, chosen, strict=True):
        row[:] = _numbers(path, header, body[number], features, number)
    labels = None if label is None else np.array([body[number][label].strip() for number in chosen])
    every = () if label is None else tuple(sorted({line[label].strip() for line in body if len(line) > label}))
    named = () if all(_is_number(name) for name in every) else every
    name = "" if supposed is None else header[supposed]
    return DataRows(values, labels, chosen, len(body), named, tuple(header[k] for k in features), name)


def _delimiter(header: str) -> str:
    """What stands between the columns: a comma, or where a header has none, a semicolon or a tabulator."""
    return next((mark for mark in ",;\t" if mark in header), ",")


def _looks_like_row(header: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    """Whether the first line of a table has numbers where the second one has, and no names.

    Whole numbers may be names, of different columns beside one with a name of its own.
    """
    over = [name for name, text in zip(header, body[0], strict=False) if _is_number(text)]
    if not over or not all(_is_number(name) for name in over):
        return False
    named = all(_whole(name) is not None for name in over) and len({*over}) == len(over)
    return not named or all(_is_number(name) for name in header)


def _label_column(source: RowSource, path: Path, header: Sequence[str]) -> int | None:
    """Position of the column that is named as the labels'; None where none is."""
    if source.label_column is not None:
        if source.label_column not in header:
            raise InputError(f"--label-column {source.label_column}: {path} has the columns {', '.join(header)}")
        return header.index(source.label_column)
    found = [k for k, name in enumerate(header) if name.lower() in LABEL_COLUMNS]
    if len(found) > 1 and source.labels is None:
        several = ", ".join(header[k] for k in found)
        raise InputError(f"{path}: several columns that may be the label; add --label-column NAME, one of {several}")
    return found[0] if len(found) == 1 else None


def _words_alone(source: RowSource, header: Sequence[str], body: Sequence[Sequence[str]], size: int) -> int | None:
    """Position of the only column of words, where the others are as many as the network's inputs, and so its features;
    None where there is none."""
    kept = [k for k, name in enumerate(header) if name and name not in source.drop]
    words = [k for k in kept if all(len(line) > k and line[k].strip() and not _is_number(line[k]) for line in body)]
    return words[0] if len(words) == 1 and len(kept) == size + 1 else None


def _some(names: Sequence[str], most: int = 8) -> str:
    """Names between commas; of many the first and the last ones."""
    named = list(filter(None, names))
    return ", ".join(named if len(named) <= most else [*named[:3], "...", *named[-2:]])


def _numbers(
    path: Path, header: Sequence[str], line: Sequence[str], features: Sequence[int], number: int
) -> list[float]:
    if len(line) != len(header):
        raise InputError(f"{path}: row {number} has {len(line)} fields, the header {len(header)}")
    for k in features:
        if not _is_number(line[k]):
            name, text = header[k], line[k].strip()
            problem = f"{text[:40]!r} is no number;" if text else "there is no value; fill it in, or take the row out;"
            raise InputError(f"{path}: row {number}, column {name}: {problem} --drop {name} leaves the column out")
    return [float(line[k]) for k in features]


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _from_folder(source: RowSource, path: Path, key: str, size: int) -> DataRows:
    """Images in folders named by their classes, one of each class in turn; or all in one folder, without labels."""
    root = path / "test" if (path / "test").is_dir() else path
    names = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    groups = [[(file, label) for file in _images(root / name)] for label, name in enumerate(names)]
    longest = max(map(len, groups), default=0)
    files = [group[k] for k in range(longest) for group in groups if k < len(group)]
    unlabelled = [(file, 0) for file in _images(root)] if not files else []
    if not files and not unlabelled:
        raise InputError(f"{root}: no images in it, nor in folders of it that are named by their classes")
    chosen = source.chosen(len(files or unlabelled))
    picked = [(files or unlabelled)[number] for number in chosen]
    images = [_read_image(file, size) for file, _ in picked]
    for (file, _), image in zip(picked, images, strict=True):
        if image.shape != images[0].shape:
            raise InputError(f"{file}: shape {image.shape} differs from {images[0].shape}; all images need one size")
    labels = np.array([names[label] for _, label in picked]) if files else None
    values = np.stack(images)
    values = values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
    return DataRows(values, labels, chosen, len(files or unlabelled), tuple(names) if files else (), pixels=True)


def _images(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """One image, grey ``(H, W)`` where that has as many pixels as the network has inputs, else ``(H, W, 3)``."""
    from PIL import Image

    with readable(path), Image.open(path) as image:
        return np.asarray(image.convert("L" if image.width * image.height == size else "RGB"))


def _from_data_set(source: RowSource, path: Path, key: str, size: int) -> DataRows:
    """Test images of a data set by its name, between 0 and 1."""
    from toolkit.data.dataset import LOADERS
    from toolkit.data.load import load_dataset
    from toolkit.recipe import Data

    kind, colon, _ = source.data.partition(":")
    loaders = LOADERS.loaded()
    if kind + colon not in loaders:
        known = ", ".join(sorted(loaders))
        raise InputError(
            f"--data {source.data}: no file (.npy, .npz:KEY, .csv) or folder that is there, nor one of {known}"
        )
    test = load_dataset(Data(name=source.data, base=Path.cwd())).test
    chosen = source.chosen(len(test))
    images, labels = test.images.numpy()[list(chosen)], test.labels.numpy()[list(chosen)]
    return DataRows(images, labels, chosen, len(test), pixels=True)


def _read_labels(place: str, rows: DataRows) -> NDArray[Any]:
    """Labels of a file for all rows of the data, or for the chosen ones alone."""
    path, key = split_place(place)
    with readable(path):
        if path.suffix.lower() in {".npy", ".npz"}:
            labels = _one_each(read_array(path, key), place)
        else:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            labels = np.array(lines[1:] if len(lines) == rows.total + 1 else lines)
    if len(labels) in (rows.total, len(rows)):
        return labels
    raise InputError(f"--labels {place}: {len(labels)} labels for {rows.total} rows, of which {len(rows)} are chosen")


def _one_each(labels: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels as ``(N,)``; those of one column, or one-hot, too."""
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "fiub":
        if not (labels >= 0).all() or not np.allclose(labels.sum(1), 1, atol=1e-2):
            raise InputError(
                f"{where}: {labels.shape[1]} numbers for each row, which are no shares of classes; certified accuracy "
                f"is about classes: give one class for each row, or {MEASURED}"
            )
        return labels.argmax(1)
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1:] != (1,):
        raise InputError(f"{where}: an array of shape {labels.shape}, not one label for each row")
    return flat[:, 0]


def in_order(rows: DataRows, names: Sequence[str]) -> DataRows:
    """Rows of a table with these features, whatever else it has, where it has them all; else the rows as they are.

    Names count as equal where they differ in blanks and marks only, which exporters replace.
    """
    own = {_plain_name(name): k for k, name in enumerate(rows.features)}
    wanted = [own.get(_plain_name(name)) for name in names]
    positions = [position for position in wanted if position is not None]
    if not names or len(set(positions)) != len(names) or len(own) != len(rows.features):
        return rows
    return replace(rows, values=rows.values[:, positions], features=tuple(rows.features[k] for k in positions))


def _plain_name(name: str) -> str:
    return re.sub(r"\W", "_", name)


def class_numbers(labels: NDArray[Any], rows: DataRows, names: Sequence[str], classes: int) -> NDArray[np.int64]:
    """Labels as numbers of a network's ``classes`` outputs: by the names of the classes, or numbers as they are.

    ``names`` are those that the user or the network gives; without any, those of the data in alphabetical order. Where
    names are numbers themselves, labels are such names.
    """
    order = tuple(names) or rows.class_names
    twice = next((name for name in order if order.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--classes: {twice!r} is there twice; each class needs a name of its own")
    if order and len(order) != classes:
        raise InputError(
            f"{len(order)} names of classes ({', '.join(order)[:200]}) for a network of {classes}; add --classes with "
            "the names in the order of the network's outputs"
        )
    positions = {name: number for number, name in enumerate(order)}
    named = any(_whole(name) is not None for name in order)  # numbers are names then, and no positions
    known = f" ({', '.join(order)})" if order else ""
    found = np.empty(len(labels), dtype=np.int64)
    for k, label in enumerate(labels.tolist()):
        number = positions.get(_text(label), None if named else _whole(label))
        if number is None or not 0 <= number < classes:
            if not order and _is_number(str(label)) and _whole(label) is None:
                raise InputError(
                    f"row {rows.numbers[k]}: the label {label!r} is a measured value and no class, and certified "
                    f"accuracy is about classes: {MEASURED}"
                )
            measured = "" if order or not _is_number(str(label)) else f"; {MEASURED}"
            raise InputError(
                f"row {rows.numbers[k]}: the label {label!r} is none of the network's {classes} classes{known}; "
                f"--classes has their names in the order of the outputs{measured}"
            )
        found[k] = number
    return found


def whole_range(labels: NDArray[Any]) -> tuple[int, int]:
    """The least and the largest whole number among labels; others count as 0."""
    numbers = [_whole(label) or 0 for label in labels.tolist()]
    return min(numbers, default=0), max(numbers, default=0)


def _text(label: object) -> str:
    """A label as its class may be named: 1.0 as 1."""
    if isinstance(label, bytes):
        return label.decode(errors="replace")
    whole = _whole(label)
    return str(label) if whole is None else str(whole)


def _whole(label: object) -> int | None:
    """A label as a whole number, if it is one."""
    try:
        value = float(label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return int(value) if value.is_integer() else None
