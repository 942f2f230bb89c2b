"""``prunecert merge``: one run of those of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from toolkit.bench.columns import check_no_columns, read_columns, store_columns
from toolkit.bench.merge_runs import is_unused, merge_runs
from toolkit.bench.results import write_results
from toolkit.bench.runner import claimed
from toolkit.bench.stored_run import expected_by_key, stored_records
from toolkit.commands.arguments import Flag, on_stderr, print_json
from toolkit.commands.bench import machine_failures
from toolkit.errors import ExitCode, InputError

if TYPE_CHECKING:
    from toolkit.commands.run_json import Outcome


def merge(*run: Path, out: Path, json: Flag = False) -> ExitCode:
    """Make one run of those of its parts (prunecert bench --shard I/N): answers, counterexamples, tables and page.

    A part that is missing or not finished is named, and its instances stay open: prunecert bench on the merged folder
    runs them, and so does merging again what was finished since. Answers that contradict each other are an error, and
    one whose counterexample or certificate is gone or changed does not count. Parts of a run with several columns are
    merged column by column. The exit code is 1 where an answer contradicts a known one, as of a run that was not
    divided.

    Parameters
    ----------
    run
        Folders of the parts, which are only read.
    out
        Folder for the whole run; what an earlier merge or run left there stays.
    json
        Print one JSON object on stdout at the end, with scores and all answers, and all else on stderr.
    """
    with on_stderr(json):
        merged = merged_parts(run, out)
    if json:
        print_json(merged.values())
    return ExitCode(merged.code)


def merged_parts(run: Sequence[Path], out: Path) -> Outcome:
    """Merge the parts and say what came of it. Raises InputError."""
    from toolkit.commands.run_json import Outcome, run_values
    from toolkit.experiments.campaign import make_console

    if not run:
        raise InputError("which runs? name the folders of the parts")
    console = make_console()
    with machine_failures():
        if labels := common_columns(run, out):
            return merged_columns(run, out, labels, console)
        check_no_columns(out)
        wrong = merged_run(run, out, out, console)
    if wrong is None:
        raise InputError(f"{', '.join(map(str, run))}: no instance is answered yet")
    return Outcome(ExitCode.CONTRADICTION if wrong else ExitCode.DONE, partial(run_values, out))


def merged_run(run: Sequence[Path], out: Path, whole: Path, console: Console) -> bool | None:
    """Merge the parts of a run, which is that of all columns or one of those in the folder ``whole``; whether an answer
    is wrong, None where nothing is answered yet."""
    from toolkit.experiments.campaign import conclude

    with claimed(out):
        merged = merge_runs(run, out, whole)
        records = stored_records(out, merged.run)
        if not records:
            return None
        write_results(out / "results.csv", records, {name: Path(path) for name, path in merged.run.folders.items()})
        wrong = conclude(merged.run.name, out, records, expected_by_key(merged.run), console)
    for line in (*merged.gaps, *merged.differences):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return wrong


def common_columns(run: Sequence[Path], out: Path) -> list[str]:
    """The names of the columns that all parts have; none of single runs. Raises InputError where they differ."""
    given = [*run, *([out] if out.is_dir() else [])]
    found = {folder: read_columns(folder) for folder in given if not is_unused(folder)}
    first, labels = next(iter(found.items()), (out, []))
    for folder, others in found.items():
        if set(others) != set(labels):
            raise InputError(
                f"{first} and {folder} are not parts of one run: {_described(labels)}, and {_described(others)}"
            )
    return labels


def _described(labels: Sequence[str]) -> str:
    return f"one has the columns {', '.join(labels)}" if labels else "one has no columns"


def merged_columns(run: Sequence[Path], out: Path, labels: Sequence[str], console: Console) -> Outcome:
    """Merge the parts of each column, as far as they were started, and compare the columns."""
    from toolkit.commands.run_columns import conclude_columns
    from toolkit.commands.run_json import Outcome

    codes = [ExitCode.DONE]
    with claimed(out):
        store_columns(out, labels)
        for label in labels:
            print(f"{label}:", flush=True)
            parts = [folder / label for folder in (*run, out) if (folder / label).is_dir()]
            if all(map(is_unused, parts)):
                print("no part of it was started")
            elif merged_run(parts, out / label, out, console):
                codes.append(ExitCode.CONTRADICTION)
        columns = conclude_columns(out, console)
    return Outcome(max(*codes, columns.code), columns.values)
