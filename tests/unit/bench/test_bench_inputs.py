"""What a run is given: time limits, lists written by other programs, names of all kinds; and how it says what went
wrong."""

from __future__ import annotations

import ast
import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit
from toolkit.bench import warmup
from toolkit.bench.executor_table import EXECUTORS
from toolkit.bench.expected import format_expected, read_expected
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Answer, Finished
from toolkit.cli import run
from toolkit.errors import ExitCode, InputError, MachineError
from toolkit.formats.vnncomp.instances import read_instances, seconds_field
from toolkit.result import Verdict
from toolkit.settings import LONGEST_TIMEOUT, Settings

ROOT = Path(toolkit.__file__).parent


def make_folder(folder: Path, text: str = "n.onnx,s.vnnlib,20\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "instances.csv").write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.mark.parametrize(
    "timeout", ["inf", "-inf", "nan", "-1", "0", "-0.0", "3000000", "2147483.647", "1e300", "1e999"]
)
def test_limits_that_cannot_be_waited_for_are_refused_before_work_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], timeout: str
) -> None:
    folder = make_folder(tmp_path / "toy")
    options = ["--out", str(tmp_path / "out"), f"--timeout={timeout}"]
    assert run(["bench", str(folder), *options]) == ExitCode.BAD_INPUT
    assert "timeout" in capsys.readouterr().err
    (folder / "instances.csv").write_text(f"n.onnx,s.vnnlib,{timeout}\n", encoding="utf-8")
    assert run(["bench", str(folder), *options[:2]]) == ExitCode.BAD_INPUT
    assert "instances.csv:1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_longest_limit_can_be_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the longest wait of all, that of the parent for a worker."""
    from multiprocessing import Pipe
    from multiprocessing.connection import wait

    ours, theirs = Pipe()
    theirs.send("at once")
    assert wait([ours], timeout=LONGEST_TIMEOUT * 1.05 + 60) == [ours]


@pytest.mark.parametrize("seconds", [20.0, 0.5, 1e-7, 123456.75, 1234567.0, 2e6])
def test_limits_are_written_with_every_digit(tmp_path: Path, seconds: float) -> None:
    text = format_expected([("n.onnx", "s.vnnlib", seconds, Verdict.SAT)])
    assert float(text.split(",")[2]) == float(seconds_field(seconds)) == seconds


ODD = [
    "a b.onnx",
    "a,b.onnx",
    'a"b.onnx',
    "ä/ö.onnx",
    "'.onnx",
    "(a).onnx",
    "a;b.onnx",
    "#a.onnx",
    "a=b.onnx",
    "$a$.onnx",
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_lists_of_all_programs_are_read_alike(tmp_path: Path, end: str, bom: str) -> None:
    rows = [(name, f"{name}.vnnlib", "20") for name in [*ODD, str(tmp_path / "x.onnx")]]
    lines = [", ".join('"' + entry.replace('"', '""') + '"' for entry in row) for row in rows]
    text = bom + (end + end).join(lines) + end + "  " + end
    folder = make_folder(tmp_path / "toy", text)
    expected = bom + end.join(f'{line}, "unsat"' for line in lines)
    (folder / "expected.csv").write_text(expected, encoding="utf-8", newline="")
    instances = read_instances(folder / "instances.csv")
    assert [(i.onnx_field, i.spec_field) for i in instances] == [row[:2] for row in rows]
    assert instances[-1].networks[""] == tmp_path / "x.onnx"
    assert read_expected(folder) == dict.fromkeys([row[:2] for row in rows], Verdict.UNSAT)


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    row = "n.onnx,s.vnnlib,20,"
    (tmp_path / "expected.csv").write_text(f"{row}sat\n{row}\n{row}sat\n", encoding="utf-8")
    assert read_expected(tmp_path) == {("n.onnx", "s.vnnlib"): Verdict.SAT}
    (tmp_path / "expected.csv").write_text(f"{row}sat\n{row}unsat\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected\.csv:2"):
        read_expected(tmp_path)


def test_results_can_be_read_whatever_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(jobs, task, limits):
        yield from (Finished(job, Answer(Verdict.UNSAT)) for job in jobs)

    monkeypatch.setitem(EXECUTORS, "answers", answers)
    names = [name.replace('"', '""') for name in ODD]
    folder = make_folder(tmp_path / "to,y $", "".join(f'"{name}",s.vnnlib,20\n' for name in names))
    assert run(["bench", str(folder), "--out", str(tmp_path / "out"), "--executor", "answers"]) == ExitCode.DONE
    with (tmp_path / "out" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["to,y $"] * len(ODD)
    assert [row[1] for row in rows] == [f"{folder}/{name}" for name in ODD]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("bad"), 2), (MachineError("no worker"), 3), (OSError(28, "No space left on device"), 3),
        (PermissionError(13, "Permission denied", "x"), 3), (MemoryError(), 3), (RuntimeError("a mistake"), 4),
        (KeyboardInterrupt(), 130),
    ],
)  # fmt: skip
def test_every_kind_of_failure_has_a_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def fails(jobs, task, limits):
        yield Finished(jobs[0], Answer(Verdict.UNSAT))
        raise error

    monkeypatch.setitem(EXECUTORS, "fails", fails)
    folder = make_folder(tmp_path / "toy", "n.onnx,s.vnnlib,20\nm.onnx,s.vnnlib,20\n")
    assert run(["bench", str(folder), "--out", str(tmp_path / "out"), "--executor", "fails"]) == code
    message = capsys.readouterr().err.splitlines()[-1]
    assert str(error.args[-1] if error.args else "") in message or isinstance(error, OSError)
    assert len((tmp_path / "out" / "results.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_a_contradiction_has_a_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(jobs, task, limits):
        yield from (Finished(job, Answer(Verdict.UNSAT)) for job in jobs)

    monkeypatch.setitem(EXECUTORS, "answers", answers)
    folder = make_folder(tmp_path / "toy")
    (folder / "expected.csv").write_text("n.onnx,s.vnnlib,20,sat\n", encoding="utf-8")
    arguments = ["bench", str(folder), "--out", str(tmp_path / "out"), "--executor", "answers"]
    assert run(arguments) == ExitCode.CONTRADICTION
    assert len(set(ExitCode)) == 6


def test_help_and_documentation_tell_all_codes(capsys: pytest.CaptureFixture[str]) -> None:
    run(["bench", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    table = (ROOT.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f" {code} when" in told or f" {code} for" in told
        assert f"| {code} |" in table


def test_names_that_a_terminal_cannot_show_end_no_command(tmp_path: Path) -> None:
    path = tmp_path / "ü.onnx"
    path.write_bytes(warmup._network().SerializeToString())
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "toolkit.cli", "inspect", path]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert rb"/\xfc.onnx" in done.stdout


TEXT_CALLS = {"open", "read_text", "write_text", "TextIOWrapper"}
LANGUAGE_FREE = ("run/", "proof/")
"""Packages that read no file of a user as text."""


def opened_without_encoding(source: str) -> list[int]:
    """Lines where a text file is opened in the encoding of the environment."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        words = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        binary = any("b" in word and len(word) <= 3 for word in words)
        foreign = isinstance(owner, ast.Name) and owner.id in ("os", "gzip", "Image", "self", "machine")
        if name in TEXT_CALLS and not binary and not foreign and "encoding" not in {k.arg for k in node.keywords}:
            lines.append(node.lineno)
    return lines


def test_text_is_read_and_written_in_one_encoding_everywhere() -> None:
    assert opened_without_encoding("Path(x).open()\nPath(x).open('rb')\nx.read_text(encoding='utf-8')\n") == [1]
    wrong = {
        path.relative_to(ROOT).as_posix(): found
        for path in ROOT.rglob("*.py")
        if not path.relative_to(ROOT).as_posix().startswith(LANGUAGE_FREE)
        and (found := opened_without_encoding(path.read_text(encoding="utf-8")))
    }
    assert not wrong


def test_the_limit_of_a_row_is_its_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "toy", "n.onnx,s.vnnlib,20\nn.onnx,s.vnnlib,30\n")
    first, second = make_jobs(find_benchmarks(folder)[0], Settings())
    assert (first.timeout, second.timeout) == (20, 30)
    assert first.key != second.key
