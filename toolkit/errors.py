"""What can go wrong, told so that a person can act on it.

Every error a user can cause is a :class:`ToolkitError` whose message is one line: what is wrong, where (file, line or
node) and what to do. Command lines print it on stderr and exit with code 2, or 3 for a failure of the machine; a
verdict is never made from one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command line tells its caller; ``verify`` exits with 0 whatever its verdict is."""

    DONE = 0
    CONTRADICTION = 1
    """An answer contradicts one that is known; of ``check-witness``: the witness does not count."""
    BAD_INPUT = 2
    """A file, an option or a recipe cannot be used."""
    MACHINE_FAILURE = 3
    """The machine gave out: no memory, no room on a disk, no process."""
    INTERNAL_ERROR = 4
    """A mistake of this program."""
    INTERRUPTED = 130
    """Ctrl-C, or told to end."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to an error about a name: the known one that is most like it, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def one_line(error: BaseException, most: int | None = 200) -> str:
    """The message of an error of any library as one line, of at most so many characters; None for all of them."""
    return " ".join(str(error).split())[:most]


class ToolkitError(Exception):
    """Base of every error that a user can act on."""


class InputError(ToolkitError):
    """A file, an option or a recipe is missing, malformed or inconsistent."""


class FieldError(InputError):
    """One field of a record of options is wrong: a key of a recipe, or a setting, under its dotted name."""

    def __init__(self, key: str, problem: str, source: str = "", value: str = "") -> None:
        super().__init__(key, problem, source, value)  # what a copy in another process is made of
        self.key, self.problem, self.source, self.value = key, problem, source, value
        """``source`` is the file with the record, ``value`` what is wrong where that is one word or number."""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.source, self.key, self.problem)))


class MachineError(ToolkitError):
    """The machine fails, not the input: a disk is full, a folder cannot be written, a process cannot start."""


class UnsupportedError(ToolkitError):
    """The input is legal, but uses something this toolkit cannot handle (an operator, a theory, a type)."""


class DisagreementError(ToolkitError):
    """Two computations of one thing differ, such as the program that was bounded and the network in the file.

    Nothing may be concluded from either: the verdict is an error, whatever was proved.
    """
