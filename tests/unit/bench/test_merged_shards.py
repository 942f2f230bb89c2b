"""Parts of a run, each as on a machine of its own, and the one run that is made of them."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.bench import journal
from toolkit.bench.executor_table import EXECUTORS
from toolkit.bench.job import Answer, Finished, InstanceJob, WorkerTask
from toolkit.bench.merge_runs import merge_runs
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.bench.shards import Shard, missing_shards, parse_shard
from toolkit.bench.stored_run import expected_by_key, read_run, stored_records
from toolkit.cli import run
from toolkit.errors import InputError
from toolkit.experiments.campaign import run_folder
from toolkit.experiments.study import run_recipe
from toolkit.result import Statistics, Verdict

ROOT = Path(__file__).parents[3]
KNOWN = {
    "unsat_0": "unsat", "sat_1": "sat", "unknown_2": "sat", "unsat_3": "sat", "sat_4": "", "timeout_5": "",
    "unsat_6": "unsat", "sat_7": "sat", "unsat_8": "", "error_9": "",
}  # fmt: skip
"""Answers and known verdicts; the fourth contradicts what is known."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten instances; two of them, which different parts get, would have counterexamples of one name."""
    place = tmp_path / "toy"
    for name in ("onnx", "vnnlib"):
        (place / name).mkdir(parents=True)
    (place / "onnx" / "net.onnx").write_bytes(b"network")
    rows = [f"onnx/net.onnx,vnnlib/{name}.vnnlib,20" for name in KNOWN]
    rows[7] = "onnx/net.onnx,./vnnlib/sat_4.vnnlib,20"
    for name in KNOWN:
        (place / "vnnlib" / f"{name}.vnnlib").write_text(name)
    (place / "instances.csv").write_text("\n".join(rows) + "\n")
    lines = [f"{row},{word}" for row, word in zip(rows, KNOWN.values(), strict=True)]
    (place / "expected.csv").write_text("\n".join(lines) + "\n")
    return place


def by_name(job: InstanceJob) -> Answer:
    verdict = Verdict(job.spec.name.split("_")[0])
    witness = f"(({job.vnnlib}))\n" if verdict == Verdict.SAT else None
    return Answer(verdict, "of a kind", statistics=Statistics(domains=7, decided_by="crown"), witness=witness)


def opposite(job: InstanceJob) -> Answer:
    return Answer(Verdict.UNSAT if by_name(job).verdict == Verdict.SAT else Verdict.SAT, witness="((X_0 1.0))\n")


def undecided(_job: InstanceJob) -> Answer:
    return Answer(Verdict.UNKNOWN)


def ask(folder: Path, out: Path, answer: Callable[[InstanceJob], Answer] = by_name, **options: object) -> int:
    chosen = {"executor": "in-process"} | options
    return run_folder(folder, Options(out=out, **chosen), WorkerTask(lambda: None, answer))  # type: ignore[arg-type]


@pytest.fixture
def parts(folder: Path, tmp_path: Path) -> list[Path]:
    """Four parts, finished."""
    outs = [tmp_path / f"part{number}" for number in range(1, 5)]
    for number, out in enumerate(outs, 1):
        ask(folder, out, shard=f"{number}/4")
    return outs


def merge(parts: list[Path], out: Path) -> int:
    return run(["merge", *map(str, parts), "--out", str(out)])


def answers(out: Path) -> list[dict[str, str]]:
    """Everything of ``answers.csv`` but times."""
    rows = csv.DictReader((out / "answers.csv").read_text().splitlines())
    timed = ("seconds", "verifier_seconds", "finished")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


def results(out: Path) -> list[list[str]]:
    return [row[:5] for row in csv.reader((out / "results.csv").read_text().splitlines())]


def table(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The table of results without the column of times."""
    capsys.readouterr()
    run(["report", str(out), "--csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    return str([{name: value for name, value in row.items() if "PAR" not in name.upper()} for row in rows])


def counterexamples(out: Path) -> dict[str, str]:
    found = sorted((out / "witnesses").rglob("*.gz"))
    return {str(path.relative_to(out)): gzip.decompress(path.read_bytes()).decode() for path in found}


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [0, 1, 3, 10])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_are_equal_and_have_everything_once(total: int, count: int) -> None:
    held = [list(Shard(index, count).positions(total)) for index in range(1, count + 1)]
    assert sorted(itertools.chain(*held)) == list(range(total))
    assert max(map(len, held)) - min(map(len, held)) <= 1


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/4/2", "1.0/4"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="as in 2/4"):
        parse_shard(text)
    with pytest.raises(InputError, match="as in 2/4"):
        Options(shard=text).check()


def test_missing_parts_are_those_of_which_nothing_is_there() -> None:
    assert missing_shards([1, 2, 5, 9], 10, 4) == [Shard(2, 4)]
    assert missing_shards([], 2, 4) == []
    assert missing_shards([0, 1], 2, 4) == [Shard(1, 4), Shard(2, 4)]


def test_a_part_asks_every_nth_instance(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(folder, tmp_path / "out", shard="2/4")
    assert [row["specification"] for row in answers(tmp_path / "out")] == [
        f"vnnlib/{name}.vnnlib" for name in ("sat_1", "timeout_5", "error_9")
    ]
    assert read_run(tmp_path / "out").shard == "2/4"
    assert "3 of 10 instances (part 2/4) of 1 benchmark" in (tmp_path / "out/report.html").read_text()


def test_a_part_reads_no_file_of_another(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("toolkit.bench.fingerprint.file_hash", lambda path: read.append(path) or "")
    ask(folder, tmp_path / "out", shard="2/4")
    assert {path.stem for path in read} == {"sat_1", "timeout_5", "error_9"}


def test_a_part_may_be_empty(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(folder, tmp_path / "out", shard="11/12") == 0
    assert "part 11/12 has none of the 10 instances" in capsys.readouterr().err
    assert read_run(tmp_path / "out").instances == ()


def test_a_folder_holds_one_part(folder: Path, tmp_path: Path) -> None:
    ask(folder, tmp_path / "out", shard="2/4")
    assert ask(folder, tmp_path / "out", shard="2/4") == 0
    with pytest.raises(InputError, match="part 2/4 of a run is there; choose another --out for part 3/4"):
        ask(folder, tmp_path / "out", shard="3/4")


def test_parts_have_folders_of_their_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(folder, Options(shard="2/4", executor="in-process"), WorkerTask(lambda: None, by_name))
    assert (tmp_path / "results/toy-2-of-4/results.csv").is_file()


def test_a_recipe_is_not_divided(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the parts of the folder that it has made: {tmp_path}/r/benchmark"):
        run_recipe(ROOT / "specs" / "digits.toml", Options(out=tmp_path / "r", shard="1/2"))
    assert not (tmp_path / "r").exists()


# --- one run of them --------------------------------------------------------------------------------------------------


def test_four_parts_are_the_undivided_run(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, merged = tmp_path / "whole", tmp_path / "merged"
    code = ask(folder, whole)
    capsys.readouterr()
    assert merge(parts, merged) == code == 1
    printed = capsys.readouterr().out
    assert "CONTRADICTION: toy onnx/net.onnx vnnlib/unsat_3.vnnlib: unsat, expected sat" in printed
    assert "open" not in printed
    assert results(merged) == results(whole)
    assert answers(merged) == answers(whole)
    assert counterexamples(merged) == counterexamples(whole)
    assert len(counterexamples(merged)) == 3
    assert sum("sat_4_" in name for name in counterexamples(merged)) == 2
    assert table(merged, capsys) == table(whole, capsys)
    assert {path.name for path in merged.iterdir()} == {path.name for path in whole.iterdir()}
    for name in ("name", "instances", "folders", "undivided", "shard", "working_folder"):
        assert getattr(read_run(merged), name) == getattr(read_run(whole), name)
    assert "10 instances of 1 benchmark" in (merged / "report.html").read_text()


def test_the_order_of_parts_does_not_matter(tmp_path: Path, parts: list[Path]) -> None:
    merge(parts, tmp_path / "one")
    merge(parts[::-1], tmp_path / "other")
    assert results(tmp_path / "one") == results(tmp_path / "other")
    assert answers(tmp_path / "one") == answers(tmp_path / "other")


def test_a_merged_run_continues_without_asking_anything(folder: Path, tmp_path: Path, parts: list[Path]) -> None:
    merge(parts, tmp_path / "merged")
    before = answers(tmp_path / "merged")

    def never(job: InstanceJob) -> Answer:
        raise AssertionError(job)

    assert ask(folder, tmp_path / "merged", never) == 1
    assert answers(tmp_path / "merged") == before


def test_merging_again_changes_nothing(tmp_path: Path, parts: list[Path]) -> None:
    merge(parts, tmp_path / "merged")
    before = (tmp_path / "merged/journal.jsonl").read_bytes(), counterexamples(tmp_path / "merged")
    merge(parts, tmp_path / "merged")
    assert ((tmp_path / "merged/journal.jsonl").read_bytes(), counterexamples(tmp_path / "merged")) == before


def test_parts_are_only_read(tmp_path: Path, parts: list[Path]) -> None:
    before = {path: path.read_bytes() for part in parts for path in part.rglob("*") if path.is_file()}
    merge(parts, tmp_path / "merged")
    assert {path: path.read_bytes() for part in parts for path in part.rglob("*") if path.is_file()} == before


def test_a_part_that_is_missing_is_said_and_run_later(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert merge([parts[0], *parts[2:]], tmp_path / "merged") == 1
    printed = capsys.readouterr().out
    assert "part 2/4 is missing: 3 instances are open" in printed
    assert "3 of 10 are open; to run them: prunecert bench" in printed
    assert "7 of 10 instances of 1 benchmark" in (tmp_path / "merged/report.html").read_text()
    asked = []
    ask(folder, tmp_path / "merged", lambda job: asked.append(job.spec.stem) or by_name(job))
    assert asked == ["sat_1", "timeout_5", "error_9"]
    ask(folder, tmp_path / "whole")
    assert answers(tmp_path / "merged") == answers(tmp_path / "whole")
    assert counterexamples(tmp_path / "merged") == counterexamples(tmp_path / "whole")


def test_the_missing_part_is_merged_into_the_rest(tmp_path: Path, parts: list[Path]) -> None:
    merge(parts[:3], tmp_path / "merged")
    merge(parts[3:], tmp_path / "merged")
    merge(parts, tmp_path / "whole")
    assert answers(tmp_path / "merged") == answers(tmp_path / "whole")


def test_a_part_that_was_not_started_is_missing(
    tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    merge([*parts[:3], tmp_path / "empty"], tmp_path / "merged")
    printed = capsys.readouterr().out
    assert f"{tmp_path}/empty: no run was started there" in printed
    assert "part 4/4 is missing: 2 instances are open" in printed
    assert merge([tmp_path / "empty"], tmp_path / "nothing") == 2
    assert merge([*parts, tmp_path / "nowhere"], tmp_path / "merged") == 2
    assert merge([], tmp_path / "merged") == 2


def test_a_part_that_was_interrupted_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(jobs, _task, _limits) -> Iterator[Finished]:
        yield Finished(jobs[0], by_name(jobs[0]))
        raise KeyboardInterrupt

    monkeypatch.setitem(EXECUTORS, "interrupted", interrupted)
    ask(folder, tmp_path / "one", shard="1/2")
    with pytest.raises(KeyboardInterrupt):
        ask(folder, tmp_path / "two", shard="2/2", executor="interrupted")
    capsys.readouterr()
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    printed = capsys.readouterr().out
    assert f"{tmp_path}/two (part 2/2) is not finished: 4 instances are open, of 5" in printed
    ask(folder, tmp_path / "two", shard="2/2")
    merge([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")
    assert "is not finished" not in capsys.readouterr().out
    assert len(answers(tmp_path / "merged")) == 10


def test_a_part_may_be_merged_while_it_runs(tmp_path: Path, parts: list[Path]) -> None:
    with claimed(parts[0]):
        assert merge(parts, tmp_path / "merged") == 1


def test_nobody_merges_into_a_run_that_goes(tmp_path: Path, parts: list[Path], capsys) -> None:
    with claimed(tmp_path / "merged"):
        assert merge(parts, tmp_path / "merged") == 2
    assert "another run is writing there" in capsys.readouterr().err


def test_other_divisions_of_the_same_run_merge(folder: Path, tmp_path: Path, parts: list[Path]) -> None:
    ask(folder, tmp_path / "half", shard="1/2")
    merge([tmp_path / "half", parts[1], parts[3]], tmp_path / "merged")
    ask(folder, tmp_path / "whole")
    assert answers(tmp_path / "merged") == answers(tmp_path / "whole")


def test_what_is_left_over_of_other_divisions_is_counted(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(folder, tmp_path / "third", shard="1/3")
    capsys.readouterr()
    merge([tmp_path / "third", parts[1]], tmp_path / "merged")
    assert "4 instances are in none of these runs, and open" in capsys.readouterr().out


# --- what does not count ----------------------------------------------------------------------------------------------


def test_contradicting_parts_are_an_error_that_names_both(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(folder, tmp_path / "again", opposite, shard="2/4")
    capsys.readouterr()
    assert merge([*parts, tmp_path / "again"], tmp_path / "merged") == 2
    error = capsys.readouterr().err
    assert "CONTRADICTION: toy onnx/net.onnx vnnlib/sat_1.vnnlib" in error
    assert f"sat in {parts[1]}, unsat in {tmp_path / 'again'}" in error
    assert not (tmp_path / "merged/journal.jsonl").exists()


def test_answers_contradict_each_other_under_other_versions_too(tmp_path: Path, folder: Path, monkeypatch) -> None:
    ask(folder, tmp_path / "one", shard="1/2")
    monkeypatch.setattr("toolkit.bench.fingerprint.versions", lambda: {"code": "other"})
    ask(folder, tmp_path / "two", opposite, shard="1/2")
    with pytest.raises(InputError, match="CONTRADICTION"):
        merge_runs([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")


def test_the_part_that_decides_counts(folder: Path, tmp_path: Path, parts: list[Path]) -> None:
    ask(folder, tmp_path / "weak", undecided, shard="2/4")
    merge([tmp_path / "weak", *parts], tmp_path / "merged")
    merge(parts, tmp_path / "whole")
    assert [row["verdict"] for row in answers(tmp_path / "merged")][1] == "sat"
    assert [row["verdict"] for row in answers(tmp_path / "merged")][5] == "unknown"
    assert counterexamples(tmp_path / "merged") == counterexamples(tmp_path / "whole")


def test_a_counterexample_that_changed_does_not_count(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = (parts[1] / "witnesses").rglob("*.gz")
    path.write_bytes(gzip.compress(b"((X_0 2.0))\n"))
    capsys.readouterr()
    merge(parts, tmp_path / "merged")
    assert f"{parts[1]} (part 2/4) is not finished: 1 instance is open, of 3" in capsys.readouterr().out
    assert "vnnlib/sat_1.vnnlib" not in {row["specification"] for row in answers(tmp_path / "merged")}
    asked = []
    ask(folder, tmp_path / "merged", lambda job: asked.append(job.spec.stem) or by_name(job))
    assert asked == ["sat_1"]


def test_a_counterexample_outside_of_its_folder_is_refused(tmp_path: Path, parts: list[Path]) -> None:
    [record] = [one for one in journal.history(parts[1] / "journal.jsonl") if one.witness]
    (parts[1] / record.witness).rename(tmp_path / "outside.gz")
    journal.append(parts[1] / "journal.jsonl", replace(record, witness="../outside.gz"))
    with pytest.raises(InputError, match="not in this folder"):
        merge_runs(parts, tmp_path / "merged")


def test_every_file_that_an_answer_names_comes_along(tmp_path: Path, parts: list[Path]) -> None:
    [record] = [one for one in journal.history(parts[1] / "journal.jsonl") if one.witness]
    assert record.files == [(record.witness, record.witness_sha256)]
    assert replace(record, witness="").files == []


def with_proof(job: InstanceJob) -> Answer:
    answer = by_name(job)
    if answer.verdict == Verdict.UNSAT:
        assert job.draft is not None
        job.draft.write_text(f"proof of {job.vnnlib}")
        return replace(answer, statistics=replace(answer.statistics, certificate="written"))
    return answer


def test_certificates_come_along(folder: Path, tmp_path: Path) -> None:
    outs = [tmp_path / str(number) for number in (1, 2)]
    for number, out in enumerate(outs, 1):
        ask(folder, out, with_proof, shard=f"{number}/2", certificates=True)
    ask(folder, tmp_path / "whole", with_proof, certificates=True)
    merge(outs, tmp_path / "merged")
    assert answers(tmp_path / "merged") == answers(tmp_path / "whole")
    found = {
        out.name: {path.name: path.read_text() for path in (out / "certificates").rglob("*.certificate")}
        for out in (tmp_path / "merged", tmp_path / "whole")
    }
    assert found["merged"] == found["whole"]
    assert len(found["merged"]) == 4
    [changed] = (outs[0] / "certificates").rglob("*unsat_6*")
    changed.write_text("another proof")
    gaps = merge_runs(outs, tmp_path / "less").gaps
    assert gaps[0] == f"{outs[0]} (part 1/2) is not finished: 1 instance is open, of 5"


def test_parts_of_other_runs_are_an_error_that_names_both(
    folder: Path, tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ask(folder, tmp_path / "longer", shard="2/4", timeout=30.0)
    ask(folder, tmp_path / "fewer", shard="2/4", limit=9)
    for other in ("longer", "fewer"):
        capsys.readouterr()
        assert merge([parts[0], tmp_path / other], tmp_path / "merged") == 2
        assert f"{parts[0]} and {tmp_path / other} are not parts of one run" in capsys.readouterr().err


def test_files_that_changed_between_parts_are_an_error(folder: Path, tmp_path: Path, parts: list[Path]) -> None:
    (folder / "onnx/net.onnx").write_bytes(b"another network")
    ask(folder, tmp_path / "late", shard="4/4")
    with pytest.raises(InputError, match=r"net\.onnx: .*part1 and .*late are about other contents"):
        merge_runs([*parts[:3], tmp_path / "late"], tmp_path / "merged")


def test_other_machines_and_versions_are_said(folder: Path, tmp_path: Path, parts: list[Path], monkeypatch) -> None:
    monkeypatch.setattr("toolkit.bench.fingerprint.device_kind", lambda _device: "cpu of another kind")
    ask(folder, tmp_path / "late", shard="4/4")
    merged = merge_runs([*parts[:3], tmp_path / "late"], tmp_path / "merged")
    assert [line.split(",")[0] for line in merged.differences] == ["device differ"]
    assert len(stored_records(tmp_path / "merged", merged.run)) == 10


def test_what_is_no_part_of_a_run_is_said_so(tmp_path: Path, parts: list[Path], capsys) -> None:
    values = json.loads((parts[0] / "run.json").read_text())
    for changes, message in (
        ({"recipe": {"name": "x"}}, "the run of a recipe is no part of another"),
        ({"undivided": None}, "does not say which part of a run this is"),
    ):
        (parts[0] / "run.json").write_text(json.dumps(values | changes))
        assert merge(parts, tmp_path / "merged") == 2
        assert message in capsys.readouterr().err


def test_limits_of_a_second_try_are_those_of_its_part(folder: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        ask(folder, tmp_path / str(number), shard=f"{number}/2", retry_undecided=number == 2, retry_factor=3.0)
    merged = merge_runs([tmp_path / "1", tmp_path / "2"], tmp_path / "merged").run
    assert [one.settings.timeout for one in merged.instances] == [*[20.0] * 5, 60.0, *[20.0] * 3, 60.0]
    assert len(stored_records(tmp_path / "merged", merged)) == 10
    assert len(expected_by_key(merged)) == 6


def test_the_command_that_goes_on_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["bench", "toy", "--shard", "1/2", "--timeout", "9", "--out=one"]
    monkeypatch.setattr(sys, "argv", ["prunecert", *words])
    ask(Path("toy"), Path("one"), shard="1/2", timeout=9.0)
    monkeypatch.setattr(sys, "argv", shlex.split("prunecert merge one --out merged"))
    merge([Path("one")], Path("merged"))
    assert "to run them: prunecert bench toy --timeout 9 --out merged" in capsys.readouterr().out
    assert read_run(Path("merged")).command == "prunecert merge one --out merged"
