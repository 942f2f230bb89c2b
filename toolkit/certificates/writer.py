"""Writes certificates, for a search to call while it runs; the checker does not use it.

`CertificateWriter` gives the bytes of records, from numpy arrays, in the order in which it is called. They can be
written to a file as they come, and a file that ends early can be read as far as it goes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.proof.identities import Multiples
from toolkit.proof.linear_maps import Array
from toolkit.proof.stream import HEAD, MAGIC, LinearRows, RecordKind, References


@dataclass(frozen=True)
class WriterMark:
    """A place in the stream of a writer."""

    contexts: int
    halves: int
    packer: Any


class CertificateWriter:
    """Makes the bytes of records. It counts contexts and half-spaces as a reader will."""

    def __init__(self, network: bytes, specification: bytes, tensors: Sequence[str]) -> None:
        self.tensors = {name: number for number, name in enumerate(tensors, 1)}
        self.contexts = self.halves = 0
        names = b"".join(struct.pack("<I", len(raw)) + raw for raw in (name.encode() for name in tensors))
        self._packer = zlib.compressobj(6)
        self._start = MAGIC + self.record(
            RecordKind.HEADER, network + specification + struct.pack("<I", len(tensors)) + names
        )

    def header(self) -> bytes:
        """The first bytes of the file."""
        return self._start

    def of_share(self) -> CertificateWriter:
        """A writer of a share's file: without a HEADER record, with contexts and half-spaces counted on from here."""
        share = copy(self)
        share._packer, share._start = zlib.compressobj(zlib.Z_BEST_SPEED), MAGIC
        return share

    def record(self, kind: RecordKind, payload: bytes) -> bytes:
        """The bytes of a record with a given payload. Contexts and half-spaces that it begins are not counted."""
        return self._packer.compress(HEAD.pack(kind, len(payload)) + payload)

    def mark(self) -> WriterMark:
        """Where the stream is, to come back to after a `flush`."""
        return WriterMark(self.contexts, self.halves, self._packer.copy())

    def back_to(self, mark: WriterMark) -> None:
        """Go on from there: the bytes since are to be thrown away."""
        self.contexts, self.halves, self._packer = mark.contexts, mark.halves, mark.packer.copy()

    def flush(self) -> bytes:
        """What makes everything so far readable; costs a few bytes."""
        return self._packer.flush(zlib.Z_SYNC_FLUSH)

    def equal(self, tensor: int, stated: Multiples) -> bytes:
        """State that elements of a tensor are multiples of others; what is left of the tensor is numbered anew."""
        payload = struct.pack("<II", tensor, len(stated.elements)) + integers(stated.elements) + integers(stated.models)
        return self.record(RecordKind.EQUAL, payload + np.asarray(stated.factors, "<f8").tobytes())

    def floats(self, types: frozenset[int]) -> bytes:
        """State that all that follows is about evaluations in the one element type of the network."""
        [kind] = types
        return self.record(RecordKind.FLOATS, struct.pack("<I", kind))

    def case(self, number: int, above: int | None = None) -> tuple[int, bytes]:
        """Begin the proof of a case, or of what all have in common, where the number is that after the last: its
        context. It has the bounds of the context ``above``, all that is left of what the cases have in common."""
        self.contexts += 1
        payload = struct.pack("<II", number, 0 if above is None else above + 1)
        return self.contexts - 1, self.record(RecordKind.CASE, payload)

    def split(self, contexts: Array, tensors: Array, indices: Array, points: Array) -> tuple[Array, bytes]:
        """Split contexts at ``element <= point`` and ``>=``; the numbers of the two halves, ``(n, 2)``."""
        count = len(contexts)
        children = self.contexts + np.arange(2 * count).reshape(count, 2)
        self.contexts += 2 * count
        return children, self.record(RecordKind.SPLIT, split_payload(contexts, tensors, indices, points))

    def slopes(self, first: int, layers: Mapping[str, Array], rows: int = 1) -> bytes:
        """Put slopes, bytes for all elements of some tensors, ``(rows, n)`` each, into slots from the first one on."""
        slots = (first + np.arange(rows)).astype("<u4")
        parts = [slots.view(np.uint8).reshape(rows, 4), repeated(struct.pack("<I", len(layers)), rows)]
        for name, values in layers.items():
            table = np.asarray(values, np.uint8).reshape(rows, -1)
            parts += [repeated(struct.pack("<II", self.tensors[name], table.shape[1]), rows), table]
        head = HEAD.pack(RecordKind.SLOPES, sum(part.shape[1] for part in parts))
        return self._packer.compress(np.concatenate([repeated(head, rows), *parts], 1).tobytes())

    def refute(self, rows: LinearRows) -> bytes:
        """Rows that are positive in their contexts."""
        return self.record(RecordKind.REFUTE, linear_payload(rows))

    def bound(self, rows: LinearRows) -> bytes:
        """Bounds of elements of a tensor."""
        return self.record(RecordKind.BOUND, linear_payload(rows))

    def half_space(self, rows: LinearRows) -> tuple[Array, bytes]:
        """Linear functions of the input that are at most 0 where the atoms hold; their numbers."""
        self.halves += len(rows)
        numbers = np.arange(self.halves - len(rows), self.halves)
        return numbers, self.record(RecordKind.HALF_SPACE, linear_payload(rows))

    def recompute(self, context: int, anew: bool = True) -> bytes:
        """Have the bounds of a context computed anew, or what is known of it put together, for all below it."""
        return self.record(RecordKind.RECOMPUTE, struct.pack("<IB", context, anew))

    def end(self) -> bytes:
        """The last record and the end of the stream."""
        return self.record(RecordKind.END, b"") + self._packer.flush()


def packed(stream: Iterable[tuple[int, bytes]]) -> bytes:
    """The file that has these records, as kinds and payloads."""
    return MAGIC + zlib.compress(b"".join(HEAD.pack(kind, len(payload)) + payload for kind, payload in stream))


def split_payload(contexts: Array, tensors: Array, indices: Array, points: Array) -> bytes:
    """What a record says that splits contexts at elements of tensors, ``(n,)`` each."""
    numbers = integers(contexts) + integers(tensors) + integers(indices)
    return struct.pack("<I", len(contexts)) + numbers + np.asarray(points, "<f8").tobytes()


def linear_payload(rows: LinearRows) -> bytes:
    """What a record of linear rows says; they have elements and sides where they bound elements."""
    count = len(rows)
    parts = [struct.pack("<BIII", rows.fresh, rows.tensor, count, 0), integers(rows.contexts), integers(rows.slots)]
    if rows.indices is not None and rows.upper is not None:
        parts += [integers(rows.indices), np.asarray(rows.upper, np.uint8).tobytes()]
    for part in (rows.atoms, rows.splits, rows.halves):
        parts += [integers(part.counts), integers(part.numbers), np.asarray(part.values, "<f4").tobytes()]
    return b"".join(parts)


def repeated(data: bytes, rows: int) -> Array:
    """Bytes in so many rows."""
    return np.broadcast_to(np.frombuffer(data, np.uint8), (rows, len(data)))


def integers(numbers: Any) -> bytes:
    """Numbers of four bytes."""
    return np.asarray(numbers, "<u4").tobytes()


def no_references(rows: int) -> References:
    """References of rows that multiply no atom, split or half-space."""
    return References(np.zeros(rows, int), np.zeros(0, int), np.zeros(0))


def references(rows: Sequence[Mapping[int, float]]) -> References:
    """One mapping from numbers to multipliers for each row."""
    numbers = [number for row in rows for number in row]
    values = [value for row in rows for value in row.values()]
    return References(np.array([len(row) for row in rows]), np.array(numbers, int), np.array(values, float))
