"""The main job: a recipe or a benchmark folder -> verdicts, results.csv and a report. Same as ``prunecert bench``.

``python run_benchmark.py`` runs specs/digits.toml; ``python run_benchmark.py TARGET`` another recipe (its file or
its name) or a folder with instances.csv; ``--help`` lists the options.
"""

import sys

if __name__ == "__main__":
    from toolkit.cli import main  # worker processes import this file too, and need none of it

    sys.argv.insert(1, "bench")  # a run keeps the command that it was called by
    main()
