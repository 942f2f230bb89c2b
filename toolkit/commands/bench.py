"""``prunecert bench``: run a recipe or a benchmark folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from toolkit.bench.run_options import Options
from toolkit.bench.stored_run import runs_in
from toolkit.catalogue import find_target
from toolkit.commands.arguments import Flag, on_stderr, print_json
from toolkit.errors import ExitCode, InputError, MachineError

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
        Print one JSON object on stdout at the end, with scores and all answers, and all else on stderr.
    """
    try:
        with on_stderr(json):
            code = run_target(target, options)
            runs = runs_in(run_folder_of(find_target(target), options)) if json else []
        if json:
            from toolkit.commands.run_json import run_values

            found = [run_values(folder) for folder in runs]
            print_json({"runs": found} if options.tool else found[0])
        return code
    except KeyboardInterrupt:
        print("interrupted; what is done is kept, and the same command continues", file=sys.stderr)
        return ExitCode.INTERRUPTED


def run_folder_of(path: Path, options: Options) -> Path:
    """The folder of the results of a target that was run."""
    from toolkit.bench.folder import find_benchmarks
    from toolkit.campaign import results_folder, run_name
    from toolkit.recipe import load_recipe

    if options.out is not None:
        return options.out
    if path.suffix == ".toml":
        return options.folder(load_recipe(path).name)
    if options.tool:
        return options.folder(path.resolve().name)
    return results_folder(run_name(path, find_benchmarks(path, options.spec_version, options.category)), options)


def run_target(target: Path | None, options: Options) -> int:
    """What the command does; the exit code is 1 when an answer contradicts a known one or an attack, else 0.

    Raises InputError, UnsupportedError, and MachineError for a disk or a process that failed.
    """
    options.check()
    path = find_target(target)
    with machine_failures():
        if options.tool:
            return run_tools(path, options)
        if path.suffix == ".toml":
            from toolkit.study import run_recipe

            return run_recipe(path, options)
        from toolkit.campaign import run_folder

        return run_folder(path, options)


def run_tools(path: Path, options: Options) -> int:
    """Run the benchmark folder with each verifier of the options, one after the other, each into a folder of its own;
    the exit code is the largest of theirs."""
    from toolkit.bench.other_tools import OURS, check_programs, parse_tools
    from toolkit.campaign import run_folder

    if path.suffix == ".toml":
        raise InputError("--tool: verifiers are run over a benchmark folder; a recipe leaves one in benchmark/")
    if options.certificates or options.certified:
        raise InputError("--tool: other verifiers write no certificates; run this one without --tool")
    out = options.folder(path.resolve().name)
    tools = {tool.label: tool for tool in parse_tools([text for text in options.tool if text != OURS])}
    check_programs(list(tools.values()))
    labels = [*([OURS] if OURS in options.tool else []), *tools]
    codes = []
    for label in labels:
        print(f"{label}:", flush=True)
        chosen = replace(options, tool=(), out=out / label, workers=options.workers or 1)
        if label == OURS:
            codes.append(run_folder(path, chosen))
        else:
            others = replace(chosen, device="cpu", setting=(), seed=None)
            codes.append(run_folder(path, others, tools[label].task, tools[label]))
    print("prunecert compare " + shlex.join(str(out / label) for label in labels))
    return max(codes)


@contextmanager
def machine_failures() -> Iterator[None]:
    """Raise MachineError in place of an OSError of a run: a full disk, a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        reason = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        raise MachineError(f"{reason}; answers up to here are kept, and the same command continues") from error
