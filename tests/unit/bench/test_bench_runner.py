"""The runner against workers that hang, die, raise and answer late; workers import the tasks from this module."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from silent_observer import SilentObserver

from toolkit.bench import journal
from toolkit.bench import worker_processes as bench_processes
from toolkit.bench.executor_table import EXECUTORS, find_executor
from toolkit.bench.executors import ExecutorLimits, default_limits
from toolkit.bench.job import Answer, Finished, InstanceJob, Started, WorkerTask, failure, settle
from toolkit.bench.job_queue import queue, take
from toolkit.bench.runner import RunPlan, answered, run_jobs
from toolkit.errors import InputError, ToolkitError, UnsupportedError
from toolkit.result import Statistics, Verdict
from toolkit.settings import Settings

LIMITS = ExecutorLimits(workers=2, grace=0.3, startup=60)


def make_job(number: int, spec: str = "ok", timeout: float = 20.0, network: str = "a.onnx") -> InstanceJob:
    return InstanceJob(
        key=f"{number}-{spec}",
        category="toy",
        onnx=f"onnx/{network}",
        vnnlib=f"vnnlib/{spec}_{number}.vnnlib",
        networks=(("", Path(network)),),
        spec=Path(f"{spec}_{number}.vnnlib"),
        settings=Settings(timeout=timeout),
    )


def ready() -> None:
    pass


def broken() -> None:
    raise ImportError("no such library")


def ready_once() -> None:
    """Let one process get ready, whichever is the first, and no other."""
    (Path(os.environ["ONCE"]) / "token").unlink()


def dying_once() -> None:
    """Let one process die before it is ready."""
    with suppress(FileNotFoundError):
        (Path(os.environ["ONCE"]) / "token").unlink()
        os._exit(5)


def fits(size: int) -> bool:
    try:
        return len(bytearray(size)) == size
    except MemoryError:
        return False


FACTS = {
    "threads": lambda: os.environ["OMP_NUM_THREADS"],
    "gpu": lambda: os.environ["CUDA_VISIBLE_DEVICES"],
    "memory": lambda: fits(1 << 30),
    "modules": lambda: "" in sys.path or str(Path.cwd()) in sys.path,
    "pid": os.getpid,
}
"""What a worker can be asked about itself."""


def behave(job: InstanceJob) -> Answer:
    """Do what the job's specification says."""
    match job.spec.name.split("_")[0]:
        case "sat":
            return Answer(Verdict.SAT, witness="((X_0 1.0))\n")
        case "hang":
            time.sleep(60)
        case "busy":
            (Path(os.environ["BUSY"]) / f"busy-{os.getpid()}").touch()
            time.sleep(60)
        case "die":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise RuntimeError("two\nlines")
        case "unsupported":
            raise UnsupportedError("node 'Foo': operator Bar is not supported")
        case "late":
            time.sleep(job.timeout + 0.1)
            return Answer(Verdict.UNSAT)
        case "slow":
            time.sleep(0.3)
        case "exhausted":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        case kind if kind in FACTS:
            return Answer(Verdict.UNKNOWN, reason=str(FACTS[kind]()))
    return Answer(Verdict.UNSAT, statistics=Statistics(seconds=0.5, domains=3, decided_by="crown"))


TASK = WorkerTask(ready, behave)


def run_with(
    out: Path, executor: str = "processes", limits: ExecutorLimits = LIMITS, task: WorkerTask = TASK, **options: bool
) -> RunPlan:
    return RunPlan(out, task, find_executor(executor), limits, SilentObserver(), **options)


def test_workers_share_several_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5")
    jobs = [make_job(number, "gpu", network=f"{number}.onnx") for number in range(6)]
    records = run_jobs(jobs, run_with(tmp_path))
    assert {record.reason for record in records} <= {"2", "GPU-5"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2, GPU-5"
    assert default_limits(device="cuda").workers <= 8


def test_every_failure_of_a_worker_is_an_answer_and_never_unsat(tmp_path):
    jobs = [
        make_job(0),
        make_job(1, "hang", timeout=0.2),
        make_job(2, "die"),
        make_job(3, "killed"),
        make_job(4, "raise"),
        make_job(5, "unsupported"),
        make_job(6, "late", timeout=0.1),
        make_job(7, "sat"),
        make_job(8),
    ]
    records = run_jobs(jobs, run_with(tmp_path))
    assert [str(record.verdict) for record in records] == [
        "unsat", "timeout", "error", "error", "error", "error", "timeout", "sat", "unsat",
    ]  # fmt: skip
    reasons = [record.reason for record in records]
    assert "stopped from outside" in reasons[1]
    assert "exit code 3" in reasons[2]
    assert "SIGKILL" in reasons[3]
    assert reasons[4] == "RuntimeError: two"
    assert reasons[5] == "node 'Foo': operator Bar is not supported"
    assert "unsat after" in reasons[6]
    assert 0.2 <= records[1].seconds < 10
    assert records[0].statistics.domains == 3


def test_a_worker_keeps_its_network_and_gets_its_threads(tmp_path):
    jobs = [make_job(n, "pid", network=f"{n % 2}.onnx") for n in range(6)] + [make_job(9, "threads")]
    records = run_jobs(jobs, run_with(tmp_path, limits=ExecutorLimits(workers=1, threads=3)))
    assert len({record.reason for record in records[:6]}) == 1
    assert records[6].reason == "3"


def test_answers_in_the_journal_are_not_run_again(tmp_path):
    jobs = [make_job(n, spec) for n, spec in enumerate(["pid", "raise", "pid"])]
    first = run_jobs(jobs, run_with(tmp_path, "in-process"))
    second = run_jobs([*jobs, make_job(3, "pid")], run_with(tmp_path, "in-process"))
    assert second[:3] == first
    assert len((tmp_path / journal.NAME).read_text().splitlines()) == 4
    third = run_jobs(jobs, run_with(tmp_path, "in-process", retry_errors=True))
    assert third[0] == first[0]
    assert len((tmp_path / journal.NAME).read_text().splitlines()) == 5


def test_a_changed_key_is_run_again(tmp_path):
    run_jobs([make_job(0)], run_with(tmp_path, "in-process"))
    assert answered([make_job(1)], tmp_path) == []
    assert len(answered([make_job(0)], tmp_path)) == 1


@pytest.mark.parametrize("tail", ['{"key": "0-ok", "verd', "\n\n", '{"key": "0-ok"}'])
def test_a_journal_cut_short_by_a_crash_is_read_and_continued(tmp_path, tail):
    run_jobs([make_job(0)], run_with(tmp_path, "in-process"))
    path = tmp_path / journal.NAME
    with path.open("a") as file:
        file.write(tail)
    if tail.endswith("}"):
        with pytest.raises(InputError, match=r"journal\.jsonl:2"):
            journal.read(path)
        return
    run_jobs([make_job(0), make_job(1)], run_with(tmp_path, "in-process"))
    assert [record.key for record in journal.read(path)] == ["0-ok", "1-ok"]


def test_witnesses_are_named_as_the_competition_names_them(tmp_path):
    import gzip

    [record] = run_jobs([make_job(7, "sat")], run_with(tmp_path, "in-process"))
    assert record.witness == "witnesses/toy/a_sat_7.counterexample.gz"
    assert gzip.decompress((tmp_path / record.witness).read_bytes()) == b"((X_0 1.0))\n"


@pytest.mark.parametrize("executor", sorted(EXECUTORS.keys() - {"ray"}))  # which has a file of its own
def test_a_worker_that_cannot_start_is_one_error(tmp_path, executor):
    with pytest.raises((ToolkitError, ImportError), match="no such library"):
        run_jobs([make_job(0)], run_with(tmp_path, executor, task=WorkerTask(broken, behave)))


@pytest.mark.parametrize("prepare", [ready_once, dying_once])
def test_workers_that_cannot_start_are_left_out(tmp_path, monkeypatch, prepare):
    """All but one, or one, of four: the others answer everything, a survey that waits for one of them included."""
    monkeypatch.setenv("ONCE", str(tmp_path))
    (tmp_path / "token").touch()
    jobs = [make_job(number, "slow", network=f"{number}.onnx") for number in range(6)]
    limits = ExecutorLimits(workers=4, grace=0.3, startup=60)
    records = run_jobs(jobs, run_with(tmp_path, limits=limits, task=WorkerTask(prepare, behave)))
    assert [record.verdict for record in records] == [Verdict.UNSAT] * 6


def test_where_the_last_worker_is_lost_and_none_can_replace_it_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("ONCE", str(tmp_path))
    (tmp_path / "token").touch()
    jobs = [make_job(0, "die"), make_job(1)]
    with pytest.raises(ToolkitError, match="cannot start"):
        run_jobs(jobs, run_with(tmp_path, limits=ExecutorLimits(workers=1), task=WorkerTask(ready_once, behave)))
    assert [record.verdict for record in answered(jobs, tmp_path)] == [Verdict.ERROR]


@pytest.mark.parametrize("refused", [1, 2])
def test_a_worker_for_which_there_is_no_room_is_left_out(tmp_path, monkeypatch, refused):
    starts, start = [0], bench_processes.start

    def refusing(*arguments):
        starts[0] += 1
        if starts[0] <= refused:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(*arguments)

    monkeypatch.setattr(bench_processes, "start", refusing)
    jobs = [make_job(number, network=f"{number}.onnx") for number in range(4)]
    if refused == LIMITS.workers:
        with pytest.raises(ToolkitError, match="Resource temporarily unavailable"):
            run_jobs(jobs, run_with(tmp_path))
    else:
        assert [record.verdict for record in run_jobs(jobs, run_with(tmp_path))] == [Verdict.UNSAT] * 4


def test_workers_share_the_memory_of_a_run(tmp_path):
    assert default_limits(4, memory=8 << 30).memory == 2 << 30
    limits = ExecutorLimits(workers=1, memory=1 << 29)
    records = run_jobs([make_job(0, "memory"), make_job(1, "exhausted")], run_with(tmp_path, limits=limits))
    assert records[0].reason == "False"
    assert (records[1].verdict, records[1].reason) == (Verdict.UNKNOWN, "out of memory")


def test_workers_look_for_no_module_in_the_current_folder(tmp_path, monkeypatch):
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in ("onnx", "socket", "selectors", "random"):  # of a library, and of what starts a worker
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    before = os.environ.get("PYTHONSAFEPATH")
    monkeypatch.chdir(folder)
    [record] = run_jobs([make_job(0, "modules")], run_with(tmp_path))
    assert record.reason == "False"
    assert not (tmp_path / "was run").exists()
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_events_come_in_order_and_cover_all_jobs():
    jobs = [make_job(n) for n in range(5)]
    events = list(find_executor("processes")(jobs, TASK, LIMITS))
    for job in jobs:
        kinds = [type(event) for event in events if event.job == job]
        assert kinds == [Started, Finished]


def test_jobs_of_one_network_stay_together():
    waiting = queue([make_job(n, network=f"{n % 3}.onnx") for n in range(7)])
    order, loaded = [], None
    while jobs := take(waiting, 0, loaded):
        loaded = jobs[0].networks
        order += [job.onnx for job in jobs]
    assert order == ["onnx/0.onnx"] * 3 + ["onnx/1.onnx"] * 2 + ["onnx/2.onnx"] * 2


def test_late_answers_are_timeouts_and_failures_errors():
    job = make_job(0, timeout=1.0)
    assert settle(job, Answer(Verdict.UNSAT), 1.0).verdict == Verdict.UNSAT
    late = settle(job, Answer(Verdict.SAT, witness="w"), 1.01)
    assert (late.verdict, late.witness) == (Verdict.TIMEOUT, None)
    assert settle(job, Answer(Verdict.ERROR, "why"), 9.0).verdict == Verdict.ERROR
    assert failure(KeyError()).reason == "KeyError"


def test_unknown_executor_and_default_limits():
    with pytest.raises(InputError, match="choose one of"):
        find_executor("abacus")
    assert default_limits(1).threads >= 1
    assert default_limits(device="cpu").workers >= 1
    assert default_limits(device="cuda").workers <= 4


INTERRUPTED = """
import sys
from pathlib import Path
from test_bench_runner import *
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what runs in its background
    jobs = [make_job(n, "slow") for n in range(200)]
    try:
        run_jobs(jobs, run_with(Path({out!r})))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def running(group: int) -> list[str]:
    """Processes of a group that are not zombies."""
    lines = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in lines.splitlines()]
    return [args for pgid, state, args in rows if int(pgid) == group and not state.startswith("Z")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_run_leaves_a_complete_journal_and_no_worker(tmp_path, how):
    script = tmp_path / "main.py"
    script.write_text(INTERRUPTED.format(out=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, env=environment)
    path = tmp_path / journal.NAME
    deadline = time.monotonic() + 30
    while (not path.exists() or path.stat().st_size < 500) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    # Ctrl-C reaches the whole group of processes, a TERM only the parent.
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    assert process.wait(20) == (-how if how == signal.SIGKILL else 130)
    assert all(json.loads(line)["verdict"] == "unsat" for line in path.read_text().splitlines())
    deadline = time.monotonic() + 5
    while (left := running(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


BUSY = INTERRUPTED.replace('make_job(n, "slow") for n in range(200)', 'make_job(n, "busy") for n in range(2)')


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_workers_end_with_their_run_in_the_middle_of_an_instance(tmp_path, how):
    """They are in a call that takes a minute, and hear nothing of what becomes of the run."""
    script = tmp_path / "main.py"
    script.write_text(BUSY.format(out=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    environment["BUSY"] = str(tmp_path)
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("busy-*"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(running(process.pid)) >= 3
    process.send_signal(how)
    process.wait(20)
    deadline = time.monotonic() + 5
    while (left := running(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
