"""What is said of queries that stay undecided."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from toolkit.explanation import CaseTracker, case_text, explain
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.result import Explanation, OpenCase, Result, Statistics, Verdict
from toolkit.run.clock import Clock
from toolkit.run.events import (
    AttackTried,
    DomainsBounded,
    Event,
    MemoryShort,
    NoBounds,
    ObserverGroup,
    PhaseBegun,
    ProblemBegun,
    RootBounded,
    RoundDone,
    SearchBegun,
)
from toolkit.run.watching import EventLog, ProgressLine, event_values
from toolkit.search.loop import weakest_of_cases

QUERY = parse_query("""
(declare-const X_0 Real) (declare-const Y_0 Real) (declare-const Y_1 Real) (declare-const Y_2 Real)
(assert (<= X_0 1.0)) (assert (>= X_0 -1.0))
(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_0)) (and (>= Y_0 5.0) (<= Y_1 0.25))))
""")


@pytest.fixture
def tracker() -> CaseTracker:
    """A tracker of the three cases of the query that looks at every round."""
    return CaseTracker(compile_cases(QUERY), Clock.started(60.0), every=0.0)


def root_bounded(*lower: float) -> RootBounded:
    return RootBounded("crown", 3, min(lower), sum(not bound > 0 for bound in lower),
                       SimpleNamespace(lower=torch.tensor(lower)))  # fmt: skip


class Search:
    """A search that has domains open in some cases."""

    def __init__(self, undecided: int = 0, **weakest: float) -> None:
        self.weakest = {int(case[1:]): bound for case, bound in weakest.items()}
        self.progress = SimpleNamespace(undecided=undecided)

    def weakest_by_case(self) -> dict[int, float]:
        return self.weakest


def begun(search: Search, *cases: int) -> SearchBegun:
    return SearchBegun(search, [SimpleNamespace(case=torch.tensor(cases))])


def test_open_cases_come_with_their_bounds_and_points_the_weakest_first(tracker: CaseTracker) -> None:
    tracker(root_bounded(-0.5, 0.25, -2.0))
    tracker(AttackTried(torch.tensor([0, 2, 2]), torch.tensor([0.75, 4.0, 3.0])))
    found = explain(QUERY, tracker)
    assert (found.cases, found.open_cases, found.weakest, found.nearest) == (3, 2, -2.0, 0.75)
    assert found.described == (
        OpenCase(2, "(>= Y_0 5.0) (<= Y_1 0.25)", -2.0, 3.0),
        OpenCase(0, "(<= Y_0 Y_1)", -0.5, 0.75),
    )
    assert len(explain(QUERY, tracker, most=1).described) == 1


def test_bounds_only_get_better(tracker: CaseTracker) -> None:
    tracker(root_bounded(-0.5, -1.0, math.nan))
    tracker(root_bounded(-0.75, -0.25, -3.0))
    assert tracker.lower.tolist() == [-0.5, -0.25, -3.0]


def test_a_bound_that_is_not_a_number_refutes_nothing(tracker: CaseTracker) -> None:
    tracker(root_bounded(math.nan, math.nan, math.nan))
    found = explain(QUERY, tracker)
    assert found.open_cases == 3
    assert found.weakest is None


def test_a_search_refutes_the_cases_that_it_has_no_domain_of(tracker: CaseTracker) -> None:
    tracker(root_bounded(-0.5, -1.0, 1.0))
    search = Search(c0=-0.125, c1=-0.75)
    tracker(begun(search, 0, 1))
    search.weakest = {1: -0.25}
    tracker(RoundDone(8, 4, -0.25, 3))
    assert tracker.lower.tolist() == [math.inf, -0.25, 1.0]
    assert (explain(QUERY, tracker).domains, explain(QUERY, tracker).open_domains) == (8, 4)


def test_domains_that_nothing_decides_keep_their_cases_open(tracker: CaseTracker) -> None:
    tracker(root_bounded(-0.5, -1.0, 1.0))
    search = Search(undecided=1, c1=-0.25)
    tracker(begun(search, 0, 1))
    tracker(RoundDone(8, 4, -0.25, 3))
    assert explain(QUERY, tracker).open_cases == 2


def test_cases_of_a_part_are_those_of_its_regions() -> None:
    boxes = parse_query("""
    (declare-const X_0 Real) (declare-const Y_0 Real)
    (assert (or (and (<= X_0 1.0) (>= X_0 0.0) (<= Y_0 0.0)) (and (<= X_0 3.0) (>= X_0 2.0) (<= Y_0 1.0))))
    """)
    tracker = CaseTracker(compile_cases(boxes), Clock.started(60.0))
    tracker(ProblemBegun(None, torch.tensor([1]), tracker.cases))
    tracker(root_bounded(-0.5))
    assert tracker.lower.tolist() == [-math.inf, -0.5]


@pytest.mark.parametrize(
    ("events", "word"),
    [
        ([NoBounds("no rule for Foo")], "no bounds exist"),
        ([RoundDone(2, 2, -1.0, 1), RoundDone(4, 2, -0.5, 1)], "rose from -1 to -0.5"),
        ([RoundDone(2, 2, -1.0, 1), RoundDone(4, 2, -1.0, 1)], "stood still at -1"),
        ([root_bounded(-5.0, -5.0, -5.0), AttackTried(torch.tensor([0]), torch.tensor([0.5]))], "--attack-restarts"),
        ([], "a longer --timeout"),
    ],
)
def test_what_to_try_follows_from_what_was_seen(tracker: CaseTracker, events: list[Event], word: str) -> None:
    for event in events:
        tracker(event)
    assert any(word in line for line in explain(QUERY, tracker).suggestions)


def test_a_long_case_is_shortened() -> None:
    cases = compile_cases(QUERY)
    assert case_text(QUERY, cases, 2, longest=12) == "(>= Y_0 5..."


def test_the_weakest_bound_of_each_case() -> None:
    case, lower = torch.tensor([4, 1, 4]), torch.tensor([0.5, -1.0, -2.0])
    assert weakest_of_cases(case, lower) == {1: -1.0, 4: -2.0}


def test_the_explanation_as_lines() -> None:
    cases = (OpenCase(3, "(<= Y_0 Y_1)", -0.5, None), OpenCase(1, "(<= Y_0 Y_2)", None, 0.25))
    found = Explanation("attack", 9, 3, cases, -0.5, 0.25, 1200, 34, ("more time",))
    assert found.lines(1) == [
        "3 of 9 cases are open; last: attack, 1,200 domains bounded and 34 open",
        "  case 3: (<= Y_0 Y_1): bound -0.5, no point tried",
        "  ... and 2 more",
        "try: more time",
    ]


def test_a_result_as_json() -> None:
    found = Explanation("attack", 1, 1, (OpenCase(0, "(<= Y_0 0)", -0.5, None),), -0.5, None, 0, 0, ())
    values = json.loads(Result(Verdict.TIMEOUT, "slow", None, Statistics(domains=3), found).to_json())
    assert (values["verdict"], values["reason"], values["statistics"]["domains"]) == ("timeout", "slow", 3)
    assert values["explanation"]["described"] == [
        {"case": 0, "condition": "(<= Y_0 0)", "bound": -0.5, "nearest": None}
    ]
    assert values["witness"] is None


# --- watching ---------------------------------------------------------------------------------------------------------


def test_every_observer_of_a_group_hears_of_every_event() -> None:
    first: list[Event] = []
    second: list[Event] = []
    group = ObserverGroup((first.append, second.append))
    for event in (MemoryShort(8), PhaseBegun("attack")):
        group(event)
    assert first == second == [MemoryShort(8), PhaseBegun("attack")]


def test_events_are_lines_of_json_without_what_is_no_word_or_number() -> None:
    assert event_values(RoundDone(8, 4, -math.inf, 3)) == {
        "event": "RoundDone", "bounded": 8, "open": 4, "lower": "-inf", "depth": 3,
    }  # fmt: skip
    assert event_values(root_bounded(1.0, -2.0)) == {
        "event": "RootBounded", "method": "crown", "unstable": 3, "lower": -2.0, "open_cases": 1,
    }  # fmt: skip
    assert event_values(DomainsBounded([1, 2], [1, 2, 3, 4], [1])) == {
        "event": "DomainsBounded", "parents": 2, "children": 4, "still_open": 1,
    }  # fmt: skip
    assert event_values(AttackTried(torch.zeros(3), np.zeros(3))) == {"event": "AttackTried"}


def test_the_event_file_has_a_line_for_each_event_at_once(tmp_path: Path) -> None:
    log = EventLog.opened(tmp_path / "events.jsonl", Clock.started(10.0))
    for event in (PhaseBegun("attack"), MemoryShort(8)):
        log(event)
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["PhaseBegun", "MemoryShort"]
    assert all(0 <= line["seconds"] < 10 for line in lines)


def progress(spent: float, width: int = 200) -> tuple[ProgressLine, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    return ProgressLine(console, Clock.started(60.0, spent), every=0.0), file


def test_the_line_says_phase_bound_domains_and_time_left() -> None:
    line, file = progress(20.0)
    search = PhaseBegun("search over ReLU phases", search=True)
    for event in (search, RoundDone(100, 7, -0.5, 2), PhaseBegun("attack"), RoundDone(300, 9, -0.25, 3)):
        line(event)
    text = file.getvalue().split("\r")[-1]
    assert "search over ReLU phases | weakest bound -0.25 | 9 domains open, 300 bounded" in text
    assert "40 s left" in text
    line.erase()
    assert file.getvalue().endswith("\r\x1b[2K")


def test_easy_queries_draw_nothing_and_lines_fit_the_terminal() -> None:
    line, file = progress(0.0)
    line(PhaseBegun("random points"))
    line.erase()
    assert file.getvalue() == ""
    line, file = progress(20.0, width=30)
    line(PhaseBegun("search over ReLU phases"))
    assert len(file.getvalue().removeprefix("\r\x1b[2K")) <= 29
