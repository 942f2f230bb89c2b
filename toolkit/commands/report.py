"""``prunecert report``: the page and the tables of a run, made again from its stored answers."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from toolkit.bench.journal import JournalRecord
from toolkit.bench.runner import claimed
from toolkit.bench.stored_run import StoredRun, expected_by_key, read_run, stored_records
from toolkit.commands.arguments import Flag
from toolkit.errors import ExitCode, InputError
from toolkit.report.tables import score_table, summary_table, to_csv, to_latex


def report(run: Path, /, *, latex: Flag = False, csv: Flag = False) -> ExitCode:
    """Make the tables, plots and page of a run again, from the answers in its folder; nothing is verified.

    The exit code is 1 where an answer contradicts a known one or an attack, as when the run was made.

    Parameters
    ----------
    run
        The folder of a run of prunecert bench or prunecert prune, finished or not.
    latex
        Print the table of results as a LaTeX tabular (package booktabs) on stdout, and all else on stderr.
    csv
        Print the table of results as CSV on stdout, with all digits, and all else on stderr.
    """
    if latex and csv:
        raise InputError("--latex and --csv: one of them at a time, both print on stdout")
    stored = read_run(run)
    records = stored_records(run, stored)
    if not records:
        raise InputError(f"{run}: none of its {len(stored.instances)} instances is answered yet")
    console = Console(file=sys.stderr if latex or csv else sys.stdout, width=None if sys.stdout.isatty() else 200)
    with claimed(run):
        wrong, texts = (
            _of_folder(run, stored, records, console)
            if stored.recipe is None
            else _of_recipe(run, stored, records, console)
        )
    if latex or csv:
        print(texts["latex" if latex else "csv"], end="")
    return ExitCode.CONTRADICTION if wrong else ExitCode.DONE


def _of_folder(
    out: Path, run: StoredRun, records: list[JournalRecord], console: Console
) -> tuple[bool, dict[str, str]]:
    """Write the report of a benchmark folder; whether something is wrong, and the table as LaTeX and as CSV."""
    from toolkit.campaign import category_scores, conclude

    expected = expected_by_key(run)
    wrong = conclude(run.name, out, records, expected, console)
    table = score_table(category_scores(records, expected))
    return wrong, {"latex": to_latex(table), "csv": to_csv(table)}


def _of_recipe(
    out: Path, run: StoredRun, records: list[JournalRecord], console: Console
) -> tuple[bool, dict[str, str]]:
    """Write the report of a recipe; whether something is wrong, and the table as LaTeX and as CSV."""
    from toolkit.recipe import parse_recipe
    from toolkit.report.seeds import averages
    from toolkit.report.summary import summarise, summary_csv
    from toolkit.study_networks import stored_models
    from toolkit.study_report import conclude

    assert run.recipe is not None
    recipe, models = parse_recipe(run.recipe, str(out), Path(run.working_folder)), stored_models(out)
    wrong = conclude(recipe, out, models, records, console)
    means = averages(models, summarise(models, records))
    return wrong, {"latex": to_latex(summary_table(means)), "csv": summary_csv(means)}
