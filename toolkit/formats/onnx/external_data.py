"""Tensors of an ONNX model that are kept in other files: where they are, checked before a byte of them is read.

Any tensor of a model may say that its content lies in another file: an initializer, dense or sparse, the value of a
Constant, one in a subgraph or in the body of a function. All are found by walking through the whole message, whatever
the place. Files are looked up beside the model, never in the working directory, and only regular files inside of the
model's folder are read. What a tensor gets is as many bytes as its shape and element type take, as in onnxruntime.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from onnx import TensorProto

from toolkit.errors import InputError, UnsupportedError, one_line

MOST_BYTES = (1 << 31) - 1
"""Most bytes that a model may hold with everything inside: the limit of its file format."""

BITS: dict[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.DOUBLE: 64, TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16,
    TensorProto.COMPLEX64: 64, TensorProto.COMPLEX128: 128, TensorProto.BOOL: 8,
    TensorProto.INT8: 8, TensorProto.INT16: 16, TensorProto.INT32: 32, TensorProto.INT64: 64,
    TensorProto.UINT8: 8, TensorProto.UINT16: 16, TensorProto.UINT32: 32, TensorProto.UINT64: 64,
    TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8, TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4,
}  # fmt: skip
"""Bits of one element in a file, by element type; text is not kept there."""

TYPED = (
    "raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "segment",
)  # fmt: skip
"""Fields in which a tensor holds its content itself."""


@dataclass(frozen=True, eq=False)
class ExternalTensor:
    """The content of one tensor in another file: ``length`` bytes from byte ``offset`` on."""

    tensor: TensorProto = field(repr=False)
    location: str
    """Path of the file as the model gives it: with slashes, relative to the model's folder."""
    offset: int
    length: int


def tensors_of(message: Any) -> Iterator[TensorProto]:
    """All tensors in a protobuf message, at whatever depth, in no particular but a fixed order."""
    stack = [message]
    while stack:
        current = stack.pop()
        if isinstance(current, TensorProto):
            yield current
            continue
        for descriptor, value in current.ListFields():
            if descriptor.message_type is not None:
                stack.extend([value] if hasattr(value, "ListFields") else value)


def external_tensors(path: Path, proto: onnx.ModelProto) -> list[ExternalTensor]:
    """The tensors that the model in ``path`` keeps in other files. Looks at no file.

    Raises :class:`InputError` for a description that is not unique, leads out of the model's folder or makes no sense,
    and :class:`UnsupportedError` where everything together would exceed the size of a model.
    """
    found = [_external(path, tensor) for tensor in tensors_of(proto) if tensor.data_location == TensorProto.EXTERNAL]
    if sum(entry.length for entry in found) > MOST_BYTES:
        raise UnsupportedError(f"{path}: models over 2 GB are not supported, its weights in other files included")
    return found


def read_external(path: Path, entries: list[ExternalTensor]) -> Iterator[bytes]:
    """The content of each tensor, in order. Raises :class:`InputError` for a file that is missing, too short, outside
    of the model's folder or not a regular file."""
    for entry in entries:
        handle = open_beside(path, entry.location)
        with os.fdopen(handle, "rb") as file:
            size = os.fstat(handle).st_size
            if entry.offset + entry.length > size:
                raise _wrong(
                    path, entry.tensor, entry.location,
                    f"{entry.length} bytes from byte {entry.offset} on are needed, and the file has {size}",
                )  # fmt: skip
            file.seek(entry.offset)
            content = file.read(entry.length)
        if len(content) != entry.length:
            raise _wrong(path, entry.tensor, entry.location, "the file became shorter while it was read")
        yield content


def put_inside(entry: ExternalTensor, content: bytes) -> None:
    """Let the tensor hold its content itself."""
    entry.tensor.raw_data = content
    entry.tensor.ClearField("external_data")
    entry.tensor.ClearField("data_location")


if sys.platform == "win32":  # where files are read as text unless one says otherwise
    READING = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT
else:
    READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file beside a network is opened: never a link, and without waiting for what is no file."""


def open_beside(path: Path, location: str) -> int:
    """A file handle, for reading, of a file in the folder of ``path``.

    Raises :class:`InputError` when there is none, when links lead out of the folder, and for anything but a regular
    file; a pipe or a device is not waited for and not read.
    """
    folder = path.parent.resolve()
    try:
        real = (folder / location).resolve()
        if not real.is_relative_to(folder):
            raise InputError(f"{path}: its weights in {location!r} are outside of its folder: a link leads to {real}")
        handle = os.open(real, READING)
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error, None)
        raise InputError(f"{path}: its weights in {location!r} cannot be read ({reason})") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError(f"{path}: its weights in {location!r} cannot be read (not a regular file)")
    return handle


def _external(path: Path, tensor: TensorProto) -> ExternalTensor:
    """What a tensor says about its content in another file."""
    facts: dict[str, str] = {}
    for key, value in _entries(path, tensor):
        if key in facts:
            raise _wrong(path, tensor, facts.get("location", value), f"its {key!r} is given twice")
        facts[key] = value
    location = facts.get("location", "")
    _check_location(path, tensor, location)
    if any(getattr(tensor, name) for name in TYPED if name != "segment") or tensor.HasField("segment"):
        raise _wrong(path, tensor, location, "the model holds its content, too")
    length, offset = _bytes_of(path, tensor, location), _number(path, tensor, facts, "offset", 0)
    if _number(path, tensor, facts, "length", length) != length:
        raise _wrong(path, tensor, location, f"its length is {facts['length']}, but its shape takes {length} bytes")
    return ExternalTensor(tensor, location, offset, length)


def _entries(path: Path, tensor: TensorProto) -> list[tuple[str, str]]:
    try:
        return [(str(entry.key), str(entry.value)) for entry in tensor.external_data]
    except UnicodeDecodeError:
        raise InputError(f"{path}: corrupt: a name in it is not text") from None


def _check_location(path: Path, tensor: TensorProto, location: str) -> None:
    """Only a relative path that goes down is followed."""
    parts = PurePosixPath(location)
    if not location or not parts.parts:
        raise _wrong(path, tensor, location, "no file is named")
    if parts.is_absolute() or ".." in parts.parts or "\0" in location:
        raise _wrong(path, tensor, location, "only files in the folder of the model are read")


def _number(path: Path, tensor: TensorProto, facts: dict[str, str], key: str, default: int) -> int:
    text = facts.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _wrong(path, tensor, facts["location"], f"its {key} is {text[:30]!r}, not a number of bytes")
    return int(text)


def _bytes_of(path: Path, tensor: TensorProto, location: str) -> int:
    bits = BITS.get(tensor.data_type)
    if bits is None:
        raise _wrong(path, tensor, location, f"elements of type {tensor.data_type} are not supported there")
    count = 1
    for size in tensor.dims:
        count *= size
        if size < 0 or count > 8 * MOST_BYTES:
            raise _wrong(path, tensor, location, f"its shape {list(tensor.dims)[:8]} is impossible or too large")
    return -(-count * bits // 8)


def _wrong(path: Path, tensor: TensorProto, location: str, reason: str) -> InputError:
    try:
        name = repr(tensor.name)
    except UnicodeDecodeError:
        name = "of a name that is not text"
    return InputError(f"{path}: tensor {name} in {location[:200]!r} cannot be read ({reason})")
