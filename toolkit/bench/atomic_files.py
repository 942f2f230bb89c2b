"""Files that are there completely or not at all, whenever the machine stops, and on disk once they are said to be."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all; on return it is on disk."""
    _write_atomically(path, io.BytesIO(data))


def copy_to_disk(source: Path, target: Path) -> None:
    """Copy a file so that it is there completely or not at all; on return it is on disk."""
    with source.open("rb") as file:
        _write_atomically(target, file)


def _write_atomically(path: Path, data: BinaryIO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(data, file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_to_disk(source: Path, target: Path) -> None:
    """Give a file another name in the same file system, where another file of that name is replaced; on return it is
    on disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("r+b") as file:  # Windows brings no file to disk that is open for reading alone
        os.fsync(file.fileno())
    source.replace(target)
    sync_folder(target.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file in UTF-8, compressed when its name ends in ``.gz`` (without a time stamp: same text, same
    bytes). Parts of file names that are no text are written as they are."""
    write_bytes_atomically(path, packed(path, text))


def packed(path: Path, text: str) -> bytes:
    """What is written to a text file of this name."""
    data = text.encode("utf-8", errors="surrogateescape")
    return gzip.compress(data, mtime=0) if path.suffix == ".gz" else data


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes as they are on disk; the empty string for what is no file or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EROFS, errno.EBADF}
"""What systems say that cannot bring the names in a folder to disk, or let nobody look into it."""


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder, and its own in the one around it, to disk, where the file system can do that.

    On Windows, which opens no folders, they come to disk when the system sees fit.
    """
    if sys.platform == "win32":
        return
    for place in (folder, folder.parent):
        try:
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in CANNOT_SYNC:
                raise
