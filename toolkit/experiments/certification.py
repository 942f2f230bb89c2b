"""Certified accuracy of a network as it is, on rows of a user's data: asked, verified and told.

What a run leaves in its folder::

    benchmark/       networks, specifications, instances.csv, rows.csv: run it again, or with another tool
    certified.csv    every row: label, answer, verdict, seconds
    certified.json   the figures
    results.csv, journal.jsonl, witnesses/, plots/, report.html     as of any other run
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.columns import check_free
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import WorkerTask
from toolkit.bench.journal import JournalRecord
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.bench.scoring import wilson
from toolkit.bench.stored_run import describe_run, read_run, store_run
from toolkit.bench.verify_job import VERIFY
from toolkit.experiments.campaign import cards, execute, make_console
from toolkit.experiments.row_questions import RowQuestion, RowQuestions, ask, write_folder
from toolkit.report.page import Page, facts, instance_links, write_page
from toolkit.report.plots import cactus, save_png
from toolkit.report.tables import make_table, number, percent, short, word
from toolkit.result import DECIDED, Verdict
from toolkit.settings import Settings


@dataclass(frozen=True)
class CertifiedRow:
    """What came out for one row."""

    row: int
    """Number of the row in the data, counted from 0."""
    label: str
    """Class that it has, or that the network gives it where the data has no labels."""
    answer: str
    """Class that the network gives it; -1 for a tie."""
    verdict: Verdict
    """``unsat``: no point of the ball has another answer than the label; ``sat``: one has."""
    seconds: float
    reason: str
    """Why it is undecided."""
    specification: str
    witness: str
    """Counterexample file in the folder of the run; empty without one."""

    @property
    def right(self) -> bool:
        """Whether the network's answer is the label."""
        return self.answer == self.label


@dataclass(frozen=True)
class Certified:
    """Certified accuracy of a network on rows of data. Rates lie in [0, 1]."""

    network: str
    folder: Path
    labelled: bool
    """Whether labels were given: without, all rates are of rows that keep the network's own answer."""
    rows: tuple[CertifiedRow, ...]

    @property
    def standard_accuracy(self) -> float:
        """Share of the rows whose label is the network's answer."""
        return sum(row.right for row in self.rows) / len(self.rows)

    @property
    def proved(self) -> int:
        """Rows around which every point has the label's class."""
        return sum(row.verdict == Verdict.UNSAT for row in self.rows)

    @property
    def falsified(self) -> int:
        """Rows with a counterexample; those that the network gets wrong are among them."""
        return sum(row.verdict == Verdict.SAT for row in self.rows)

    @property
    def undecided(self) -> int:
        """Rows that are neither: time limit, unknown or error."""
        return sum(row.verdict not in DECIDED for row in self.rows)

    @property
    def accuracy(self) -> tuple[float, float]:
        """Certified accuracy lies between these: rows proved, and those with the undecided ones."""
        return self.proved / len(self.rows), (self.proved + self.undecided) / len(self.rows)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson intervals of both ends, together: what other rows of the same kind would give."""
        count = len(self.rows)
        return wilson(self.proved, count)[0], wilson(self.proved + self.undecided, count)[1]

    @property
    def contradictions(self) -> tuple[CertifiedRow, ...]:
        """Rows that are proved although the network gets them wrong, which cannot be."""
        return tuple(row for row in self.rows if row.verdict == Verdict.UNSAT and not row.right)

    @property
    def consistent(self) -> bool:
        """Whether nothing of it contradicts itself."""
        return not self.contradictions

    def to_json(self) -> dict[str, Any]:
        """The figures and all rows, of JSON's types."""
        low, high = self.accuracy
        return {
            "network": self.network,
            "labelled": self.labelled,
            "rows": len(self.rows),
            "standard_accuracy": self.standard_accuracy,
            "proved": self.proved,
            "falsified": self.falsified,
            "undecided": self.undecided,
            "certified_accuracy": [low, high],
            "interval_95": list(self.interval),
            "each": [asdict(row) for row in self.rows],
        }


def certify_rows(
    question: RowQuestion, timeout: float, options: Options, out: Path | None = None, task: WorkerTask = VERIFY
) -> Certified:
    """Write the benchmark, verify it, and tell what came out; the same call continues a run.

    ``timeout`` in seconds for each row; the folder is ``results/NAME`` unless ``out`` says otherwise. Raises InputError
    and UnsupportedError.
    """
    console = make_console()
    questions = ask(question)
    out = out or Path("results") / questions.name
    check_free(out, questions.name, [questions.name], recipe=False, fresh=options.fresh)
    with claimed(out):
        _introduce(questions, question, console)
        write_folder(questions, out / "benchmark", timeout)
        records = _verified(questions, out, options, task)
        certified = Certified(str(question.network), out, questions.labelled, tuple(_rows(questions, records)))
        _conclude(certified, questions.name, records, console)
    return certified


def _verified(questions: RowQuestions, out: Path, options: Options, task: WorkerTask) -> list[JournalRecord]:
    [benchmark] = find_benchmarks(out / "benchmark")
    benchmark = replace(benchmark, category=questions.name)
    jobs = make_jobs(benchmark, options.settings(Settings()), memory=options.memory_limit)
    where = {benchmark.category: benchmark.folder}
    store_run(out, describe_run(questions.name, jobs, where, {}))
    return execute(jobs, out, options, where, task)


def _rows(questions: RowQuestions, records: Sequence[JournalRecord]) -> list[CertifiedRow]:
    by_spec = {record.vnnlib: record for record in records}
    columns = (questions.points.rows.numbers, questions.labels.tolist(), questions.answers.tolist())
    return [
        CertifiedRow(
            number, questions.class_name(label), questions.class_name(answer), record.verdict, record.seconds,
            record.reason, spec, record.witness,
        )
        for number, label, answer, spec in zip(*columns, questions.specifications, strict=True)
        if (record := by_spec[spec])
    ]  # fmt: skip


def _introduce(questions: RowQuestions, question: RowQuestion, console: Console) -> None:
    """What is asked, before it takes time; and what looks wrong in it."""
    rows, points = questions.points.rows, questions.points
    lines = [f"{question.network}: {remark}" for remark in questions.classifier.remarks]
    chosen = "all" if len(rows) == rows.total else f"{_slice(rows.numbers)} of"
    lines.append(f"{question.source.data}: {chosen} {rows.total} rows, values {points.points.min():.3g} to "
                 f"{points.points.max():.3g}, radius {_span(points.radius)} in the network's units")  # fmt: skip
    lines += list(doubts(questions, question))
    if not questions.labelled:
        lines.append("no labels: the network's own answers are taken, and standard accuracy is not known")
    elif (right := float((questions.answers == questions.labels).mean())) < _suspicious(questions.classes):
        lines.append(f"WARNING: standard accuracy is {right:.1%}, near chance: look at --scale, --mean, --std, "
                     "--classes and the order of features or channels")  # fmt: skip
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def doubts(questions: RowQuestions, question: RowQuestion) -> Iterator[str]:
    """What was assumed about classes and values, and may be otherwise."""
    rows, order = questions.points.rows, questions.class_names
    if rows.label_column:
        yield f"labels are the column {rows.label_column}, the only one of words (else --label-column)"
    if questions.classifier.num_scores == 1:
        low, high = questions.class_name(0), questions.class_name(1)
        yield f"one output: class {high} above {questions.threshold:g}, class {low} below (else --threshold)"
    if questions.labelled and rows.class_names and order == rows.class_names and not question.classes:
        yield f"classes in alphabetical order, as outputs 0 to {len(order) - 1}: {', '.join(order)} (else --classes)"
    missing = [name for name in rows.class_names if order and name not in order]
    if questions.labelled and missing:
        yield f"WARNING: the data has a class {missing[0]!r}, which is none of {', '.join(order)}: look at --classes"
    least, largest = float(rows.values.min()), float(rows.values.max())
    if rows.values.ndim > 2 and not rows.pixels and question.units.unscaled and least >= 0 and largest > 1:
        yield (
            f"WARNING: values up to {largest:g} are taken as they are, and the radius as one of these: pixels of 0 to "
            "255 want --scale 255, or whole numbers of eight bits"
        )


def _suspicious(classes: int) -> float:
    """Accuracy below which guessing explains it about as well: halfway more than chance."""
    return min(1.5 / classes, 0.7)


def _slice(numbers: range) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    return f"rows {numbers.start}:{numbers[-1] + 1}" + (f":{numbers.step}" if numbers.step > 1 else "")


def _span(values: Any) -> str:
    return f"{values[0]:g}" if (values == values[0]).all() else f"{values.min():.3g} to {values.max():.3g}"


def _conclude(certified: Certified, name: str, records: Sequence[JournalRecord], console: Console) -> None:
    """Write the tables and the page, and print the figures."""
    out, lines, run = certified.folder, told(certified), read_run(certified.folder)
    write_text_atomically(out / "certified.csv", rows_csv(certified))
    write_text_atomically(out / "certified.json", json.dumps(certified.to_json(), indent=1) + "\n")
    plot = cactus({name: list(records)})
    save_png(plot, out / "plots" / "cactus.png")
    low, high = certified.accuracy
    standard = (("standard accuracy", percent(certified.standard_accuracy)),) if certified.labelled else ()
    page = Page(
        title=name,
        subtitle=f"{len(certified.rows)} rows of data, one specification each",
        cards=(*standard, ("certified accuracy", f"{percent(low)} to {percent(high)}"), *cards(records)),
        findings=tuple(lines),
        table=make_table(_COLUMNS, certified.rows),
        figures={"Time of the k-th fastest decided row (lower and further right is better).": plot},
        records=records,
        facts=facts(records, run),
        links=instance_links(records, run, out),
    )
    write_page(page, out / "report.html")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(f"rows: {out / 'certified.csv'}; report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"again, also with other tools: prunecert bench {out / 'benchmark'}", highlight=False, soft_wrap=True)


_COLUMNS = (
    number("row", "number in the data, from 0", lambda row: row.row),
    word("label", "class that it has", lambda row: row.label),
    word("answer", "class that the network gives it; -1 for a tie", lambda row: row.answer),
    word("verdict", "unsat: proved; sat: a counterexample", lambda row: str(row.verdict)),
    number("seconds", "time that it took", lambda row: row.seconds, short),
)


def rows_csv(certified: Certified) -> str:
    """Every row with what came out, with a header."""
    text = io.StringIO()
    first = asdict(certified.rows[0])
    table = csv.DictWriter(text, list(first), lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(row) for row in certified.rows)
    return text.getvalue()


def told(certified: Certified) -> list[str]:
    """The figures as lines for people."""
    count, right = len(certified.rows), sum(row.right for row in certified.rows)
    wrong = sum(row.verdict == Verdict.SAT and not row.right for row in certified.rows)
    (low, high), (least, most) = certified.accuracy, certified.interval
    between = f"{low:.1%}" if low == high else f"{low:.1%} to {high:.1%}"
    what = "certified accuracy" if certified.labelled else "proved to keep its answer"
    lines = [f"standard accuracy   {certified.standard_accuracy:.1%} ({right} of {count} rows)"]
    lines = lines if certified.labelled else []
    undecided = [row for row in certified.rows if row.verdict not in DECIDED]
    lines += [
        f"{what}  {between} (95 % interval over rows: {least:.1%} to {most:.1%})",
        f"proved {certified.proved}, falsified {certified.falsified} ({wrong} of them wrong as they are), "
        f"undecided {certified.undecided}",
    ]
    lines += [f"  undecided: row {row.row}: {row.verdict}: {row.reason}" for row in undecided[:5]]
    lines += [f"  and {len(undecided) - 5} more, in certified.csv"] if len(undecided) > 5 else []
    lines += [f"what is open of them: prunecert explain {certified.folder}"] if undecided else []
    lines += [
        f"CONTRADICTION: row {row.row} is proved to have class {row.label}, and the network says {row.answer}"
        for row in certified.contradictions
    ]
    return lines
