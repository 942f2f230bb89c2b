"""Arguments that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from toolkit.devices import visible_gpus
from toolkit.errors import InputError
from toolkit.result import json_text
from toolkit.run.memory_limits import available, in_bytes
from toolkit.tuning import tuned

Flag = Annotated[bool, Parameter(negative=())]
"""An option that is there or not, without a form that denies it."""
MemoryLimit = Annotated[float | None, Parameter(validator=Number(gt=0))]
"""An option for memory in GiB; None for what the machine has left."""


@contextmanager
def on_stderr(whether: bool) -> Iterator[None]:
    """Print on stderr what is said to people, where stdout is for a JSON object."""
    if whether:
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def print_json(values: Any) -> None:
    """Print values of JSON's types on stdout; null for numbers that are not finite."""
    print(json_text(values))


def memory_of(limit: float | None) -> int:
    """Bytes that a process may take (0: no limit): those of the option, or those that the machine has left.

    Drivers of GPUs reserve more than there is, so beside these there is no limit but the option's.
    """
    if limit is not None:
        return in_bytes(limit)
    return 0 if visible_gpus() else max(tuned().memory.least_process_bytes, available())


def network_paths(values: Sequence[str]) -> dict[str, Path]:
    """``NAME=PATH`` arguments as a mapping; a bare path stands for the only network of a specification.

    A path that contains ``=`` and exists is a bare path. Raises InputError for repeated or missing names.
    """
    from toolkit.formats.vnncomp.model_binding import BARE

    paths: dict[str, Path] = {}
    for value in values:
        name, path = _split(value)
        if name in paths:
            raise InputError(f"--network {value}: the network was given twice" + ("" if name else "; use NAME=PATH"))
        paths[name] = Path(path)
    if not paths:
        raise InputError("no network: add --network PATH, or --network NAME=PATH for each network of the specification")
    if BARE in paths and len(paths) > 1:
        raise InputError(f"--network {paths[BARE]}: with several networks each needs a name, as in NAME=PATH")
    return paths


def _split(value: str) -> tuple[str, str]:
    from toolkit.formats.vnncomp.model_binding import BARE

    name, equals, path = value.partition("=")
    if equals and name.isidentifier() and not Path(value).exists():
        return name, path
    return BARE, value
