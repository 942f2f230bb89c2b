"""Reading witness files and judging them as VNN-COMP's scorer of 2026 does, class by class."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import read_bytes
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.assignment import holds_in_types
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnncomp.witness import variables
from toolkit.formats.vnnlib.query import Query, Tensor

INPUT_TOLERANCE = 1e-4
"""How far (absolute) a witness may be outside the constraints on inputs and still earn credit."""


class Classification(StrEnum):
    """What a witness file is; the words of the scorer."""

    CORRECT = "correct"
    CORRECT_UP_TO_TOLERANCE = "correct_up_to_tolerance"
    SPEC_NOT_VIOLATED = "spec_not_violated"
    WRONG_SHAPE = "wrong_shape"
    MALFORMED = "malformed"
    MISSING = "missing"


class MalformedWitnessError(InputError):
    """The text is no witness for the query."""


class WrongShapeError(InputError):
    """The number of inputs is not the network's."""


def read_witness(path: str | Path, query: Query) -> dict[str, NDArray[np.float64]]:
    """Values of the tensors in a witness file, plain or gzip-compressed; raises as `parse_witness` does."""
    path = Path(path)
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedWitnessError(f"{path}: not a text file") from None
    return parse_witness(text, query, str(path))


def parse_witness(text: str, query: Query, name: str = "witness") -> dict[str, NDArray[np.float64]]:
    """Values of the tensors in the text of a witness, by tensor, in the declared shapes (flat under 1.0).

    Under 1.0 the outputs may be absent. Raises MalformedWitnessError or WrongShapeError.
    """
    parse = _parse_expression if query.version.startswith("1") else _parse_assignment
    try:
        return parse(text, query)
    except MalformedWitnessError as error:
        raise MalformedWitnessError(f"{name}: {error}") from None
    except WrongShapeError as error:
        raise WrongShapeError(f"{name}: {error}") from None


def _parse_expression(text: str, query: Query) -> dict[str, NDArray[np.float64]]:
    """``((X_0 0.5) (X_1 0.2) (Y_0 1.0))``: inputs in order, then outputs in order or none."""
    content = text.replace("\n", " ").strip()
    if not (content.startswith("(") and content.endswith(")")):
        raise MalformedWitnessError("must start with ( and end with ); a line with the verdict does not belong in it")
    values: dict[str, list[float]] = {"X": [], "Y": []}
    for piece in filter(None, (part.strip() for part in content[1:-1].split(")"))):
        found = re.fullmatch(r"\( *([XY])_(\d+) +([^ \t]+)", piece)
        if not found:
            raise MalformedWitnessError(f"'{piece[:40]}' is not (NAME VALUE)")
        tensor, index, number = found.groups()
        if int(index) != len(values[tensor]):
            raise MalformedWitnessError(f"{tensor}_{index} where {tensor}_{len(values[tensor])} is expected")
        values[tensor].append(_number(number))
    (network,) = query.networks
    if len(values["X"]) != network.inputs[0].size:
        raise WrongShapeError(f"{len(values['X'])} inputs where the network has {network.inputs[0].size}")
    names = {"X": network.inputs[0].name, "Y": network.outputs[0].name}
    return {names[key]: np.array(numbers) for key, numbers in values.items() if numbers}


_HEADER = re.compile(r"(\S+)\s+(\S+)\s+\[([0-9,\s]*)\]")


def _parse_assignment(text: str, query: Query) -> dict[str, NDArray[np.float64]]:
    """A header ``name type [shape]`` and one value a line, for every declared tensor in order."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0] == "sat":
        lines = lines[1:]
    values = {}
    for tensor in query.tensors:
        if not lines:
            raise MalformedWitnessError(f"no value for '{tensor.name}'")
        shape = _check_header(lines[0], tensor)
        size = math.prod(shape)
        numbers, lines = lines[1 : size + 1], lines[size + 1 :]
        if len(numbers) < size:
            raise MalformedWitnessError(f"{len(numbers)} values for '{tensor.name}', which has {size}")
        values[tensor.name] = np.array([_number(number) for number in numbers]).reshape(shape)
    if lines:
        raise MalformedWitnessError(f"'{lines[0][:40]}' after the last tensor")
    return values


def _check_header(line: str, tensor: Tensor) -> tuple[int, ...]:
    found = _HEADER.fullmatch(line)
    if not found:
        raise MalformedWitnessError(f"'{line[:40]}' is not a header like '{tensor.name} {tensor.dtype} [shape]'")
    name, dtype, dims = found.groups()
    try:
        shape = tuple(int(dim) for dim in dims.split(",")) if dims.strip() else ()
    except ValueError:
        raise MalformedWitnessError(f"'{line[:40]}' has no valid shape") from None
    if name != tensor.name or shape != tensor.shape:
        raise MalformedWitnessError(f"'{line[:40]}' where {tensor.name} {list(tensor.shape or ())} is expected")
    if dtype.lower() != tensor.dtype and not (dtype.lower() == "real" and "float" in tensor.dtype):
        raise MalformedWitnessError(f"'{name}' has type {dtype}, the specification declares {tensor.dtype}")
    return shape


def _number(text: str) -> float:
    try:
        return float({"true": "1", "false": "0"}.get(text.lower(), text))
    except ValueError:
        raise MalformedWitnessError(f"'{text[:40]}' is not a number") from None


def classify(models: Mapping[str, Session], query: Query, path: str | Path) -> tuple[Classification, str]:
    """Judge a witness file; returns the class and one line that explains it.

    Outputs in the file are ignored: what onnxruntime computes counts, compared exactly as written. Constraints on
    inputs alone may be missed by ``INPUT_TOLERANCE`` for the second class. Raises InputError when the models do not
    fit the query.
    """
    path = Path(path)
    if not path.is_file() or (query.version.startswith("1") and path.stat().st_size < 2):
        return Classification.MISSING, f"{path}: no such file, or an empty one"
    try:
        given = read_witness(path, query)
    except WrongShapeError as error:
        return Classification.WRONG_SHAPE, str(error)
    except InputError as error:
        return Classification.MALFORMED, str(error)
    return judge(models, query, given)


def judge(
    models: Mapping[str, Session], query: Query, given: Mapping[str, NDArray[np.float64]]
) -> tuple[Classification, str]:
    """Judge the inputs among the values of a witness, as `classify` does."""
    values = _run(bind(query, models), query, given)
    assignment = variables(query, values)
    if holds_in_types(query, assignment, values):
        return Classification.CORRECT, "the specification holds for the replayed outputs"
    if holds_in_types(query, assignment, values, INPUT_TOLERANCE):
        return (
            Classification.CORRECT_UP_TO_TOLERANCE,
            f"an input is outside its constraints, by no more than {INPUT_TOLERANCE:g}",
        )
    return Classification.SPEC_NOT_VIOLATED, "the specification does not hold for the replayed outputs"


def _run(
    sessions: Mapping[str, Session], query: Query, given: Mapping[str, NDArray[np.float64]]
) -> Sequence[NDArray[Any]]:
    """Values of all tensors, in declaration order: the given inputs in the models' types, the rest computed."""
    values: list[NDArray[Any]] = []
    for network in query.networks:
        session = sessions[network.name]
        fed = [
            given[tensor.name].astype(info.dtype) for tensor, info in zip(network.inputs, session.inputs, strict=True)
        ]
        computed = session.run(fed)
        count = len(network.outputs)
        values += [*fed, *computed[count:], *computed[:count]]
    return values
