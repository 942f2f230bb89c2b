"""Base of the validated option records that recipes are made of; needs no torch."""

from __future__ import annotations

from pydantic import BaseModel, BeforeValidator, ConfigDict


class RecipeRecord(BaseModel):
    """A frozen record of options: unknown keys are errors, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _expand(value: object, key: str) -> object:
    return {key: value} if isinstance(value, str) else value


def shorthand(key: str) -> BeforeValidator:
    """Lets a recipe write ``method = "magnitude"`` for ``method = { name = "magnitude" }``; ``key`` is the tag."""
    return BeforeValidator(lambda value: _expand(value, key))
