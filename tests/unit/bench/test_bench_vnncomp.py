"""The scripts that VNN-COMP's harness calls, on a network of one neuron."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from toolkit.bench import vnncomp
from toolkit.bench.job import Answer
from toolkit.bench.warmup import warm_up
from toolkit.errors import InputError
from toolkit.result import Verdict

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "toolkit/bench/vnncomp_scripts"
SPEC = """(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (<= X_0 1.0))
(assert (>= X_0 -1.0))
(assert (>= Y_0 {}))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with ``Y = relu(X)`` and specifications that hold and do not."""
    folder = tmp_path_factory.mktemp("one neuron")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "net.onnx")
    (folder / "sat.vnnlib").write_text(SPEC.format("0.5"))
    (folder / "unsat.vnnlib").write_text(SPEC.format("1.5"))
    return folder


def run_instance(files: Path, *arguments: object, **more) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PRUNECERT_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(files),
    }
    command = [str(SCRIPTS / "run_instance.sh"), *map(str, arguments)]
    return subprocess.run(command, cwd=files, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("verdict", ["sat", "unsat"])
def test_an_instance_is_answered(files, verdict):
    results = files / f"{verdict}.txt"
    run = run_instance(files, "v1", "toy", "net.onnx", f"{verdict}.vnnlib", results, "30.0")
    assert run.returncode == 0, run.stderr
    lines = results.read_text().splitlines()
    assert lines[0] == verdict
    if verdict == "sat":
        assert lines[1].startswith("((X_0 ")
        assert 0.5 <= float(lines[1].split()[1].rstrip(")")) <= 1
    assert not list(files.glob("prunecert-vnncomp-*"))


def test_what_cannot_be_read_is_an_error_in_the_results_file(files):
    run = run_instance(files, "v1", "toy", "missing.onnx", "sat.vnnlib", files / "out.txt", "30")
    assert (run.returncode, (files / "out.txt").read_text()) == (0, "error\n")
    assert "missing.onnx" in run.stderr
    assert run_instance(files, "v2", "toy", "net.onnx", "sat.vnnlib", files / "out.txt", "30").returncode == 2
    assert run_instance(files, "v1", "toy").returncode == 2


def test_a_killed_instance_leaves_no_process(files):
    environment = {**os.environ, "PRUNECERT_PYTHON": str(files / "python"), "TMPDIR": str(files)}
    (files / "python").write_text("#!/bin/sh\nsleep 60\n")
    (files / "python").chmod(0o755)
    command = [str(SCRIPTS / "run_instance.sh"), "v1", "toy", "net.onnx", "sat.vnnlib", str(files / "k.txt"), "60"]
    process = subprocess.Popen(command, env=environment)
    state = None
    while not state or not state[0].read_text().strip():
        time.sleep(0.05)
        state = list(files.glob("prunecert-vnncomp-*"))
    group = int(state[0].read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert not state[0].exists()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(group, 0)
            time.sleep(0.05)


def test_the_time_that_has_passed_counts(monkeypatch):
    monkeypatch.setenv(vnncomp.STARTED, str(time.time() - 10))
    assert vnncomp.make_job("toy", "a.onnx", "b.vnnlib", 30.0).timeout == pytest.approx(19, abs=0.5)
    with pytest.raises(InputError, match="no time is left"):
        vnncomp.make_job("toy", "a.onnx", "b.vnnlib", 10.0)
    monkeypatch.delenv(vnncomp.STARTED)
    job = vnncomp.make_job("toy", "[('f', 'a.onnx'), ('g', 'b.onnx')]", "b.vnnlib", 30.0)
    assert job.networks == (("f", Path("a.onnx")), ("g", Path("b.onnx")))


def test_the_warm_up_goes_through_all_phases():
    result = warm_up()
    assert (result.verdict, result.statistics.decided_by) == (Verdict.UNSAT, "branch-and-bound")


def test_the_results_file_starts_with_the_verdict():
    assert vnncomp.to_text(Answer(Verdict.TIMEOUT)) == "timeout\n"
    assert vnncomp.to_text(Answer(Verdict.SAT, witness="((X_0 1.0))\n")) == "sat\n((X_0 1.0))\n"
    assert vnncomp.main(["too", "few"]) == 2
