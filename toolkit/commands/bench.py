"""``prunecert bench``: run a recipe or a benchmark folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.bench.run_options import Options
from toolkit.catalogue import find_target
from toolkit.errors import ExitCode, MachineError

NO_OPTIONS = Options()


def bench(target: Path | None = None, /, *, options: Options = NO_OPTIONS) -> int:
    """Run a recipe (prune, export, verify, report), or verify the instances of a benchmark folder.

    The same command continues a run that was interrupted. Returns an exit code (`toolkit.errors.ExitCode`).

    Parameters
    ----------
    target
        A recipe (TOML), the name of one that comes along (digits by default), a folder with instances.csv (VNN-COMP
        layout), or a folder of such folders.
    """
    try:
        return run_target(target, options)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and the same command continues", file=sys.stderr)
        return ExitCode.INTERRUPTED


def run_target(target: Path | None, options: Options) -> int:
    """What the command does; the exit code is 1 when an answer contradicts a known one or an attack, else 0.

    Raises InputError, UnsupportedError, and MachineError for a disk or a process that failed.
    """
    options.check()
    path = find_target(target)
    with machine_failures():
        if path.suffix == ".toml":
            from toolkit.study import run_recipe

            return run_recipe(path, options)
        from toolkit.campaign import run_folder

        return run_folder(path, options)


@contextmanager
def machine_failures() -> Iterator[None]:
    """Raise MachineError in place of an OSError of a run: a full disk, a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        reason = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        raise MachineError(f"{reason}; answers up to here are kept, and the same command continues") from error
