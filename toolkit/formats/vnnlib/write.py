"""Writes specifications in any version, exactly: what is read back has the same atoms, to the last bit.

Version 1.0 is written in the form the official counterexample checker reads whenever the query allows: variable on the
left and number on the right, one bound for each assertion, ``or`` of ``and``, non-strict signs. Version 2.0 follows its
grammar: no exponents, a decimal point in every constant of a real or floating type.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.atom_text import AtomWriter, decimal, portable
from toolkit.formats.vnnlib.convert_versions import downgrade
from toolkit.formats.vnnlib.inequalities import only_inequalities
from toolkit.formats.vnnlib.query import And, AtomBlock, Formula, Network, Or, Query, Tensor, count_disjuncts, disjuncts
from toolkit.tuning import tuned

VERSIONS = ("1.0", "2.0", "2.1")


def write_query(query: Query, path: Path | str, version: str | None = None, comments: Iterable[str] = ()) -> None:
    """Write a specification, compressed when the name ends in ``.gz``; replaces the file only when complete.

    ``version`` defaults to the query's own; ``comments`` are lines for the top. The bytes depend on nothing else.
    Raises UnsupportedError when the version cannot say what the query says.
    """
    path = Path(path)
    lines = format_query(query, version, comments)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _write_lines(stream, lines, compress=path.suffix == ".gz")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_lines(stream: BinaryIO, lines: Iterable[str], compress: bool) -> None:
    if compress:
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as zipped:
            zipped.writelines(line.encode() + b"\n" for line in lines)
    else:
        stream.writelines(line.encode() + b"\n" for line in lines)


def format_query(query: Query, version: str | None = None, comments: Iterable[str] = ()) -> Iterator[str]:
    """The lines of a specification. What a version cannot say is refused before the first line."""
    version = version or query.version
    if version not in VERSIONS:
        raise InputError(f"unknown VNN-LIB version {version!r}; there are {', '.join(VERSIONS)}")
    flat = version == "1.0"
    query = only_inequalities(downgrade(query)) if flat else query
    header = list(_declare_flat(query) if flat else _declare_networks(query, version))
    notes = [f"; {line}".rstrip() for comment in comments for line in comment.splitlines()]
    return _lines(notes, header, _assertions(query.formula, AtomWriter(query, decimal if flat else portable), flat))


def _lines(notes: list[str], header: list[str], assertions: Iterator[str]) -> Iterator[str]:
    yield from notes
    yield from header
    yield ""
    yield from assertions


def _declare_flat(query: Query) -> Iterator[str]:
    for tensor in query.tensors:
        yield from (f"(declare-const {tensor.name}_{index} Real)" for index in range(tensor.size))


def _declare_networks(query: Query, version: str) -> Iterator[str]:
    yield f"(vnnlib-version <{version}>)"
    for network in query.networks:
        yield f"(declare-network {network.name}"
        yield from _equivalence(network)
        yield from (f" (declare-input {_typed(tensor)})" for tensor in network.inputs)
        yield from (f' (declare-hidden {_typed(tensor)} "{tensor.onnx_name}")' for tensor in network.hidden)
        yield from (f" (declare-output {_typed(tensor)})" for tensor in network.outputs)
        yield ")"


def _equivalence(network: Network) -> Iterator[str]:
    if network.equal_to:
        yield f" (equal-to {network.equal_to})"
    if network.isomorphic_to:
        yield f" (isomorphic-to {network.isomorphic_to})"


def _typed(tensor: Tensor) -> str:
    if tensor.shape is None:
        raise UnsupportedError(f"version 2 needs the shape of {tensor.name}: upgrade the query first")
    return f"{tensor.name} {tensor.dtype} [{','.join(map(str, tensor.shape))}]"


def _assertions(formula: Formula, atoms: AtomWriter, flatten: bool) -> Iterator[str]:
    for part in formula.parts if isinstance(formula, And) else (formula,):
        if isinstance(part, AtomBlock):
            yield from (f"(assert {text})" for text in atoms.texts(part))
        else:
            yield "(assert (or"
            for disjunct in _disjuncts(part, flatten):
                yield f"  {_conjunction(disjunct, atoms)}"
            yield "))"


def _disjuncts(formula: Formula, flatten: bool) -> Iterable[tuple[Formula, ...]]:
    """The disjuncts of an ``or``, each as the parts of a conjunction; multiplied out where that stays small."""
    if flatten and count_disjuncts(formula) <= tuned().specifications.most_flattened:
        return disjuncts(formula)
    parts = formula.parts if isinstance(formula, Or) else (formula,)
    return [part.parts if isinstance(part, And) else (part,) for part in parts]


def _conjunction(parts: tuple[Formula, ...], atoms: AtomWriter) -> str:
    return f"(and {' '.join(text for part in parts for text in _nested(part, atoms))})"


def _nested(formula: Formula, atoms: AtomWriter) -> Iterator[str]:
    match formula:
        case AtomBlock():
            yield from atoms.texts(formula)
        case And(parts):
            yield _conjunction(parts, atoms)
        case Or(parts):
            yield f"(or {' '.join(_conjunction((part,), atoms) for part in parts)})"
