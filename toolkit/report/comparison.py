"""A comparison of several runs or tools as tables, plots, one page, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from toolkit.bench.answer_sources import AnswerSource
from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.compare_sources import (
    VIRTUAL_BEST,
    AnswerChange,
    JudgedInstance,
    SourceComparison,
    SourceScore,
)
from toolkit.bench.competition_rules import JudgedAnswer, WitnessState
from toolkit.report.page import inline, render_template
from toolkit.report.plots import TimePair, cactus, time_scatter
from toolkit.report.tables import Column, Table, make_table, number, short, word
from toolkit.result import DECIDED, Verdict, json_text

SCORE_COLUMNS = (
    word("", "run or tool", lambda row: row.label),
    number("instances", "instances that all of them have", lambda row: row.instances),
    number("unsat", "proved, and not known to be wrong", lambda row: row.unsat),
    number("sat", "refuted, and not known to be wrong", lambda row: row.sat),
    number("wrong", "answers that cannot be right", lambda row: row.wrong),
    number("undecided", "neither sat nor unsat within the limit", lambda row: row.undecided),
    number("only", "instances that it alone decides", lambda row: row.only),
    number("fastest", "instances that nobody decides faster", lambda row: row.fastest),
    number("points", "VNN-COMP points: 10 right, -150 wrong", lambda row: row.points),
    number("score", "percent of the best's points, added over categories", lambda row: row.score, "{:.1f}".format),
    number("PAR-2", "mean seconds, twice the limit where not right", lambda row: row.par2, short),
)


def comparison_scores(found: SourceComparison) -> Table:
    """One line for each source, and one for the best of all on each instance."""
    return make_table(SCORE_COLUMNS, found.scores)


def _names() -> list[Column]:
    return [
        word("category", "benchmark", lambda one: one.instance.category),
        word("network", "without folder and ending", lambda one: one.instance.network),
        word("specification", "without folder and ending", lambda one: one.instance.specification),
    ]


def answer_text(answer: JudgedAnswer | None) -> str:
    """An answer in one cell of a table: verdict, seconds, and what is wrong with it."""
    seconds = "" if answer is None or math.isnan(answer.seconds) else f" {short(answer.seconds)} s"
    return verdict_text(answer, seconds)


def verdict_text(answer: JudgedAnswer | None, seconds: str = "") -> str:
    """A verdict in a table, with what is put behind it, and what is wrong with it."""
    if answer is None:
        return ""
    doubt = (
        ""
        if answer.witness in (None, WitnessState.VALID, WitnessState.UNCHECKED)
        else f", counterexample {answer.witness}"
    )
    return f"{answer.verdict}{seconds}{doubt}" + (" (wrong)" if answer.wrong else "")


def _answers(found: SourceComparison) -> list[Column]:
    return [
        word(label, f"what {label} answered", partial(_answer_of, number=number))
        for number, label in enumerate(found.labels)
    ]


def _answer_groups(found: SourceComparison) -> list[Column]:
    """Two columns for each source, in a group with its label: its verdict of an instance, and its seconds."""
    return [
        replace(column, group=label)
        for index, label in enumerate(found.labels)
        for column in (
            word("verdict", f"what {label} answered", partial(_verdict_of, number=index)),
            number("seconds", f"time of {label}", partial(_seconds_of, number=index), short),
        )
    ]


def _verdict_of(one: JudgedInstance, number: int) -> str:
    return verdict_text(one.answers[number])


def _seconds_of(one: JudgedInstance, number: int) -> float:
    answer = one.answers[number]
    return math.nan if answer is None else answer.seconds


def _answer_of(one: JudgedInstance, number: int) -> str:
    return answer_text(one.answers[number])


def contradiction_table(found: SourceComparison) -> Table:
    """The instances with opposite or wrong answers, and what is taken for true."""
    truth = word("true", "by the rules of VNN-COMP", lambda one: one.truth or "disputed")
    return make_table([*_names(), *_answers(found), truth], found.contradictions)


def change_table(changes: Sequence[AnswerChange], first: str) -> Table:
    """What differs from the first source's answers."""
    columns = (
        word("what", "lost, slower, gained or faster", lambda change: change.kind),
        word("by", "run or tool", lambda change: change.label),
        word("network", "without folder and ending", lambda change: change.instance.instance.network),
        word("specification", "without folder and ending", lambda change: change.instance.instance.specification),
        word(first, f"what {first} answered", lambda change: answer_text(change.before)),
        word("now", "what the other answered", lambda change: answer_text(change.after)),
        number("times", "time now over time before", lambda change: change.ratio, short),
        word("reason", "where it is undecided", lambda change: change.after.answer.reason),
    )
    return make_table(columns, changes)


def instance_table(found: SourceComparison) -> Table:
    """Every instance with every answer: a group of columns for each source."""
    return make_table([*_names(), *_answer_groups(found)], found.instances)


def kind_of(one: JudgedInstance) -> str:
    """In one phrase, how the answers to an instance relate."""
    if one.contradicts:
        return "contradiction"
    if len(one.given) < 2:
        return "in one only"
    verdicts = {answer.verdict for answer in one.given}
    if len(verdicts) == 1:
        return "all agree"
    return "undecided by some" if verdicts & DECIDED else "differ"


def comparison_notes(found: SourceComparison, notes: Sequence[str] = ()) -> list[str]:
    """What has to be known to read the tables: how many instances count, and which do not."""
    lines = [f"{len(found.common):,} instances are in all of {', '.join(found.labels)}: scores and plots are of these."]
    for index, source in enumerate(found.sources):
        own = found.only_in(index)
        if own:
            first = own[0].instance
            lines.append(f"{len(own):,} are only in {source.label}, such as {first.network} {first.specification}.")
    if found.matching.of_other_content:
        lines.append(
            f"{found.matching.of_other_content:,} answers have the names of another's, but are about files of other "
            "content: they are not compared."
        )
    if found.matching.repeated:
        lines.append(f"{found.matching.repeated:,} answers repeat the names of an earlier one, and are left out.")
    lines += _limit_notes(found)
    unseen = sum(a.witness == WitnessState.UNCHECKED for one in found.instances for a in one.given)
    if unseen:
        lines.append(
            f"{unseen:,} counterexamples were not looked at, and count as they are claimed; --benchmark FOLDER, with "
            "their files beside results.csv, has them judged."
        )
    return [*lines, *notes]


def _limit_notes(found: SourceComparison) -> list[str]:
    """Whether instances were answered under different time limits."""
    limits = [[limit for answer in one.given if not math.isnan(limit := answer.answer.timeout)] for one in found.common]
    differing = [own for own in limits if own and min(own) < max(own)]
    if not differing:
        return []
    least, most = min(map(min, differing)), max(map(max, differing))
    return [f"{len(differing):,} instances had other time limits in one than in another ({least:g} to {most:g} s)."]


def comparison_figures(found: SourceComparison) -> dict[str, Figure]:
    """Plots by caption: the cactus of all, and the times of each source against the first's."""
    groups = {
        label: [_counted(answer) for answer in found.answers_of(number)]
        for number, label in enumerate([*found.labels, VIRTUAL_BEST])
    }
    timed = {label: group for label, group in groups.items() if any(not math.isnan(a.seconds) for a in group)}
    figures = {
        "Time of the k-th fastest instance decided rightly (lower and further right is better).": cactus(
            timed, VIRTUAL_BEST
        )
    }
    limit = max((answer.limit for one in found.common for answer in one.given), default=math.inf)
    for index, label in enumerate(found.labels[1:], 1):
        if found.labels[0] in timed and label in timed:
            pairs = [_pair(one, index) for one in found.common]
            both = [pair for pair in pairs if math.isfinite(pair.first) or math.isfinite(pair.second)]
            caption = f"Seconds of {label} against {found.labels[0]}: below the line {label} is faster."
            figures[caption] = time_scatter(both, found.labels[0], label, limit)
    return figures


def _counted(answer: JudgedAnswer) -> JudgedAnswer:
    """The answer as a plot counts it: what is not right decides nothing."""
    return answer if answer.right else replace(answer, verdict=Verdict.UNKNOWN)


def _pair(one: JudgedInstance, number: int) -> TimePair:
    first, second = one.answers[0], one.answers[number]
    assert first is not None
    assert second is not None
    kind = first.verdict if first.right else second.verdict
    return TimePair(_time(first), _time(second), "differ" if one.contradicts or kind not in DECIDED else kind)


def _time(answer: JudgedAnswer) -> float:
    """Seconds of a right answer; infinity of others."""
    return answer.seconds if answer.right else math.inf


def comparison_csv(found: SourceComparison) -> str:
    """One line for each instance: names, what is taken for true, and of each source verdict, seconds, points, and what
    its counterexample is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("verdict", "seconds", "points", "counterexample")
    writer.writerow(["category", "network", "specification", "true", "limit",
                     *(f"{label} {part}" for label in found.labels for part in parts)])  # fmt: skip
    for one in found.instances:
        cells = [cell for answer in one.answers for cell in _answer_cells(answer)]
        limit = max((answer.limit for answer in one.given), default=math.nan)
        names = (one.instance.category, one.instance.network, one.instance.specification)
        writer.writerow([*names, one.truth or "", _number(limit), *cells])
    return text.getvalue()


def _answer_cells(answer: JudgedAnswer | None) -> list[object]:
    if answer is None:
        return ["", "", "", ""]
    return [answer.verdict, _number(answer.seconds), answer.points, answer.witness or ""]


def _number(value: float) -> object:
    """A number, or nothing where there is none."""
    return "" if math.isnan(value) else value


def comparison_json(found: SourceComparison, notes: Sequence[str] = ()) -> str:
    """Everything that is printed, as one JSON object."""
    return json_text(comparison_values(found, notes)) + "\n"


def comparison_values(found: SourceComparison, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that is printed, in values of JSON's types and numbers."""
    return {
        "sources": {source.label: str(source.path) for source in found.sources},
        "common": len(found.common),
        "only": {label: len(found.only_in(number)) for number, label in enumerate(found.labels)},
        "contradictions": [_instance_values(found, one) for one in found.contradictions],
        "changes": [
            {"what": change.kind, "by": change.label, **_instance_values(found, change.instance)}
            for change in found.changes
        ],
        "scores": [asdict(score) for score in found.scores],
        "notes": comparison_notes(found, notes),
    }


def _instance_values(found: SourceComparison, one: JudgedInstance) -> dict[str, Any]:
    answers = {
        label: {"verdict": answer.verdict, "seconds": answer.seconds, "points": answer.points,
                "counterexample": answer.witness, "reason": answer.answer.reason}
        for label, answer in zip(found.labels, one.answers, strict=True) if answer is not None
    }  # fmt: skip
    names = {"category": one.instance.category, "network": one.instance.network}
    return {**names, "specification": one.instance.specification, "true": one.truth, "answers": answers}


def write_comparison(found: SourceComparison, path: Path, notes: Sequence[str] = ()) -> None:
    """Write the page of a comparison, atomically; it needs no other file."""
    first = found.labels[0]
    worse = [change for change in found.changes if change.kind in ("lost", "slower")]
    better = [change for change in found.changes if change.kind in ("gained", "faster")]
    tables = [
        ("Contradictions", "Opposite answers, and answers whose counterexample does not count.",
         contradiction_table(found)),
        ("Regressions", f"Decided by {first} and not by the other, or much slower.", change_table(worse, first)),
        ("Gains", f"Not decided by {first}, or much faster.", change_table(better, first)),
    ]  # fmt: skip
    instances = instance_table(found)
    text = render_template(
        "comparison.html",
        title=" and ".join(found.labels),
        subtitle=f"{len(found.instances):,} instances of {len(found.labels)} runs or tools",
        cards=comparison_cards(found, len(worse), len(better)),
        notes=comparison_notes(found, notes),
        first_tables=[entry for entry in tables if entry[2].rows],
        figures=inline(comparison_figures(found)),
        scores=comparison_scores(found),
        instances=instances,
        groups=[(group, len(list(own))) for group, own in groupby(column.group for column in instances.columns)],
        kinds=[kind_of(one) for one in found.instances],
        facts=_facts(found.sources),
    )
    write_text_atomically(path, text)


def _facts(sources: Sequence[AnswerSource]) -> list[tuple[str, str]]:
    """Where the answers of each source are, and, where it is known, by which command and on which machine they came."""
    return [(name, text) for source in sources for name, text in ((source.label, str(source.path)), *_origin(source))]


def _origin(source: AnswerSource) -> list[tuple[str, str]]:
    machine = ", ".join(f"{name} {text}" for name, text in source.origin.items() if name != "command")
    found = {"command": source.origin.get("command", ""), "machine": machine}
    return [(f"{source.label}: {name}", text) for name, text in found.items() if text]


def comparison_cards(found: SourceComparison, worse: int, better: int) -> list[tuple[str, str]]:
    """The headline numbers of a comparison."""
    scored = [score for score in found.scores if score.label != VIRTUAL_BEST]
    return [
        ("contradictions", f"{len(found.contradictions):,}"),
        ("regressions", f"{worse:,}"),
        ("gains", f"{better:,}"),
        *((f"decided by {score.label}", _decided(score)) for score in scored),
    ]


def _decided(score: SourceScore) -> str:
    return f"{score.unsat + score.sat:,} of {score.instances:,}"
