"""Reads a specification of any version: the header decides, never the folder or the name of the file."""

from __future__ import annotations

import re
from pathlib import Path

from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.text import SourceText, checked_source, read_source
from toolkit.formats.vnnlib.vnnlib1 import parse_vnnlib1

_HEADER = re.compile(r"\s*\(\s*vnnlib-version")


def read_query(path: Path | str) -> Query:
    """Read a ``.vnnlib`` file of version 1.0, 2.0 or 2.1, plain or compressed with gzip.

    Raises InputError (``file:line: what is wrong``) and UnsupportedError.
    """
    return _parse(read_source(Path(path)))


def parse_query(text: str, source_name: str = "query") -> Query:
    """Parse the text of a specification; ``source_name`` stands for the file in messages."""
    return _parse(checked_source(source_name, text))


def _parse(source: SourceText) -> Query:
    if _HEADER.match(source.text):
        from toolkit.formats.vnnlib.vnnlib2 import parse_vnnlib2

        return parse_vnnlib2(source)
    return parse_vnnlib1(source)
