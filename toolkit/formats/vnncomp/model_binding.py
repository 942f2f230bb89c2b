"""Which ONNX model stands for which declared network, and whether the declarations fit the models. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import OnnxModel, TensorInfo
from toolkit.formats.vnnlib.query import Network, Query, Tensor

BARE = ""
"""Name that a network file has when none was given with it: it stands for the only network of a query."""

_NEWER = ": version 1.0 of VNN-LIB knows one input and one output only; version 2.0 declares each by its name"

T = TypeVar("T")


def bind(query: Query, given: Mapping[str, T]) -> dict[str, T]:
    """What was ``given`` by network name (a path, a model, a session), for every network of the query.

    A network declared ``equal-to`` another shares what that one has. Raises InputError for too few or too many.
    """
    own = [network.name for network in query.networks if network.equal_to is None]
    if set(given) == {BARE}:
        if len(own) != 1:
            raise InputError(f"the specification has the networks {', '.join(own)}: give each one as NAME=PATH")
        given = {own[0]: given[BARE]}
    names = {network.name for network in query.networks}
    for name in given:
        if name not in names:
            raise InputError(f"the specification has no network '{name}'; it declares {', '.join(sorted(names))}")
    for name in own:
        if name not in given:
            raise InputError(f"no model for the network '{name}' of the specification; add --network {name}=PATH")
    return {
        network.name: given.get(network.name, given[network.equal_to or network.name]) for network in query.networks
    }


def check_binding(query: Query, models: Mapping[str, OnnxModel]) -> None:
    """Raise InputError unless every network's declarations fit its model in number, shape and element type.

    ``models`` has every network of the query (see `bind`). VNN-LIB 1.0 declares no shapes, and its only type, ``real``,
    fits any floating-point type, and outputs that count: integers are real numbers.
    """
    for network in query.networks:
        model = models[network.name]
        _check_tensors(network, model, "input", network.inputs, model.inputs)
        _check_tensors(network, model, "output", network.outputs, model.outputs)
        if network.equal_to and models[network.equal_to].sha256 != model.sha256:
            raise InputError(
                f"network '{network.name}' is equal-to '{network.equal_to}' but was given another model, {model.path}"
            )


def _check_tensors(
    network: Network, model: OnnxModel, kind: str, declared: Sequence[Tensor], infos: Sequence[TensorInfo]
) -> None:
    if len(declared) != len(infos):
        flat = declared[0].shape is None if declared else False
        raise InputError(
            f"{model.path}: the model has {len(infos)} {kind}s, the specification declares {len(declared)}"
            f" for network '{network.name}'{_NEWER if flat else ''}"
        )
    for tensor, info in zip(declared, infos, strict=True):
        if not _shape_fits(tensor, info):
            raise InputError(
                f"{model.path}: {kind} {info.name!r} has shape {_show(info)}, the specification declares"
                f" '{tensor.name}' with {_show_declared(tensor)}"
            )
        if not _type_fits(tensor, info, kind):
            raise InputError(
                f"{model.path}: {kind} {info.name!r} has element type {info.dtype}, the specification declares"
                f" '{tensor.name}' as {tensor.dtype}"
            )


def _shape_fits(tensor: Tensor, info: TensorInfo) -> bool:
    if tensor.shape is None:
        return tensor.size == info.size
    return math.prod(tensor.shape) == info.size and (tensor.shape == info.shape or _squeezed(tensor) == _squeezed(info))


def _squeezed(tensor: Tensor | TensorInfo) -> tuple[int, ...]:
    """A shape without its ones: converters of specifications differ about leading batch dimensions."""
    return tuple(dim for dim in tensor.shape or () if dim != 1)


def _type_fits(tensor: Tensor, info: TensorInfo, kind: str) -> bool:
    numbers = ("float", "int") if kind == "output" else ("float",)
    return tensor.dtype == info.dtype or (tensor.dtype == "real" and any(name in info.dtype for name in numbers))


def _show(info: TensorInfo) -> str:
    return f"[{', '.join(map(str, info.shape))}]"


def _show_declared(tensor: Tensor) -> str:
    return f"{tensor.size} elements" if tensor.shape is None else f"[{', '.join(map(str, tensor.shape))}]"
