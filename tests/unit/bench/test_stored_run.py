"""What a run leaves to be read again: its description, the table of all answers, and the report made from them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from toolkit.bench.answer_table import HEADER
from toolkit.bench.executors import ExecutorLimits
from toolkit.bench.job import Answer, InstanceJob, WorkerTask
from toolkit.bench.run_options import Options
from toolkit.bench.stored_run import check_no_other, expected_by_key, read_run, stored_records
from toolkit.cli import run
from toolkit.errors import InputError
from toolkit.experiments.campaign import run_folder
from toolkit.recipe import load_recipe, parse_recipe
from toolkit.result import Statistics, Verdict

ROOT = Path(__file__).parents[3]


def by_name(job: InstanceJob) -> Answer:
    verdict = Verdict(job.spec.name.split("_")[0])
    reason = "weak, bounds" if verdict == Verdict.UNKNOWN else ""
    statistics = Statistics(seconds=0.25, domains=7, unstable=3, bounds="crown", decided_by="crown")
    return Answer(verdict, reason, statistics=statistics, witness="((X_0 1.0))\n" if verdict == Verdict.SAT else None)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run of four instances, one of which contradicts what is known."""
    folder = tmp_path / "toy"
    (folder / "onnx").mkdir(parents=True)
    (folder / "vnnlib").mkdir()
    (folder / "onnx" / "net.onnx").write_bytes(b"network")
    known = {"unsat_0": "unsat", "sat_1": "sat", "unknown_2": "sat", "unsat_3": "sat"}
    rows = [f"onnx/net.onnx,vnnlib/{name}.vnnlib,20" for name in known]
    for name in known:
        (folder / "vnnlib" / f"{name}.vnnlib").write_text(name)
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")
    (folder / "expected.csv").write_text(
        "\n".join(f"{row},{word}" for row, word in zip(rows, known.values(), strict=True)) + "\n"
    )
    options = Options(out=tmp_path / "out", executor="in-process")
    assert run_folder(folder, options, WorkerTask(lambda: None, by_name)) == 1
    return tmp_path / "out"


def lines_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "answers.csv").read_text())))


def test_the_table_of_answers_has_all_that_is_known_of_each(out: Path) -> None:
    lines = lines_of(out)
    assert tuple(lines[0]) == HEADER
    assert {entry.name for entry in fields(Statistics)} - {"layers"} <= {*HEADER, "seconds"}
    assert [(line["specification"], line["verdict"], line["expected"]) for line in lines] == [
        ("vnnlib/unsat_0.vnnlib", "unsat", "unsat"),
        ("vnnlib/sat_1.vnnlib", "sat", "sat"),
        ("vnnlib/unknown_2.vnnlib", "unknown", "sat"),
        ("vnnlib/unsat_3.vnnlib", "unsat", "sat"),
    ]
    assert lines[2]["reason"] == "weak, bounds"
    assert (lines[0]["domains"], lines[0]["decided_by"], lines[0]["timeout"]) == ("7", "crown", "20.0")
    assert lines[0]["verifier_seconds"] == "0.25"
    assert (out / lines[1]["witness"]).is_file()
    assert lines[0]["witness"] == ""


def test_every_column_of_the_table_is_documented() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text().partition("## The columns of answers.csv")[2]
    cells = re.findall(r"^\| ([a-z_, ]+) \|", page.partition("\n## ")[0], re.MULTILINE)
    assert [name for cell in cells for name in cell.split(", ")][1:] == [*HEADER]


def test_a_run_describes_itself(out: Path) -> None:
    stored = read_run(out)
    assert stored.name == "toy"
    assert [instance.settings.timeout for instance in stored.instances] == [20.0] * 4
    assert list(expected_by_key(stored).values()) == ["unsat", "sat", "sat", "sat"]
    assert stored.command.startswith("prunecert")
    assert stored.machine["cores"]
    assert stored.machine["workers"] == "none: in one process"
    assert (
        Options(executor="processes").described_workers(ExecutorLimits(workers=3, threads=2)) == "3 of 2 threads each"
    )
    assert re.search(r"<dt>workers</dt><dd>none: in one process", (out / "report.html").read_text())
    assert [record.vnnlib for record in stored_records(out, stored)] == [
        line["specification"] for line in lines_of(out)
    ]


def test_a_page_that_compares_runs_says_where_they_come_from(out: Path) -> None:
    page = out.parent / "page.html"
    assert run(["compare", f"a={out}", f"b={out}", "-o", str(page)]) in (0, 1)
    machine = read_run(out).machine
    for label in "ab":
        assert f"<dt>{label}: command</dt><dd>prunecert" in page.read_text()
        assert (
            f"<dt>{label}: machine</dt><dd>processor {machine['processor']}, cores {machine['cores']}"
            in page.read_text()
        )


def test_a_counterexample_that_is_gone_does_not_count(out: Path) -> None:
    (out / lines_of(out)[1]["witness"]).unlink()
    assert [str(record.verdict) for record in stored_records(out, read_run(out))] == ["unsat", "unknown", "unsat"]


def slow(job: InstanceJob) -> Answer:
    """Decides nothing within 20 seconds, and gets it wrong with more time."""
    return Answer(Verdict.UNKNOWN if job.timeout <= 20 else Verdict.UNSAT)


def test_answers_of_a_second_try_count_under_its_limits(tmp_path: Path, out: Path) -> None:
    options = Options(out=tmp_path / "again", executor="in-process", retry_undecided=True, retry_factor=10)
    assert run_folder(tmp_path / "toy", options, WorkerTask(lambda: None, slow)) == 1
    stored = read_run(tmp_path / "again")
    assert {instance.settings.timeout for instance in stored.instances} == {200.0}
    assert {str(record.verdict) for record in stored_records(tmp_path / "again", stored)} == {"unsat"}
    assert [line["expected"] for line in lines_of(tmp_path / "again")] == ["unsat", "sat", "sat", "sat"]
    assert run(["report", str(tmp_path / "again")]) == 1


def test_the_report_is_made_again_without_the_benchmark(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (out / name).read_bytes() for name in ("report.html", "answers.csv", "plots/cactus.png")}
    for name in before:
        (out / name).unlink()
    capsys.readouterr()
    assert run(["report", str(out)]) == 1
    printed = capsys.readouterr().out
    assert "CONTRADICTION: toy onnx/net.onnx vnnlib/unsat_3.vnnlib: unsat, expected sat" in printed
    assert {name: (out / name).read_bytes() for name in before} == before


def test_the_tables_of_a_paper(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["report", str(out), "--latex"]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [r"\begin{tabular}{lrrrrrrrrr}", r"\toprule"]
    assert r"toy & 4 & 2 & 1 & 1 & 0 & 0 & 1 & -130 & " in printed.out
    assert "CONTRADICTION" in printed.err
    assert run(["report", str(out), "--csv"]) == 1
    [line] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (line["category"], line["points"], line["contradictions"]) == ("toy", "-130", "1")
    assert run(["report", str(out), "--csv", "--latex"]) == 2


def test_what_is_no_run_is_said_so(tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path / "toy")]) == 2
    assert "no run.json in it" in capsys.readouterr().err
    (out / "run.json").write_text('{"instances": [{"no": 1}]}')
    with pytest.raises(InputError, match="cannot be read as the description of a run"):
        read_run(out)
    (out / "run.json").unlink()
    assert run(["report", str(out)]) == 2


def test_a_run_about_something_else_is_not_replaced(out: Path) -> None:
    check_no_other(out, "toy", ["toy"], recipe=False)
    check_no_other(out, "all", ["toy", "other"], recipe=False)
    check_no_other(out.parent, "other", ["other"], recipe=False)
    for name, recipe in (("other", False), ("toy", True)):
        with pytest.raises(InputError, match="holds another run, of toy"):
            check_no_other(out, name, [name], recipe)
    before = (out / "results.csv").read_text()
    (out.parent / "other").mkdir()
    (out.parent / "other" / "instances.csv").write_text("onnx/net.onnx,vnnlib/unsat_0.vnnlib,20\n")
    assert run(["bench", str(out.parent / "other"), "--out", str(out)]) == 2
    assert (out / "results.csv").read_text() == before


def test_a_report_as_json_has_what_the_tables_have(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["report", str(out), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["folder"], found["instances"]) == ("toy", str(out), 4)
    [score] = found["scores"]
    assert (score["unsat"], score["sat"], score["unknown"], score["contradictions"]) == (2, 1, 1, 1)
    lines = lines_of(out)
    assert [answer["specification"] for answer in found["answers"]] == [line["specification"] for line in lines]
    assert [answer["domains"] for answer in found["answers"]] == [7] * 4
    assert [answer["reason"] for answer in found["answers"]] == [None, None, "weak, bounds", None]


def test_a_folder_of_runs_is_reported_run_by_run_and_compared_with_none(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = out.parent / "both"
    for name in ("ours", "theirs"):
        shutil.copytree(out, both / name)
        (both / name / "report.html").unlink()
    assert run(["report", str(both)]) == 1, "each has a contradiction"
    assert all((both / name / "report.html").is_file() for name in ("ours", "theirs"))
    assert run(["report", str(both.parent / "toy")]) == 2
    assert run(["compare", str(both), str(out), "-o", str(out.parent / "page.html")]) == 2
    assert "several runs of the same instances" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.toml")), ids=lambda path: path.name)
def test_a_recipe_comes_back_from_its_description(path: Path) -> None:
    recipe = load_recipe(path)
    values = recipe.model_dump(mode="json")
    assert parse_recipe(values, "run.json", path.parent) == recipe
