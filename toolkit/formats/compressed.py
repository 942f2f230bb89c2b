"""Files that may be compressed with gzip, which is told by their first bytes, read only as far as is sensible."""

from __future__ import annotations

import gzip
from pathlib import Path

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 22


def read_decompressed(path: Path, most: int) -> bytes:
    """Content of a plain or compressed file: all of it, or its first ``most`` bytes and one more.

    No more memory is taken than the content needs. Raises OSError, EOFError and zlib.error.
    """
    with path.open("rb") as raw:
        compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    parts, size = [], 0
    with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
        while size <= most and (part := stream.read(min(CHUNK, most + 1 - size))):
            parts.append(part)
            size += len(part)
    return b"".join(parts)
