"""``prunecert bench``: run a recipe or a benchmark folder."""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.bench.options import Options
from toolkit.errors import ExitCode, MachineError

NO_OPTIONS = Options()


def bench(target: Path = Path("specs/digits.toml"), /, *, options: Options = NO_OPTIONS) -> int:
    """Run a recipe (prune, export, verify, report), or verify the instances of a benchmark folder.

    The same command continues a run that was interrupted. Returns an exit code (`toolkit.errors.ExitCode`).

    Parameters
    ----------
    target
        A recipe (TOML), a folder with instances.csv (VNN-COMP layout), or a folder of such folders.
    """
    options.check()
    try:
        if target.suffix == ".toml":
            from toolkit.experiment import run_recipe

            return run_recipe(target, options)
        from toolkit.campaign import run_folder

        return run_folder(target, options)
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and the same command continues", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except OSError as error:
        reason = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        raise MachineError(f"{reason}; answers up to here are kept, and the same command continues") from error
