"""Witnesses: an input that makes a query true, replayed with onnxruntime, and its text in both standards.

A ``sat`` answer is made here and nowhere else: `replay` rounds a candidate to the element types of the models, runs
them, and evaluates the assertions as written (VNN-COMP's scorer does the same with the file that `witness_text` makes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.assignment import holds_in_types
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.query import Network, Query, Tensor, TensorKind


@dataclass(frozen=True, eq=False)
class Witness:
    """An assignment to all declared tensors, in declaration order, that makes the query true."""

    version: str
    """Language version of the query, which decides the text format."""
    tensors: tuple[Tensor, ...]
    values: tuple[NDArray[Any], ...]
    """Values of each tensor, in the model's element type and the declared shape; other than inputs, onnxruntime's."""

    @property
    def inputs(self) -> NDArray[np.float64]:
        """All input variables, flat, in declaration order."""
        pairs = zip(self.tensors, self.values, strict=True)
        return np.concatenate([v.reshape(-1).astype(np.float64) for t, v in pairs if t.kind == TensorKind.INPUT])

    def to_lists(self) -> dict[str, list[Any]]:
        """The values of each tensor, flat, by its name, as JSON has them: what is not finite is a word."""
        return {
            tensor.name: [number if np.isfinite(number) else str(number) for number in value.reshape(-1).tolist()]
            for tensor, value in zip(self.tensors, self.values, strict=True)
        }


def open_sessions(models: Mapping[str, OnnxModel], query: Query, threads: int = 1) -> dict[str, Session]:
    """A session for every network of ``query``, with its hidden tensors; ``models`` by name as given by the user."""
    bound = bind(query, models)
    opened: dict[tuple[int, tuple[str, ...]], Session] = {}
    sessions = {}
    for network in query.networks:
        model = bound[network.name]
        hidden = hidden_names(network)
        key = (id(model), hidden)
        if key not in opened:
            opened[key] = Session(model, threads, hidden)
        sessions[network.name] = opened[key]
    return sessions


def hidden_names(network: Network) -> tuple[str, ...]:
    """Names in the ONNX graph of a network's hidden tensors."""
    return tuple(tensor.onnx_name or tensor.name for tensor in network.hidden)


def replay(
    models: Mapping[str, Session],
    query: Query,
    inputs: NDArray[np.float64],
    lower: NDArray[np.float64] | None = None,
    upper: NDArray[np.float64] | None = None,
) -> Witness | None:
    """The witness at ``inputs``, or None when the query does not hold there.

    ``inputs`` are all input variables, flat, in declaration order, shape ``(n,)``; they are rounded to the element
    types of the models and, when the box ``lower, upper`` of the case is given, moved to the nearest representable
    point inside it. A dimension whose box contains no representable number (a point such as 0.1) is read as the real
    value whose rounding the model gets; VNN-COMP's scorer reads it so too.

    The query holds when it does in exact arithmetic on the rounded values and also when its constants are rounded to
    the element types. Outputs that are not finite never hold. Of a quantised network it has to hold as well for what
    onnxruntime makes of it with operators of integers, as others will run it.
    """
    if not np.isfinite(inputs).all():
        return None
    sessions = bind(query, models)
    rounded, real = _round(query, sessions, inputs, lower, upper)
    witness = _computed(sessions, query, rounded)
    if not _holds(query, witness, real):
        return None
    fused = {name: session.fused for name, session in sessions.items()}
    if any(fused[name] is not session for name, session in sessions.items()):
        return witness if _holds(query, _computed(fused, query, rounded), real) else None
    return witness


def _computed(sessions: Mapping[str, Session], query: Query, rounded: Sequence[NDArray[Any]]) -> Witness:
    """The values of all tensors for arrays that the models get."""
    values: list[NDArray[Any]] = []
    position = 0
    for network in query.networks:
        fed = rounded[position : position + len(network.inputs)]
        position += len(network.inputs)
        computed = sessions[network.name].run(fed)
        outputs, hidden = computed[: len(network.outputs)], computed[len(network.outputs) :]
        values += [
            array.reshape(tensor.shape if tensor.shape is not None else array.shape)
            for tensor, array in zip(network.tensors, [*fed, *hidden, *outputs], strict=True)
        ]
    return Witness(query.version, query.tensors, tuple(values))


def variables(query: Query, values: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """The values of all tensors as one assignment to the query's variable space."""
    assignment = np.empty(query.num_variables)
    for tensor, value in zip(query.tensors, values, strict=True):
        assignment[tensor.offset : tensor.offset + tensor.size] = value.reshape(-1)
    return assignment


def _holds(query: Query, witness: Witness, real: NDArray[np.float64]) -> bool:
    assignment = variables(query, witness.values)
    if not np.isfinite(assignment).all() or not holds_in_types(query, assignment, witness.values):
        return False
    assignment[query.inputs] = real
    return query.holds(assignment)


def _round(
    query: Query,
    sessions: Mapping[str, Session],
    inputs: NDArray[np.float64],
    lower: NDArray[np.float64] | None,
    upper: NDArray[np.float64] | None,
) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
    """The arrays that the models get, and the real point that they stand for."""
    low = np.full(len(inputs), -np.inf) if lower is None else lower
    high = np.full(len(inputs), np.inf) if upper is None else upper
    fed, real, start = [], [], 0
    for network in query.networks:
        for tensor, info in zip(network.inputs, sessions[network.name].inputs, strict=True):
            part = slice(start, start + tensor.size)
            start += tensor.size
            value, point = round_into(inputs[part], low[part], high[part], np.dtype(info.dtype))
            fed.append(value.reshape(tensor.shape or info.shape))
            real.append(point)
    return fed, np.concatenate(real)


def round_into(
    values: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The representable numbers in the box that are nearest to ``values``, and the real point that they stand for.

    The two differ only in dimensions whose box holds no representable number; there the real point is the value
    limited to the box.
    """
    inside = np.clip(values, lower, upper)
    if dtype.kind != "f":
        low, high, nearest = np.ceil(lower), np.floor(upper), np.rint(inside)
        result = np.where(low <= high, np.clip(nearest, low, high), nearest)
        return result.astype(dtype), np.where(low <= high, result, inside)
    low, high = _round_up(lower, dtype), -_round_up(-upper, dtype)
    nearest = inside.astype(dtype)
    result = np.where(low <= high, np.clip(nearest, low, high), nearest)
    return result, np.where(low <= high, result.astype(np.float64), inside)


def _round_up(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The least representable number that is not below each value."""
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype)
    return np.where(rounded < values, np.nextafter(rounded, dtype.type(np.inf)), rounded)


def witness_text(witness: Witness) -> str:
    """The witness as a file: the s-expression of VNN-COMP for 1.0, the assignment of the standard for 2.x."""
    if witness.version.startswith("1"):
        return _expression_text(witness)
    lines = []
    for tensor, value in zip(witness.tensors, witness.values, strict=True):
        shape = ",".join(map(str, value.shape))
        lines.append(f"{tensor.name} {tensor.dtype} [{shape}]")
        lines += [_positional(entry) for entry in value.reshape(-1)]
    return "\n".join(lines) + "\n"


def _expression_text(witness: Witness) -> str:
    pairs = [
        f"({tensor.name}_{index} {float(entry)!r})"
        for tensor, value in zip(witness.tensors, witness.values, strict=True)
        for index, entry in enumerate(value.reshape(-1))
    ]
    return "(" + "\n".join(pairs) + ")\n"


def _positional(entry: Any) -> str:
    """A number without exponent (the language has none) that reads back as the same double."""
    if isinstance(entry, np.floating):
        return np.format_float_positional(np.float64(entry), unique=True, trim="0")
    return str(entry).lower()
