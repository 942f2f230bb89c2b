"""Files that may be compressed with gzip, which is told by their first bytes, read only as far as is sensible."""

from __future__ import annotations

import gzip
from pathlib import Path

from toolkit.tuning import tuned

GZIP_MAGIC = b"\x1f\x8b"


def read_decompressed(path: Path, most: int) -> bytes:
    """Content of a plain or compressed file: all of it, or its first ``most`` bytes and one more.

    Raises OSError, also for content that is out of all proportion to its file, EOFError and zlib.error.
    """
    parts, size = [], 0
    with path.open("rb") as raw:
        compressed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if compressed else raw
        while size <= most and (part := stream.read(min(tuned().files.decompressed_block, most + 1 - size))):
            parts.append(part)
            size += len(part)
            if compressed and size > max(tuned().files.unchecked_bytes, tuned().files.most_compression * raw.tell()):
                raise OSError(f"{raw.tell() >> 10} KiB of it expand to {size >> 20} MiB, as in no such file")
    return b"".join(parts)
