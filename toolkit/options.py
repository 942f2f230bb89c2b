"""Base of the validated option records that recipes are made of; needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import BaseModel, BeforeValidator, ConfigDict

from toolkit.errors import FieldError, InputError


class RecipeRecord(BaseModel):
    """A frozen record of options: unknown keys are errors, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _expand(value: object, key: str) -> object:
    return {key: value} if isinstance(value, str) else value


def shorthand(key: str) -> BeforeValidator:
    """Lets a recipe write ``method = "magnitude"`` for ``method = { name = "magnitude" }``; ``key`` is the tag."""
    return BeforeValidator(lambda value: _expand(value, key))


@contextmanager
def told_as_options(options: Mapping[str, str]) -> Iterator[None]:
    """Have errors about fields name the option of the command line that the field was made of.

    ``options`` has them by the fields' keys, without numbers of places in lists; a key stands for all below it, too.
    """
    try:
        yield
    except FieldError as error:
        parts = [part for part in error.key.split(".") if not re.fullmatch(r"\d+", part)]
        above = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        option = next((options[key] for key in above if key in options), None)
        if option is None:
            raise
        raise InputError(f"{f'{option} {error.value}'.strip()}: {error.problem}") from error
