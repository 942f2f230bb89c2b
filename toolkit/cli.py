"""The command line: ``prunecert COMMAND``. Each command is a module that is imported only when it is called."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated, Never

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from pydantic import ValidationError

from toolkit import __version__
from toolkit.errors import ExitCode, MachineError, ToolkitError, did_you_mean, one_line
from toolkit.run.forked_query import note_start
from toolkit.run.thread_waits import spin_briefly
from toolkit.settings import first_problem
from toolkit.tuning import tuned

NAME = "prunecert"


COMMANDS = {
    "verify": "Decide a VNN-LIB query about ONNX networks.",
    "bench": "Run a recipe, or all instances of a benchmark folder.",
    "merge": "Make one run of those of its parts (bench --shard).",
    "compare": "Compare runs and published results, instance by instance.",
    "report": "Make the tables and the page of a run again; print them as LaTeX or CSV.",
    "explain": "Say what is open of a run's undecided instances, and what to try.",
    "prune": "Prune an ONNX network, fine-tune, export and verify it; compare with the original.",
    "certify": "Certified accuracy of a network as it is, on rows of a file or a data set.",
    "inspect": "Show what a network and a specification contain and what would be tried.",
    "check-witness": "Judge a counterexample file with onnxruntime, as VNN-COMP's scorer does.",
    "check": "Check the certificate of an `unsat` answer with code that shares nothing with the verifier.",
    "export-proof": "Write a certificate as a proof in a format that other tools check.",
    "spec": "Make a specification: robustness, output range, agreement of two networks, monotonicity.",
    "convert": "Convert a specification between VNN-LIB 1.0 and 2.0.",
    "supports": "Say what the verifier supports, as the VNN-LIB standard asks.",
    "ops": "Print the operators that the verifier can bound, and how.",
    "doctor": "Show versions, devices and memory, and verify two tiny networks.",
}
"""Name of each command and its one line of help; the code is ``toolkit.commands.NAME``."""


EXIT_CODES = """Exit codes: 0 when all is done, 1 when an answer contradicts expected.csv, an attack or another column,
2 when the input cannot be used, 3 when the machine fails (a full disk, a worker that cannot start), 4 for a mistake of
this program, 130 when the run was interrupted. The same command continues a run."""


def build_app() -> App:
    """The application with all its commands, none of them imported."""
    app = App(
        name=NAME,
        version=f"{NAME} {__version__}",
        help=_SUMMARY,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.default(_name_or_help(app))
    for name, summary in COMMANDS.items():
        module = name.replace("-", "_")
        more = f"\n\n{EXIT_CODES}" if name == "bench" else ""
        app.command(f"toolkit.commands.{module}:{module}", name=name, help=summary + more)
    return app


_SUMMARY = "Prune neural networks for certified robustness and verify them. --debug shows tracebacks."


def _name_or_help(app: App) -> Callable[..., int]:
    def show(*, name: Annotated[bool, Parameter(negative=())] = False) -> int:
        """Print the name of the tool, or this help."""
        if name:
            print(NAME)
        else:
            app.help_print([])
        return 0

    return show


def main(argv: Sequence[str] | None = None) -> Never:
    """Run one command and exit with an `ExitCode`."""
    note_start()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported, whose small products wait longer
    spin_briefly()
    gc.set_threshold(tuned().processes.collector_objects)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names that a terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    leave(run([argument for argument in arguments if argument != "--debug"], debug))


def leave(code: int) -> Never:
    """End the process, with what was put off to its end done, and all else left as it is.

    Taking a few thousand modules down one by one is a fifth of the time of an easy query (measured).
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


def run(arguments: Sequence[str], debug: bool = False) -> int:
    """Run one command; returns the exit code. Errors are one line on stderr; ``debug`` lets them through."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        known = f"there are {', '.join(COMMANDS)}{did_you_mean(arguments[0], COMMANDS)}"
        return _fail(f"'{arguments[0]}' is no command; {known}", ExitCode.BAD_INPUT)
    try:
        code = build_app()(arguments, exit_on_error=False, print_error=False)
        return code if isinstance(code, int) else 0
    except (CycloptsError, ValidationError) as error:
        return _fail(_bad_argument(error), ExitCode.BAD_INPUT)
    except ToolkitError as error:
        if debug:
            raise
        failed = isinstance(error, MachineError)
        return _fail(one_line(error, None), ExitCode.MACHINE_FAILURE if failed else ExitCode.BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        return 0
    except (OSError, MemoryError) as error:
        if debug:
            raise
        return _failed_by_machine(error)
    except Exception as error:
        if debug:
            raise
        return _failed_unexpectedly(error)


def _failed_unexpectedly(error: Exception) -> int:
    """Say that the program made a mistake, or was interrupted where a library made an error of its own of that, as
    pydantic does."""
    if isinstance(error.__cause__, KeyboardInterrupt):
        return _fail("interrupted", ExitCode.INTERRUPTED)
    text = f"internal error: {_what(error)} (run again with --debug for the traceback)"
    return _fail(text, ExitCode.INTERNAL_ERROR)


def _bad_argument(error: Exception) -> str:
    """What is wrong with an argument; errors of settings name their option."""
    cause = error if isinstance(error, ValidationError) else error.__cause__ or error.__context__
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        return f"'{words}' belongs to no option; several numbers or names of one option stand between commas (--help)"
    if not isinstance(cause, ValidationError):
        return one_line(error, None)
    name, problem = first_problem(cause)
    return f"--{name.replace('_', '-')}: {problem}"


UNUSABLE = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
"""What the system says of paths that a user can put right."""


def _failed_by_machine(error: OSError | MemoryError) -> int:
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename:
        return _fail(f"{error.filename}: {error.strerror}", ExitCode.BAD_INPUT)
    return _fail(f"the machine failed: {_what(error)}", ExitCode.MACHINE_FAILURE)


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, None)}"


def _fail(message: str, code: int) -> int:
    print(f"{NAME}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
