"""The recipes that come along, by name: ``specs/`` of a clone, which an installed package has as its data."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import InputError

DEFAULT = "digits"
"""The recipe of a run for which none is named."""
SUFFIX = ".toml"
_PACKAGE = Path(__file__).parent
FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "specs")
"""Where recipes lie: in an installed package, which ``setup.py`` copies them to, and in a clone."""


def recipe_names() -> list[str]:
    """Names of all recipes that come along, in alphabetical order."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob(f"*{SUFFIX}")})


def find_target(target: Path | None) -> Path:
    """What a run is about: a file or folder that exists, or else the file of the recipe of that name.

    Without a target, the recipe ``digits``. A name may have the suffix ``.toml``, and no folder. Raises InputError that
    lists the known names.
    """
    if target is not None and target.exists():
        return target
    name = DEFAULT if target is None else str(target).removesuffix(SUFFIX)
    if name in recipe_names():
        return next(path for folder in FOLDERS if (path := folder / f"{name}{SUFFIX}").is_file())
    raise InputError(
        f"{target}: no such folder or file; give a recipe ({SUFFIX}), a folder with instances.csv, or the name of one "
        f"of the recipes that come along: {', '.join(recipe_names())}"
    )
