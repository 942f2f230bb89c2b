"""The HTML page of a run: one file that needs nothing else, made from one template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import is_contradiction
from toolkit.report.plots import to_svg
from toolkit.report.tables import Table
from toolkit.result import Verdict


@dataclass(frozen=True)
class Page:
    """What the page shows, top to bottom."""

    title: str
    subtitle: str
    cards: tuple[tuple[str, str], ...]
    """Headline numbers: label and value."""
    findings: tuple[str, ...]
    """Sentences below the headline numbers."""
    table: Table
    figures: Mapping[str, Figure]
    """Figures by caption."""
    records: Sequence[JournalRecord]
    expected: Mapping[str, Verdict] = field(default_factory=dict)
    """Known verdicts by the records' keys."""
    facts: tuple[tuple[str, str], ...] = ()
    """Provenance at the foot: what and its value."""
    more_tables: Mapping[str, Table] = field(default_factory=dict)
    """Further tables by heading."""


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("toolkit.report").joinpath("template.html").read_text(encoding="utf-8"))
    figures = [(caption, Markup(to_svg(figure))) for caption, figure in page.figures.items()]
    categories = len({record.category for record in page.records})
    return template.render(page=page, figures=figures, wrong=_contradictions(page), categories=categories)


def _contradictions(page: Page) -> set[str]:
    return {record.key for record in page.records if is_contradiction(record, page.expected.get(record.key))}


def write_page(page: Page, path: Path) -> None:
    """Write the page, atomically."""
    write_text_atomically(path, render(page))


def facts(records: Sequence[JournalRecord]) -> tuple[tuple[str, str], ...]:
    """Where answers come from: versions and settings, as the journal has them."""
    if not records:
        return ()
    origin = records[-1].provenance
    rows = [(name, str(value)) for name, value in origin.get("versions", {}).items()]
    settings = ", ".join(f"{name} {value}" for name, value in origin.get("settings", {}).items() if name != "timeout")
    return (*rows, ("settings", settings), ("finished (UTC)", max(record.finished for record in records)))
