"""One text for torch and numpy: the library that an array is of, with the few functions that relaxations need.

A relaxation is written once, over the names that both libraries share (``where``, ``maximum``, ``tanh``, ...), and
serves the proofs by tensors as well as those that cannot wait for the import of torch. Nothing here imports torch: who
has a tensor has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np


def _relu(z: Any) -> Any:
    return np.maximum(z, 0.0)


def _sigmoid(z: Any) -> Any:
    """Without overflow, and with a small relative error in both tails."""
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


_NUMPY = SimpleNamespace(**{**vars(np), "relu": _relu, "sigmoid": _sigmoid})
"""numpy, with what relaxations use of torch under names that it lacks."""


def namespace(array: Any) -> Any:
    """torch for a tensor, numpy with a few more names for an array."""
    return _NUMPY if isinstance(array, np.ndarray) else sys.modules["torch"]


def named(name: str) -> Callable[[Any], Any]:
    """The function of one argument that both libraries have under a name."""
    return lambda z: getattr(namespace(z), name)(z)


def computed_where(mask: Any, function: Callable[..., Any], *arrays: Any) -> Any:
    """The function's values where the mask holds, anything elsewhere.

    numpy computes no more than these; torch computes all, as sizes that depend on values make a GPU wait.
    """
    if not isinstance(mask, np.ndarray):
        return function(*arrays)
    found = np.zeros_like(arrays[0])
    found[mask] = function(*(array[mask] for array in arrays))
    return found


def as_numbers(mask: Any, like: Any) -> Any:
    """Zeros and ones of the element type of another array."""
    return mask.astype(like.dtype) if isinstance(mask, np.ndarray) else mask.to(like.dtype)
