"""Folders in each layout, run with a task that answers by the name of the specification."""

import csv
from pathlib import Path

import pytest

from toolkit.bench.executor_table import EXECUTORS
from toolkit.bench.expected import read_expected
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Answer, Finished, InstanceJob, WorkerTask
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.commands.bench import bench
from toolkit.errors import InputError
from toolkit.experiments.campaign import run_folder
from toolkit.result import Verdict
from toolkit.settings import Settings


def ready() -> None:
    pass


def by_name(job: InstanceJob) -> Answer:
    verdict = Verdict(job.spec.name.split("_")[0])
    return Answer(verdict, witness="((X_0 1.0))\n" if verdict == Verdict.SAT else None)


TASK = WorkerTask(ready, by_name)


def make_folder(folder: Path, verdicts=("unsat", "sat", "unknown"), expected=None) -> Path:
    (folder / "onnx").mkdir(parents=True)
    (folder / "vnnlib").mkdir()
    (folder / "onnx" / "net.onnx.gz").write_bytes(b"network")
    rows = [("onnx/net.onnx", f"vnnlib/{verdict}_{n}.vnnlib", "20") for n, verdict in enumerate(verdicts)]
    for _, spec, _ in rows:
        (folder / spec).write_text(spec)
    (folder / "instances.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    if expected:
        lines = [",".join((*row, word)) + "\n" for row, word in zip(rows, expected, strict=True)]
        (folder / "expected.csv").write_text("".join(lines))
    return folder


def options(tmp_path: Path, **more) -> Options:
    return Options(out=tmp_path / "out", executor="in-process", **more)


def test_a_folder_gives_results_witnesses_and_a_report(tmp_path, capsys):
    folder = make_folder(tmp_path / "toy", expected=["unsat", "sat", "unsat"])
    assert run_folder(folder, options(tmp_path), TASK) == 0
    out = tmp_path / "out"
    rows = list(csv.reader((out / "results.csv").read_text().splitlines()))
    assert [row[:3] + row[4:5] for row in rows] == [
        ["toy", f"{folder}/onnx/net.onnx", f"{folder}/vnnlib/unsat_0.vnnlib", "unsat"],
        ["toy", f"{folder}/onnx/net.onnx", f"{folder}/vnnlib/sat_1.vnnlib", "sat"],
        ["toy", f"{folder}/onnx/net.onnx", f"{folder}/vnnlib/unknown_2.vnnlib", "unknown"],
    ]
    assert (out / "witnesses/toy/net_sat_1.counterexample.gz").exists()
    assert (out / "plots/cactus.png").exists()
    assert "toy" in (out / "report.html").read_text()
    assert "2 agree, 1 undecided, 0 contradict" in capsys.readouterr().out


def test_a_contradiction_is_loud_and_the_exit_code_one(tmp_path, capsys):
    folder = make_folder(tmp_path / "toy", expected=["sat", "", ""])
    assert run_folder(folder, options(tmp_path), TASK) == 1
    assert "CONTRADICTION: toy onnx/net.onnx vnnlib/unsat_0.vnnlib: unsat, expected sat" in capsys.readouterr().out
    assert 'class="wrong"' in (tmp_path / "out/report.html").read_text()


def test_a_second_run_takes_the_answers_from_the_journal(tmp_path, capsys):
    folder = make_folder(tmp_path / "toy")
    run_folder(folder, options(tmp_path, limit=2), TASK)
    run_folder(folder, options(tmp_path), TASK)
    assert "2 of 3 instances are answered" in capsys.readouterr().out
    (folder / "vnnlib/unsat_0.vnnlib").write_text("changed")
    run_folder(folder, options(tmp_path), TASK)
    assert "2 of 3 instances are answered" in capsys.readouterr().out
    run_folder(folder, options(tmp_path, fresh=True), TASK)
    assert "answered" not in capsys.readouterr().out


def test_layouts_of_all_years_are_found(tmp_path):
    make_folder(tmp_path / "all/old_2023")
    make_folder(tmp_path / "all/new_2026/1.0")
    make_folder(tmp_path / "all/new_2026/2.0")
    make_folder(tmp_path / "all/native_2026/2.0")
    (tmp_path / "all/empty").mkdir()
    found = {b.category: b.folder.name for b in find_benchmarks(tmp_path / "all")}
    assert found == {"native_2026": "2.0", "new_2026": "1.0", "old_2023": "old_2023"}
    assert [b.folder.name for b in find_benchmarks(tmp_path / "all/new_2026", "2.0")] == ["2.0"]
    assert [b.category for b in find_benchmarks(tmp_path / "all/new_2026/2.0")] == ["new_2026"]
    assert [b.category for b in find_benchmarks(tmp_path / "all", categories=["old_2023"])] == ["old_2023"]
    with pytest.raises(InputError, match="no category 'nothing'"):
        find_benchmarks(tmp_path / "all", categories=["nothing"])
    with pytest.raises(InputError, match=r"no instances\.csv"):
        find_benchmarks(tmp_path / "all/empty")
    with pytest.raises(InputError, match="no such folder"):
        find_benchmarks(tmp_path / "nowhere")


def test_a_compressed_network_is_found_and_the_time_limit_replaced(tmp_path):
    [benchmark] = find_benchmarks(make_folder(tmp_path / "toy"))
    job = make_jobs(benchmark, Settings(), limit=1)[0]
    assert job.networks[0][1].name == "net.onnx.gz"
    assert job.timeout == 20
    shorter = make_jobs(benchmark, Settings(), timeout=3.0)[0]
    assert shorter.timeout == 3
    assert shorter.key != job.key
    assert make_jobs(benchmark, Settings(seed=1))[0].key != job.key


def test_expected_verdicts_name_the_bad_line(tmp_path):
    (tmp_path / "expected.csv").write_text("a.onnx,b.vnnlib,10,unsat\na.onnx,c.vnnlib,10,maybe\n")
    with pytest.raises(InputError, match=r"expected\.csv:2"):
        read_expected(tmp_path)
    assert read_expected(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"timeout": -1.0}, "timeout"),
        ({"seed": -1}, "seed"),
        ({"setting": ("batch",)}, "NAME=VALUE"),
        ({"setting": ("batch=many",)}, "batch"),
        ({"setting": ("colour=red",)}, "colour"),
        ({"freeze": Path("x")}, "--freeze"),
    ],
)
def test_options_out_of_range_are_one_line(tmp_path, bad, message):
    folder = make_folder(tmp_path / "toy")
    with pytest.raises(InputError, match=message) as error:
        run_folder(folder, options(tmp_path, **bad), TASK)
    assert "\n" not in str(error.value)


def test_settings_of_the_verifier_can_be_given():
    settings = Options(setting=("batch=64", "strategy=input"), seed=3).settings(Settings(timeout=7))
    assert settings == Settings(timeout=7, batch=64, strategy="input", seed=3)


@pytest.mark.parametrize("bad", [{"workers": 0}, {"limit": 0}])
def test_counts_are_at_least_one(bad):
    with pytest.raises(InputError, match="at least 1"):
        Options(**bad).check()


def test_an_interrupted_command_keeps_what_is_done(tmp_path, capsys, monkeypatch):
    def interrupted(jobs, task, limits):
        yield Finished(jobs[0], Answer(Verdict.UNSAT))
        raise KeyboardInterrupt

    monkeypatch.setitem(EXECUTORS, "interrupted", interrupted)
    folder = make_folder(tmp_path / "toy")
    assert bench(folder, options=Options(out=tmp_path / "out", executor="interrupted")) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert len((tmp_path / "out/results.csv").read_text().splitlines()) == 1
    run_folder(folder, options(tmp_path), TASK)
    assert "1 of 3 instances are answered" in capsys.readouterr().out


def test_two_runs_cannot_share_a_folder(tmp_path):
    folder = make_folder(tmp_path / "toy")
    with claimed(tmp_path / "out"), pytest.raises(InputError, match="another run"):
        run_folder(folder, options(tmp_path), TASK)
    assert run_folder(folder, options(tmp_path), TASK) == 0


def test_a_fresh_run_forgets_witnesses_and_leaves_other_files(tmp_path):
    folder = make_folder(tmp_path / "toy")
    run_folder(folder, options(tmp_path), TASK)
    [witness] = (tmp_path / "out/witnesses/toy").iterdir()
    (tmp_path / "out/witnesses/notes.txt").write_text("mine")
    run_folder(folder, options(tmp_path, fresh=True, limit=1), TASK)
    assert not witness.parent.exists()
    assert (tmp_path / "out/witnesses/notes.txt").read_text() == "mine"
    (tmp_path / "out/witnesses/notes.txt").unlink()
    run_folder(folder, options(tmp_path, fresh=True, limit=1), TASK)
    assert not (tmp_path / "out/witnesses").exists()
