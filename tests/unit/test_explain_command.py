"""``prunecert explain``: what a run's journal has of undecided instances, and what to try."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import relu_net

from toolkit import cli
from toolkit.bench.job import Answer, InstanceJob, WorkerTask
from toolkit.bench.run_options import Options
from toolkit.experiments.campaign import run_folder
from toolkit.result import Statistics, Verdict

REASONS = {Verdict.ERROR: "ValueError: odd", Verdict.TIMEOUT: "time limit of 20 s"}
OPEN = Statistics(
    domains=1234, depth=7, relus=90, unstable=30, bounds="crown", cases=9, open_cases=2, weakest_bound=-0.5,
    nearest_point=0.125,
)  # fmt: skip


def by_name(job: InstanceJob) -> Answer:
    verdict = Verdict(job.spec.name.split("_")[0])
    statistics = OPEN if verdict == Verdict.TIMEOUT else Statistics(decided_by="crown")
    return Answer(verdict, REASONS.get(verdict, ""), 1.5, statistics)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    for name in ("onnx", "vnnlib"):
        (folder / name).mkdir(parents=True)
    (folder / "onnx" / "net.onnx").write_bytes(b"network")
    names = ("unsat_0", "timeout_1", "error_2")
    for name in names:
        (folder / "vnnlib" / f"{name}.vnnlib").write_text(name)
    (folder / "instances.csv").write_text("".join(f"onnx/net.onnx,vnnlib/{name}.vnnlib,20\n" for name in names))
    options = Options(out=tmp_path / "out", executor="in-process")
    run_folder(folder, options, WorkerTask(lambda: None, by_name))
    return tmp_path / "out"


def explained(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.run(["explain", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_what_is_undecided_is_explained(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = explained(capsys, out)
    lines = text.splitlines()
    assert code == 0
    assert lines[0].startswith("onnx/net.onnx vnnlib/timeout_1.vnnlib: timeout after ")
    assert lines[0].endswith(" of 20 s: time limit of 20 s")
    assert "2 of 9 cases are open: weakest bound -0.5, nearest point misses by 0.125" in lines[1]
    assert "1,234 domains bounded, at most 7 splits deep; 30 of 90 ReLUs unstable by crown" in lines[2]
    assert "--attack-restarts" in lines[3], "0.125 is less than half of 0.5"
    assert "--retry-undecided: 200 s" in lines[4]
    toy = out.parent / "toy"
    command = f"prunecert verify {toy}/vnnlib/timeout_1.vnnlib --network {toy}/onnx/net.onnx --timeout 200"
    assert command in lines[5]
    assert "error" in lines[6]
    assert "ValueError: odd" in lines[6]
    assert "--retry-errors" in lines[7]
    assert lines[8] == "2 of 3 instances are undecided"


def test_numbers_that_are_not_finite_are_null_in_json(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = out / "journal.jsonl"
    journal.write_text(journal.read_text().replace("-0.5", "-Infinity").replace("0.125", "NaN"))
    code, text = explained(capsys, out, "1", "--json")
    [found] = json.loads(text, parse_constant=pytest.fail)
    assert code == 0
    assert (found["statistics"]["weakest_bound"], found["statistics"]["nearest_point"]) == (None, None)


@pytest.mark.parametrize("instance", ["1", "timeout_1"])
def test_an_instance_by_number_or_name(out: Path, capsys: pytest.CaptureFixture[str], instance: str) -> None:
    code, text = explained(capsys, out, instance, "--json")
    [found] = json.loads(text)
    assert code == 0
    assert (found["specification"], found["verdict"]) == ("vnnlib/timeout_1.vnnlib", "timeout")
    assert found["statistics"]["open_cases"] == 2
    assert len(found["suggestions"]) == 3


def test_a_decided_instance_has_nothing_to_try(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = explained(capsys, out, "0")
    assert (code, text.count("\n")) == (0, 1)
    assert text.endswith("of 20 s, by crown\n")


@pytest.mark.parametrize("instance", ["3", "other"])
def test_an_instance_that_is_not_there_is_told(out: Path, capsys: pytest.CaptureFixture[str], instance: str) -> None:
    code, text = explained(capsys, out, instance)
    assert code == 2
    assert f"no answer to an instance '{instance}'" in text


def test_rows_of_data_go_by_their_own_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("a,b,label\n" + "1,1,0\n" * 6)
    relu_net(Path("net.onnx"))
    asked = ["certify", "net.onnx", "--data", "rows.csv", "--epsilon", "0.1", "--rows", "::5", "-o", "out"]
    assert cli.run([*asked, "--workers", "1", "--executor", "in-process", "--device", "cpu"]) == 0
    code, text = explained(capsys, "out", "5")
    assert code == 0
    assert "net_00005.vnnlib: unsat" in text
    assert explained(capsys, "out", "1")[0] == 2
