"""The file of a certificate while it grows: what was written can be read at any time, and taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from toolkit.certificates.writer import CertificateWriter, WriterMark
from toolkit.proof.stream import records
from toolkit.tuning import tuned


@dataclass(frozen=True)
class FileMark:
    """A place in the file."""

    position: int
    writer: WriterMark


class CertificateFile:
    """A file of records that a `CertificateWriter` makes."""

    def __init__(self, file: IO[bytes], writer: CertificateWriter) -> None:
        """Raises OSError where the file cannot be written."""
        self.writer = writer
        self._file = file
        self._flushed = time.monotonic()
        self.add(writer.header())
        self.flush()

    def add(self, record: bytes) -> None:
        """Write what the writer gave."""
        self._file.write(record)
        if time.monotonic() > self._flushed + tuned().certificates.flushed_seconds:
            self.flush()

    def flush(self) -> None:
        """Have everything in the file, so that it is read as far as it goes whatever happens next."""
        self._file.write(self.writer.flush())
        self._file.flush()
        self._flushed = time.monotonic()

    def mark(self) -> FileMark:
        """The end of the file as it is now, to come back to."""
        self.flush()
        return FileMark(self._file.tell(), self.writer.mark())

    def back_to(self, mark: FileMark) -> None:
        """Remove all that was written after a mark."""
        self._file.seek(mark.position)
        self._file.truncate()
        self.writer.back_to(mark.writer)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Kinds and payloads of all that was written, of a file that can be read, too."""
        self._file.seek(0)
        return records(self._file)

    def end(self) -> None:
        """Write the END record, after which nothing may follow."""
        self._file.write(self.writer.end())
        self._file.flush()

    def close(self) -> None:
        """Close the file, without an END record."""
        self._file.close()
