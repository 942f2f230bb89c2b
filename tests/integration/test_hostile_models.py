"""Models that never end, crash libraries or grow without bound: the command answers in time, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SPEC = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real)
(assert (>= X_0 0.0)) (assert (<= X_0 1.0)) (assert (>= X_1 0.0)) (assert (<= X_1 1.0)) (assert (>= Y_0 1e30))
"""
LATE = 3.0
"""Seconds after a limit by which a command must have ended: half of one by itself, the rest on a busy machine."""
LIMIT = 4.0
MODELS = {
    "endless": """z = Loop(steps, go, x) <body = b (int64 i, bool go0, float[1,2] v) => (bool go1, float[1,2] w)
        { go1 = Identity(go0) w = Tanh(v) }>""",
    "nested": """z = Loop(some, go, x) <body = b (int64 i, bool go0, float[1,2] v) => (bool go1, float[1,2] w)
        { go1 = Identity(go0)
          w = Loop(some, go0, v) <body = c (int64 j, bool go2, float[1,2] s) => (bool go3, float[1,2] t)
        { go3 = Identity(go2)
          t = Loop(some, go2, s) <body = d (int64 k, bool go4, float[1,2] p) => (bool go5, float[1,2] q)
        { go5 = Identity(go4) q = Tanh(p) }> }> }>""",
    "crash": "l = Sub(nearly, one) d = Div(l, minus) e = Cast<to=1>(d) z = Add(x, e)",
    "unbounded": "z = Hardmax(x)",
    "growing": """z = Loop(steps, go, x) <body = b (int64 i, bool go0, float[1,n] v) => (bool go1, float[1,m] w)
        { go1 = Identity(go0) w = Concat<axis=1>(v, v) }>""",
}

"""What makes z of x."""
CONSTANTS = {"steps": 1 << 62, "some": 1 << 20, "go": True, "nearly": 1 - (1 << 63), "one": 1, "minus": -1}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "spec.vnnlib").write_text(SPEC)
    for name, body in MODELS.items():
        head = '<ir_version: 8, opset_import: ["" : 16]>\nmain (float[1,2] x) => (float[1,1] y)'
        model = onnx.parser.parse_model(f"{head} {{ {body} y = ReduceSum(z) }}")
        for constant, value in CONSTANTS.items():
            tensor = onnx.numpy_helper.from_array(np.array(value), constant)
            model.graph.initializer.append(tensor)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    return tmp_path


def command(name: str, *options: str, what: str = "verify", limit: float) -> list[str]:
    files = ["spec.vnnlib", "--network", f"{name}.onnx"] if what == "verify" else [f"{name}.onnx"]
    return [sys.executable, "-m", "toolkit.cli", what, *files, "--timeout", str(limit), *options]


def run(folder: Path, name: str, *options: str, what: str = "verify", limit: float = 120.0) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that must end in time."""
    began = time.monotonic()
    done = subprocess.run(
        command(name, *options, what=what, limit=limit),
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=limit + 60,
    )  # fmt: skip
    assert time.monotonic() - began < limit + LATE
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["endless", "nested"])
def test_what_never_ends_is_timed_out(files: Path, name: str) -> None:
    code, answer, said = run(files, name, limit=LIMIT)
    assert (code, answer) == (0, "timed-out\n")
    assert said.splitlines()[-1] == f"time limit of {LIMIT:g} s"  # after what cannot be bounded, which is said at once
    code, out, err = run(files, name, what="inspect", limit=5 * LIMIT)  # which importing torch alone may take
    assert (code, err) == (0, "")  # nothing is run: the loop is named, and that only points can refute
    assert "operator Loop" in out and "random points only" in out


def test_a_crash_is_unknown_with_its_reason(files: Path) -> None:
    code, out, err = run(files, "crash")
    assert (code, out) == (0, "unknown\n")
    assert "SIGFPE" in err
    code, out, err = run(files, "crash", what="inspect")
    assert (code, out) == (2, "")
    assert "SIGFPE" in err


def test_memory_without_bound_is_unknown(files: Path) -> None:
    code, out, err = run(files, "growing", "--memory-limit", "1")
    assert (code, out) in ((0, "unknown\n"), (2, ""))
    assert "memory" in err


def test_what_is_known_at_the_limit_is_said(files: Path) -> None:
    """The process is not ended before it had the time to say why it comes to nothing."""
    code, out, err = run(files, "unbounded", limit=8.0)
    assert (code, out) == (0, "unknown\n")
    said = err.splitlines()
    assert any(line.startswith("unsupported: unbounded.onnx: operator Hardmax") for line in said)
    assert said[-1].startswith("try: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_can_be_interrupted_and_nothing_is_left(files: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command("endless", limit=60), cwd=files, env=ENVIRONMENT, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 30
    while not children.read_text().split() and time.monotonic() < end:
        time.sleep(0.05)
    [child] = children.read_text().split()
    time.sleep(1)
    process.send_signal(number)
    assert process.wait(10) == (130 if number == signal.SIGINT else -number)
    end = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
