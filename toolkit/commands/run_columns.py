"""Columns of one run: other verifiers, and settings of this one, over one benchmark, and the comparison of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from toolkit.bench.answer_sources import read_run_source
from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.columns import OURS, PAGE, TABLE, parse_variants, read_columns, runs_in, store_columns
from toolkit.bench.compare_sources import SourceComparison
from toolkit.bench.folder import find_benchmarks
from toolkit.bench.other_tools import Tool, check_programs, parse_tools
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.commands.compare import compared, print_comparison
from toolkit.commands.run_json import Outcome, run_values
from toolkit.errors import ExitCode, InputError
from toolkit.experiments.campaign import check_runnable, make_console, results_folder, run_folder, run_name
from toolkit.report.comparison import comparison_csv, comparison_values, write_comparison
from toolkit.settings import Settings


@dataclass(frozen=True)
class RunColumn:
    """One column: what answers the instances, and under which options."""

    label: str
    options: Options
    tool: Tool | None = None
    """Another verifier; None for this one."""

    def run(self, path: Path) -> int:
        """Run the benchmark folder; the exit code is 1 where an answer contradicts a known one."""
        print(f"{self.label}:", flush=True)
        if self.tool is None:
            return run_folder(path, self.options)
        return run_folder(path, self.options, self.tool.task, self.tool)


@dataclass(frozen=True)
class ComparedColumns:
    """The columns of a folder, and what a comparison of them found."""

    folder: Path
    found: SourceComparison | None
    """None of fewer than two columns that have answers."""
    notes: list[str]
    """Which columns have none, and what else is to be known of the comparison."""

    @property
    def code(self) -> ExitCode:
        """1 where columns contradict each other."""
        return ExitCode.CONTRADICTION if self.found is not None and self.found.contradictions else ExitCode.DONE

    def values(self) -> dict[str, Any]:
        """The values of each run, and of their comparison, as one JSON object; null for what is not compared."""
        comparison = None if self.found is None else comparison_values(self.found, self.notes)
        runs = [{"column": folder.name, **run_values(folder)} for folder in runs_in(self.folder)]
        return {"runs": runs, "comparison": comparison}


def run_columns(path: Path, options: Options) -> Outcome:
    """Run the benchmark folder for each column of the options, one after the other, and compare them.

    The exit code is 1 where answers of two columns, or of one and expected.csv, contradict each other, else 0.
    """
    check_combination(path, options)
    out = columns_folder(path, options)
    columns = make_columns(options, out)
    check_settings_of(columns)
    check_programs([column.tool for column in columns if column.tool is not None])
    with claimed(out):
        store_columns(out, [column.label for column in columns])
        codes = [column.run(path) for column in columns]
        columns_compared = conclude_columns(out, make_console())
    return Outcome(max(*codes, columns_compared.code), columns_compared.values)


def check_combination(path: Path, options: Options) -> None:
    """Raise InputError for options that have no meaning for columns."""
    named = "--tool" if options.tool else "--variant"
    if path.suffix == ".toml":
        raise InputError(f"{named}: columns are made over a benchmark folder; a recipe leaves one in benchmark/")
    if options.freeze is not None:
        raise InputError("--freeze: only the benchmark of a recipe can be frozen")
    if options.tool and (options.certificates or options.certified):
        raise InputError(
            "--tool: other verifiers write no certificates; run this one without --tool, or as a column with them: "
            "--variant NAME:certifiable=true"
        )


def columns_folder(path: Path, options: Options) -> Path:
    """Where the columns of a benchmark folder go: as the options say, or named as the benchmark and the part of it."""
    name = run_name(path, find_benchmarks(path, options.spec_version, options.category))
    return results_folder(f"{name}-columns", options)


def make_columns(options: Options, out: Path) -> list[RunColumn]:
    """The columns in their order: this verifier, its variants, other verifiers; one instance at a time on this machine
    unless more workers are asked for."""
    workers = options.workers or (None if options.executor == "ray" else 1)
    common = replace(options, tool=(), variant=(), workers=workers)
    found = [RunColumn(OURS, common)] if OURS in options.tool else []
    for variant in parse_variants(options.variant):
        found.append(RunColumn(variant.label, replace(common, setting=(*common.setting, *variant.settings))))
    others = replace(common, device="cpu", setting=(), seed=None)
    found += [RunColumn(tool.label, others, tool) for tool in parse_tools([t for t in options.tool if t != OURS])]
    return [replace(column, options=replace(column.options, out=out / column.label)) for column in found]


def check_settings_of(columns: Sequence[RunColumn]) -> None:
    """Raise InputError for settings that no verifier can have here, before the first column takes hours; and say which
    columns have the same ones."""
    seen: dict[Settings, str] = {}
    for column in columns:
        if column.tool is not None:
            continue
        try:
            settings = column.options.settings(Settings())
            check_runnable(settings, column.options)
        except InputError as error:
            raise InputError(f"--variant {column.label}: {error}") from None
        if settings in seen:
            print(f"{seen[settings]} and {column.label} have the same settings", file=sys.stderr)
        seen.setdefault(settings, column.label)


def conclude_columns(out: Path, console: Console) -> ComparedColumns:
    """Compare the columns of a folder, as a page, a table and on the terminal.

    Of fewer than two that have answers there is nothing to compare.
    """
    columns = compare_columns(out)
    if columns.found is None:
        for note in columns.notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        return columns
    write_comparison(columns.found, out / PAGE, columns.notes)
    write_text_atomically(out / TABLE, comparison_csv(columns.found))
    print_comparison(console, columns.found, columns.notes)
    console.print(f"comparison: {out / PAGE}", highlight=False, soft_wrap=True)
    folders = [str(source.path) for source in columns.found.sources]
    console.print(shlex.join(["prunecert", "compare", *folders]), markup=False, highlight=False, soft_wrap=True)
    return columns


def compare_columns(out: Path) -> ComparedColumns:
    """The comparison of a folder's columns."""
    every = [read_run_source(folder.name, folder) for folder in runs_in(out)]
    sources = [source for source in every if source.answers]
    labels = read_columns(out) or [source.label for source in every]
    notes = [f"{label} has no answer yet." for label in labels if label not in {source.label for source in sources}]
    if len(sources) < 2:
        return ComparedColumns(out, None, notes)
    found, more = compared(sources)
    return ComparedColumns(out, found, [*notes, *more])
