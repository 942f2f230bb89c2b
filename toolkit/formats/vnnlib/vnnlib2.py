"""VNN-LIB 2.0 and 2.1: several networks, shaped tensors, hidden nodes, polynomials, strict signs, any nesting.

The official ``vnnlib`` package parses and type-checks the text and gives the declarations as typed definitions. The
assertions are then read by the machine that also reads 1.0: it keeps strictness, ``!=`` and constants exactly as
written, at a fraction of the memory of a tree with a Python object per term. What the package (1.0.2) lets through or
does not survive is checked here: types it does not know, mixing ``real`` with element types, negative or fractional
indices, text after a NUL, deep nesting (it overflows the stack).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import vnnlib

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.assertions import read_assertions
from toolkit.formats.vnnlib.dialect import MalformedError, shown
from toolkit.formats.vnnlib.query import Network, Query, Tensor, TensorKind
from toolkit.formats.vnnlib.stack_machine import MAX_DEPTH
from toolkit.formats.vnnlib.text import SourceText, nesting_depth, without_strings
from toolkit.tuning import tuned

_HEADER = re.compile(r"\s*\(\s*vnnlib-version\s*<\s*(2\.[01])\s*>\s*\)")
_BODY = re.compile(r"\(\s*assert\b")
_INITIALIZED = re.compile(r"\(declare-input\b[^()]*\binitialized\s*\)")
_SHAPE = re.compile(r"\[([^\]]*)\]")
_SIZES = re.compile(r"\s*(?:[0-9]{1,18}\s*(?:,\s*[0-9]{1,18}\s*)*)?")
_REFERENCE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)(?:\s*\[([^\]]*)\])?", re.ASCII)
_INDICES = re.compile(r"\s*[0-9]{1,18}\s*(?:,\s*[0-9]{1,18}\s*)*", re.ASCII)
_SYNTAX_ERROR = re.compile(r"line (\d+), column (\d+): '(.*)'", re.DOTALL)
_NOTHING = "(assert (<= 0.0 0.0))"

_DTYPES = {  # by the names of vnnlib.DType
    "Real": "real",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "Bool": "bool",
}


class Vnnlib2:
    """The dialect of versions 2.0 and 2.1 over declared tensors."""

    comparisons = frozenset({"<=", "<", ">=", ">", "==", "!="})
    number = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
    ignored: frozenset[str] = frozenset()

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}

    def variable(self, token: str) -> int | None:
        """The number of the element ``NAME[i,j,...]``, or of the scalar ``NAME``."""
        match = _REFERENCE.fullmatch(token)
        if match is None:
            return None
        tensor = self._tensors.get(match[1])
        if tensor is None:
            raise MalformedError(f"{shown(match[1])} is not declared")
        return tensor.offset + _flat_index(tensor, _indices(token, match[2]))

    def is_output(self, code: int) -> bool:
        """Whether a number is that of an element of an output tensor."""
        return any(
            tensor.kind == TensorKind.OUTPUT and tensor.offset <= code < tensor.offset + tensor.size
            for tensor in self._tensors.values()
        )

    def statement(self, head: str, words: Sequence[str]) -> None:
        """Only assertions follow the declarations."""
        raise MalformedError(f"unknown statement {shown(head)}")


def _indices(token: str, listed: str | None) -> list[int]:
    if listed is None:
        return []
    if not _INDICES.fullmatch(listed):
        raise MalformedError(f"the indices of {shown(token)} are not natural numbers separated by commas")
    return [int(index) for index in listed.split(",")]


def _flat_index(tensor: Tensor, indices: list[int]) -> int:
    shape = tensor.shape or ()
    if len(indices) != len(shape):
        raise MalformedError(f"{tensor.name} takes {len(shape)} indices, not {len(indices)}")
    flat = 0
    for index, size in zip(indices, shape, strict=True):
        if index >= size:
            raise MalformedError(f"index {index} of {tensor.name} is out of bounds: the shape is {list(shape)}")
        flat = flat * size + index
    return flat


def parse_vnnlib2(source: SourceText, shortcut: bool = True) -> Query:
    """Parse a text of version 2.0 or 2.1. Raises InputError and UnsupportedError.

    ``shortcut=False`` reads token by token only, for the comparison of the two ways in tests.
    """
    plain = SourceText(source.name, without_strings(source.text))
    header = _HEADER.match(plain.text)
    if header is None:
        raise plain.error(0, "the header is (vnnlib-version <2.0>) or <2.1>")
    found = _BODY.search(plain.text)
    body = found.start() if found else len(plain.text)
    _check_head(plain, body)
    networks = tuple(_networks(_definitions(source, header.span(1), body), source.name))
    tensors = [tensor for network in networks for tensor in network.tensors]
    table, formula = read_assertions(plain, Vnnlib2(tensors), body, shortcut)
    atoms, products = table.finish(lambda codes: codes, sum(tensor.size for tensor in tensors))
    return Query(header[1], networks, atoms, formula, products)


def _check_head(plain: SourceText, body: int) -> None:
    if nesting_depth(plain.text) > MAX_DEPTH:
        raise InputError(f"{plain.name}: nested more than {MAX_DEPTH} deep")
    if flag := _INITIALIZED.search(plain.text, 0, body):
        raise UnsupportedError(f"{plain.error(flag.start(), 'inputs declared `initialized` are not supported')}")
    for shape in _SHAPE.finditer(plain.text, 0, body):
        if not _SIZES.fullmatch(shape[1]):
            raise plain.error(shape.start(), f"the shape {shown(shape[0])} is not natural numbers separated by commas")


def _definitions(source: SourceText, version: tuple[int, int], body: int) -> vnnlib.Query:
    """The package's tree. It knows 2.0 only, and 2.1 but for ``initialized`` is the same language."""
    text = source.text[: version[0]] + "2.0" + source.text[version[1] :]
    if len(text) > tuned().specifications.most_checked:
        text = text[:body] + _NOTHING
    try:
        return vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise InputError(_explain(source.name, str(error))) from None
    except IndexError:  # from C++ std::stoll and std::stod, which do not say which literal it was
        raise InputError(f"{source.name}: a number or an index is out of range") from None
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{source.name}: refused by the vnnlib package: {shown(str(error))}") from None


def _explain(name: str, message: str) -> str:
    """One line out of the package's message, which is JSON for type errors."""
    if syntax := _SYNTAX_ERROR.search(message):
        return f"{name}:{syntax[1]}: syntax error at column {syntax[2]}: {shown(syntax[3])}"
    try:
        first = json.loads(message)["errors"][0]
        return f"{name}:{first['line']}: {first['message']} at {shown(first['offendingSymbol'])}: {first['hint']}"
    except (ValueError, LookupError, TypeError):
        return f"{name}: refused by the vnnlib package: {shown(' '.join(message.split()))}"


def _networks(tree: vnnlib.Query, name: str) -> Iterator[Network]:
    offset = 0
    dtypes = set()
    for network in tree.networks:
        groups: dict[TensorKind, tuple[Tensor, ...]] = {}
        for kind, definitions in zip(TensorKind, (network.inputs, network.hidden, network.outputs), strict=True):
            groups[kind] = tuple(_tensors(definitions, kind, offset, name))
            offset += sum(tensor.size for tensor in groups[kind])
            dtypes |= {tensor.dtype for tensor in groups[kind]}
        if offset > tuned().specifications.most_variables:
            raise InputError(f"{name}: more than {tuned().specifications.most_variables} tensor elements are declared")
        if "real" in dtypes and len(dtypes) > 1:
            raise InputError(f"{name}: `real` cannot be mixed with {', '.join(sorted(dtypes - {'real'}))}")
        equal, isomorphic = network.equal_to or None, network.isometric_to or None
        yield Network(
            network.name,
            groups[TensorKind.INPUT],
            groups[TensorKind.OUTPUT],
            groups[TensorKind.HIDDEN],
            equal,
            isomorphic,
        )


def _tensors(definitions: Iterable[Any], kind: TensorKind, offset: int, name: str) -> Iterator[Tensor]:
    for definition in definitions:
        dtype = _DTYPES.get(definition.dtype.name)
        if dtype is None:
            known = ", ".join(_DTYPES.values())
            raise InputError(f"{name}: unknown type in {shown(str(definition).strip())}; types are {known}")
        shape = tuple(definition.shape)
        onnx_name = definition.onnx_name.strip('"') if kind is TensorKind.HIDDEN else None
        yield Tensor(definition.name, kind, dtype, shape, offset, math.prod(shape), onnx_name)
        offset += math.prod(shape)
