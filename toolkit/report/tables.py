"""Tables as text: what a terminal and the page show, with the value each cell sorts by."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.measure import Measurement
from rich.table import Table as RichTable

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import CategoryScore
from toolkit.report.summary import SummaryRow, certified_text
from toolkit.result import Verdict

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Column:
    """One column: a title, what it means, and of each item the value to sort by and its text."""

    title: str
    meaning: str
    value: Callable[[Any], Any]
    text: Callable[[Any], str]
    numeric: bool = True
    group: str = ""
    """Title of the group that the column belongs to with its neighbours, in a header row above theirs; empty: none."""

    @property
    def full_title(self) -> str:
        """The title with that of its group."""
        return f"{self.group} {self.title}".strip()


def number(title: str, meaning: str, value: Callable[[Any], Any], write: Callable[[Any], str] = str) -> Column:
    """A column of numbers, written by ``write``."""
    return Column(title, meaning, value, lambda item: write(value(item)))


def word(title: str, meaning: str, value: Callable[[Any], str]) -> Column:
    """A column of words."""
    return Column(title, meaning, value, value, numeric=False)


@dataclass(frozen=True)
class Cell:
    """One cell, written out."""

    text: str
    value: Any


@dataclass(frozen=True)
class Table:
    """Columns and the cells of each row."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def make_table(columns: Sequence[Column], items: Sequence[Any]) -> Table:
    """One row per item. A number that does not exist (NaN) is written as a dash and sorts last."""
    return Table(tuple(columns), tuple(tuple(_cell(column, item) for column in columns) for item in items))


def _cell(column: Column, item: Any) -> Cell:
    value = column.value(item)
    if isinstance(value, float) and math.isnan(value):
        return Cell("–", "")
    return Cell(column.text(item), value)


def percent(value: float) -> str:
    """A rate as a percentage with one digit."""
    return f"{100 * value:.1f} %"


def short(value: float) -> str:
    """A number with three significant digits, large ones in full."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _yes(row: SummaryRow) -> str:
    return "yes" if row.ticket else ""


SUMMARY_COLUMNS = (
    word("model", "name of the exported network", lambda row: row.model),
    word("method", "pruning method", lambda row: row.method),
    number("density", "part of the prunable weights or channels left", lambda row: row.density, short),
    number("parameters", "parameters other than zero", lambda row: row.parameters, "{:,}".format),
    number("left", "part of all parameters of the dense network that is left", lambda row: row.parameters_left, short),
    number("standard", "accuracy on the whole test set", lambda row: row.standard_accuracy, percent),
    number("FGSM", "accuracy under a one-step attack, on the whole test set", lambda row: row.fgsm_accuracy, percent),
    number("PGD", "accuracy under a gradient attack, on the verified images", lambda row: row.pgd_accuracy, percent),
    Column(
        "certified [95 %]",
        "images proved robust, to those not refuted; Wilson's interval, which is about other images, over several "
        "seeds Student's, which is about other seeds on these images",
        lambda row: row.certified_accuracy,
        certified_text,
    ),
    number("undecided", "images neither proved nor refuted, of all seeds", lambda row: row.undecided),
    number("seconds", "mean time per image", lambda row: row.mean_seconds, short),
    number(
        "unstable",
        "mean unstable ReLUs by the root bounds, over images that have them",
        lambda row: row.mean_unstable,
        short,
    ),
    word("by", "method of those bounds", lambda row: row.bounds),
    number(
        "by interval",
        "mean unstable ReLUs by interval bounds, over images that have root bounds",
        lambda row: row.mean_unstable_interval,
        short,
    ),
    number("ReLUs", "ReLU neurons", lambda row: row.relus, "{:,}".format),
    word("ticket", "certified lottery ticket: as accurate and as robust as its dense network", _yes),
    number("domains", "mean branch-and-bound domains per image", lambda row: row.mean_domains, short),
)

PROOF_COLUMNS = (
    word("model", "name of the exported network", lambda row: row.model),
    number("density", "part of the prunable weights or channels left", lambda row: row.density, short),
    number("proved", "images proved robust", lambda row: row.certified),
    number("checked", "of these, those with a certificate that the checker accepted", lambda row: row.checked),
    number("KiB", "mean size of a certificate", lambda row: row.mean_certificate_bytes / 1024, short),
    number("checking", "mean seconds of the checker", lambda row: row.mean_checking_seconds, short),
)

SCORE_COLUMNS = (
    word("category", "benchmark", lambda score: score.category),
    number("instances", "instances run", lambda score: score.instances),
    number("unsat", "property holds", lambda score: score.unsat),
    number("sat", "counterexample found and replayed", lambda score: score.sat),
    number("unknown", "gave up", lambda score: score.unknown),
    number("timeout", "time limit", lambda score: score.timeout),
    number("error", "could not be run", lambda score: score.error),
    number("contradictions", "opposite of the expected verdict", lambda score: score.contradictions),
    number("points", "VNN-COMP points: 10 decided, -150 contradiction", lambda score: score.points),
    number("PAR-2", "mean seconds, undecided counted as twice the limit", lambda score: score.par2, short),
)


def summary_table(rows: Sequence[SummaryRow]) -> Table:
    """The table of an experiment."""
    return make_table(SUMMARY_COLUMNS, rows)


def proof_table(rows: Sequence[SummaryRow]) -> Table:
    """The certificates of an experiment: empty where none were written."""
    return make_table(PROOF_COLUMNS, [row for row in rows if row.has_certificates])


def score_table(scores: Sequence[CategoryScore]) -> Table:
    """The table of a benchmark run."""
    return make_table(SCORE_COLUMNS, scores)


@dataclass(frozen=True)
class NetworkCounts:
    """How the instances of one network were answered."""

    network: str
    records: Sequence[JournalRecord]

    def count(self, verdict: Verdict) -> int:
        """Answers with a verdict."""
        return sum(record.verdict == verdict for record in self.records)

    @property
    def mean_seconds(self) -> float:
        """Mean time of an instance."""
        return sum(record.seconds for record in self.records) / len(self.records)


def network_table(records: Sequence[JournalRecord]) -> Table:
    """How many instances of each network have which answer."""
    groups: dict[str, list[JournalRecord]] = {}
    for record in records:
        groups.setdefault(record.onnx, []).append(record)
    columns = (
        word("network", "as the benchmark names it", lambda item: item.network),
        number("instances", "instances answered", lambda item: len(item.records)),
        *(number(verdict, f"answers {verdict}", partial(_counted, verdict=verdict)) for verdict in Verdict),
        number("seconds", "mean time per instance", lambda item: item.mean_seconds, short),
    )
    return make_table(columns, [NetworkCounts(network, own) for network, own in groups.items()])


def _counted(item: NetworkCounts, verdict: Verdict) -> int:
    return item.count(verdict)


def to_rich(table: Table, title: str = "", wrap: bool = False) -> RichTable:
    """The table for a terminal; ``wrap`` lets long words go on in the next line."""
    drawn = RichTable(title=title, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
    for column in table.columns:
        drawn.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=not wrap, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(cell.text for cell in row))
    return drawn


def print_whole(console: Console, drawn: RichTable) -> None:
    """Print a table in its own width: where that is more than the console's, a terminal wraps its lines.

    Cells are never cut, for a number that lacks its last digits reads as another number.
    """
    wide = console.options.update(width=sys.maxsize)
    needed = max(console.width, Measurement.get(console, wide, drawn).maximum)
    type(console)(file=console.file, width=needed, force_terminal=console.is_terminal).print(drawn, crop=False)


_IN_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}
"""What stands for characters that LaTeX reads as commands."""


def to_latex(table: Table) -> str:
    """The table as a ``tabular`` environment of LaTeX, with the rules of the package booktabs."""
    kinds = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", _latex_row([column.title for column in table.columns])]
    lines += [r"\midrule", *(_latex_row([cell.text for cell in row]) for row in table.rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join("".join(_IN_LATEX.get(sign, sign) for sign in text) for text in texts) + r" \\"


def to_csv(table: Table) -> str:
    """The table as CSV with a header; numbers with all their digits, those that do not exist are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.title for column in table.columns])
    writer.writerows([cell.value for cell in row] for row in table.rows)
    return text.getvalue()
