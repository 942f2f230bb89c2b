"""Specification files as text: decompression, encoding, comments and line numbers, with errors that name the place."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.errors import InputError
from toolkit.formats.compressed import read_decompressed
from toolkit.tuning import tuned

_LFS_HEADER = "version https://git-lfs"
_COMMENT = re.compile(r';[^\n\r]*|("[^"\n]*")')
_STRING = re.compile(r'"[^"\n]*"')


@dataclass(frozen=True)
class SourceText:
    """A text with the name to show in messages."""

    name: str
    text: str

    def error(self, offset: int, message: str) -> InputError:
        """The error to raise for what stands at a character offset: ``name:line: message``."""
        return InputError(f"{self.name}:{self.text.count(chr(10), 0, max(offset, 0)) + 1}: {message}")


def read_source(path: Path) -> SourceText:
    """A plain or gzip-compressed text file (recognised by its first bytes, not by its name). Raises InputError."""
    try:
        data = read_decompressed(path, tuned().files.most_text_bytes)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(data) > tuned().files.most_text_bytes:
        raise InputError(f"{path}: larger than {tuned().files.most_text_bytes >> 20} MiB; split the specification")
    # A byte that is not UTF-8 may stand in a comment; anywhere else its replacement is an unknown token.
    return checked_source(str(path), data.decode("utf-8-sig", errors="replace"))


def checked_source(name: str, text: str) -> SourceText:
    """A source without byte-order mark and comments; raises InputError when it is no specification text at all."""
    text = text.removeprefix("\ufeff")
    if text.startswith(_LFS_HEADER):
        raise InputError(f"{name}: a git-LFS pointer, not the file itself; fetch it with `git lfs pull`")
    nul = text.find("\0")
    if nul >= 0:
        raise SourceText(name, text).error(nul, "NUL character: not a text file")
    source = SourceText(name, without_comments(text))
    if not source.text.strip():
        raise InputError(f"{name}: empty: no declaration and no assertion")
    return source


def without_comments(text: str) -> str:
    """The text without ``; comments``; strings, and so their semicolons, and line breaks stay where they are."""
    return _COMMENT.sub(lambda match: match.group(1) or "", text) if ";" in text else text


def without_strings(text: str) -> str:
    """The text with blanks in place of string literals; offsets do not change."""
    return _STRING.sub(lambda match: " " * len(match.group()), text) if '"' in text else text


def with_empty_strings(text: str) -> str:
    """The text with nothing in its string literals, which stay tokens; offsets do not change."""
    return _STRING.sub(lambda match: '""' + " " * (len(match.group()) - 2), text) if '"' in text else text


def nesting_depth(text: str, chunk: int = 1 << 22) -> int:
    """Largest number of parentheses open at once."""
    depth = deepest = 0
    for start in range(0, len(text), chunk):
        codes = np.frombuffer(text[start : start + chunk].encode("ascii", errors="replace"), dtype=np.uint8)
        steps = (codes == ord("(")).astype(np.int8) - (codes == ord(")"))
        levels = depth + np.cumsum(steps, dtype=np.int64)
        deepest, depth = max(deepest, int(levels.max())), int(levels[-1])
    return deepest
