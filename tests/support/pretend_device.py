"""A device that is not there, for tests of what would run on one: values are kept by the processor, and every operator
that would fail on a GPU for the place of its tensors fails here.

Tensors of the device say that they are on ``meta``, which torch knows everywhere, so no driver is needed. What crosses
between device and host is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
"""Operators that may read from one place and write to the other."""
INDEXES = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
"""Operators that take positions from the host too."""
ASK = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten._unique2.default)
"""Operators that the host has to wait for: what they return is a number or has a size that follows from values."""


class Remote(torch.Tensor):
    """A tensor of the device."""

    kept: torch.Tensor

    @staticmethod
    def __new__(cls, kept: torch.Tensor) -> Remote:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls, kept.shape, strides=kept.stride(), storage_offset=kept.storage_offset(), dtype=kept.dtype,
            device=DEVICE,
        )  # fmt: skip

    def __init__(self, kept: torch.Tensor) -> None:
        self.kept = kept

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the device after it is gone")


class Uploads(TorchFunctionMode):
    """Tensors made from numbers are made on the host, then moved: torch makes them before operators are dispatched.
    Lists of numbers are made there, too, which torch refuses to make of a subclass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        if func is torch.Tensor.tolist and isinstance(args[0], Remote):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


class Pretend(TorchDispatchMode):
    """Runs operators on tensors of the device, and counts what crosses."""

    def __init__(self) -> None:
        super().__init__()
        self._uploads = Uploads()
        self.calls = 0
        """Operators that ran on the device."""
        self.waits: Counter[str] = Counter()
        """What the host waited for, by operator."""
        self.to_host = 0
        """Bytes that were copied to the host."""

    def __enter__(self) -> Pretend:
        self._uploads.__enter__()
        return super().__enter__()

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        self._uploads.__exit__(*failure)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        _check_places(func, tensors)
        asked = kwargs.get("device")
        remote = any(isinstance(tensor, Remote) for tensor in tensors) if asked is None else asked == DEVICE
        self._count(func, args, tensors, remote)
        if remote and asked is not None:
            kwargs = kwargs | {"device": torch.device("cpu"), "pin_memory": False}
        result = func(*tree_map(_kept, args), **tree_map(_kept, kwargs))
        if func._schema.is_mutable and isinstance(args[0], torch.Tensor):
            return args[0]
        return tree_map(_remote, result) if remote else result

    def _count(self, func: Any, args: Any, tensors: list[torch.Tensor], remote: bool) -> None:
        from_device = [tensor for tensor in tensors if isinstance(tensor, Remote)]
        self.calls += remote
        if not from_device:
            return
        if func in MOVES and not (remote and isinstance(args[0], Remote)):
            self.waits[str(func)] += 1
            self.to_host += from_device[-1].numel() * from_device[-1].element_size()
        elif func in ASK or (func in INDEXES and any(_is_mask(index) for index in tree_leaves(args[1]))):
            self.waits[str(func)] += 1


def _check_places(func: Any, tensors: list[torch.Tensor]) -> None:
    """Raise AssertionError where tensors are where a GPU would not find them."""
    lost = [t for t in tensors if t.device == DEVICE and not isinstance(t, Remote)]
    assert not lost, f"{func}: a tensor of the device that has no values"
    on_host = [tensor for tensor in tensors if not isinstance(tensor, Remote) and tensor.dim()]
    mixed = on_host and any(isinstance(tensor, Remote) for tensor in tensors)
    assert not mixed or func in MOVES + INDEXES, f"{func}: tensors of the device and of the host"


def _is_mask(index: object) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype == torch.bool


def _kept(value: Any) -> Any:
    return value.kept if isinstance(value, Remote) else value


def _remote(value: Any) -> Any:
    return Remote(value) if isinstance(value, torch.Tensor) and not isinstance(value, Remote) else value
