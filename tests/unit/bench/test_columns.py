"""Several settings of the verifier, and other verifiers, as columns of one run: the same table from whatever order of
interruptions, parts and merging."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, save
from random_queries import hard_query

from toolkit.bench import journal
from toolkit.bench.columns import LABEL, Variant, parse_variants, read_columns, runs_in
from toolkit.bench.executor_table import EXECUTORS
from toolkit.bench.executors import ExecutorLimits
from toolkit.bench.job import Answer, Event, Finished, InstanceJob, Started, WorkerTask, settle
from toolkit.bench.run_options import Options
from toolkit.bench.stored_run import read_run
from toolkit.cli import run
from toolkit.commands import run_columns
from toolkit.errors import InputError
from toolkit.result import Verdict

NAMES = ("unsat_0", "sat_1", "unknown_2", "unsat_3", "timeout_4")
TWO = ("--variant", "plain", "--variant", "input:strategy=input,batch=64")


@dataclass
class PlantedVerifier:
    """An executor that answers as specifications are named, and knows what it was asked."""

    asked: list[InstanceJob] = field(default_factory=list)
    answer: Callable[[InstanceJob], Verdict] = lambda job: Verdict(job.spec.name.split("_")[0])
    most: int = 1000
    """Instances after which it is interrupted."""

    def __call__(
        self, jobs: Sequence[InstanceJob], task: WorkerTask, limits: ExecutorLimits
    ) -> Generator[Event, None, None]:
        for job in jobs:
            yield Started(job)
            if len(self.asked) == self.most:
                raise KeyboardInterrupt
            self.asked.append(job)
            verdict = self.answer(job)
            witness = "((X_0 1.0))\n" if verdict is Verdict.SAT else None
            yield Finished(job, settle(job, Answer(verdict, witness=witness), 0.25 * len(self.asked)))

    def seen(self) -> list[tuple[str, str]]:
        """Specification and strategy of each question, in order."""
        return [(job.spec.stem, job.settings.strategy) for job in self.asked]


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> PlantedVerifier:
    found = PlantedVerifier()
    monkeypatch.setitem(EXECUTORS, "planted", found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five instances about one network."""
    place = tmp_path / "toy"
    place.mkdir()
    (place / "net.onnx").write_bytes(b"network")
    for name in NAMES:
        (place / f"{name}.vnnlib").write_text(name)
    (place / "instances.csv").write_text("".join(f"net.onnx,{name}.vnnlib,20\n" for name in NAMES))
    return place


def bench(folder: Path, out: Path, *more: str) -> int:
    return run(["bench", str(folder), "--out", str(out), "--executor", "planted", *more])


def results(out: Path) -> dict[str, tuple[str, float]]:
    """Verdict and seconds in ``results.csv`` by specification."""
    rows = csv.reader((out / "results.csv").read_text().splitlines())
    return {Path(row[2]).stem: (row[4], float(row[5])) for row in rows}


def table(out: Path) -> dict[str, dict[str, str]]:
    rows = csv.DictReader((out / "comparison.csv").read_text().splitlines())
    return {row["specification"]: row for row in rows}


class InstanceLines(HTMLParser):
    """The rows of the table of instances on a page: of each cell its title and the value that it is sorted by; and the
    groups that stand above the columns."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self.groups: dict[str, int] = {}
        self._group = 0
        self.feed(text.partition('id="instances"')[2])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "tr":
            self.rows.append({})
        elif tag == "td":
            self.rows[-1][given["data-title"]] = given["data-value"]
        elif "colspan" in given:
            self._group = int(given["colspan"])

    def handle_data(self, data: str) -> None:
        if self._group:
            self.groups[data] = self._group

    def handle_endtag(self, tag: str) -> None:
        self._group = 0


def test_each_variant_is_a_column_with_the_numbers_of_its_results(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier
) -> None:
    out = tmp_path / "out"
    assert bench(folder, out, *TWO) == 0
    assert read_columns(out) == ["plain", "input"]
    assert [job.settings.batch for job in verifier.asked] == [0] * 5 + [64] * 5
    page, rows = InstanceLines((out / "comparison.html").read_text()), table(out)
    assert page.groups == {"plain": 2, "input": 2}
    lines = {row["specification"]: row for row in page.rows if row}
    assert set(rows) == set(lines) == set(NAMES)
    for label in ("plain", "input"):
        found = results(out / label)
        assert set(found) == set(NAMES)
        for name, (verdict, seconds) in found.items():
            for shown in (rows[name], lines[name]):
                assert (shown[f"{label} verdict"], float(shown[f"{label} seconds"])) == (verdict, seconds)


def test_settings_for_all_and_those_of_one_variant(folder: Path, tmp_path: Path, verifier: PlantedVerifier) -> None:
    shared = ["--setting", "batch=7", "--setting", "alpha_iterations=3", "--seed", "5", "--timeout", "9"]
    own = ["--variant", "a", "--variant", "b:batch=8,timeout=4,seed=6", "--variant", "c:certified=true"]
    assert bench(folder, tmp_path / "out", *shared, *own, "--limit", "1", "--certificates") == 0
    found = [job.settings for job in verifier.asked]
    assert [one.batch for one in found] == [7, 8, 7]
    assert [one.timeout for one in found] == [9, 4, 9]
    assert [one.seed for one in found] == [5, 6, 5]
    assert [one.certified for one in found] == [False, False, True]
    assert {(one.alpha_iterations, one.certifiable) for one in found} == {(3, True)}
    assert all(job.draft is not None for job in verifier.asked)


def test_a_time_limit_that_is_given_as_a_setting_holds(folder: Path, tmp_path: Path, verifier: PlantedVerifier) -> None:
    assert bench(folder, tmp_path / "out", "--setting", "timeout=3") == 0
    assert {job.timeout for job in verifier.asked} == {3}


def test_variants_that_contradict_each_other_are_told(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str]
) -> None:
    verifier.answer = lambda job: Verdict.SAT if job.settings.strategy == "input" else Verdict.UNSAT
    out = tmp_path / "out"
    assert bench(folder, out, *TWO, "--limit", "2") == 1
    assert "2 contradictions" in capsys.readouterr().out
    assert [row["plain points"] for row in table(out).values()] == ["-150", "-150"]
    assert run(["report", str(out)]) == 1
    assert "2 contradictions" in capsys.readouterr().out


@pytest.mark.parametrize("most", [2, 5, 8])
def test_an_interrupted_run_continues_where_it_was(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    verifier.most = most
    out = tmp_path / "out"
    assert bench(folder, out, *TWO) == 130
    assert not (out / "comparison.csv").exists()
    assert run(["report", str(out)]) == 0  # what there is so far
    assert ("input has no answer yet" in capsys.readouterr().out) == (most <= 5)
    assert len(runs_in(out)) == (1 if most < 5 else 2)
    assert (out / "comparison.csv").exists() == (most > 5)
    verifier.most = 1000
    assert bench(folder, out, *TWO) == 0
    assert verifier.seen() == [(name, strategy) for strategy in ("auto", "input") for name in NAMES]
    assert bench(folder, out, *TWO) == 0
    assert len(verifier.asked) == 10


def test_columns_are_those_of_the_last_command(folder: Path, tmp_path: Path, verifier: PlantedVerifier) -> None:
    """What an earlier one asked for under a name that is asked for again, counts."""
    out = tmp_path / "out"
    assert bench(folder, out, *TWO) == 0
    assert bench(folder, out, "--variant", "c:batch=2", *TWO[:2]) == 0
    assert len(verifier.asked) == 15
    assert [one.name for one in runs_in(out)] == ["c", "plain"]
    assert {name.split()[0] for name in table(out)["sat_1"] if name.endswith("verdict")} == {"c", "plain"}


def test_a_variant_whose_settings_changed_is_run_again(folder: Path, tmp_path: Path, verifier: PlantedVerifier) -> None:
    for batch in (1, 2):
        assert bench(folder, tmp_path / "out", "--variant", f"a:batch={batch}", "--limit", "1") == 0
    assert [job.settings.batch for job in verifier.asked] == [1, 2]


def test_one_column_is_compared_with_nothing(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, tmp_path / "out", "--variant", "a", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (len(said["runs"]), said["comparison"]) == (1, None)
    assert not (tmp_path / "out" / "comparison.html").exists()
    assert run(["report", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said


def test_equal_settings_are_measured_twice_and_told(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, tmp_path / "out", "--variant", "a", "--variant", "b:batch=0", "--limit", "1") == 0
    assert len(verifier.asked) == 2
    assert "a and b have the same settings" in capsys.readouterr().err


def test_undecided_instances_of_each_column_are_tried_again(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier
) -> None:
    assert bench(folder, tmp_path / "out", *TWO, "--retry-undecided", "--retry-factor", "3") == 0
    undecided = [("unknown_2", 20.0), ("timeout_4", 20.0), ("unknown_2", 60.0), ("timeout_4", 60.0)]
    asked = [(job.spec.stem, job.timeout) for job in verifier.asked if job.spec.stem[0] in "tu"]
    assert [pair for pair in asked if not pair[0].startswith("unsat")] == undecided * 2


def test_columns_as_json(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert bench(folder, out, *TWO, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["column"] for one in said["runs"]] == ["plain", "input"]
    for one in said["runs"]:
        told = {Path(row["specification"]).stem: (row["verdict"], row["seconds"]) for row in one["answers"]}
        assert told == results(out / one["column"])
    scores = {row["label"]: (row["unsat"], row["sat"], row["undecided"]) for row in said["comparison"]["scores"]}
    assert scores == {"plain": (2, 1, 2), "input": (2, 1, 2), "virtual best": (2, 1, 2)}


def test_columns_as_json_are_compared_once(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared, calls = run_columns.compared, []
    monkeypatch.setattr(run_columns, "compared", lambda sources: calls.append(1) or compared(sources))
    assert bench(folder, tmp_path / "out", *TWO, "--json") == 0
    assert run(["report", str(tmp_path / "out"), "--json"]) == 0
    assert run(["merge", str(tmp_path / "out"), "--out", str(tmp_path / "whole"), "--json"]) == 0
    assert len(calls) == 3


def test_the_default_folder_is_not_that_of_a_single_run(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ([], [*TWO], [*TWO, "--shard", "1/2"]):
        assert run(["bench", str(folder), "--executor", "planted", *more]) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "toy", "toy-columns", "toy-columns-1-of-2",
    ]  # fmt: skip


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_single_run_and_columns_do_not_share_a_folder(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str], fresh: list[str]
) -> None:
    assert bench(folder, tmp_path / "single") == bench(folder, tmp_path / "several", *TWO) == 0
    assert bench(folder, tmp_path / "single", *TWO, *fresh) == 2
    assert "holds a single run, of toy" in capsys.readouterr().err
    assert bench(folder, tmp_path / "several", *fresh) == 2
    assert "holds the columns plain, input" in capsys.readouterr().err
    assert len(verifier.asked) == 15


# --- with other verifiers ---------------------------------------------------------------------------------------------


def test_variants_beside_a_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything as it is: this verifier in processes, one variant with proofs, and another tool."""
    place, out = tmp_path / "toy", tmp_path / "out"
    place.mkdir()
    network = save(random_network("mlp", 0), place, "net.onnx")
    for number, radius in enumerate((0.05, 0.5)):
        (place / f"{number}.vnnlib").write_text(hard_query(network, np.random.default_rng(number), radius))
    (place / "instances.csv").write_text("net.onnx,0.vnnlib,30\nnet.onnx,1.vnnlib,30\n")
    tool = 'shell=bash -c \'printf "unknown\\n" > "$0"\' {results} {network} {specification}'
    columns = ["--variant", "proved:certified=true", "--variant", "input:strategy=input", "--tool", tool]
    assert run(["bench", str(place), "--device", "cpu", "--out", str(out), "--tool", "prunecert", *columns]) == 0
    labels = ["prunecert", "proved", "input", "shell"]
    assert read_columns(out) == labels
    assert capsys.readouterr().out.splitlines()[-1] == shlex.join(
        ["prunecert", "compare", *(str(out / label) for label in labels)]
    )
    found = {label: {name: verdict for name, (verdict, _) in results(out / label).items()} for label in labels}
    assert found["prunecert"] == found["proved"] == found["input"]
    assert sorted(found["input"].values()) == ["sat", "unsat"]
    assert set(found["shell"].values()) == {"unknown"}
    for label in labels:
        for name, (verdict, seconds) in results(out / label).items():
            shown = table(out)[name]
            assert (shown[f"{label} verdict"], float(shown[f"{label} seconds"])) == (verdict, seconds)
    assert [len(list((out / label).glob("certificates/*/*"))) for label in labels] == [0, 1, 0, 0]


def test_two_variants_on_a_ray_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    place, out = tmp_path / "toy", tmp_path / "out"
    place.mkdir()
    network = save(random_network("mlp", 0), place, "net.onnx")
    (place / "0.vnnlib").write_text(hard_query(network, np.random.default_rng(0), 5.0))
    (place / "instances.csv").write_text("net.onnx,0.vnnlib,30\n")
    arguments = ["bench", str(place), "--device", "cpu", "--out", str(out), "--executor", "ray", *TWO]
    assert run([*arguments, "--workers", "1"]) == 0
    assert [results(out / label)["0"][0] for label in ("plain", "input")] == ["unsat", "unsat"]


# --- in parts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(folder: Path, tmp_path: Path, verifier: PlantedVerifier) -> list[Path]:
    """Two parts of a run with two columns, finished."""
    outs = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, out in enumerate(outs, 1):
        assert bench(folder, out, *TWO, "--shard", f"{number}/2") == 0
    return outs


def merge(parts: Sequence[Path], out: Path, *more: str) -> int:
    return run(["merge", *map(str, parts), "--out", str(out), *more])


def test_merged_parts_are_the_undivided_run(
    folder: Path, tmp_path: Path, parts: list[Path], verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, tmp_path / "whole", *TWO) == 0
    assert merge(parts, tmp_path / "merged") == 0
    assert read_columns(tmp_path / "merged") == ["plain", "input"]

    def known(out: Path) -> dict[str, dict[str, str]]:
        rows = table(out)
        return {name: {k: v for k, v in row.items() if not k.endswith("seconds")} for name, row in rows.items()}

    assert known(tmp_path / "merged") == known(tmp_path / "whole")
    for label in ("plain", "input"):
        verdicts = [{name: pair[0] for name, pair in results(tmp_path / out / label).items()}
                    for out in ("merged", "whole")]  # fmt: skip
        assert verdicts[0] == verdicts[1]
        assert read_run(tmp_path / "merged" / label).shard == ""
    capsys.readouterr()
    assert merge(parts, tmp_path / "merged", "--json") == 0
    assert [one["column"] for one in json.loads(capsys.readouterr().out)["runs"]] == ["plain", "input"]
    asked = len(verifier.asked)
    assert bench(folder, tmp_path / "merged", *TWO) == 0
    assert len(verifier.asked) == asked


def test_what_is_open_in_merged_columns_is_run_by_the_command_that_merge_prints(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The second part was interrupted before its second column began."""
    arguments = ["bench", str(folder), "--executor", "planted", *TWO]
    for number, most in ((1, 1000), (2, 7)):
        verifier.most = most
        words = [*arguments, "--shard", f"{number}/2", "--out", str(tmp_path / f"part{number}")]
        monkeypatch.setattr("sys.argv", ["prunecert", *words])
        assert run(words) == (0 if number == 1 else 130)
    capsys.readouterr()
    out = tmp_path / "merged"
    assert merge([tmp_path / "part1", tmp_path / "part2"], out) == 0
    [command] = set(re.findall(r"to run them: (.*)", capsys.readouterr().out))
    assert shlex.split(command) == ["prunecert", *arguments, "--out", str(out)]
    verifier.most = 1000
    asked = len(verifier.asked)
    assert run(shlex.split(command)[1:]) == 0
    assert sorted(verifier.seen()[asked:]) == [("sat_1", "input"), ("unsat_3", "auto"), ("unsat_3", "input")]
    assert {len(results(out / label)) for label in ("plain", "input")} == {5}


def test_parts_with_other_columns_are_not_merged(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, tmp_path / "other", "--variant", "plain", "--shard", "2/2") == 0
    assert bench(folder, tmp_path / "none", "--shard", "2/2") == 0
    assert bench(folder, tmp_path / "settings", *TWO[:3], "input:batch=3", "--shard", "2/2") == 0
    capsys.readouterr()
    for other, reason in (("other", "the columns plain"), ("none", "no columns"), ("settings", "settings or limits")):
        assert merge([parts[0], tmp_path / other], tmp_path / f"merged-{other}") == 2
        said = capsys.readouterr().err
        assert reason in said
        assert said.count("\n") == 1
    assert merge([parts[0]], tmp_path / "none") == 2
    assert "not parts of one run" in capsys.readouterr().err


def test_a_part_without_instances_has_columns_without_answers(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, tmp_path / "out", *TWO, "--shard", "7/8") == 0
    assert "plain has no answer yet" in capsys.readouterr().out
    assert run(["report", str(tmp_path / "out")]) == 2
    assert "no instance is answered yet in plain, input" in capsys.readouterr().err


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_variants_and_their_settings() -> None:
    assert parse_variants(["a", "b:batch=1, seed=2", "c.1-x:branching=kfsb=2"]) == [
        Variant("a"), Variant("b", ("batch=1", "seed=2")), Variant("c.1-x", ("branching=kfsb=2",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([""], "expected NAME:SETTING"),
        ([":batch=1"], "expected NAME:SETTING"),
        (["a/b:batch=1"], "that of a folder"),
        (["..:batch=1"], "that of a folder"),
        (["a b"], "that of a folder"),
        (["-a"], "that of a folder"),
        (["a."], "that of a folder"),
        (["a\nb"], "that of a folder"),
        (["batch=1"], "expected NAME:SETTING"),
        (["a=batch=1"], "expected NAME:SETTING"),
        (["x" * 61], "at most 60"),
        (["a:"], "is no SETTING=VALUE"),
        (["a:batch"], "'batch' is no SETTING=VALUE"),
        (["a:batch=1,"], "'' is no SETTING=VALUE"),
        (["a:=1"], "'=1' is no SETTING=VALUE"),
        (["a:batch=1,batch=2"], "batch is given twice"),
        (["a", "a"], "two are called a"),
        (["a:batch=1", "A:batch=2"], "a and A"),
        (["prunecert"], "two are called prunecert"),
        (["nul"], "no folder can be called nul"),
        (["COM1.x"], "no folder can be called COM1.x"),
        (["comparison.html"], "no folder can be called"),
        (["columns.json"], "no folder can be called"),
    ],
)
def test_what_is_no_variant_is_told(texts: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        parse_variants(texts)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--variant", "a:stratgy=input"], "--variant a: stratgy: no such setting; .*did you mean strategy?"),
        (["--variant", "a:batch=-1"], "--variant a: batch: .*, not -1"),
        (["--variant", "a", "--variant", "b:branching=nope"], "--variant b: .*nope"),
        (["--variant", "a:float_execution=true,real_semantics=true"], "--variant a: .*give one"),
        (["--variant", "a", "--variant", "a"], "two are called a"),
        (["--variant", "a", "--tool", "A=x {network} {specification} {results}"], "two are called a and A"),
        (["--variant", "a", "--setting", "stratgy=input"], "did you mean strategy?"),
        (["--variant", "a", "--freeze", "x"], "--freeze"),
        (["--variant", "a", "--shard", "3/2"], "--shard 3/2"),
        (["--variant", "a", "--category", "b"], "category"),
        (["--variant", "a", "--variant", "b:device=cuda"], "--variant b: device cuda: torch finds no CUDA device"),
        (["--setting", "device=cuda"], "device cuda: torch finds no CUDA device"),
    ],
)
def test_what_cannot_be_run_ends_with_one_line_before_anything_is_run(
    folder: Path, tmp_path: Path, verifier: PlantedVerifier, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, more: list[str], reason: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    executor = ["--executor", "processes" if "--tool" in more else "planted"]
    assert run(["bench", str(folder), "--out", str(tmp_path / "out"), *executor, *more]) == 2
    said = capsys.readouterr().err
    assert re.search(reason, said)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not verifier.asked


def test_a_recipe_has_no_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "digits", "--out", str(tmp_path / "out"), "--variant", "a"]) == 2
    assert capsys.readouterr().err == (
        "prunecert: --variant: columns are made over a benchmark folder; a recipe leaves one in benchmark/\n"
    )


@pytest.mark.parametrize("text", ["", "[]", '{"columns": ["../x"]}', '{"columns": 3}', '{"columns": [3]}', "{"])
def test_names_that_cannot_be_read_are_told(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "columns.json").write_text(text)
    assert run(["report", str(tmp_path)]) == 2
    assert "cannot be read as names of columns" in capsys.readouterr().err


def test_labels_are_names_of_folders() -> None:
    assert all(re.fullmatch(LABEL, name) for name in ("a", "7", "a-b", "r\u00e9", "x" * 60))
    assert not any(re.fullmatch(LABEL, name) for name in (".a", "a.", "", "a/b", "a\\b", "a:b", "x" * 61))


def test_options_of_python_have_variants(folder: Path, tmp_path: Path, verifier: PlantedVerifier) -> None:
    import prunecert

    options = prunecert.Options(executor="planted", variant=("a", "b:batch=2"))
    found = prunecert.bench(folder, out=tmp_path / "out", options=options)
    assert found.consistent
    assert {name: len(one.results()) for name, one in found.columns().items()} == {"a": 5, "b": 5}
    assert len(journal.history(tmp_path / "out" / "a" / journal.NAME)) == 5
    assert Options().columns is False
