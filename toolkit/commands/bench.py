"""``prunecert bench``: run a recipe or a benchmark folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.bench.folder import find_benchmarks
from toolkit.bench.run_options import Options
from toolkit.catalogue import find_target
from toolkit.commands.arguments import Flag, on_stderr, print_json
from toolkit.errors import ExitCode, MachineError
from toolkit.options import told_as_options

if TYPE_CHECKING:
    from toolkit.commands.run_json import Outcome

NO_OPTIONS = Options()


def bench(target: Path | None = None, /, *, options: Options = NO_OPTIONS, json: Flag = False) -> int:
    """Run a recipe (prune, export, verify, report), or verify the instances of a benchmark folder.

    The same command continues a run that was interrupted. Returns an exit code (`toolkit.errors.ExitCode`).

    Parameters
    ----------
    target
        A recipe (TOML), the name of one that comes along (digits by default), a folder with instances.csv (VNN-COMP
        layout), or a folder of such folders.
    json
        Print one JSON object on stdout at the end, with scores and all answers, of each column where there are several,
        and all else on stderr.
    """
    try:
        with on_stderr(json):
            ended = run_target(target, options)
            values = ended.values() if json else {}
        if json:
            print_json(values)
        return ended.code
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and the same command continues", file=sys.stderr)
        return ExitCode.INTERRUPTED


def run_folder_of(path: Path, options: Options) -> Path:
    """The folder of the results of a recipe, or of a benchmark folder, that was run without columns."""
    from toolkit.experiments.campaign import results_folder, run_name
    from toolkit.recipe import load_recipe

    if options.out is not None:
        return options.out
    if path.suffix == ".toml":
        return options.folder(load_recipe(path).name)
    return results_folder(run_name(path, find_benchmarks(path, options.spec_version, options.category)), options)


def run_target(target: Path | None, options: Options) -> Outcome:
    """What the command does; the exit code is 1 when an answer contradicts a known one, an attack, or that of another
    column, else 0.

    Raises InputError, UnsupportedError, and MachineError for a disk or a process that failed.
    """
    from toolkit.commands.run_json import Outcome, run_values

    options.check()
    path = find_target(target)
    with machine_failures():
        if options.columns:
            from toolkit.commands.run_columns import run_columns

            return run_columns(path, options)
        return Outcome(run_single(path, options), lambda: run_values(run_folder_of(path, options)))


def run_single(path: Path, options: Options) -> int:
    """Run a recipe or a benchmark folder under one set of settings; the exit code."""
    if path.suffix == ".toml":
        from toolkit.experiments.study import run_recipe

        with told_as_options({"data.source": "--data"} if options.data else {}):
            return run_recipe(path, options)
    from toolkit.experiments.campaign import run_folder

    return run_folder(path, options)


@contextmanager
def machine_failures() -> Iterator[None]:
    """Raise MachineError in place of an OSError of a run: a full disk, a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        reason = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        raise MachineError(f"{reason}; answers up to here are kept, and the same command continues") from error
