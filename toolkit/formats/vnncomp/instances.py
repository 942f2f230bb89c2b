"""``instances.csv`` and ``results.csv`` of VNN-COMP, and the names of witness files. No torch."""

from __future__ import annotations

import ast
import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import InputError
from toolkit.formats.vnncomp.model_binding import BARE
from toolkit.result import Verdict
from toolkit.settings import LONGEST_TIMEOUT

COLUMNS = 3


@dataclass(frozen=True)
class Instance:
    """One row of ``instances.csv``."""

    networks: dict[str, Path]
    """By the name of the network in the specification; the name of a single unnamed network is ``""``."""
    spec: Path
    timeout: float
    """In seconds."""
    onnx_field: str
    """The columns as they stand in the file: ``results.csv`` repeats them."""
    spec_field: str


@dataclass(frozen=True)
class ResultRow:
    """One row of ``results.csv``: six columns, no header."""

    category: str
    onnx: str
    vnnlib: str
    prepare_time: float
    verdict: Verdict
    run_time: float


def read_instances(path: str | Path) -> list[Instance]:
    """Read an ``instances.csv``; paths in it are relative to its folder.

    Raises InputError naming file and line. Whether the files exist is not looked at.
    """
    path = Path(path)
    instances = []
    for line, row in read_rows(path):
        if len(row) != COLUMNS:
            raise InputError(f"{path}:{line}: {len(row)} columns where onnx,vnnlib,timeout are expected")
        onnx, vnnlib, timeout = row
        if not vnnlib:
            raise InputError(f"{path}:{line}: the specification is missing")
        networks = {name: path.parent / file for name, file in _networks(onnx, f"{path}:{line}").items()}
        seconds = _seconds(timeout, f"{path}:{line}")
        if seconds > LONGEST_TIMEOUT:
            raise InputError(f"{path}:{line}: a time limit of {timeout} s; at most {LONGEST_TIMEOUT} s are possible")
        instances.append(Instance(networks, path.parent / vnnlib, seconds, onnx, vnnlib))
    if not instances:
        raise InputError(f"{path}: no instance in it")
    return instances


def parse_networks(field: str, where: str = "network") -> dict[str, str]:
    """The ``onnx`` column: a path, or a Python list of (name, path) pairs. Raises InputError."""
    return _networks(field.strip(), where)


def networks_field(networks: Mapping[str, str]) -> str:
    """The ``onnx`` column for networks by name; the inverse of `parse_networks`."""
    return networks[BARE] if set(networks) == {BARE} else repr(list(networks.items()))


def write_instances(path: str | Path, rows: Iterable[tuple[Mapping[str, str], str, float]]) -> None:
    """Write networks (relative paths by name), specification and timeout of each instance, without a header."""
    fields = [(networks_field(networks), spec, seconds_field(timeout)) for networks, spec, timeout in rows]
    Path(path).write_text(_csv(fields), encoding="utf-8", newline="")


def seconds_field(seconds: float) -> str:
    """A time limit as it is written: every digit, and none after the point where there are none."""
    return repr(float(seconds)).removesuffix(".0")


def format_results(rows: Iterable[ResultRow]) -> str:
    """The text of a ``results.csv``; times in seconds with microseconds."""
    return _csv(
        (row.category, row.onnx, row.vnnlib, f"{row.prepare_time:.6f}", row.verdict.value, f"{row.run_time:.6f}")
        for row in rows
    )


def read_results(path: str | Path) -> list[ResultRow]:
    """Read a ``results.csv``; verdicts may be any word that VNN-COMP's scorer accepts. Raises InputError."""
    path = Path(path)
    rows = []
    for line, row in read_rows(path):
        where = f"{path}:{line}"
        if len(row) != 6:
            raise InputError(f"{where}: {len(row)} columns where six are expected")
        category, onnx, vnnlib, prepare, word, run = row
        times = _seconds(prepare, where, zero=True), _seconds(run, where, zero=True)
        rows.append(ResultRow(category, onnx, vnnlib, times[0], parse_verdict(word, where), times[1]))
    return rows


_WORDS = {
    "unsat": Verdict.UNSAT, "holds": Verdict.UNSAT,
    "sat": Verdict.SAT, "violated": Verdict.SAT,
    "timed-out": Verdict.TIMEOUT, "timeout": Verdict.TIMEOUT, "run_instance_timeout": Verdict.TIMEOUT,
    "prepare_instance_timeout": Verdict.TIMEOUT,
    "no_result_in_file": Verdict.UNKNOWN, "prepare_instance_error_": Verdict.UNKNOWN, "unknown": Verdict.UNKNOWN,
    "error_exit_code_": Verdict.ERROR, "error": Verdict.ERROR,
}  # fmt: skip
"""Beginnings of the words that tools and harnesses have written since 2021, longest meaning first."""


def parse_verdict(word: str, where: str = "verdict") -> Verdict:
    """The verdict that a word of a ``results.csv`` means; a blank is unknown. Raises InputError for other words."""
    lowered = word.strip().lower()
    if not lowered:
        return Verdict.UNKNOWN
    for beginning, verdict in _WORDS.items():
        if lowered.startswith(beginning):
            return verdict
    raise InputError(f"{where}: '{word}' is not a verdict")


def witness_name(networks: Mapping[str, str | Path], spec: str | Path) -> str:
    """Name of the witness file of an instance: network and specification without folders and suffixes."""
    first = stem(networks[BARE]) if set(networks) == {BARE} else "_".join(networks)
    return f"{first}_{stem(spec)}.counterexample"


def stem(path: str | Path) -> str:
    """File name without ``.gz`` and its suffix; other dots stay."""
    name = Path(path).name.removesuffix(".gz")
    return name.removesuffix(".onnx").removesuffix(".vnnlib")


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Rows of a CSV file that are not blank, stripped, with the line they end on. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
        return [(reader.line_num, [field.strip() for field in row]) for row in reader if any(map(str.strip, row))]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file") from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _networks(field: str, where: str) -> dict[str, str]:
    if not field:
        raise InputError(f"{where}: the network is missing")
    if not field.startswith("["):
        return {BARE: field}
    try:
        pairs = ast.literal_eval(field)
        networks = {str(name): str(file) for name, file in pairs if isinstance(name, str) and isinstance(file, str)}
        complete = 0 < len(networks) == len(pairs)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        complete = False
    if not complete:
        raise InputError(f"{where}: networks must be a list of (name, path) pairs, as in [('f', 'f.onnx')]")
    return networks


def _seconds(text: str, where: str, zero: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{where}: '{text}' is not a time in seconds")
    return value


def _csv(rows: Iterable[Iterable[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
