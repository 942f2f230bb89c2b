"""Other verifiers over a folder: scripts of VNN-COMP and command lines, whatever they answer."""

from __future__ import annotations

import gzip
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, save
from random_queries import hard_query

from toolkit.bench import journal
from toolkit.bench.answer_sources import read_source
from toolkit.bench.journal import JournalRecord
from toolkit.bench.other_tools import parse_tools
from toolkit.cli import run
from toolkit.errors import InputError
from toolkit.result import Verdict

ROOT = Path(__file__).parents[3]

SPEC = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (>= X_0 -1.0))(assert (<= X_0 1.0))
(assert (>= X_1 -1.0))(assert (<= X_1 1.0))
(assert (>= Y_0 {bound}))
"""


def write_sum(path: Path) -> None:
    """A network that adds its two inputs."""
    from onnx import TensorProto, helper
    from onnx import save as write

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 2), ("y", 1))]
    ones = helper.make_tensor("ones", TensorProto.FLOAT, [2, 1], [1.0, 1.0])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "ones"], ["y"])], "sum", ends[:1], ends[1:], [ones])
    write(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One instance about a sum, whose largest value is 2: whether it reaches 1.5. Its files are compressed."""
    place = tmp_path / "toy"
    place.mkdir()
    write_sum(place / "sum.onnx")
    with gzip.open(place / "sum.onnx.gz", "wb") as file:
        file.write((place / "sum.onnx").read_bytes())
    (place / "sum.onnx").unlink()
    with gzip.open(place / "large.vnnlib.gz", "wt") as file:
        file.write(SPEC.format(bound=1.5))
    (place / "instances.csv").write_text("sum.onnx,large.vnnlib,2\n")
    return place


def scripts(place: Path, run_instance: str, prepare: str = "exit 0") -> Path:
    """A folder with the scripts of a tool."""
    place.mkdir(parents=True)
    (place / "prepare_instance.sh").write_text(f"#!/bin/bash\n{prepare}\n")
    (place / "run_instance.sh").write_text(f"#!/bin/bash\n{run_instance}\n")
    return place


def answers(out: Path) -> list[JournalRecord]:
    return journal.history(out / journal.NAME)


def answer_of(folder: Path, tmp_path: Path, run_instance: str, prepare: str = "exit 0") -> JournalRecord:
    """What is kept of a tool's answer to the one instance."""
    tool = scripts(tmp_path / "shell", run_instance, prepare)
    assert run(["bench", str(folder), "--tool", str(tool), "--out", str(tmp_path / "out")]) == 0
    [record] = answers(tmp_path / "out" / "shell")
    return record


def test_scripts_get_what_the_competition_gives(folder: Path, tmp_path: Path) -> None:
    record = answer_of(
        folder,
        tmp_path,
        f'cd {tmp_path}; echo "$@" > run; head -c 3 "$4" > spec; head -c 2 "$3" > net; echo holds > $5',
        f'sleep 0.7; echo "$@" > {tmp_path}/prepared',
    )
    assert (record.verdict, record.reason) == (Verdict.UNSAT, "as shell says")
    assert record.seconds < 0.7  # preparing does not count
    version, category, network, spec, results, timeout = (tmp_path / "run").read_text().split()
    assert (version, category, float(timeout)) == ("v1", "toy", 2)
    assert (tmp_path / "prepared").read_text().split() == ["v1", "toy", network, spec]
    assert (Path(network).name, Path(spec).name) == ("sum.onnx", "large.vnnlib")
    assert (tmp_path / "spec").read_text() == "(de"
    assert (tmp_path / "net").read_bytes() != b"\x1f\x8b"
    assert not Path(results).parent.exists()


@pytest.mark.parametrize(
    ("point", "verdict", "reason"),
    [
        ("((X_0 1.0)\n(X_1 1.0))", Verdict.SAT, ""),
        ("((X_0 0.5) (X_1 0.5) (Y_0 2.0))", Verdict.ERROR, "spec_not_violated"),
        ("((X_0 1.00005) (X_1 1.0))", Verdict.UNKNOWN, "correct_up_to_tolerance"),
        ("((X_0 1.0))", Verdict.ERROR, "wrong_shape"),
        ("it is so", Verdict.ERROR, "malformed"),
        ("", Verdict.ERROR, "missing"),
    ],
)
def test_a_counterexample_counts_when_it_holds(
    folder: Path, tmp_path: Path, point: str, verdict: Verdict, reason: str
) -> None:
    record = answer_of(folder, tmp_path, f"printf 'sat\\n%s' {shlex.quote(point)} > $5")
    assert record.verdict is verdict
    assert reason in record.reason
    assert bool(record.witness) == (verdict is Verdict.SAT)
    [answer] = read_source("shell", tmp_path / "out" / "shell").answers
    assert (answer.verdict, answer.replayed) == (verdict, verdict is Verdict.SAT)


@pytest.mark.parametrize(
    ("script", "verdict", "reason"),
    [
        ("echo broken >&2; exit 3", Verdict.ERROR, "exit code 3: broken"),
        ("exit 0", Verdict.UNKNOWN, "no verdict in its results file"),
        ("echo maybe > $5", Verdict.ERROR, "'maybe', no verdict"),
        ("echo timeout > $5", Verdict.TIMEOUT, ""),
        ("echo unsat > $5; sleep 2.3", Verdict.TIMEOUT, "unsat after"),
        ("echo unsat > $5; sleep 60", Verdict.TIMEOUT, "stopped after"),
        ("kill -SEGV $$", Verdict.ERROR, "exit code"),
    ],
)
def test_what_is_no_answer_in_time_decides_nothing(
    folder: Path, tmp_path: Path, script: str, verdict: Verdict, reason: str
) -> None:
    record = answer_of(folder, tmp_path, script)
    assert record.verdict is verdict
    assert reason in record.reason
    assert record.seconds < 6


def test_programs_of_a_tool_find_what_lies_beside_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VERDICT = 'unsat'\n")
    (tmp_path / "main.py").write_text("import beside, sys\nopen(sys.argv[1], 'w').write(beside.VERDICT)\n")
    record = answer_of(folder, tmp_path, f"{sys.executable} {tmp_path}/main.py $5")
    assert record.verdict is Verdict.UNSAT


def test_a_preparation_that_fails_is_an_error(folder: Path, tmp_path: Path) -> None:
    record = answer_of(folder, tmp_path, "echo unsat > $5", "echo no licence; exit 1")
    assert (record.verdict, record.reason) == (Verdict.ERROR, "prepare_instance.sh: exit code 1: no licence")


def alive(path: Path) -> bool:
    """Whether the process whose number a file has is there."""
    return Path("/proc", path.read_text().strip()).exists()


def gone(path: Path) -> bool:
    """Whether that process ends within a few seconds."""
    deadline = time.monotonic() + 5
    while alive(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(path)


def test_a_tool_that_is_stopped_leaves_no_process(folder: Path, tmp_path: Path) -> None:
    record = answer_of(folder, tmp_path, f"(trap '' TERM; echo $BASHPID > {tmp_path}/pid; while :; do sleep 1; done)")
    assert (record.verdict, record.reason[:13]) == (Verdict.TIMEOUT, "stopped after")
    assert gone(tmp_path / "pid")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_tool(folder: Path, tmp_path: Path, how: signal.Signals) -> None:
    (folder / "instances.csv").write_text("sum.onnx,large.vnnlib,60\n")
    tool = scripts(tmp_path / "shell", f"echo $5 > {tmp_path}/results; echo $$ > {tmp_path}/pid; sleep 50 & wait")
    command = [sys.executable, "-m", "toolkit.cli", "bench", str(folder), "--tool", str(tool), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(how)
    assert process.wait(20) == (130 if how == signal.SIGINT else -how)
    assert gone(tmp_path / "pid")
    results = Path((tmp_path / "results").read_text().strip())
    deadline = time.monotonic() + 5
    while results.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not results.parent.exists()


def test_several_tools_under_the_same_limits(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = scripts(tmp_path / "first", "echo unsat > $5")
    line = f'line=bash -c \'echo "$3" > {tmp_path}/limit; printf "unknown\\n" > "$0"\' {{results}} {{network}} '
    line += "{specification} {timeout}"
    out = tmp_path / "out"
    arguments = ["bench", str(folder), "--out", str(out), "--timeout", "7.5", "--tool", "prunecert"]
    assert run([*arguments, "--tool", str(first), "--tool", line]) == 1  # it compares them
    assert capsys.readouterr().out.splitlines()[-1] == shlex.join(
        ["prunecert", "compare", *(str(out / name) for name in ("prunecert", "first", "line"))]
    )
    assert {name: answers(out / name)[0].verdict for name in ("prunecert", "first", "line")} == {
        "prunecert": Verdict.SAT,
        "first": Verdict.UNSAT,
        "line": Verdict.UNKNOWN,
    }
    assert {answers(out / name)[0].timeout for name in ("prunecert", "first", "line")} == {7.5}
    assert float((tmp_path / "limit").read_text()) == 7.5
    assert run(["report", str(out)]) == 1
    assert capsys.readouterr().out.count("report: ") == 3
    assert run(["report", str(out), "--csv"]) == 2
    assert "holds 3 runs" in capsys.readouterr().err
    assert run(["explain", str(out)]) == 0
    explained = capsys.readouterr().out.splitlines()
    assert [line for line in explained if line.endswith(":")] == [
        f"{out / name}:" for name in ("prunecert", "first", "line")
    ]
    assert "1 of 1 instances are undecided" in explained
    page = tmp_path / "comparison.html"
    assert run(["compare", str(out / "prunecert"), str(out / "first"), "-o", str(page)]) == 1
    assert "1 contradiction" in capsys.readouterr().out


def test_a_run_of_a_tool_continues_until_its_scripts_change(folder: Path, tmp_path: Path) -> None:
    tool = scripts(tmp_path / "shell", f"echo x >> {tmp_path}/count; echo unsat > $5")
    for _ in range(2):
        assert run(["bench", str(folder), "--tool", str(tool), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "count").read_text() == "x\n"
    (tool / "run_instance.sh").write_text("echo timeout > $5\n")
    assert run(["bench", str(folder), "--tool", str(tool), "--out", str(tmp_path / "out")]) == 0
    assert [record.verdict for record in answers(tmp_path / "out" / "shell")] == [Verdict.UNSAT, Verdict.TIMEOUT]


def test_files_that_change_meanwhile_are_an_error(folder: Path, tmp_path: Path) -> None:
    record = answer_of(folder, tmp_path, f"echo unsat > $5; echo more >> {folder}/large.vnnlib.gz")
    assert record.verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (["nowhere"], "no prepare_instance.sh"),
        (["./x {network} {specification}"], r"no \{results\} in it"),
        (["./x '{network} {specification} {results}"], "no command line"),
        (["./x {network} {specification} {results}"] * 2, "two are called x"),
        ([".. {network} {specification} {results}"], "give it a name"),
        (["prunecert=./x {network} {specification} {results}"], "two are called prunecert"),
    ],
)
def test_what_is_no_tool_is_told(tools: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_tools(tools)


ABSENT = "abc=./abc.sh {network} {specification} {results}"


@pytest.mark.parametrize(
    "more", [["--certificates"], ["--executor", "in-process"], ["--tool", "nowhere"], ["--tool", ABSENT]]
)
def test_what_tools_cannot_do_ends_with_code_2(folder: Path, tmp_path: Path, more: list[str]) -> None:
    assert run(["bench", str(folder), "--out", str(tmp_path / "out"), "--tool", "prunecert", *more]) == 2
    assert not (tmp_path / "out").exists()


def test_names_of_tools() -> None:
    line = "{network} {specification} {results}"
    named = parse_tools([f"../bin/abc.sh {line}", f"other=A=1 {line}", str(ROOT / "toolkit/bench/vnncomp_scripts")])
    assert [tool.label for tool in named] == ["abc", "other", "bench"]
    assert named[1].command[0] == "A=1"


def test_this_verifier_through_its_own_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "toy"
    place.mkdir()
    network = save(random_network("mlp", 0), place, "net.onnx")
    lines = []
    for number, radius in enumerate((0.05, 0.5)):
        (place / f"{number}.vnnlib").write_text(hard_query(network, np.random.default_rng(number), radius))
        lines.append(f"net.onnx,{number}.vnnlib,30\n")
    (place / "instances.csv").write_text("".join(lines))
    monkeypatch.setenv("PRUNECERT_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tools = ["--tool", "prunecert", "--tool", f"scripts={ROOT / 'toolkit/bench/vnncomp_scripts'}"]
    assert run(["bench", str(place), "--device", "cpu", "--out", str(tmp_path / "out"), *tools]) == 0
    found = [answers(tmp_path / "out" / name) for name in ("prunecert", "scripts")]
    verdicts = [{record.vnnlib: record.verdict for record in records} for records in found]
    assert verdicts[0] == verdicts[1]
    assert set(verdicts[0].values()) == {Verdict.UNSAT, Verdict.SAT}
    assert [bool(record.witness) for record in found[1]] == [record.verdict is Verdict.SAT for record in found[1]]
