"""``prunecert report``: the page and the tables of a run, made again from its stored answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from toolkit.bench.columns import runs_in
from toolkit.bench.journal import JournalRecord
from toolkit.bench.runner import claimed
from toolkit.bench.stored_run import StoredRun, expected_by_key, read_run, stored_records
from toolkit.commands.arguments import Flag, print_json
from toolkit.errors import ExitCode, InputError
from toolkit.report.summary import summarise, summary_csv
from toolkit.report.tables import score_table, summary_table, to_csv, to_latex


def report(run: Path, /, *, latex: Flag = False, csv: Flag = False, json: Flag = False) -> ExitCode:
    """Make the tables, plots and page of a run again, from the answers in its folder; nothing is verified.

    The exit code is 1 where an answer contradicts a known one or an attack, as when the run was made.

    Parameters
    ----------
    run
        The folder of a run of prunecert bench or prunecert prune, finished or not; of several columns, that of
        all, which are compared again, too.
    latex
        Print the table of results as a LaTeX tabular (package booktabs) on stdout, and all else on stderr.
    csv
        Print the table of results as CSV on stdout, with all digits, and all else on stderr.
    json
        Print one JSON object on stdout, with scores and all answers, and all else on stderr.
    """
    if latex + csv + json > 1:
        raise InputError("--latex, --csv and --json: one of them at a time, each prints on stdout")
    from toolkit.commands.run_json import run_values

    folders = runs_in(run)
    if folders != [run] and (latex or csv):
        raise InputError(
            f"{run}: holds {len(folders)} runs; name one for its table, or print one table of all with prunecert "
            f"compare {shlex.join(map(str, folders))}"
        )
    console = Console(
        file=sys.stderr if latex or csv or json else sys.stdout, width=None if sys.stdout.isatty() else 200
    )
    if folders != [run]:
        return _of_columns(run, folders, console, json)
    made = _reported(run, console)
    if json:
        print_json(run_values(run))
    elif latex or csv:
        print(made.latex if latex else made.csv, end="")
    return ExitCode.CONTRADICTION if made.wrong else ExitCode.DONE


def _of_columns(run: Path, folders: Sequence[Path], console: Console, json: bool) -> ExitCode:
    """Make the report of each column that has answers, and of their comparison. Raises InputError where none has."""
    from toolkit.commands.run_columns import conclude_columns

    some = [folder for folder in folders if stored_records(folder, read_run(folder))]
    if not some:
        raise InputError(f"{run}: no instance is answered yet in {', '.join(folder.name for folder in folders)}")
    wrong = [_reported(folder, console).wrong for folder in some]
    with claimed(run):
        columns = conclude_columns(run, console)
    if json:
        print_json(columns.values())
    wrong.append(bool(columns.code))
    return ExitCode.CONTRADICTION if any(wrong) else ExitCode.DONE


@dataclass(frozen=True)
class RunReport:
    """What a report says besides its files."""

    wrong: bool
    """Whether an answer contradicts a known one or an attack."""
    latex: str
    """The table of results."""
    csv: str


def _reported(run: Path, console: Console) -> RunReport:
    """Write the report of one run. Raises InputError where nothing is answered yet."""
    stored = read_run(run)
    records = stored_records(run, stored)
    if not records:
        raise InputError(f"{run}: none of its {len(stored.instances)} instances is answered yet")
    with claimed(run):
        return (_of_folder if stored.recipe is None else _of_recipe)(run, stored, records, console)


def _of_folder(out: Path, run: StoredRun, records: list[JournalRecord], console: Console) -> RunReport:
    """Write the report of a benchmark folder."""
    from toolkit.experiments.campaign import category_scores, conclude

    expected = expected_by_key(run)
    wrong = conclude(run.name, out, records, expected, console)
    table = score_table(category_scores(records, expected))
    return RunReport(wrong, to_latex(table), to_csv(table))


def _of_recipe(out: Path, run: StoredRun, records: list[JournalRecord], console: Console) -> RunReport:
    """Write the report of a recipe."""
    from toolkit.experiments.study_networks import stored_models
    from toolkit.experiments.study_report import conclude
    from toolkit.recipe import parse_recipe
    from toolkit.report.seeds import averages

    assert run.recipe is not None
    recipe, models = parse_recipe(run.recipe, str(out), Path(run.working_folder)), stored_models(out)
    wrong = conclude(recipe, out, models, records, console)
    means = averages(models, summarise(models, records))
    return RunReport(wrong, to_latex(summary_table(means)), summary_csv(means))
