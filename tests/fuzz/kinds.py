"""The table of kinds of random cases: each draws a case, runs it and judges it against the truth.

A kind is one function of `Choices` that returns how many judgements it made and raises `Wrong` where one is against the
program. What else it raises is a crash, but for `Unsuited`, by which it says that the case is none.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from choices import Choices, TooLong

Run = Callable[[Choices], int]
PATIENCE = 60.0
"""Seconds after which a case is a hang."""


class Wrong(AssertionError):  # noqa: N818 - a judgement, not an error of the program that runs it
    """A judgement against the program: ``label`` says what is wrong, the same for all cases of one fault."""

    def __init__(self, label: str, detail: str) -> None:
        super().__init__(f"{label}: {detail}")
        self.label = label


class Unsuited(Exception):  # noqa: N818 - not an error: the case is left out
    """The draws make no case of this kind."""


class Hang(BaseException):
    """A case took longer than any may; no handler in the program is to take it for an error of its own."""


@dataclass(frozen=True)
class Kind:
    """One kind of random cases."""

    name: str
    about: str
    run: Run
    share: int
    """How many of its cases come to one of a kind with a share of 1."""


@dataclass(frozen=True)
class Finding:
    """A case that went wrong: ``wrong`` against the truth, ``crash`` or ``hang``."""

    kind: str
    sort: str
    label: str
    detail: str
    choices: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """What is the same for all cases of one fault."""
        return self.kind, self.sort, self.label


KINDS: dict[str, Kind] = {}


def kind(share: int = 1) -> Callable[[Run], Run]:
    """Register a function as the kind of its name (with hyphens); the first line of its docstring says what it is."""

    def register(run: Run) -> Run:
        name = run.__name__.strip("_").replace("_", "-")
        KINDS[name] = Kind(name, (run.__doc__ or "").strip().splitlines()[0], run, share)
        return run

    return register


def kind_of(number: int, names: list[str] | None = None) -> Kind:
    """The kind of case ``number``: all of them in turn, as often as their shares say."""
    chosen = [KINDS[name] for name in names or sorted(KINDS)]
    row = [one for one in chosen for _ in range(one.share)]
    return row[number % len(row)]


def judge(chosen: Kind, choices: Choices) -> tuple[int, Finding | None]:
    """Run one case: how many judgements were made, and what went wrong."""
    try:
        with _patience():
            return chosen.run(choices), None
    except (Unsuited, TooLong):
        return 0, None
    except Wrong as error:
        sort, label, detail = "wrong", error.label, str(error)
    except Hang:
        sort, label, detail = "hang", "hang", f"no end after {PATIENCE:g} s"
    except Exception as error:
        sort, label = "crash", f"{type(error).__name__} in {_place(error)}"
        detail = "".join(traceback.format_exception_only(error)).strip()
    return 0, Finding(chosen.name, sort, label, detail[:600], tuple(choices.taken))


def _place(error: BaseException) -> str:
    """The innermost function of the program under test in a traceback, or of anything."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "toolkit" in Path(frame.filename).parts] or frames
    return f"{Path(ours[-1].filename).name} {ours[-1].name}" if ours else "nowhere"


@contextmanager
def _patience() -> Iterator[None]:
    """Raise Hang in the block after too long a time."""

    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
