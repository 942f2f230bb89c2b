"""Columns of one run: several verifiers, or several settings of this one, over the same instances.

Each column is a run of its own in a folder of its name, below the folder of them all, which has the names in their
order in ``columns.json`` and, of two columns or more, what comes of comparing them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.stored_run import NAME as RUN
from toolkit.bench.stored_run import check_no_other, read_run
from toolkit.errors import InputError

NAME, PAGE, TABLE = "columns.json", "comparison.html", "comparison.csv"
"""The names of the columns; what comes of comparing them, as a page and as one line for each instance."""
OURS = "prunecert"
"""What names this verifier itself among the tools."""
LABEL = r"[A-Za-z0-9](?:[\w.-]{0,58}[\w-])?"
"""What a column may be called: its run has a folder of that name, on whatever system."""
NO_FOLDER = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|" + "|".join(map(re.escape, (NAME, PAGE, TABLE))))
"""Names that some system, or the folder of all columns, has for something else."""
FORM = "NAME:SETTING=VALUE,SETTING=VALUE"


@dataclass(frozen=True)
class Variant:
    """Settings of this verifier under a name."""

    label: str
    settings: tuple[str, ...] = ()
    """Each as ``NAME=VALUE``; they stand above those that all variants have."""


def parse_variants(texts: Sequence[str]) -> list[Variant]:
    """The variants that ``--variant`` names. Raises InputError where one cannot be meant, or two have one name.

    Names and values of settings are not looked at.
    """
    found = [_parse(text) for text in texts]
    check_labels("--variant", [OURS, *(variant.label for variant in found)], f"{FORM.partition(':')[0]}:SETTING=VALUE")
    return found


def _parse(text: str) -> Variant:
    label, colon, rest = text.partition(":")
    if not re.fullmatch(LABEL, label):
        raise InputError(
            f"--variant {text}: expected {FORM}, or NAME alone, where NAME is that of a folder: at most 60 letters, "
            "digits, '_', '-' and '.'"
        )
    settings = tuple(piece.strip() for piece in rest.split(",")) if colon else ()
    names = [piece.partition("=")[0] for piece in settings]
    for piece, name in zip(settings, names, strict=True):
        if not name or "=" not in piece:
            raise InputError(f"--variant {text}: '{piece}' is no SETTING=VALUE; expected {FORM}, or NAME alone")
        if names.count(name) > 1:
            raise InputError(f"--variant {text}: {name} is given twice")
    return Variant(label, settings)


def check_labels(option: str, labels: Sequence[str], form: str) -> None:
    """Raise InputError, in the name of an option, where two columns would have one folder, or one cannot have its own.

    ``form`` is how a column of that option gets its name.
    """
    seen: dict[str, str] = {}
    for label in labels:
        folded = unicodedata.normalize("NFKC", label).casefold()  # some systems do not tell these apart
        if NO_FOLDER.fullmatch(folded):
            raise InputError(f"{option}: no folder can be called {label} here; choose another name, as in {form}")
        if folded in seen:
            both = (
                label if seen[folded] == label else f"{seen[folded]} and {label}, which some systems do not tell apart"
            )
            raise InputError(f"{option}: two are called {both}; give one a name of its own, as in {form}")
        seen[folded] = label


def store_columns(out: Path, labels: Sequence[str]) -> None:
    """Write down which columns a folder has. Raises InputError where the folder is that of a single run."""
    if (out / RUN).is_file():
        raise InputError(
            f"{out}: holds a single run, of {read_run(out).name}; choose another --out for several columns"
        )
    write_text_atomically(out / NAME, json.dumps({"columns": list(labels)}) + "\n")


def read_columns(out: Path) -> list[str]:
    """The names of a folder's columns, in their order; none where it is no folder of columns. Raises InputError."""
    try:
        labels = json.loads((out / NAME).read_text(encoding="utf-8"))["columns"]
        if not all(re.fullmatch(LABEL, label) for label in labels):
            raise ValueError("names that no columns have")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{out / NAME}: cannot be read as names of columns ({error})") from None
    return list(labels)


def check_no_columns(out: Path) -> None:
    """Raise InputError for a folder of columns, in which a single run would hide them."""
    if labels := read_columns(out):
        raise InputError(f"{out}: holds the columns {', '.join(labels)} of another run; choose another --out")


def check_free(out: Path, name: str, categories: Iterable[str], recipe: bool, fresh: bool) -> None:
    """Raise InputError where a single run would hide columns in its folder, or replace another run's results.

    A ``fresh`` run may replace another one; see `toolkit.bench.stored_run.check_no_other` for what another one is.
    """
    check_no_columns(out)
    if not fresh:
        check_no_other(out, name, categories, recipe)


def runs_in(out: Path) -> list[Path]:
    """The folder itself, of a single run; of several columns the folder of each that was started, in their order.

    Raises InputError where there is no run.
    """
    if (out / RUN).is_file():
        return [out]
    labels = read_columns(out)
    below = [out / label for label in labels if (out / label / RUN).is_file()]
    if not labels:
        below = sorted(found.parent for found in out.glob(f"*/{RUN}"))
    if not below:
        read_run(out)
    return below
