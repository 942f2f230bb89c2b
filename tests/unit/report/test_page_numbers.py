"""Pages beside the CSV files of the same run: every number, with and without a browser.

Tests in a browser are skipped without Chromium.
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_report import make_models, make_page, make_records

from toolkit.bench.answer_sources import AnswerSource, ToolAnswer
from toolkit.bench.compare_sources import ChangeThresholds, SourceComparison, compare_sources
from toolkit.bench.competition_rules import WitnessState
from toolkit.bench.journal import JournalRecord
from toolkit.bench.match_instances import match_instances
from toolkit.experiments.campaign import category_scores, write_folder_report
from toolkit.report.comparison import comparison_csv, write_comparison
from toolkit.report.page import FIRST_ROWS, render
from toolkit.report.summary import summarise, summary_csv
from toolkit.report.tables import short
from toolkit.result import Verdict

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=10000",
]  # fmt: skip
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


class PageTables(HTMLParser):
    """The lines of all tables of a page, by the titles of their columns, and what its cards say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lines: list[dict[str, str]] = []
        self.values: list[dict[str, str]] = []
        """What the cells are sorted by, for the same lines."""
        self.cards: dict[str, str] = {}
        self.hidden: list[bool] = []
        self._at: tuple[str, str] | None = None
        self._bold = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr":
            self.lines.append({})
            self.values.append({})
            self.hidden.append("hidden" in given)
        elif tag == "td":
            self._at = ("td", str(given["data-title"]))
            self.lines[-1][self._at[1]] = ""
            if "data-value" in given:
                self.values[-1][self._at[1]] = str(given["data-value"])
        elif tag in ("b", "span") and self._at is None:
            self._at = (tag, "")

    def handle_data(self, data: str) -> None:
        kind, title = self._at or ("", "")
        if kind == "td":
            self.lines[-1][title] += data
        elif kind == "b":
            self._bold = data
        elif kind == "span" and self._bold:
            self.cards[data], self._bold = self._bold, ""

    def handle_endtag(self, tag: str) -> None:
        if self._at and tag == self._at[0]:
            self._at = None

    def having(self, *titles: str) -> list[tuple[dict[str, str], dict[str, str]]]:
        """Texts and values of the lines that have all these columns."""
        return [pair for pair in zip(self.lines, self.values, strict=True) if pair[0].keys() >= set(titles)]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def records() -> list[JournalRecord]:
    """More than a page shows at first, with times of all sizes."""
    rng, statuses = random.Random(1), list(Verdict)
    found = make_records(make_models(), images=40)
    return [
        replace(
            record,
            seconds=10 ** rng.uniform(-4, 3),
            verdict=rng.choice(statuses) if rng.random() < 0.2 else record.verdict,
            reason=rng.choice(["", "<b> & more"]),
            statistics=replace(record.statistics, domains=rng.randrange(10**6)),
        )
        for record in found
    ]


@pytest.fixture(scope="module")
def folder(records: list[JournalRecord], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its page, and with known verdicts of some instances, none of them contradicted."""
    out = tmp_path_factory.mktemp("run")
    expected = {record.key: record.verdict for record in records[::3] if record.verdict in ("sat", "unsat")}
    write_folder_report(out, "toy", category_scores(records, expected), records, expected)
    return out


def test_every_answer_on_the_page_is_that_of_the_csv(folder: Path) -> None:
    page, answers = PageTables((folder / "report.html").read_text()), rows_of((folder / "answers.csv").read_text())
    shown = page.having("specification", "verdict")
    assert len(shown) == len(answers) > FIRST_ROWS
    for (line, values), answer in zip(shown, answers, strict=True):
        for title in ("network", "specification", "verdict", "expected", "domains", "unstable", "reason"):
            assert line[title] == answer[title]
        assert line["decided by"] == answer["decided_by"]
        assert (line["seconds"], values["seconds"]) == (short(float(answer["seconds"])), answer["seconds"])


def test_cards_and_scores_are_counted_from_the_csv(folder: Path) -> None:
    page, answers = PageTables((folder / "report.html").read_text()), rows_of((folder / "answers.csv").read_text())
    count = {verdict: sum(row["verdict"] == verdict for row in answers) for verdict in Verdict}
    undecided = len(answers) - count[Verdict.SAT] - count[Verdict.UNSAT]
    total = short(sum(float(row["seconds"]) for row in answers))
    assert page.cards == {
        "proved (unsat)": f"{count[Verdict.UNSAT]:,}", "refuted (sat)": f"{count[Verdict.SAT]:,}",
        "undecided": f"{undecided:,}", "seconds in total": total, "contradictions": "0",
    }  # fmt: skip
    [(line, _)] = page.having("category", "PAR-2")
    assert {verdict: int(line[verdict]) for verdict in Verdict} == count
    decided = [float(row["seconds"]) if row["verdict"] in ("sat", "unsat") else 20.0 for row in answers]
    assert line["PAR-2"] == short(sum(decided) / len(decided))
    for line, _ in page.having("network", "instances"):
        own = [row for row in answers if row["network"] == line["network"]]
        assert int(line["instances"]) == len(own)
        assert {verdict: int(line[verdict]) for verdict in Verdict} == {
            verdict: sum(row["verdict"] == verdict for row in own) for verdict in Verdict
        }
        assert line["seconds"] == short(sum(float(row["seconds"]) for row in own) / len(own))


IN_CSV = {
    "density": "density", "parameters": "parameters", "left": "parameters_left", "undecided": "undecided",
    "seconds": "mean_seconds", "unstable": "mean_unstable", "by interval": "mean_unstable_interval", "ReLUs": "relus",
    "domains": "mean_domains",
}  # fmt: skip
"""Columns of a recipe's page and of ``summary.csv`` that have one number."""
RATES = {"standard": "standard_accuracy", "FGSM": "fgsm_accuracy", "PGD": "pgd_accuracy"}


def is_rounded(text: str, value: float) -> bool:
    """Whether a text is a number rounded to the digits that it shows, or a dash where there is none."""
    if math.isnan(value):
        return text == "–"
    digits = len(text.partition(".")[2])
    return abs(float(text.replace(",", "")) - value) <= 0.5 * 10**-digits + 1e-6 * abs(value)


def test_every_number_of_networks_is_that_of_the_csv(records: list[JournalRecord]) -> None:
    models = make_models()
    rows = summarise(models, records)
    shown = PageTables(render(make_page((models, records, rows)))).having("model", "density")
    table = rows_of(summary_csv(rows))
    assert len(shown) == len(table) == len(models)
    for (line, _), row in zip(shown, table, strict=True):
        assert (line["model"], line["method"], line["by"]) == (row["model"], row["method"], row["bounds"])
        for title, name in IN_CSV.items():
            assert is_rounded(line[title], float(row[name])), title
        for title, name in RATES.items():
            assert is_rounded(line[title].removesuffix(" %"), 100 * float(row[name])), title
        ends = [100 * float(row[f"certified_{name}"]) for name in ("accuracy", "most", "low", "high")]
        parts = re.fullmatch(r"([\d.]+)(?:-([\d.]+))? % \[(\d+), (\d+)\]", line["certified [95 %]"])
        assert parts
        proved, most, low, high = parts.groups()
        assert all(is_rounded(text, end) for text, end in zip((proved, most or proved, low, high), ends, strict=True))


def comparison(records: list[JournalRecord]) -> SourceComparison:
    """Two sources of the same instances with other times, and one that has only some of them."""
    rng = random.Random(2)
    lists = [
        [
            ToolAnswer("toy", record.onnx, record.vnnlib, record.verdict, record.seconds * rng.uniform(0.1, 9), 1000.0)
            for record in records[:count]
        ]
        for count in (len(records), len(records), FIRST_ROWS)
    ]
    sources = [AnswerSource(label, Path(label), tuple(own)) for label, own in zip("abc", lists, strict=True)]
    judge = lambda *_: WitnessState.VALID  # noqa: E731
    return compare_sources(sources, match_instances(sources), judge, lambda _: math.nan, ChangeThresholds())


def test_every_number_of_a_comparison_is_that_of_the_csv(records: list[JournalRecord], tmp_path: Path) -> None:
    found = comparison(records)
    write_comparison(found, tmp_path / "page.html")
    page, table = PageTables((tmp_path / "page.html").read_text()), rows_of(comparison_csv(found))
    shown = page.having("category", "a verdict", "b seconds", "c verdict")
    assert len(shown) == len(table) == len(records)
    for (line, values), row in zip(shown, table, strict=True):
        assert (line["network"], line["specification"]) == (row["network"], row["specification"])
        for label in "abc":
            seconds = row[f"{label} seconds"]
            assert line[f"{label} verdict"].removesuffix(" (wrong)") == row[f"{label} verdict"]
            assert line[f"{label} seconds"] == (short(float(seconds)) if seconds else "–")
            assert values[f"{label} seconds"] == seconds
    common = [row for row in table if row["c verdict"]]
    for line, _ in page.having("instances", "points"):
        if line[""] in "abc":
            assert int(line["instances"]) == len(common)
            assert int(line["points"]) == sum(int(row[f"{line['']} points"]) for row in common)


# --- in a browser -----------------------------------------------------------------------------------------------------


def after(page: Path, script: str, tmp_path: Path) -> tuple[PageTables, str]:
    """The page as a browser has it after a script, and the messages of its console."""
    text = page.read_text().replace("</body>", f"<script>{script}</script></body>")
    copy = tmp_path / "page.html"
    copy.write_text(text)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [str(CHROMIUM), *FLAGS, *sandbox, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return PageTables(ended.stdout), "\n".join(said)


def visible(page: PageTables) -> list[dict[str, str]]:
    return [line for line, hidden in zip(page.lines, page.hidden, strict=True) if "reason" in line and not hidden]


@in_a_browser
def test_a_page_opens_with_its_first_instances_and_without_a_message(folder: Path, tmp_path: Path) -> None:
    page, said = after(folder / "report.html", "document.getElementById('rest').remove()", tmp_path)
    assert (len(visible(page)), said) == (FIRST_ROWS, "")
    _, said = after(folder / "report.html", "nothing.there", tmp_path)
    assert "nothing is not defined" in said  # a message would have been seen


@in_a_browser
def test_sorting_sorts_all_instances_by_all_digits(folder: Path, tmp_path: Path) -> None:
    script = "[...document.querySelectorAll('#instances th')].find(e => e.textContent === 'seconds').click()"
    page, said = after(folder / "report.html", script, tmp_path)
    answers = rows_of((folder / "answers.csv").read_text())
    fastest = sorted(answers, key=lambda row: float(row["seconds"]))
    assert said == ""
    assert [line["specification"] for line in visible(page)] == [row["specification"] for row in fastest[:FIRST_ROWS]]


@in_a_browser
def test_filtering_finds_instances_that_were_not_shown(folder: Path, tmp_path: Path) -> None:
    answers = rows_of((folder / "answers.csv").read_text())
    last = answers[-1]
    script = (
        f"const f = document.getElementById('filter'); f.value = '{last['network']} {last['specification']}';"
        "f.dispatchEvent(new Event('input'));"
    )
    page, said = after(folder / "report.html", script, tmp_path)
    assert said == ""
    found = [(line["network"], line["specification"]) for line in visible(page)]
    assert (last["network"], last["specification"]) in found
    assert all(last["specification"].removesuffix(".vnnlib") in specification for _, specification in found)
    everything, said = after(folder / "report.html", "document.getElementById('more').click()", tmp_path)
    assert (len(visible(everything)), said) == (len(answers), "")
