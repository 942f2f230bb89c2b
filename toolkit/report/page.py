"""The HTML page of a run: one file that needs nothing else, made from one template."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.folder import present
from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import is_contradiction
from toolkit.bench.stored_run import StoredRun
from toolkit.report.plots import to_svg
from toolkit.report.tables import Table, network_table, short
from toolkit.result import Verdict

FIRST_ROWS = 200
"""Instances that a page shows at first; the others appear when they are asked for, found or sorted to the front."""


@dataclass(frozen=True)
class Page:
    """What the page shows, top to bottom."""

    title: str
    subtitle: str
    cards: tuple[tuple[str, str], ...]
    """Headline numbers: label and value."""
    findings: tuple[str, ...]
    """Sentences above the table."""
    table: Table
    figures: Mapping[str, Figure]
    """Figures by caption."""
    records: Sequence[JournalRecord]
    expected: Mapping[str, Verdict] = field(default_factory=dict)
    """Known verdicts by the records' keys."""
    facts: tuple[tuple[str, str], ...] = ()
    """Provenance at the foot: what and its value."""
    alarms: tuple[str, ...] = ()
    """What cannot be true, above everything else."""
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Where network, specification, witness and certificate of an instance are, from the page, by the records' keys."""
    more_tables: Mapping[str, Table] = field(default_factory=dict)
    """Further tables by heading."""


def render(page: Page) -> str:
    """The page as HTML."""
    return render_template(
        "run.html",
        page=page,
        figures=inline(page.figures),
        wrong=_contradictions(page),
        categories=len({record.category for record in page.records}),
        proofs=any(record.certificate for record in page.records),
        by_network=network_table(page.records),
        facts=page.facts,
    )


def render_template(name: str, **values: Any) -> str:
    """A page made from one of the templates of this package, as HTML; text in the values is escaped."""
    environment = Environment(
        loader=PackageLoader("toolkit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(first_rows=FIRST_ROWS, short=short, **values)


def inline(figures: Mapping[str, Figure]) -> list[tuple[str, Markup, int]]:
    """Captions, figures as elements that stand in a page, and their own widths in pixels of a page, 96 to an inch."""
    return [(caption, Markup(to_svg(figure)), round(96 * figure.get_figwidth())) for caption, figure in figures.items()]


def _contradictions(page: Page) -> set[str]:
    return {record.key for record in page.records if is_contradiction(record, page.expected.get(record.key))}


def write_page(page: Page, path: Path) -> None:
    """Write the page, atomically."""
    write_text_atomically(path, render(page))


def facts(records: Sequence[JournalRecord], run: StoredRun | None = None) -> tuple[tuple[str, str], ...]:
    """Where answers come from: command, machine, versions and settings, as the run's folder has them."""
    if not records:
        return ()
    origin = records[-1].provenance
    rows = [("command", run.command), *run.machine.items()] if run else []
    rows += [("device", str(origin["device"]))] if "device" in origin else []
    rows += [(name, str(value)) for name, value in origin.get("versions", {}).items()]
    settings = ", ".join(f"{name} {value}" for name, value in origin.get("settings", {}).items() if name != "timeout")
    return (*rows, ("settings", settings), ("finished (UTC)", max(record.finished for record in records)))


def instance_links(records: Sequence[JournalRecord], run: StoredRun | None, out: Path) -> dict[str, dict[str, str]]:
    """Where each instance's files are, from a page in the folder of its run; files that are gone are left out."""
    if run is None:
        return {}
    found = {}
    for record in records:
        files = dict(zip(("network", "specification"), run.files_of(record), strict=True))
        files |= {"witness": out.resolve() / record.witness} if record.witness else {}
        files |= {"certificate": out.resolve() / record.certificate} if record.certificate else {}
        found[record.key] = {name: _link(path, out) for name, path in files.items() if present(path).is_file()}
    return found


def _link(path: Path, out: Path) -> str:
    return quote(os.path.relpath(present(path), out.resolve()))
