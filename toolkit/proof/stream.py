"""The certificate file: a line that names the format, then a zlib stream of records.

A record is a byte for its kind, four for the length of its payload, and the payload; all numbers are little-endian.
`records` reads them and trusts no length; whoever writes them does so elsewhere. docs/certificate.md has the layout of
each record and what it states.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from typing import IO, Any

import numpy as np

from toolkit.proof.linear_maps import Array

MAGIC = b"prunecert certificate 1\n"
MOST_BYTES = 1 << 28
"""Longest payload."""
CHUNK = 1 << 16
HEAD = struct.Struct("<BI")


class RecordKind(IntEnum):
    """Kinds of records; 17 to 31 are kept for more identities of the network."""

    HEADER, CASE, SPLIT, SLOPES, REFUTE, BOUND, HALF_SPACE, RECOMPUTE, END, FLOATS, EQUAL = *range(1, 11), 16


class Damaged(Exception):  # noqa: N818
    """A record that says nothing that can be read."""


@dataclass(frozen=True)
class References:
    """For each of R rows some numbers (atoms, contexts, half-spaces) with multipliers, one after the other."""

    counts: Array
    numbers: Array
    values: Array

    @cached_property
    def starts(self) -> Array:
        """Where each row's numbers begin."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def rows(self) -> Array:
        """The row of each number."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def __getitem__(self, kept: Array) -> References:
        """Those of some rows, by their positions."""
        counts = self.counts[kept]
        at = np.repeat(self.starts[kept] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return References(counts, self.numbers[at], self.values[at])


@dataclass(frozen=True)
class LinearRows:
    """The rows of a REFUTE, BOUND or HALF_SPACE record."""

    fresh: bool
    contexts: Array
    slots: Array
    atoms: References
    splits: References
    halves: References
    tensor: int = 0
    indices: Array | None = None
    upper: Array | None = None

    def __len__(self) -> int:
        return len(self.contexts)

    def select(self, kept: Array) -> LinearRows:
        """Some of the rows, by their positions."""
        parts: dict[str, Any] = {n: p[kept] for n, p in vars(self).items() if isinstance(p, References | np.ndarray)}
        return replace(self, **parts)

    def batches(self, most: int) -> Iterator[LinearRows]:
        """The rows in parts of so many."""
        return map(self.select, np.split(np.arange(len(self)), range(most, len(self), most)))


class Payload:
    """A payload that is read from its beginning."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, size: int) -> bytes:
        """The next bytes of the record. Raises Damaged where it is shorter."""
        if size > len(self.data) - self.place:
            raise Damaged("a record is shorter than it says")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self) -> int:
        """The next unsigned integer, of four bytes."""
        return int.from_bytes(self.take(4), "little")

    def array(self, count: int, kind: str = "<u4") -> Array:
        """The next so many numbers of a kind, those of four bytes as int64, floats as float64."""
        found = np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind)
        return found.astype(np.int64) if kind == "<u4" else found.astype(np.float64) if "f" in kind else found

    def references(self, rows: int) -> References:
        """Multipliers of some rows. They are finite and not negative."""
        counts = self.array(rows)
        total = int(counts.sum())
        found = References(counts, self.array(total), self.array(total, "<f4"))
        if not (np.isfinite(found.values) & (found.values >= 0)).all():
            raise Damaged("a multiplier is negative or not finite")
        return found

    def linear(self, kind: int) -> LinearRows:
        """The rows of a LINEAR record."""
        fresh, tensor, count, kept = self.take(1)[0], self.number(), self.number(), self.number()
        if fresh > 1 or kept or not count:
            raise Damaged("a record has flags that are not known, or no rows")
        contexts, slots = self.array(count), self.array(count)
        indices, upper = (self.array(count), self.array(count, "u1")) if kind == RecordKind.BOUND else (None, None)
        if upper is not None and upper.max() > 1:
            raise Damaged("a side is neither lower nor upper")
        atoms, splits, halves = (self.references(count) for _ in range(3))
        self.end()
        return LinearRows(bool(fresh), contexts, slots, atoms, splits, halves, tensor, indices, upper)

    def end(self) -> None:
        """Check that everything has been read."""
        if self.place != len(self.data):
            raise Damaged("a record is longer than it says")


def unpacked_bytes(file: IO[bytes]) -> Iterator[bytes]:
    """The stream, some bytes at a time. A file that ends too early ends it, too; a damaged one raises zlib.error."""
    unpacker = zlib.decompressobj()
    while not unpacker.eof:
        data = unpacker.unconsumed_tail or file.read(CHUNK)
        if not data:
            yield unpacker.flush()
            return
        yield unpacker.decompress(data, 16 * CHUNK)
    if unpacker.unused_data or file.read(1):
        raise Damaged("there is something after the end")


def records(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Kinds and payloads. Raises Damaged and zlib.error; ends without `RecordKind.END` where the file does."""
    if file.read(len(MAGIC)) != MAGIC:
        raise Damaged("this is no certificate of version 1")
    buffer = bytearray()
    for data in unpacked_bytes(file):
        buffer += data
        place = 0
        while len(buffer) - place >= HEAD.size:
            kind, length = HEAD.unpack_from(buffer, place)
            if length > MOST_BYTES:
                raise Damaged("a record is too long")
            if len(buffer) - place - HEAD.size < length:
                break
            place += HEAD.size + length
            yield kind, bytes(buffer[place - length : place])
        del buffer[:place]
