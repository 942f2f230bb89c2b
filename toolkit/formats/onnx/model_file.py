"""Loading ONNX files: a frozen record of the model, its digest and its inputs and outputs; no torch, no execution."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from toolkit.errors import InputError, UnsupportedError, one_line
from toolkit.formats.compressed import read_decompressed
from toolkit.formats.onnx.external_data import external_tensors, put_inside, read_external
from toolkit.formats.onnx.size_limits import check_size
from toolkit.tuning import tuned

GIT_LFS_HEADER = b"version https://git-lfs"


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model."""

    name: str
    dtype: str
    """Element type in numpy's words: ``float32``, ``float64``, ``int64``..."""
    shape: tuple[int, ...]
    """Concrete shape: dimensions that the file leaves open are 1."""
    declared_shape: tuple[int | str | None, ...] | None
    """Shape in the file: a symbol for a named dimension, None for an unnamed one; None for an unknown rank."""

    @property
    def size(self) -> int:
        """Number of elements at the concrete shape."""
        return math.prod(self.shape)

    @property
    def batched(self) -> bool:
        """Whether the file leaves the leading dimension open."""
        return self.declared_shape is not None and not all(isinstance(dim, int) for dim in self.declared_shape[:1])


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A loaded model. ``inputs`` are those a caller must feed: initializers listed as inputs are not among them."""

    path: Path
    sha256: str
    """Hash of the uncompressed file, followed by the contents of the tensors that it keeps in other files, if any."""
    proto: onnx.ModelProto = field(repr=False)
    data: bytes = field(repr=False)
    """The serialised model with all weights inside."""
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next((entry.version for entry in self.proto.opset_import if entry.domain in {"", "ai.onnx"}), 1)


def load_model(path: str | Path) -> OnnxModel:
    """Load a ``.onnx`` or ``.onnx.gz`` file.

    Raises :class:`InputError` for a missing, empty, truncated or corrupt file and for a Git LFS pointer, and
    :class:`UnsupportedError` for inputs or outputs that are not tensors and for what would take more memory than any
    machine has (`toolkit.formats.onnx.size_limits`).
    """
    return model_of(load_proto(Path(path)))


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A file's graph with all weights inside, before anything is said about its inputs and outputs."""

    path: Path
    proto: onnx.ModelProto = field(repr=False)
    data: bytes = field(repr=False)
    """The serialised graph."""
    sha256: str
    """Hash of the uncompressed file, followed by the contents of the tensors that it keeps in other files, if any."""


def load_proto(path: Path) -> ModelFile:
    """Read a ``.onnx`` or ``.onnx.gz`` file, whatever its inputs and outputs are. Raises as `load_model`."""
    data = read_bytes(path)
    proto = _parse(path, data)
    digest = hashlib.sha256(data)
    if _load_external_data(path, proto, digest):
        data = _serialise(path, proto)
    check_size(path, proto)
    return ModelFile(path, proto, data, digest.hexdigest())


def model_of(file: ModelFile) -> OnnxModel:
    """The model with its inputs and outputs. Raises InputError and UnsupportedError, as `load_model` says."""
    path, proto = file.path, file.proto
    initializers = {tensor.name for tensor in proto.graph.initializer}
    initializers |= {tensor.values.name for tensor in proto.graph.sparse_initializer}
    inputs = tuple(_tensor_info(path, value) for value in proto.graph.input if value.name not in initializers)
    outputs = _output_infos(path, proto)
    if not inputs:
        raise InputError(f"{path}: the model has no input besides its weights")
    return OnnxModel(path, file.sha256, proto, file.data, inputs, outputs)


def read_bytes(path: Path) -> bytes:
    """Content of a plain or gzip-compressed file; :class:`InputError` when it cannot be had."""
    try:
        data = read_decompressed(path, tuned().files.most_model_bytes)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, where a file is needed") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None
    if len(data) > tuned().files.most_model_bytes:
        raise InputError(f"{path}: larger than {tuned().files.most_model_bytes >> 20} MiB, which no model is")
    if not data.strip():
        raise InputError(f"{path}: the file is empty")
    if data.startswith(GIT_LFS_HEADER):
        raise InputError(f"{path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    try:
        proto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError):
        raise InputError(f"{path}: not an ONNX model, or truncated or corrupt{_export(path)}") from None
    if not _is_text(proto):
        raise InputError(f"{path}: corrupt: a name in it is not text")
    if not proto.graph.output:
        raise InputError(f"{path}: not an ONNX model, or truncated or corrupt: it has no output{_export(path)}")
    return proto


def _export(path: Path) -> str:
    """How a network gets into an ONNX file, where the name is that of another format."""
    if path.suffix.lower() in {".pt", ".pth", ".ckpt", ".pkl", ".safetensors"}:
        return "; torch.onnx.export(module.eval(), example_input, 'net.onnx') writes one"
    if path.suffix.lower() in {".h5", ".keras", ".pb", ".tflite"}:
        return "; the package tf2onnx writes one"
    return ""


def _is_text(proto: onnx.ModelProto) -> bool:
    """Whether every name in the graph is valid text; a parser of the format does not look."""
    try:
        return all(isinstance(name, str) for name in _names(proto))
    except UnicodeDecodeError:
        return False


def _names(proto: onnx.ModelProto) -> Iterator[str]:
    for node in proto.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*proto.graph.input, *proto.graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in proto.graph.initializer:
        yield tensor.name
    yield from (entry.domain for entry in proto.opset_import)
    yield from (proto.producer_name, proto.producer_version)
    yield from (text for entry in proto.metadata_props for text in (entry.key, entry.value))


def _load_external_data(path: Path, proto: onnx.ModelProto, digest: hashlib._Hash) -> bool:
    """Bring tensors kept in other files into ``proto``; returns whether there were any."""
    external = external_tensors(path, proto)
    for entry, content in zip(external, read_external(path, external), strict=True):
        put_inside(entry, content)
        digest.update(content)
    return bool(external)


def _serialise(path: Path, proto: onnx.ModelProto) -> bytes:
    try:
        return proto.SerializeToString()
    except ValueError:
        raise UnsupportedError(f"{path}: models over 2 GB are not supported") from None


def _output_infos(path: Path, proto: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """Outputs; a shape that is missing or open beyond its first dimension is inferred from the concrete inputs."""
    infos = tuple(_tensor_info(path, value) for value in proto.graph.output)
    if all(info.declared_shape is not None and _is_concrete(info.declared_shape[1:]) for info in infos):
        return infos
    try:
        inferred = onnx.shape_inference.infer_shapes(at_concrete_shapes(proto), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: shapes cannot be inferred ({one_line(error)})") from None
    return tuple(
        TensorInfo(info.name, info.dtype, _tensor_info(path, value).shape, info.declared_shape)
        for info, value in zip(infos, inferred.graph.output, strict=True)
    )


def at_concrete_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose input shapes are concrete (1 for open dimensions) and whose other declared shapes are dropped."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if _dimension(dim) is None or isinstance(_dimension(dim), str):
                dim.Clear()
                dim.dim_value = 1
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    del copy.graph.value_info[:]
    return copy


def _tensor_info(path: Path, value: onnx.ValueInfoProto) -> TensorInfo:
    if not value.type.HasField("tensor_type"):
        raise UnsupportedError(
            f"{path}: {value.name!r} is not a tensor; only tensor inputs and outputs are supported (prunecert certify "
            "and prunecert spec benchmark set the output of a ZipMap aside)"
        )
    tensor = value.type.tensor_type
    declared = tuple(_dimension(dim) for dim in tensor.shape.dim) if tensor.HasField("shape") else None
    shape = tuple(dim if isinstance(dim, int) else 1 for dim in declared or ())
    return TensorInfo(value.name, _dtype_name(path, value.name, tensor.elem_type), shape, declared)


def _dtype_name(path: Path, name: str, elem_type: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)
    except KeyError:
        raise InputError(f"{path}: {name!r} has no valid element type ({elem_type})") from None


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    """Exporters write an open dimension as a symbol, as nothing, as 0 or as -1."""
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return dim.dim_param or None


def _is_concrete(shape: tuple[int | str | None, ...]) -> bool:
    return all(isinstance(dim, int) for dim in shape)
