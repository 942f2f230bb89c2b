"""A run that is started again: what is answered stays answered, whatever changed is answered again, nothing is lost."""

from __future__ import annotations

import errno
import gzip
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from toolkit.bench import fingerprint, journal
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Answer, InstanceJob, WorkerTask
from toolkit.bench.run_options import Options
from toolkit.bench.runner import claimed
from toolkit.cli import run
from toolkit.experiments.campaign import execute
from toolkit.result import Statistics, Verdict
from toolkit.settings import Settings


def network(folder: Path, name: str, seed: int = 0) -> Path:
    """A network with an initializer and a Constant in files of their own, ``NAME.w`` and ``NAME.c``."""
    rng = np.random.default_rng(seed)
    tensors = [from_array(rng.normal(size=(2, 2)).astype(np.float32), "w") for _ in range(2)]
    for tensor, suffix in zip(tensors, "wc", strict=True):
        (folder / f"{name}.{suffix}").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{name}.{suffix}")
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 2]) for end in "xy"]
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensors[1]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "c"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors[:1])
    path = folder / f"{name}.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks with two specifications each."""
    place = tmp_path / "toy"
    place.mkdir()
    for name in "ab":
        network(place, name)
    for spec in "pq":
        (place / f"{spec}.vnnlib").write_text(f"; {spec}\n")
    (place / "instances.csv").write_text("".join(f"{n}.onnx,{s}.vnnlib,20\n" for n in "ab" for s in "pq"))
    return place


@dataclass
class Oracle:
    """A task that remembers what it was asked, and answers what it is told."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """By network and specification, ``a.onnx p.vnnlib``; the others are ``unsat``."""
    asked: list[str] = field(default_factory=list)
    before: Callable[[InstanceJob], None] = lambda job: None

    def answer(self, job: InstanceJob) -> Answer:
        name = f"{job.onnx} {job.vnnlib}"
        self.asked.append(name)
        self.before(job)
        verdict = self.verdicts.get(name, Verdict.UNSAT)
        return Answer(verdict, "a reason", witness=f"(({name} {len(self.asked)}))\n" if verdict == "sat" else None)

    def run(self, folder: Path, out: Path, **options: object) -> list[str]:
        """What is asked in a run of the folder, which ends before its report."""
        self.asked = []
        chosen = Options(out=out, executor="in-process", **options)
        (benchmark,) = find_benchmarks(folder)
        jobs = make_jobs(benchmark, chosen.settings(Settings()), chosen.timeout)
        with claimed(out):
            execute(jobs, out, chosen, {benchmark.category: folder}, WorkerTask(lambda: None, self.answer))
        return self.asked


def flipped(path: Path) -> None:
    """Change one bit, but neither size nor the time of change that a program can set."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


ALL = [f"{n}.onnx {s}.vnnlib" for n in "ab" for s in "pq"]
CHANGES = {
    "a.onnx": ALL[:2], "a.w": ALL[:2], "a.c": ALL[:2], "b.w": ALL[2:], "b.c": ALL[2:],
    "p.vnnlib": ALL[::2], "q.vnnlib": ALL[1::2],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_file_asks_again_for_all_that_read_it(folder: Path, tmp_path: Path, name: str) -> None:
    oracle = Oracle()
    assert oracle.run(folder, tmp_path / "out") == ALL
    assert oracle.run(folder, tmp_path / "out") == []
    flipped(folder / name)
    assert oracle.run(folder, tmp_path / "out") == CHANGES[name]
    flipped(folder / name)  # back again
    assert oracle.run(folder, tmp_path / "out") == []


def test_undecided_instances_are_asked_once_more_with_larger_limits(folder: Path, tmp_path: Path) -> None:
    out, limits = tmp_path / "out", list[tuple[float, int]]()
    names = ("a.onnx p.vnnlib", "b.onnx q.vnnlib", "b.onnx p.vnnlib")
    verdicts = dict(zip(names, (Verdict.TIMEOUT, Verdict.UNKNOWN, Verdict.SAT), strict=True))
    oracle = Oracle(verdicts, before=lambda job: limits.append((job.timeout, job.settings.passes)))
    assert oracle.run(folder, out, setting=("passes=50",)) == ALL
    del verdicts["a.onnx p.vnnlib"]  # which more time decides
    assert oracle.run(folder, out, setting=("passes=50",), retry_undecided=True) == [names[0], names[1]]
    assert limits == [(20, 50)] * 4 + [(200, 500)] * 2
    assert (out / "results.csv").read_text().count("unsat") == 2
    assert oracle.run(folder, out, setting=("passes=50",), retry_undecided=True) == []  # done with, decided or not
    assert oracle.run(folder, out, setting=("passes=50",), retry_undecided=True, retry_factor=20) == [names[1]]


def test_an_answer_counts_for_every_limit_of_passes_that_it_was_found_within(folder: Path, tmp_path: Path) -> None:
    def answer(job: InstanceJob) -> Answer:
        asked.append(job.settings.passes)
        return Answer(Verdict.UNSAT, statistics=Statistics(passes=30))

    def run(*passes: str) -> list[int]:
        asked.clear()
        [benchmark] = find_benchmarks(folder)
        options = Options(out=tmp_path / "out", executor="in-process", setting=passes)
        jobs = make_jobs(benchmark, options.settings(Settings()), limit=1)
        execute(jobs, tmp_path / "out", options, {benchmark.category: folder}, WorkerTask(lambda: None, answer))
        return asked

    asked: list[int] = []
    (tmp_path / "out").mkdir()
    assert run("passes=40") == [40]
    assert run("passes=30") == []
    assert run("passes=4000") == []
    assert run("passes=29") == [29]
    assert run() == [0]  # by time: another question, as its turns are others


def test_a_file_that_was_missing_or_refused_is_another_one(folder: Path, tmp_path: Path) -> None:
    oracle = Oracle()
    content = (folder / "a.c").read_bytes()
    (folder / "a.c").unlink()
    assert oracle.run(folder, tmp_path / "out") == ALL
    os.mkfifo(folder / "a.c")  # which is not read
    assert oracle.run(folder, tmp_path / "out") == ALL[:2]
    (folder / "a.c").unlink()
    (folder / "a.c").write_bytes(content)
    assert oracle.run(folder, tmp_path / "out") == ALL[:2]


def test_the_same_content_compressed_is_the_same(folder: Path, tmp_path: Path) -> None:
    oracle = Oracle()
    oracle.run(folder, tmp_path / "out")
    for name in ("a.onnx", "p.vnnlib"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert oracle.run(folder, tmp_path / "out") == []


OTHER = {
    "device": "cpu", "seed": 1, "strategy": "relu", "bounds": "auto-lirpa", "batch": 7, "processes": 1,
    "attack_restarts": 1, "attack_steps": 1, "alpha_iterations": 1, "beta_iterations": 1, "clipped_neurons": 1,
    "branching": "babsr", "max_domains": 1, "real_semantics": True, "passes": 9, "certifiable": True, "certified": True,
    "float_execution": True,
}  # fmt: skip


def test_every_setting_but_the_limit_makes_another_question(folder: Path) -> None:
    (benchmark,) = find_benchmarks(folder)
    questions = [
        make_jobs(benchmark, Settings(**{name: OTHER[name]}), limit=1)[0].question
        for name in Settings.model_fields if name != "timeout"
    ]  # fmt: skip
    usual = make_jobs(benchmark, Settings(), limit=1)[0]
    assert len({usual.question, *questions}) == len(questions) + 1
    longer = make_jobs(benchmark, Settings(), timeout=99.0, limit=1)[0]
    larger = make_jobs(benchmark, Settings(), memory=9.0, limit=1)[0]
    assert longer.question == larger.question == usual.question
    assert len({usual.key, longer.key, larger.key}) == 3


@pytest.mark.parametrize("what", ["code", "python", "torch", "highspy", "onnxruntime"])
def test_other_versions_and_devices_ask_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    oracle, before = Oracle(), dict(fingerprint.versions())
    oracle.run(folder, tmp_path / "out")
    monkeypatch.setattr(fingerprint, "versions", lambda: before | {what: "another"})
    assert oracle.run(folder, tmp_path / "out") == ALL
    monkeypatch.setattr(fingerprint, "device_kind", lambda device: "cuda | another GPU")
    assert oracle.run(folder, tmp_path / "out") == ALL


def verdicts(out: Path) -> list[str]:
    return [line.split(",")[-2] for line in (out / "results.csv").read_text().splitlines()]


def test_a_longer_limit_asks_for_undecided_instances_only(folder: Path, tmp_path: Path) -> None:
    oracle = Oracle(dict(zip(ALL, (Verdict.SAT, Verdict.TIMEOUT, Verdict.UNKNOWN, Verdict.UNSAT), strict=True)))
    out = tmp_path / "out"
    oracle.run(folder, out, timeout=5.0)
    assert oracle.run(folder, out, timeout=50.0) == ALL[1:3]
    assert oracle.run(folder, out, timeout=50.0) == []
    assert oracle.run(folder, out, timeout=5.0) == []
    assert verdicts(out) == ["sat", "timeout", "unknown", "unsat"]
    oracle.verdicts[ALL[1]] = Verdict.UNSAT
    assert oracle.run(folder, out, timeout=500.0) == ALL[1:3]
    assert oracle.run(folder, out, timeout=5.0) == []
    assert verdicts(out) == ["sat", "unsat", "unknown", "unsat"]


def test_an_answer_does_not_count_under_a_limit_shorter_than_its_time(folder: Path, tmp_path: Path) -> None:
    oracle, out = Oracle({ALL[0]: Verdict.SAT}, before=lambda job: time.sleep(0.05)), tmp_path / "out"
    oracle.run(folder, out)
    files = contents(out / "witnesses")
    assert oracle.run(folder, out, timeout=0.01) == ALL
    assert verdicts(out) == ["timeout"] * 4
    assert contents(out / "witnesses") == files
    assert oracle.run(folder, out) == []
    assert verdicts(out) == ["sat", "unsat", "unsat", "unsat"]
    assert contents(out / "witnesses") == files


def test_errors_are_asked_again_when_told(folder: Path, tmp_path: Path) -> None:
    oracle, out = Oracle({ALL[2]: Verdict.ERROR}), tmp_path / "out"
    oracle.run(folder, out)
    assert oracle.run(folder, out) == []
    assert oracle.run(folder, out, retry_errors=True) == [ALL[2]]
    oracle.verdicts = {}
    assert oracle.run(folder, out, retry_errors=True) == [ALL[2]]
    assert oracle.run(folder, out, retry_errors=True) == []
    assert verdicts(out) == ["unsat"] * 4


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(out: Path) -> list[journal.JournalRecord]:
    return journal.history(out / journal.NAME)


def test_files_that_change_while_they_are_answered_leave_no_verdict(folder: Path, tmp_path: Path) -> None:
    def change(job: InstanceJob) -> None:
        if job.onnx == "a.onnx" and len(oracle.asked) == 1:
            flipped(folder / "a.c")

    oracle = Oracle(before=change)
    oracle.run(folder, tmp_path / "out")
    assert verdicts(tmp_path / "out") == ["error", "error", "unsat", "unsat"]
    assert "changed while it was answered" in records(tmp_path / "out")[0].reason
    oracle.before = lambda job: None
    assert oracle.run(folder, tmp_path / "out") == ALL[:2]
    assert verdicts(tmp_path / "out") == ["unsat"] * 4


def every_sat_has_its_file(out: Path) -> int:
    """Check the records that answer sat; how many there are."""
    found = [record for record in records(out) if record.verdict == Verdict.SAT]
    for record in found:
        text = gzip.decompress((out / record.witness).read_bytes()).decode()
        assert text.startswith(f"(({record.onnx} {record.vnnlib} ")
    return len(found)


NAMES = ["n", "a/n", "b/n", "a/../n", "./n", "a b/n", "deep/er/n", "x" * 120 + "/n", "n, m", 'n"m', "ä/n", "a_n"]
SPECS = ["p", "vnnlib/p", "s/p", "s/t/p", "s_t/p", "vnnlib/s/p", "p q", "p,q", "'p", "é/p", "y" * 100 + "/p"]


@pytest.mark.parametrize("seed", range(4))
def test_every_sat_has_a_file_of_its_own(tmp_path: Path, seed: int) -> None:
    """Networks and specifications of equal names in different folders, absolute paths, rows that are there twice."""
    rng = random.Random(seed)
    folder = tmp_path / "toy"
    folder.mkdir()
    pairs = [(f"{rng.choice(NAMES)}.onnx", f"{rng.choice(SPECS)}.vnnlib") for _ in range(12)]
    pairs += [(str(tmp_path / "toy" / onnx), spec) for onnx, spec in pairs[:2]]
    rows = [(onnx, spec, rng.choice([5.0, 6.0])) for onnx, spec in pairs + pairs[:3]]
    write_rows(folder, rows)
    names = {f"{onnx} {spec}" for onnx, spec in pairs}
    chosen = set(rng.sample(sorted(names), len(names) // 2))
    oracle, out = Oracle(dict.fromkeys(chosen, Verdict.SAT)), tmp_path / "out"
    oracle.run(folder, out)
    assert every_sat_has_its_file(out) >= len(chosen)
    files = {record.row: record.witness for record in records(out) if record.witness}
    assert len(set(files.values())) == len(files) == len(chosen)
    assert verdicts(out) == ["sat" if f"{onnx} {spec}" in chosen else "unsat" for onnx, spec, _ in rows]
    for _ in range(3):  # other rows, limits and answers: the files of the first answers stay
        write_rows(folder, [(onnx, spec, rng.choice([4.0, 7.0])) for onnx, spec, _ in rng.sample(rows, 6)])
        oracle.verdicts = dict.fromkeys(rng.sample(sorted(names), len(names) // 2), Verdict.SAT)
        oracle.run(folder, out, setting=(f"seed={rng.randrange(3)}",))
        every_sat_has_its_file_or_another_of_its_row(out)
    write_rows(folder, rows)
    oracle.verdicts = dict.fromkeys(chosen, Verdict.SAT)
    oracle.run(folder, out)
    assert verdicts(out) == ["sat" if f"{onnx} {spec}" in chosen else "unsat" for onnx, spec, _ in rows]


def every_sat_has_its_file_or_another_of_its_row(out: Path) -> None:
    every_sat_has_its_file(out)  # the text names the row
    owners: dict[str, tuple[str, str, str]] = {}
    for record in records(out):
        if record.witness:
            assert owners.setdefault(record.witness, record.row) == record.row


def write_rows(folder: Path, rows: Sequence[tuple[str, str, float]]) -> None:
    """An instance list as a spreadsheet writes it: with a byte-order mark, all quoted, and CR LF."""
    lines = [",".join('"' + str(entry).replace('"', '""') + '"' for entry in row) + "\r\n" for row in rows]
    (folder / "instances.csv").write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode())


def test_a_sat_without_its_file_is_asked_again(folder: Path, tmp_path: Path) -> None:
    oracle, out = Oracle(dict.fromkeys(ALL, Verdict.SAT)), tmp_path / "out"
    oracle.run(folder, out)
    first, second, third, _ = (out / record.witness for record in records(out))
    first.unlink()
    second.write_bytes(third.read_bytes())
    assert oracle.run(folder, out) == ALL[:2]
    assert oracle.run(folder, out) == []
    assert len(contents(out / "witnesses")) == 4


@pytest.mark.parametrize("seed", range(3))
def test_a_torn_journal_loses_only_the_lines_that_are_torn(folder: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    oracle, out = Oracle(), tmp_path / "out"
    oracle.run(folder, out)
    lines = (out / journal.NAME).read_bytes().splitlines(keepends=True)
    torn = rng.randrange(len(lines))
    cut = rng.randrange(1, len(lines[torn]) - 2)
    junk = rng.choice([b"", b"\0" * 50, b"\xff\xfe{", b"[" * 100_000])
    lines[torn] = lines[torn][:cut] + junk + (b"\n" if torn < len(lines) - 1 else b"")
    (out / journal.NAME).write_bytes(b"".join(lines))
    assert oracle.run(folder, out) == [ALL[torn]]
    assert oracle.run(folder, out) == []


class FullDisk:
    """Lets the n-th write to disk fail, and all after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        real = os.fsync

        def fsync(handle: int) -> None:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)


def test_whatever_write_fails_no_answer_before_it_is_lost(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = Oracle({ALL[1]: Verdict.SAT, ALL[3]: Verdict.SAT})
    task = WorkerTask(lambda: None, oracle.answer)
    monkeypatch.setattr("toolkit.experiments.campaign.run_folder.__defaults__", (task, None))
    monkeypatch.setattr("toolkit.experiments.campaign.write_folder_report", lambda *arguments: None)
    outcomes = []
    for number in range(40):
        out = tmp_path / str(number)
        oracle.asked = []
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, number)
            outcomes.append(run(["bench", str(folder), "--out", str(out), "--executor", "in-process"]))
        asked = len(oracle.asked)
        kept = records(out)
        assert len(kept) in (asked, asked - 1)
        every_sat_has_its_file(out)
        assert set(oracle.run(folder, out)) == set(ALL) - {f"{record.onnx} {record.vnnlib}" for record in kept}
        assert verdicts(out) == ["unsat", "sat", "unsat", "sat"]
        if disk.left >= 0:
            break
    assert outcomes == [3] * (len(outcomes) - 1) + [0]
    assert len(outcomes) > 10
    assert "No space left" in capsys.readouterr().err


def test_a_failed_line_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = InstanceJob("k", "c", "n", "s", (), Path("s"), Settings())
    path = tmp_path / journal.NAME
    journal.append(path, journal.make_record(job, Answer(Verdict.UNSAT)))
    before = path.read_bytes()
    FullDisk(monkeypatch, 0)
    with pytest.raises(OSError, match="No space left"):
        journal.append(path, journal.make_record(job, Answer(Verdict.SAT)))
    assert path.read_bytes() == before


def test_the_witness_is_on_disk_before_the_journal_names_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        order.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    Oracle(dict.fromkeys(ALL, Verdict.SAT)).run(folder, tmp_path / "out")
    kinds = ["w" if name.startswith(".new-") else name for name in order]
    lines = [index for index, name in enumerate(kinds) if name == journal.NAME]
    assert len(lines) == 4
    for before, line in zip([-1, *lines], lines, strict=False):
        assert kinds[before + 1 : line].count("w") == 1
        assert "toy" in kinds[before + 1 : line]  # the folder of the file, too


KILLED = """
import sys, time
from pathlib import Path
from test_bench_resume import *
if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:])
    oracle = Oracle({name: Verdict.SAT for name in ALL[::2]}, before=lambda job: time.sleep(0.02))
    oracle.run(folder, out)
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_said(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(KILLED)
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    rng, out = random.Random(0), tmp_path / "out"
    known: list[journal.JournalRecord] = []
    for number in range(2):
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder), str(out)], env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(records(out)) <= number and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert records(out)[: len(known)] == known
        known = records(out)
        every_sat_has_its_file(out)
    oracle = Oracle(dict.fromkeys(ALL[::2], Verdict.SAT))
    assert set(oracle.run(folder, out)) == set(ALL) - {f"{record.onnx} {record.vnnlib}" for record in known}
    assert every_sat_has_its_file(out) == 2


def test_a_second_run_into_the_same_folder_is_told_so(folder: Path, tmp_path: Path) -> None:
    codes = []

    def start_another(job: InstanceJob) -> None:
        codes.append(run(["bench", str(folder), "--out", str(tmp_path / "out"), "--executor", "in-process"]))

    Oracle(before=start_another).run(folder, tmp_path / "out")
    assert codes == [2] * 4


def test_equal_rows_are_run_once_and_reported_as_often_as_they_stand_there(folder: Path, tmp_path: Path) -> None:
    (folder / "instances.csv").write_text("a.onnx,p.vnnlib,20\na.onnx,p.vnnlib,30\na.onnx,p.vnnlib,20\n")
    oracle, out = Oracle({ALL[0]: Verdict.SAT}), tmp_path / "out"
    assert oracle.run(folder, out) == [ALL[0]] * 2
    assert verdicts(out) == ["sat"] * 3
    assert every_sat_has_its_file(out) == 2
    assert oracle.run(folder, out) == []


def test_results_name_folders_that_are_no_text(folder: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9, "x"'))
    folder.rename(odd)
    Oracle().run(odd, tmp_path / "out")
    assert b"caf\xe9" in (tmp_path / "out" / "results.csv").read_bytes()


def test_what_cannot_be_written_to_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "inner"):
        assert run(["bench", str(folder), "--out", str(out), "--executor", "in-process"]) == 2
        assert "a file is in the way" in capsys.readouterr().err
    assert run(["bench", str(folder), "--out", "/proc/nowhere", "--executor", "in-process"]) == 3
    assert "/proc/nowhere" in capsys.readouterr().err
