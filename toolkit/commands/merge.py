"""``prunecert merge``: one run of those of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.commands.arguments import Flag, on_stderr, print_json
from toolkit.commands.bench import machine_failures
from toolkit.errors import ExitCode, InputError


def merge(*run: Path, out: Path, json: Flag = False) -> ExitCode:
    """Make one run of those of its parts (prunecert bench --shard I/N): answers, counterexamples, tables and page.

    A part that is missing or not finished is named, and its instances stay open: prunecert bench on the merged folder
    runs them, and so does merging again what was finished since. Answers that contradict each other are an error, and
    one whose counterexample or certificate is gone or changed does not count. The exit code is 1 where an answer
    contradicts a known one, as of a run that was not divided.

    Parameters
    ----------
    run
        Folders of the parts, which are only read.
    out
        Folder for the whole run; what an earlier merge or run left there stays.
    json
        Print one JSON object on stdout at the end, with scores and all answers, and all else on stderr.
    """
    from toolkit.commands.run_json import run_values

    with on_stderr(json):
        code = merged_code(run, out)
    if json:
        print_json(run_values(out))
    return code


def merged_code(run: Sequence[Path], out: Path) -> ExitCode:
    """Merge the parts and say what came of it. Raises InputError."""
    from toolkit.bench.merge_runs import merge_runs
    from toolkit.bench.results import write_results
    from toolkit.bench.runner import claimed
    from toolkit.bench.stored_run import expected_by_key, stored_records
    from toolkit.campaign import conclude, make_console

    if not run:
        raise InputError("which runs? name the folders of the parts")
    console = make_console()
    with machine_failures(), claimed(out):
        merged = merge_runs(run, out)
        records = stored_records(out, merged.run)
        if not records:
            raise InputError(f"{', '.join(map(str, run))}: no instance is answered yet")
        write_results(out / "results.csv", records, {name: Path(path) for name, path in merged.run.folders.items()})
        wrong = conclude(merged.run.name, out, records, expected_by_key(merged.run), console)
    for line in (*merged.gaps, *merged.differences):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return ExitCode.CONTRADICTION if wrong else ExitCode.DONE
