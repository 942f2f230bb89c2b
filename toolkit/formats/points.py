"""Vectors of numbers that users keep in files: the points and bounds that specifications are made from."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, one_line

_SEPARATORS = re.compile(r"[\s,;]+")


def read_numbers(place: str) -> NDArray[np.float64]:
    """The numbers of a file, flattened row-major, shape [n].

    ``place`` is a ``.npy`` file, ``FILE.npz:KEY`` (the key may be missing when there is one array), or a text of
    numbers between commas, semicolons or white space, whatever its suffix. Raises InputError.
    """
    path, key = split_place(place)
    with readable(path):
        if path.suffix in {".npy", ".npz"}:
            return _as_numbers(read_array(path, key), place)
        return _parse(path.read_text(encoding="utf-8"), place)


def split_place(place: str) -> tuple[Path, str]:
    """File and key of ``FILE.npz:KEY``; the key is empty where there is none."""
    file, _, key = place.rpartition(":") if ".npz:" in place else (place, "", "")
    return Path(file), key


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into an InputError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None


def read_array(path: Path, key: str) -> NDArray[Any]:
    """An array of a ``.npy`` file, or the one of this name in a ``.npz`` file; without a name its only one."""
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asarray(loaded)
    with loaded:
        names = loaded.files
        if not key and len(names) == 1:
            key = names[0]
        if key not in names:
            raise InputError(f"{path}: name one of its arrays, as in {path.name}:KEY; there are {', '.join(names)}")
        return np.asarray(loaded[key])


def _as_numbers(array: NDArray[Any], place: str) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{place}: an array of {array.dtype}, not of numbers")
    return array.astype(np.float64).reshape(-1)


def _parse(text: str, place: str) -> NDArray[np.float64]:
    numbers = []
    for line, content in enumerate(text.splitlines(), 1):
        for word in filter(None, _SEPARATORS.split(content)):
            try:
                numbers.append(float(word))
            except ValueError:
                raise InputError(f"{place}:{line}: {word[:40]!r} is no number") from None
    return np.array(numbers)
