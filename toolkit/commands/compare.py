"""``prunecert compare``: several runs, or results of several tools, on the same instances."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from toolkit.bench.answer_sources import AnswerSource, read_sources
from toolkit.bench.compare_sources import ChangeThresholds, SourceComparison, compare_sources
from toolkit.bench.match_instances import match_instances
from toolkit.bench.witness_files import BenchmarkRows, WitnessFiles
from toolkit.commands.arguments import Flag
from toolkit.errors import ExitCode, InputError
from toolkit.report.comparison import (
    change_table,
    comparison_csv,
    comparison_json,
    comparison_notes,
    comparison_scores,
    contradiction_table,
    write_comparison,
)
from toolkit.report.tables import Table, print_whole, to_latex, to_rich


@Parameter(name="*")
@dataclass(frozen=True)
class ComparisonOptions:
    """How sources are compared, and what is printed."""

    output: Annotated[Path, Parameter(alias="-o")] = Path("comparison.html")
    """The page."""
    benchmark: Annotated[tuple[Path, ...], Parameter(negative=())] = ()
    """Folder with the instances (VNN-COMP layout, or a folder of such): gives official time limits, and has
    counterexamples judged as the competition's scorer does; may be repeated."""
    spec_version: Literal["1.0", "2.0"] | None = None
    """Version of the specifications where a benchmark has both."""
    factor: Annotated[float, Parameter(validator=Number(gte=1))] = 2.0
    """From how many times as long on an instance counts as slower, or as faster."""
    least_seconds: Annotated[float, Parameter(validator=Number(gte=0))] = 1.0
    """Smallest difference in seconds that counts."""
    rows: Annotated[int, Parameter(validator=Number(gte=0))] = 20
    """Lines of each table on the terminal; the page has all."""
    json: Flag = False
    """Print everything as JSON on stdout."""
    csv: Flag = False
    """Print one line for each instance as CSV on stdout."""
    latex: Flag = False
    """Print the table of scores as a LaTeX tabular (package booktabs) on stdout."""


DEFAULTS = ComparisonOptions()
NO_BENCHMARK, THRESHOLDS = BenchmarkRows((), {}), ChangeThresholds()
"""What a comparison goes by where nothing else is said."""


def compare(*source: str, options: ComparisonOptions = DEFAULTS) -> ExitCode:
    """Compare runs and published results, instance by instance: contradictions first, then changes and scores.

    Instances are matched by the names of network and specification; what is only in some is counted and named. The
    first source is the one that the others are measured by. Scores are on the instances that all sources have, by the
    rules of VNN-COMP, with PAR-2 and the virtual best of all. The exit code is 1 where answers contradict each other or
    a counterexample does not count, else 0.

    Parameters
    ----------
    source
        PATH or LABEL=PATH, two at least: the folder of a run; a results.csv of VNN-COMP, or a folder with one in it or
        in its folders; an expected.csv; any CSV with a header that names network, specification and verdict.
    """
    if options.json + options.csv + options.latex > 1:
        raise InputError("--json, --csv, --latex: one of them at a time, all print on stdout")
    sources, benchmark = read_sources(source), BenchmarkRows.read(options.benchmark, options.spec_version)
    found, notes = compared(sources, benchmark, ChangeThresholds(options.factor, options.least_seconds))
    write_comparison(found, options.output, notes)
    _print(found, notes, options)
    return ExitCode.CONTRADICTION if found.contradictions else ExitCode.DONE


def compared(
    sources: Sequence[AnswerSource],
    benchmark: BenchmarkRows = NO_BENCHMARK,
    thresholds: ChangeThresholds = THRESHOLDS,
) -> tuple[SourceComparison, list[str]]:
    """The comparison of sources, and what is to be said of their counterexamples.

    Raises InputError where no instance is in two of them.
    """
    judge = WitnessFiles(sources, benchmark)
    matching = match_instances(sources, benchmark.rows)
    found = compare_sources(sources, matching, judge.judge, benchmark.limit_of, thresholds)
    if not any(len(one.given) > 1 for one in found.instances):
        raise InputError(f"no instance is in two of {', '.join(found.labels)}: {_first_names(found)}")
    return found, [f"{name}: {text}" for name, text in judge.notes.items()]


def _first_names(found: SourceComparison) -> str:
    """The names of each source's first instance, so that a reader sees why none match."""
    firsts = [(source.label, source.answers[0]) for source in found.sources]
    return "; ".join(f"{label} has {answer.onnx} {answer.vnnlib}" for label, answer in firsts)


def _print(found: SourceComparison, notes: Sequence[str], options: ComparisonOptions) -> None:
    if options.json:
        print(comparison_json(found, notes), end="")
    elif options.csv:
        print(comparison_csv(found), end="")
    elif options.latex:
        print(to_latex(comparison_scores(found)), end="")
    else:
        print_comparison(Console(width=None if sys.stdout.isatty() else 200), found, notes, options.rows)
    print(f"page: {options.output}", file=sys.stderr)


def print_comparison(
    console: Console, found: SourceComparison, notes: Sequence[str], rows: int = DEFAULTS.rows
) -> None:
    """Print contradictions, changes and scores, so many lines of each table, and what has to be known to read them."""
    worse = [change for change in found.changes if change.kind in ("lost", "slower")]
    better = [change for change in found.changes if change.kind in ("gained", "faster")]
    _print_table(console, "contradictions", contradiction_table(found), rows, "bold red")
    for name, changes in (("regressions", worse), ("gains", better)):
        _print_table(console, name, change_table(changes, found.labels[0]), rows, "bold")
    print_whole(console, to_rich(comparison_scores(found)))
    for line in comparison_notes(found, notes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_table(console: Console, name: str, table: Table, most: int, style: str) -> None:
    """A heading with the number of lines, and the first of them."""
    shown = name.removesuffix("s") if len(table.rows) == 1 else name
    console.print(f"{len(table.rows)} {shown}", style=style if table.rows else "", highlight=False)
    if table.rows and most:
        console.print(to_rich(Table(table.columns, table.rows[:most]), wrap=True))
        if len(table.rows) > most:
            console.print(f"... and {len(table.rows) - most} more on the page", highlight=False)
