"""Answers of any tool to the instances of a benchmark: runs of this toolkit, published ``results.csv`` files, others.

Read are the folder of a run (``run.json`` and its journal), a folder with ``results.csv`` in it or in its folders (as
tools publish them for VNN-COMP), a ``results.csv`` of six columns without a header, an ``expected.csv`` of four, and
any CSV with a header that names its columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.bench.journal import JournalRecord
from toolkit.bench.stored_run import NAME as RUN
from toolkit.bench.stored_run import read_run, stored_records
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import parse_verdict, read_rows
from toolkit.result import DECIDED, Verdict

RESULTS = "results.csv"


@dataclass(frozen=True)
class ToolAnswer:
    """What a tool said about one instance."""

    category: str
    onnx: str
    """The network, or networks, as the tool's table names them."""
    vnnlib: str
    verdict: Verdict
    seconds: float = math.nan
    """Run time; NaN where the table has no times."""
    timeout: float = math.nan
    """Time limit in seconds; NaN where the table does not say."""
    witness: Path | None = None
    """The file of the counterexample, where one is known."""
    replayed: bool = False
    """Whether onnxruntime confirmed the counterexample when it was found, and its file is as it was written."""
    content: str = ""
    """Hashes of the networks and of the specification; empty where they are not known."""
    decided_by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class AnswerSource:
    """One run, or one tool's results."""

    label: str
    path: Path
    answers: tuple[ToolAnswer, ...]
    counterexamples: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Files of counterexamples that lie beside a published table, by their names without ``.gz``."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """The command of a run of this toolkit, and its machine."""


def read_sources(arguments: Sequence[str]) -> list[AnswerSource]:
    """The sources that arguments ``PATH`` or ``LABEL=PATH`` name.

    Raises InputError where one cannot be read, there are fewer than two, or two have one label.
    """
    if len(arguments) < 2:
        raise InputError("compare: name at least two runs or results, as in: prunecert compare results/a results/b")
    sources = [read_source(*_label_and_path(argument)) for argument in arguments]
    labels = [source.label for source in sources]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise InputError(f"two of them are called {twice[0]}; give them names, as in {twice[0]}-before=PATH")
    return sources


def _label_and_path(argument: str) -> tuple[str, Path]:
    label, equals, path = argument.partition("=")
    if equals and label and not Path(argument).exists():
        return label, Path(path)
    path_itself = Path(argument)
    named = path_itself.resolve()
    generic = named.name in (RESULTS, "expected.csv", "answers.csv")
    return (named.parent.name if generic else named.name.removesuffix(".csv")) or str(named), path_itself


def read_source(label: str, path: Path) -> AnswerSource:
    """All answers of one source. Raises InputError."""
    if (path / RUN).is_file():
        source = read_run_source(label, path)
    elif path.is_dir():
        tables = [path / RESULTS] if (path / RESULTS).is_file() else sorted(path.glob(f"*/{RESULTS}"))
        _check_one_tool(path, tables)
        answers = tuple(answer for table in tables for answer in read_answers(table))
        source = AnswerSource(label, path, answers, _counterexamples(path))
        if not tables:
            raise InputError(f"{path}: neither {RUN} nor {RESULTS} in it, nor {RESULTS} in its folders")
    else:
        source = AnswerSource(label, path, tuple(read_answers(path)), _counterexamples(path.parent))
    if not source.answers:
        raise InputError(f"{path}: no answers in it")
    return source


def read_run_source(label: str, path: Path) -> AnswerSource:
    """The answers that a run has so far. Raises InputError for a folder without a run."""
    run = read_run(path)
    answers = tuple(_of_record(record, path) for record in stored_records(path, run))
    return AnswerSource(label, path, answers, origin={"command": run.command, **run.machine})


def _check_one_tool(path: Path, tables: Sequence[Path]) -> None:
    """Raise InputError for a folder of several runs about the same benchmark, as ``bench --tool`` leaves them."""
    runs = [table.parent for table in tables if (table.parent / RUN).is_file()]
    categories = [category for run in runs for category in read_run(run).folders]
    if len(set(categories)) < len(categories):
        raise InputError(f"{path}: several runs of the same instances; name each: {', '.join(map(str, runs))}")


def _of_record(record: JournalRecord, out: Path) -> ToolAnswer:
    origin = record.provenance
    content = f"{sorted(origin['networks'].values())} {origin['spec']}" if "networks" in origin else ""
    return ToolAnswer(
        category=record.category,
        onnx=record.onnx,
        vnnlib=record.vnnlib,
        verdict=record.verdict,
        seconds=record.seconds,
        timeout=record.timeout,
        witness=out / record.witness if record.witness else None,
        replayed=bool(record.witness),
        content=content,
        decided_by=record.statistics.decided_by,
        reason=record.reason,
    )


def _counterexamples(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Files of counterexamples in a folder and in its folders."""
    found: dict[str, list[Path]] = {}
    for pattern in ("*.counterexample", "*.counterexample.gz"):
        for path in sorted([*folder.glob(pattern), *folder.glob(f"*/{pattern}"), *folder.glob(f"*/*/{pattern}")]):
            found.setdefault(path.name.removesuffix(".gz"), []).append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def read_answers(path: Path) -> list[ToolAnswer]:
    """The answers in a CSV file of one of the known forms. Raises InputError naming file and line."""
    rows = read_rows(path)
    if not rows:
        return []
    columns = _columns_of(rows[0][1])
    if columns is None:
        forms: dict[int, Callable[[list[str], str], ToolAnswer]] = {6: _of_competition, 4: _of_expected}
        read = forms.get(len(rows[0][1]))
        if read is None:
            raise InputError(
                f"{path}:{rows[0][0]}: {len(rows[0][1])} columns without a header; expected the six of results.csv "
                "(category,network,specification,prepare time,verdict,run time), the four of expected.csv, or a header "
                f"with names such as {', '.join(sorted(names[0] for names in COLUMNS.values()))}"
            )
        return [_checked(read, row, f"{path}:{line}", len(rows[0][1])) for line, row in rows]
    return [_of_header(columns, row, f"{path}:{line}") for line, row in rows[1:]]


def _checked(read: Callable[[list[str], str], ToolAnswer], row: list[str], where: str, count: int) -> ToolAnswer:
    if len(row) != count:
        raise InputError(f"{where}: {len(row)} columns where the first line has {count}")
    return read(row, where)


def _of_competition(row: list[str], where: str) -> ToolAnswer:
    category, onnx, vnnlib, _prepare, word, seconds = row
    return ToolAnswer(category, onnx, vnnlib, parse_verdict(word, where), _time(seconds, where))


def _of_expected(row: list[str], where: str) -> ToolAnswer:
    onnx, vnnlib, timeout, word = row
    return ToolAnswer("", onnx, vnnlib, parse_verdict(word, where), timeout=_time(timeout, where))


COLUMNS = {
    "onnx": ("network", "onnx", "net", "model"),
    "vnnlib": ("specification", "vnnlib", "property", "spec", "prop"),
    "verdict": ("verdict", "result", "status", "answer"),
    "category": ("category", "benchmark", "bench"),
    "seconds": ("seconds", "time", "run_time", "runtime", "solve_time"),
    "timeout": ("timeout", "limit"),
    "decided_by": ("decided_by",),
    "reason": ("reason",),
}
"""What a header may call each part of an answer."""


def _columns_of(header: list[str]) -> dict[str, int] | None:
    """Where each part of an answer stands by a header; None where the line is none."""
    words = [word.strip().lower().replace(" ", "_") for word in header]
    found = {part: next((words.index(name) for name in names if name in words), -1) for part, names in COLUMNS.items()}
    if min(found["onnx"], found["vnnlib"], found["verdict"]) < 0:
        return None
    return {part: column for part, column in found.items() if column >= 0}


def _of_header(columns: Mapping[str, int], row: list[str], where: str) -> ToolAnswer:
    if len(row) <= max(columns.values()):
        raise InputError(f"{where}: {len(row)} columns, fewer than the header names")
    texts = {part: row[column] for part, column in columns.items()}
    return ToolAnswer(
        category=texts.get("category", ""),
        onnx=texts["onnx"],
        vnnlib=texts["vnnlib"],
        verdict=parse_verdict(texts["verdict"], where),
        seconds=_time(texts.get("seconds", ""), where),
        timeout=_time(texts.get("timeout", ""), where),
        decided_by=texts.get("decided_by", ""),
        reason=texts.get("reason", ""),
    )


def _time(text: str, where: str) -> float:
    """Seconds; NaN for an empty field."""
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = -math.inf
    if value < 0:
        raise InputError(f"{where}: '{text}' is not a time in seconds")
    return value


def claims(answers: Sequence[ToolAnswer]) -> int:
    """How many of the answers are ``sat`` or ``unsat``."""
    return sum(answer.verdict in DECIDED for answer in answers)
