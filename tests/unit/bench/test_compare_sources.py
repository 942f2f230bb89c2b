"""Runs and published results side by side: which instances match, what is true, what each is worth."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.bench.answer_sources import AnswerSource, ToolAnswer, read_answers, read_sources
from toolkit.bench.compare_sources import VIRTUAL_BEST, ChangeThresholds, SourceComparison, compare_sources
from toolkit.bench.competition_rules import WitnessState, points_of, true_verdict
from toolkit.bench.match_instances import inner_path, match_instances, plain_category
from toolkit.cli import run
from toolkit.errors import InputError
from toolkit.result import Verdict

UNSAT, SAT, UNKNOWN, TIMEOUT = Verdict.UNSAT, Verdict.SAT, Verdict.UNKNOWN, Verdict.TIMEOUT


def answer(spec: str, verdict: Verdict, seconds: float = 1.0, **more: object) -> ToolAnswer:
    values = {"category": "toy", "onnx": "onnx/net.onnx", "timeout": 20.0, **more}
    return ToolAnswer(vnnlib=f"vnnlib/{spec}.vnnlib", verdict=verdict, seconds=seconds, **values)  # type: ignore[arg-type]


def compared(
    *lists: list[ToolAnswer], states: dict[str, WitnessState] | None = None, limit: float = math.nan
) -> SourceComparison:
    """The comparison of sources a, b, ...; ``states`` of counterexamples by source, valid by default."""
    sources = [AnswerSource(label, Path(label), tuple(own)) for label, own in zip("abcd", lists, strict=False)]
    chosen = states or {}
    return compare_sources(
        sources,
        match_instances(sources),
        lambda _instance, number: chosen.get("abcd"[number], WitnessState.VALID),
        lambda _instance: limit,
        ChangeThresholds(),
    )


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "inside"),
    [
        ("onnx/net.onnx.gz", ("net",)),
        ("./benchmarks/acasxu/onnx/net.onnx", ("net",)),
        ("vnncomp2026_benchmarks/benchmarks/a/1.0/vnnlib/medical/p.1.vnnlib", ("medical", "p.1")),
        ("somewhere/p.vnnlib", ("p",)),
        ("p.vnnlib.gz", ("p",)),
    ],
)
def test_names_inside_of_a_benchmark(field: str, inside: tuple[str, ...]) -> None:
    assert inner_path(field) == inside


def test_years_are_no_part_of_a_category() -> None:
    assert {plain_category(name) for name in ("acasxu", "2025_acasxu", "acasxu_2023", "2026_ACASXU_2023")} == {"acasxu"}


def matched(*lists: list[ToolAnswer]) -> list[tuple[bool, ...]]:
    """For each instance of a comparison, whether each source of answers has one for it."""
    return [tuple(a is not None for a in one.answers) for one in compared(*lists).matching.instances]


def test_instances_match_by_names_whatever_the_folders() -> None:
    first = [answer("p", UNSAT), answer("q", UNSAT)]
    second = [
        answer("q", UNSAT, onnx="./benchmarks/toy/onnx/net.onnx.gz", category="2025_toy"),
        ToolAnswer("", "net.onnx", "p.vnnlib.gz", UNSAT),
        answer("r", UNSAT),
    ]
    assert matched(first, second) == [(True, True), (True, True), (False, True)]


def test_equal_names_are_told_apart_by_folder_and_category() -> None:
    folders = [answer(f"{folder}/p", UNSAT) for folder in ("medical", "ruarobot")]
    assert matched(folders, folders[::-1]) == [(True, True), (True, True)]
    categories = [answer("p", UNSAT, category=name) for name in ("x_2023", "y")]
    others = [answer("p", UNSAT, category=name) for name in ("2025_y", "x")]
    assert matched(categories, others) == [(True, True), (True, True)]


def test_instances_stand_in_the_order_of_the_first_source() -> None:
    """Category after category, also where both have instances of the same names."""
    rows = [(category, spec) for category in ("b", "a") for spec in ("p", "q")]
    lists = [[answer(spec, UNSAT, category=category) for category, spec in own] for own in (rows, rows[::-1])]
    found = compared([*lists[0], answer("r", SAT)], [answer("s", SAT), *lists[1]]).matching.instances
    names = [(one.category, one.specification) for one in found]
    assert names == [*rows, ("toy", "r"), ("toy", "s")]


def test_repeated_rows_count_once() -> None:
    found = compared([answer("p", UNSAT), answer("p", SAT)], [answer("p", UNSAT)])
    assert found.matching.repeated == 1
    assert not found.contradictions


def test_files_of_other_content_are_never_matched() -> None:
    found = compared([answer("p", UNSAT, content="1")], [answer("p", SAT, content="2")], [answer("p", UNSAT)])
    assert [tuple(a is not None for a in one.answers) for one in found.instances] == [
        (True, False, True),
        (False, True, False),
    ]
    assert (found.matching.of_other_content, found.contradictions) == (1, [])


def test_several_networks_match_by_all_their_names() -> None:
    def pair(second: str, folder: str) -> ToolAnswer:
        return answer("p", UNSAT, onnx=f"[('f', '{folder}a.onnx'), ('g', '{folder}{second}.onnx')]")

    assert matched([pair("b", "onnx/")], [pair("b", ""), pair("c", "")]) == [(True, True), (False, True)]


# --- truth and points -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "truth", "points"),
    [
        ([(UNSAT, None), (UNSAT, None)], UNSAT, [10, 10]),
        ([(UNSAT, None), (SAT, WitnessState.VALID)], SAT, [-150, 10]),
        ([(UNSAT, None), (SAT, WitnessState.WRONG)], UNSAT, [10, -150]),
        ([(UNSAT, None), (SAT, WitnessState.TOLERATED)], UNSAT, [10, 10]),
        ([(UNSAT, None), (SAT, WitnessState.UNSUPPORTED)], UNSAT, [10, 0]),
        ([(UNSAT, None), (SAT, WitnessState.UNCHECKED)], None, [0, 0]),
        ([(SAT, WitnessState.UNCHECKED), (SAT, WitnessState.WRONG)], SAT, [10, -150]),
        ([(UNSAT, None), (SAT, WitnessState.UNCHECKED), (SAT, WitnessState.VALID)], SAT, [-150, 10, 10]),
        ([(UNKNOWN, None), (TIMEOUT, None)], None, [0, 0]),
        ([(SAT, WitnessState.WRONG)], None, [-150]),
        ([(SAT, WitnessState.TOLERATED)], None, [10]),
    ],
)
def test_truth_and_points_are_those_of_the_competition(claims, truth, points) -> None:  # type: ignore[no-untyped-def]
    assert true_verdict(claims) == truth
    assert [points_of(*claim, truth) for claim in claims] == points


def test_an_answer_after_the_official_limit_is_none() -> None:
    found = compared([answer("p", UNSAT, 6.0)], [answer("p", UNSAT, 4.0)], limit=5.0)
    [one] = found.instances
    assert [a.verdict for a in one.given] == [TIMEOUT, UNSAT]
    assert [score.points for score in found.scores] == [0, 10, 10]


def test_scores_add_percents_of_the_best_over_categories() -> None:
    def own(first: Verdict, second: Verdict, third: Verdict) -> list[ToolAnswer]:
        return [answer("p", first), answer("q", second), answer("r", third, category="other")]

    found = compared(own(UNSAT, UNSAT, UNKNOWN), own(UNSAT, UNKNOWN, UNSAT))
    a, b, best = found.scores
    assert (a.score, b.score, best.score) == (100.0, 150.0, 200.0)
    assert (a.points, b.points, best.points, best.label) == (20, 20, 30, VIRTUAL_BEST)
    assert (a.only, b.only, best.only) == (1, 1, 2)


def test_par2_and_the_virtual_best() -> None:
    found = compared(
        [answer("p", UNSAT, 1.0), answer("q", UNKNOWN, 3.0)], [answer("p", UNSAT, 5.0), answer("q", SAT, 9.0)]
    )
    a, b, best = found.scores
    assert (a.par2, b.par2, best.par2) == ((1 + 40) / 2, (5 + 9) / 2, (1 + 9) / 2)
    assert (a.fastest, b.fastest) == (1, 1)
    assert (a.undecided, b.sat, best.unsat, best.sat) == (1, 1, 1, 1)


def test_par2_needs_times_and_limits() -> None:
    found = compared([answer("p", UNSAT, math.nan)], [answer("p", UNSAT, 1.0)])
    assert math.isnan(found.scores[0].par2)
    found = compared([answer("p", UNKNOWN, 1.0, timeout=math.nan)], [answer("p", UNSAT, 1.0, timeout=7.0)])
    assert found.scores[0].par2 == 14


def test_scores_are_of_instances_that_all_have() -> None:
    found = compared([answer("p", UNSAT), answer("q", UNSAT)], [answer("p", UNSAT), answer("r", SAT)])
    assert [score.instances for score in found.scores] == [1, 1, 1]
    assert [len(found.only_in(number)) for number in (0, 1)] == [1, 1]


def test_contradictions_are_seen_where_not_all_have_the_instance() -> None:
    found = compared([answer("p", UNSAT)], [answer("p", SAT)], [answer("q", SAT)])
    [one] = found.contradictions
    assert (one.truth, [a.wrong for a in one.given]) == (SAT, [True, False])


def test_changes_are_told_the_worst_first() -> None:
    before = [answer(name, UNSAT, 2.0) for name in "abcdef"]
    before[2] = answer("c", UNKNOWN, 20.0)
    after = [
        answer("a", UNSAT, 5.0),  # slower
        answer("b", TIMEOUT, 20.0),  # lost
        answer("c", UNSAT, 3.0),  # gained
        answer("d", UNSAT, 2.9),  # within the factor
        answer("e", UNSAT, 0.5),  # faster
        answer("f", UNSAT, 19.0),  # slower still
    ]
    found = compared(before, after)
    told = [(change.kind, change.instance.instance.specification) for change in found.changes]
    assert told == [("lost", "b"), ("slower", "f"), ("slower", "a"), ("gained", "c"), ("faster", "e")]
    ratios = [change.ratio for change in found.changes]
    assert ratios[1:3] + ratios[4:] == [9.5, 2.5, 0.25]
    assert math.isnan(ratios[0])


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "toy,onnx/a.onnx,vnnlib/p.vnnlib,0.1,unsat,2.5\n",
        "Benchmark,Network,Property,Result,Time\ntoy,onnx/a.onnx,vnnlib/p.vnnlib,holds,2.5\n",
        "verdict,onnx,spec,run_time,extra\nunsat,onnx/a.onnx,vnnlib/p.vnnlib,2.5,7\n",
    ],
)
def test_tables_of_other_tools_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    [read] = read_answers(tmp_path / "results.csv")
    assert (read.onnx, read.vnnlib, read.verdict, read.seconds) == ("onnx/a.onnx", "vnnlib/p.vnnlib", UNSAT, 2.5)


def test_expected_verdicts_are_a_source_without_times(tmp_path: Path) -> None:
    (tmp_path / "expected.csv").write_text("a.onnx,p.vnnlib,60,sat\na.onnx,q.vnnlib,60,\n")
    read = read_answers(tmp_path / "expected.csv")
    assert [(one.verdict, one.timeout) for one in read] == [(SAT, 60.0), (UNKNOWN, 60.0)]
    assert all(math.isnan(one.seconds) for one in read)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", r"results.csv:1: 2 columns without a header"),
        ("toy,a.onnx,p.vnnlib,0,unsat,1\ntoy,a.onnx\n", r"results.csv:2: 2 columns where the first line has 6"),
        ("toy,a.onnx,p.vnnlib,0,perhaps,1\n", r"results.csv:1: 'perhaps' is not a verdict"),
        ("toy,a.onnx,p.vnnlib,0,unsat,soon\n", r"results.csv:1: 'soon' is not a time in seconds"),
        ("network,spec,result\na.onnx\n", r"results.csv:2: 1 columns, fewer than the header names"),
    ],
)
def test_tables_that_cannot_be_read_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_answers(tmp_path / "results.csv")


def test_sources_have_names_of_their_own(tmp_path: Path) -> None:
    for tool in ("x/toy", "y/toy"):
        (tmp_path / tool).mkdir(parents=True)
        (tmp_path / tool / "results.csv").write_text("toy,a.onnx,p.vnnlib,0,unsat,1\n")
    paths = [tmp_path / "x" / "toy" / "results.csv", tmp_path / "y" / "toy"]
    with pytest.raises(InputError, match="two of them are called toy"):
        read_sources([str(path) for path in paths])
    sources = read_sources([f"old={paths[0]}", f"new={paths[1]}", str(tmp_path / "x")])
    assert [source.label for source in sources] == ["old", "new", "x"]
    assert [len(source.answers) for source in sources] == [1, 1, 1]
    with pytest.raises(InputError, match="at least two"):
        read_sources([str(paths[0])])
    with pytest.raises(InputError, match=r"neither run\.json nor results\.csv"):
        read_sources([str(tmp_path), str(paths[0])])


# --- counterexamples, and the command ---------------------------------------------------------------------------------

SPEC = """(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (<= X_0 1.0))
(assert (>= X_0 -1.0))
(assert (>= Y_0 {}))
"""
WITNESSES = {
    "valid": "((X_0 0.75)\n(Y_0 0.75))\n",
    "tolerated": "((X_0 1.00005)\n(Y_0 1.00005))\n",
    "violates_nothing": "((X_0 0.25)\n(Y_0 9.0))\n",
    "malformed": "sat\n((X_0 0.75))\n",
    "wrong_shape": "((X_0 0.75)\n(X_1 0.75))\n",
}
POINTS = {
    "valid": 10,
    "tolerated": 10,
    "violates_nothing": -150,
    "malformed": -150,
    "wrong_shape": -150,
    "missing": -150,
}


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    """A benchmark about ``Y = relu(X)``, an instance for each kind of counterexample, and the results of two tools."""
    folder = tmp_path / "toy"
    (folder / "onnx").mkdir(parents=True)
    (folder / "vnnlib").mkdir()
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "onnx" / "net.onnx")
    for name in POINTS:
        (folder / "vnnlib" / f"{name}.vnnlib").write_text(SPEC.format("1.0" if name == "tolerated" else "0.5"))
    rows = [f"onnx/net.onnx,vnnlib/{name}.vnnlib,30" for name in POINTS]
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    for tool, verdict, seconds in (("first", "sat", 1.0), ("second", "unsat", 2.0)):
        lines = [f"toy,./benchmarks/toy/onnx/net.onnx,vnnlib/{name}.vnnlib,0,{verdict},{seconds}" for name in POINTS]
        (tmp_path / tool / "results.csv").write_text("\n".join(lines) + "\n")
    for name, text in WITNESSES.items():
        (tmp_path / "first" / f"net_{name}.counterexample").write_text(text)
    return folder


def call(folder: Path, *options: str) -> int:
    command = ["compare", *(str(folder / tool) for tool in ("first", "second")), "-o", str(folder / "page.html")]
    return run([*command, *options])


def test_counterexamples_are_judged_as_the_scorer_does(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(toy_folder.parent, "--benchmark", str(toy_folder), "--csv") == 1
    lines = {line["specification"]: line for line in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert {name: int(line["first points"]) for name, line in lines.items()} == POINTS
    assert {name: int(line["second points"]) for name, line in lines.items()} == {
        name: -150 if name == "valid" else 10 for name in POINTS
    }
    assert lines["valid"]["true"] == "sat"
    assert lines["missing"]["true"] == "unsat"
    assert {line["limit"] for line in lines.values()} == {"30.0"}


def test_nobody_gets_points_for_what_nobody_looked_at(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(toy_folder.parent, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [score["points"] for score in found["scores"]] == [0, 0, 0]
    assert len(found["contradictions"]) == len(POINTS)
    assert any("were not looked at" in note for note in found["notes"])


def test_the_page_and_the_terminal_tell_contradictions_first(
    toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(toy_folder.parent, "--benchmark", str(toy_folder), "--rows", "2") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "6 contradictions"
    assert "... and 4 more on the page" in printed.out
    assert "net_missing.counterexample: no such file" in printed.out
    assert f"page: {toy_folder.parent / 'page.html'}" in printed.err
    text = (toy_folder.parent / "page.html").read_text()
    assert text.index("<h2>Contradictions") < text.index("<h2>Scores") < text.index("<h2>Plots")
    assert text.count('class="wrong"') == 6
    assert "<svg" in text


def test_agreeing_results_end_with_code_zero(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = toy_folder.parent / "second" / "results.csv"
    (toy_folder.parent / "first" / "results.csv").write_text(second.read_text().replace(",2.0", ",9.0"))
    assert call(toy_folder.parent, "--latex") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(r"\begin{tabular}{lrrrrrrrrrr}")
    assert call(toy_folder.parent) == 0
    assert "6 gains" in capsys.readouterr().out


def test_what_has_nothing_in_common_is_said_so(toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toy_folder.parent / "first" / "results.csv").write_text("toy,onnx/other.onnx,vnnlib/p.vnnlib,0,unsat,1\n")
    assert call(toy_folder.parent) == 2
    assert "no instance is in two of first, second: first has onnx/other.onnx" in capsys.readouterr().err
    assert call(toy_folder.parent, "--json", "--csv") == 2
