"""Write what the documentation has from the code: ``python docs/make_reference.py``.

docs/reference.md is made from the records that check recipes, docs/commands.md from the commands' own help.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from toolkit.recipe import Recipe

HEAD = """# Reference: keys of a recipe

Made by `docs/make_reference.py` from the records that check recipes; a test keeps it up to date. A key without a
default must be given. Unknown keys are errors.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(record) for record in records(Recipe))])


def records(root: type[BaseModel]) -> list[type[BaseModel]]:
    """All records that a recipe may hold, the outer ones first."""
    found = [root]
    for record in found:
        inner = [part for item in record.model_fields.values() for part in mentioned(item.annotation)]
        found += [part for part in dict.fromkeys(inner) if part not in found]
    return found


def mentioned(annotation: Any) -> Iterator[type[BaseModel]]:
    """Records in a type, however deep."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from mentioned(part)


def section(record: type[BaseModel]) -> str:
    """One record as a table."""
    summary = inspect.cleandoc(record.__doc__ or "").replace("``", "`")
    rows = [row(name, item) for name, item in record.model_fields.items() if not item.exclude]
    head = ["| key | value | default | |", "|---|---|---|---|"]
    return "\n".join([f"## {record.__name__}", "", summary, "", *head, *rows, ""])


def row(name: str, item: FieldInfo) -> str:
    """One key: name, what it may be, default, meaning."""
    default = "" if item.is_required() else written(item.get_default(call_default_factory=True))
    meaning = " ".join((item.description or "").split()).replace("``", "`").replace("|", "\\|")
    return f"| `{name}` | {kind(item.annotation)} | {default} | {meaning} |"


def written(value: Any) -> str:
    """A default as a recipe would write it; nothing for None and for records whose keys all have defaults."""
    if isinstance(value, BaseModel):
        value = value.model_dump().get("name")
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str | Path) else json.dumps(value)}`"


WORDS = {str: "text", float: "number", int: "integer", bool: "true or false", Path: "path", Any: "anything"}


def kind(annotation: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in WORDS:
        return WORDS[annotation]
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in parts)
    if origin is Annotated:
        return kind(parts[0])
    if origin is dict:
        return f"table of {kind(parts[1])}"
    if origin is tuple:
        return f"list of {kind(parts[0])}"
    return " or ".join(kind(part) for part in parts if part is not type(None))


COMMANDS_HEAD = """# Reference: commands

Made by `docs/make_reference.py` from the commands' own help, which `prunecert COMMAND --help` prints. Options that may
be repeated are given once for each value.
"""


def commands() -> str:
    """The page about commands, as the library of the command line writes it, without its own list of contents."""
    from toolkit.cli import build_app

    _, usage, rest = build_app().generate_docs(output_format="markdown").partition("## prunecert verify")
    return f"{COMMANDS_HEAD}\n{usage}{rest}"


PAGES = {"reference.md": reference, "commands.md": commands}

if __name__ == "__main__":
    for name, page in PAGES.items():
        Path(__file__).with_name(name).write_text(page(), encoding="utf-8")
