"""Names of tensor elements as a specification writes them: ``X_3`` in 1.0, ``X[0,3]`` in 2.0."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from toolkit.formats.vnnlib.query import Query, Tensor


def element_name(tensor: Tensor, index: int) -> str:
    """The name of a tensor's element by its flat index."""
    if tensor.shape is None:
        return f"{tensor.name}_{index}"
    if tensor.shape == ():
        return tensor.name
    return f"{tensor.name}[{','.join(str(i) for i in np.unravel_index(index, tensor.shape))}]"


def namer(query: Query) -> Callable[[int], str]:
    """A function from variable numbers to names, for many look-ups."""
    tensors = query.tensors
    offsets = np.array([tensor.offset for tensor in tensors], dtype=np.int64)
    empty = np.array([tensor.size == 0 for tensor in tensors])
    known = [tensor for tensor, skip in zip(tensors, empty, strict=True) if not skip]
    starts = offsets[~empty]

    def name(variable: int) -> str:
        tensor = known[int(np.searchsorted(starts, variable, side="right")) - 1]
        return element_name(tensor, variable - tensor.offset)

    return name


def listed(names: Iterable[str], count: int, most: int = 5) -> str:
    """The first names of a list, and how many more there are, for a message."""
    shown = [name for name, _ in zip(names, range(most), strict=False)]
    return ", ".join(shown) + (f" and {count - most} more" if count > most else "")
