"""The scripts that VNN-COMP's harness calls, on a network of one neuron."""

import os
import shutil
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
from toolkit.run import forked_query as apart_module
from toolkit.run.forked_query import STARTED

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


def run_instance(folder: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder, with more in its environment."""
    environment = {
        **os.environ,
        "PRUNECERT_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        **more,
    }
    command = [str(SCRIPTS / "run_instance.sh"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


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
    assert not list(files.glob("prunecert-vnncomp-*/*"))


def test_what_cannot_be_read_is_an_error_in_the_results_file(files):
    run = run_instance(files, "v1", "toy", "missing.onnx", "sat.vnnlib", files / "out.txt", "30")
    assert (run.returncode, (files / "out.txt").read_text()) == (0, "error\n")
    assert "missing.onnx" in run.stderr
    assert run_instance(files, "v2", "toy", "net.onnx", "sat.vnnlib", files / "out.txt", "30").returncode == 2
    assert run_instance(files, "v1", "toy").returncode == 2


def wait_for_state(folder: Path) -> Path:
    """The file of the verifier that runs, once it is written."""
    state = folder / f"prunecert-vnncomp-{os.getuid()}" / "running"
    while not state.exists() or len(state.read_text().split()) < 2:
        time.sleep(0.05)
    return state


def prepare(files: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PRUNECERT_PYTHON": "/bin/true", "TMPDIR": str(folder)}
    command = [str(SCRIPTS / "prepare_instance.sh"), "v1", "toy", "net.onnx", "sat.vnnlib"]
    return subprocess.run(command, cwd=files, env=environment, capture_output=True, text=True, check=False, timeout=60)


def is_gone(process: subprocess.Popen) -> bool:
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_what_a_killed_script_left_is_ended_and_nothing_else(files, tmp_path):
    """The verifier here is a shell script, which does not see that its parent is gone."""
    (tmp_path / "python").write_text("#!/bin/sh\nsleep 60\n")
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PRUNECERT_PYTHON": str(tmp_path / "python"), "TMPDIR": str(tmp_path)}
    command = [str(SCRIPTS / "run_instance.sh"), "v1", "toy", "net.onnx", "sat.vnnlib", str(files / "k.txt"), "60"]
    process = subprocess.Popen(command, env=environment)
    state = wait_for_state(tmp_path)
    assert (state.parent.stat().st_mode & 0o777) == 0o700
    group = int(state.read_text().split()[0])
    process.kill()
    process.wait()
    os.killpg(group, 0)  # it is there
    assert prepare(files, tmp_path).returncode == 0
    with pytest.raises(ProcessLookupError):
        for _ in range(400):  # an ended process is there until the system's first process has waited for it
            os.killpg(group, 0)
            time.sleep(0.05)


def started_at(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["other start", "no start", "no verifier", "link", "words", "one", "old place"])
def test_no_process_is_ended_that_the_scripts_did_not_start(files, tmp_path, kind):
    """Files that name another process, planted or left where its number was given again."""
    alike = kind in {"other start", "no start"}  # one that these scripts might have started, and did not
    command = ["sh", "-c", "sleep 60; :", "toolkit.bench.vnncomp"] if alike else ["sleep", "60"]
    stranger = subprocess.Popen(command, start_new_session=True)
    folder = tmp_path / f"prunecert-vnncomp-{os.getuid()}"
    folder.mkdir()
    state, start = folder / "running", started_at(stranger.pid)
    texts = {"other start": f"{stranger.pid} 1", "no start": f"{stranger.pid}", "words": f"-{stranger.pid} {start}",
             "one": "1 1"}  # fmt: skip
    text = texts.get(kind, f"{stranger.pid} {start}")
    if kind == "link":
        (tmp_path / "planted").write_text(text)
        state.symlink_to(tmp_path / "planted")
    elif kind == "old place":
        (tmp_path / f"prunecert-vnncomp-{os.getuid()}.pid").write_text(f"{stranger.pid}")
    else:
        state.write_text(text)
    try:
        assert prepare(files, tmp_path).returncode == 0
        assert not is_gone(stranger)
    finally:
        os.killpg(stranger.pid, signal.SIGKILL)
        stranger.wait()


@pytest.mark.parametrize("what", ["folder", "file"])
def test_nothing_is_written_through_a_link(files, tmp_path, what):
    folder, precious = tmp_path / f"prunecert-vnncomp-{os.getuid()}", tmp_path / "precious"
    precious.mkdir()
    (precious / "running").write_text("precious")
    if what == "folder":
        folder.symlink_to(precious)
    else:
        folder.mkdir()
        (folder / "running").symlink_to(precious / "running")
    results = tmp_path / "results.txt"
    done = run_instance(files, "v1", "toy", "net.onnx", "sat.vnnlib", results, "30", TMPDIR=str(tmp_path))
    assert results.read_text().startswith("sat\n")
    assert (precious / "running").read_text() == "precious"
    assert "not a folder of this user's own" in done.stderr


def test_the_current_folder_holds_no_modules(files, tmp_path):
    for name in ("onnx", "toolkit", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w'); raise SystemExit('hostile')")
    for name in ("net.onnx", "sat.vnnlib"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    done = run_instance(tmp_path, "v1", "toy", "net.onnx", "sat.vnnlib", "out.txt", "30")
    assert (tmp_path / "out.txt").read_text().startswith("sat\n"), done.stderr
    assert not (tmp_path / "was run").exists()


def comma_locale(folder: Path) -> dict[str, str]:
    """Environment of a locale with a decimal comma; the test is skipped where none can be made."""
    command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")]
    if shutil.which("localedef") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no locale with a decimal comma")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.UTF-8"}


def test_numbers_with_a_decimal_comma(files, tmp_path):
    results = tmp_path / "results.txt"
    done = run_instance(files, "v1", "toy", "net.onnx", "sat.vnnlib", results, "30", **comma_locale(tmp_path))
    assert (done.returncode, results.read_text().split()[0]) == (0, "sat"), done.stderr


def test_the_time_of_day_has_a_point_in_every_locale(files, tmp_path):
    """A verifier that says when the script was started."""
    (tmp_path / "python").write_text(f'#!/bin/sh\necho "$PRUNECERT_STARTED" > {tmp_path}/started\n')
    (tmp_path / "python").chmod(0o755)
    more = {"PRUNECERT_PYTHON": str(tmp_path / "python"), **comma_locale(tmp_path)}
    run_instance(files, "v1", "toy", "net.onnx", "sat.vnnlib", tmp_path / "results", "30", **more)
    assert float((tmp_path / "started").read_text()) == pytest.approx(time.time(), abs=60)


def test_a_crash_and_an_endless_call_are_answers(monkeypatch):
    """What ``answered`` makes of a verifier that ends its process, or never comes back."""
    monkeypatch.setattr(apart_module, "can_fork", lambda: True)
    job = vnncomp.make_job("toy", "a.onnx", "b.vnnlib", 1.2)
    monkeypatch.setattr(vnncomp, "guarded", lambda task, job: os._exit(9))
    assert vnncomp.answered(job).verdict == Verdict.ERROR
    monkeypatch.setattr(vnncomp, "guarded", lambda task, job: time.sleep(60))
    began = time.monotonic()
    assert vnncomp.answered(job).verdict == Verdict.TIMEOUT
    assert time.monotonic() - began < 5


def test_a_killed_instance_leaves_no_process(files):
    environment = {**os.environ, "PRUNECERT_PYTHON": str(files / "python"), "TMPDIR": str(files)}
    (files / "python").write_text("#!/bin/sh\nsleep 60\n")
    (files / "python").chmod(0o755)
    command = [str(SCRIPTS / "run_instance.sh"), "v1", "toy", "net.onnx", "sat.vnnlib", str(files / "k.txt"), "60"]
    process = subprocess.Popen(command, env=environment)
    state = wait_for_state(files)
    group = int(state.read_text().split()[0])
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert not state.exists()
    with pytest.raises(ProcessLookupError):
        for _ in range(400):  # an ended process is there until the system's first process has waited for it
            os.killpg(group, 0)
            time.sleep(0.05)


def test_the_time_that_has_passed_counts(monkeypatch):
    monkeypatch.setenv(STARTED, str(time.time() - 10))
    assert vnncomp.make_job("toy", "a.onnx", "b.vnnlib", 30.0).timeout == pytest.approx(19, abs=0.5)
    with pytest.raises(InputError, match="no time is left"):
        vnncomp.make_job("toy", "a.onnx", "b.vnnlib", 10.0)
    monkeypatch.setenv(STARTED, f"{time.time() - 10:.6f}".replace(".", ","))
    assert vnncomp.make_job("toy", "a.onnx", "b.vnnlib", 30.0).timeout == pytest.approx(19, abs=0.5)
    monkeypatch.delenv(STARTED)
    job = vnncomp.make_job("toy", "[('f', 'a.onnx'), ('g', 'b.onnx')]", "b.vnnlib", 30.0)
    assert job.networks == (("f", Path("a.onnx")), ("g", Path("b.onnx")))


def test_the_warm_up_goes_through_all_phases():
    result = warm_up()
    assert (result.verdict, result.statistics.decided_by) == (Verdict.UNSAT, "branch-and-bound")


def test_the_results_file_starts_with_the_verdict():
    assert vnncomp.to_text(Answer(Verdict.TIMEOUT)) == "timeout\n"
    assert vnncomp.to_text(Answer(Verdict.SAT, witness="((X_0 1.0))\n")) == "sat\n((X_0 1.0))\n"
    assert vnncomp.main(["too", "few"]) == 2
