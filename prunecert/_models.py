"""Networks in every form that a caller may have them in, as ONNX files: nothing else is ever verified."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

from toolkit.devices import without_modes_of_the_caller
from toolkit.errors import InputError, ToolkitError, one_line

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from toolkit.formats.onnx.model_file import OnnxModel

Model: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | nn.Module"
"""The path of an ``.onnx`` or ``.onnx.gz`` file, a model in memory, or a torch module, which is exported."""


def load(model: Model, input_shape: Sequence[int] | None = None) -> OnnxModel:
    """The model as it is in its file; one in memory is written to a temporary file first, and read from there.

    ``input_shape`` is that of one input of a torch module, without the batch dimension. Raises InputError and
    UnsupportedError, also for a module that torch cannot export.
    """
    from toolkit.formats.onnx.model_file import load_model

    if isinstance(model, str | os.PathLike):
        _no_shape(input_shape, f"{os.fspath(model)}: the file")
        return load_model(Path(model))
    with tempfile.TemporaryDirectory(prefix="prunecert-") as folder:
        path = Path(folder) / f"{type(model).__name__}.onnx"
        try:
            _save(model, path, input_shape)
            return replace(load_model(path), path=Path(path.name))
        except ToolkitError as error:  # the folder is gone when the message is read
            raise type(error)(str(error).replace(f"{folder}{os.sep}", "")) from error.__cause__


def as_file(model: Model, folder: Path, input_shape: Sequence[int] | None = None) -> Path:
    """The path of the model's file; one in memory is written to the folder. Raises as `load`."""
    if isinstance(model, str | os.PathLike):
        _no_shape(input_shape, f"{os.fspath(model)}: the file")
        return Path(model)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "network.onnx"
    _save(model, path, input_shape)
    return path


@without_modes_of_the_caller()
def export(module: nn.Module, path: str | os.PathLike[str], input_shape: Sequence[int]) -> Path:
    """Write a torch module to an ``.onnx`` or ``.onnx.gz`` file, which is what gets verified.

    The file has operator set 13, an open batch dimension, and the same bytes for the same module. It is put in place
    only when onnxruntime agrees with the module, in evaluation mode, on random inputs in [0, 1].

    Args:
        module: The network; it is left as it is.
        path: The file to write; its folder is made.
        input_shape: Shape of one input, without the batch dimension.

    Returns:
        The path.

    Raises:
        InputError: the name has another suffix, or the module fails on an input of this shape.
        UnsupportedError: torch cannot export the module, or onnxruntime computes something else.
    """
    import torch

    from toolkit.formats.onnx.export import export_model

    path = Path(path)
    if not path.name.endswith((".onnx", ".onnx.gz")):
        raise InputError(f"{path}: the name of a network's file ends in .onnx or .onnx.gz")
    floats = [tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()]
    try:
        export_model(module, torch.zeros(1, *input_shape, dtype=floats[0] if floats else torch.float32), path)
    except (ToolkitError, OSError, MemoryError):
        raise
    except Exception as error:  # a module may raise anything
        shape, reason = [1, *input_shape], one_line(error)
        raise InputError(f"{path}: the module cannot be run on an input of shape {shape} ({reason})") from error
    return path


def _save(model: onnx.ModelProto | nn.Module, path: Path, input_shape: Sequence[int] | None) -> None:
    """Write a network from memory to an ``.onnx`` file. Raises as `load`."""
    import onnx

    if isinstance(model, onnx.ModelProto):
        _no_shape(input_shape, "the model")
        path.write_bytes(_serialised(model, path))
    elif not _is_module(model):
        raise InputError(f"a network is a path, an onnx.ModelProto or a torch.nn.Module, not a {type(model).__name__}")
    elif input_shape is None:
        raise InputError(f"{path}: add input_shape, the shape of one input of the module without the batch dimension")
    else:
        export(model, path, input_shape)


def _is_module(model: object) -> TypeGuard[nn.Module]:
    """Whether this is a torch module; where torch was never imported there are none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _no_shape(input_shape: Sequence[int] | None, what: str) -> None:
    if input_shape is not None:
        raise InputError(f"{what} says the shape of its input itself; leave out input_shape")


def _serialised(model: onnx.ModelProto, path: Path) -> bytes:
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        return model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        reason = one_line(error)
        raise InputError(f"{path}: the model cannot be written as one file ({reason})") from error
