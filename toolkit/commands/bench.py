"""``prunecert bench``: run a recipe or a benchmark folder."""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.bench.options import Options

NO_OPTIONS = Options()


def bench(target: Path = Path("specs/digits.toml"), /, *, options: Options = NO_OPTIONS) -> int:
    """Run a recipe (prune, export, verify, report), or verify the instances of a benchmark folder.

    The same command continues a run that was interrupted. The exit code is 1 when an answer contradicts expected.csv,
    2 when the input cannot be used and 130 when the run was interrupted.

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
        return 130
