import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from toolkit.bench.job import Answer, Finished, InstanceJob, Started
from toolkit.bench.journal import JournalRecord
from toolkit.bench.run_progress import ProgressBar, ProgressLines, make_observer
from toolkit.result import Statistics, Verdict
from toolkit.settings import Settings

JOB = InstanceJob("key", "toy", "onnx/[a].onnx", "vnnlib/b.vnnlib", (("", Path("a")),), Path("b"), Settings())


def shown(terminal: bool, every: float | None = None) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=150)
    observer = make_observer(console) if every is None else ProgressLines(console, every)
    observer.begin(3, [])
    observer.see(Started(JOB))
    observer.see(Finished(JOB, Answer(Verdict.UNSAT)))
    observer.see(Finished(JOB, Answer(Verdict.ERROR, "the verifier process died [oom]")))
    observer.end()
    return text.getvalue()


def test_a_log_gets_plain_lines():
    assert isinstance(make_observer(Console(file=io.StringIO(), force_terminal=False)), ProgressLines)
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "error: onnx/[a].onnx vnnlib/b.vnnlib (0.0 s) the verifier process died [oom]"
    assert lines[1].startswith("[2/3]  error 1  unsat 1")
    assert len(lines) == 2


def test_lines_come_as_often_as_wanted():
    assert len(shown(terminal=False, every=0.0).splitlines()) == 3


def test_a_terminal_gets_a_bar():
    assert isinstance(make_observer(Console(file=io.StringIO(), force_terminal=True)), ProgressBar)
    text = shown(terminal=True)
    assert "2/3" in text
    assert "the verifier process died [oom]" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_resumed_answers_are_counted(terminal):
    record = JournalRecord("key", "toy", "a", "b", 1.0, Verdict.SAT, "", 0.1, Statistics())
    console = Console(file=io.StringIO(), force_terminal=terminal)
    observer = make_observer(console)
    observer.begin(5, [record, record])
    assert observer.counts[Verdict.SAT] == 2
    observer.end()


def test_a_reader_that_leaves_does_not_end_a_run() -> None:
    lines = (
        "from toolkit.experiments.campaign import make_console\n"
        "for _ in range(1000): make_console().print('x' * 1000)\n"
        "exit(7)"
    )
    with subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(60) == 7
