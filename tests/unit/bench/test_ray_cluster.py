"""The executor on a ray cluster of two nodes, beside processes of this machine; workers import tasks from here."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_bench_runner as runner_tests
from random_networks import random_network, save
from random_queries import hard_query
from silent_observer import SilentObserver

from toolkit.bench import journal, ray_cluster
from toolkit.bench.executor_table import find_executor
from toolkit.bench.executors import ExecutorLimits
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Answer, Finished, InstanceJob, Started, WorkerTask
from toolkit.bench.ray_cluster import RayCluster
from toolkit.bench.run_options import Options
from toolkit.bench.runner import RunPlan, run_jobs
from toolkit.bench.verify_job import VERIFY
from toolkit.cli import run
from toolkit.errors import InputError, MachineError
from toolkit.experiments.campaign import with_drafts
from toolkit.proof.check import CHECKED, check
from toolkit.result import Verdict
from toolkit.settings import Settings

HERE = Path(__file__).parent
SUPPORT = HERE.parents[1] / "support"
LIMITS = ExecutorLimits(workers=2, grace=0.3, startup=120)


def behave(job: InstanceJob) -> Answer:
    """Do to the actor what the specification says, or tell of the files; else as the tests of all executors do."""
    match job.spec.name.split("_")[0]:
        case "lost":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        case "stopped":
            os.kill(os.getppid(), signal.SIGSTOP)
        case "files":
            [(_, network)] = job.networks
            names = sorted(str(path.relative_to(network.parent)) for path in network.parent.rglob("*"))
            digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (network, job.spec)]
            return Answer(Verdict.UNKNOWN, json.dumps([*digests, *names]))
        case "where":
            return Answer(Verdict.UNKNOWN, f"{job.networks[0][1]}|{job.spec}|{Path.cwd()}|{sys.path}")
        case "draft":
            assert job.draft is not None
            job.draft.write_bytes(b"a proof of " + job.spec.read_bytes())
    return runner_tests.behave(job)


TASK = WorkerTask(runner_tests.ready, behave)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with two CPUs each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join([str(HERE), str(SUPPORT), *filter(None, sys.path)])
        patch.setenv("PYTHONPATH", path)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=2, include_dashboard=False)
            cluster.add_node(num_cpus=2)
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def cluster(nodes: Any) -> RayCluster:
    return RayCluster(nodes.address, workers=2)


def plan(out: Path, executor: Any, limits: ExecutorLimits = LIMITS, task: WorkerTask = TASK) -> RunPlan:
    out.mkdir(exist_ok=True)
    return RunPlan(out, task, executor, limits, SilentObserver())


def made(folder: Path, kinds: list[str], timeout: float = 20.0) -> list[InstanceJob]:
    """Jobs of these kinds about two networks, whose files are there."""
    jobs = []
    for number, kind in enumerate(kinds):
        job = runner_tests.make_job(number, kind, timeout)
        network, spec = folder / f"{number % 2}.onnx", folder / job.spec.name
        network.write_bytes(b"network %d" % (number % 2))
        spec.write_bytes(b"specification %d" % number)
        jobs.append(replace(job, networks=(("", network),), spec=spec))
    return jobs


def test_failures_mean_what_they_mean_on_one_machine(tmp_path: Path, cluster: RayCluster) -> None:
    jobs = made(tmp_path, ["ok", "hang", "die", "killed", "raise", "unsupported", "late", "sat", "ok"])
    limits = {1: 0.2, 6: 0.1}
    jobs = [replace(job, settings=Settings(timeout=limits.get(n, 20.0))) for n, job in enumerate(jobs)]
    found = [
        run_jobs(jobs, plan(tmp_path / str(n), one)) for n, one in enumerate([cluster, find_executor("processes")])
    ]
    assert [record.verdict for record in found[0]] == [record.verdict for record in found[1]]
    same = [n for n in range(len(jobs)) if n not in limits]  # their reasons tell how long they took
    assert [found[0][n].reason for n in same] == [found[1][n].reason for n in same]
    assert "stopped from outside" in found[0][1].reason
    assert found[0][1].seconds < 10
    assert found[0][0].statistics == found[1][0].statistics


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two networks with three specifications each."""
    place = tmp_path / "toy"
    place.mkdir()
    lines = []
    for seed in range(2):
        network = save(random_network("mlp", seed), place, f"net{seed}.onnx")
        for number in range(3):
            text = hard_query(network, np.random.default_rng(number), 0.05 + 0.2 * number)
            (place / f"spec{seed}{number}.vnnlib").write_text(text)
            lines.append(f"{network.name},spec{seed}{number}.vnnlib,60\n")
    (place / "instances.csv").write_text("".join(lines))
    return place


def test_verdicts_and_certificates_are_those_of_processes(tmp_path: Path, folder: Path, cluster: RayCluster) -> None:
    settings = Settings(timeout=60, certified=True, device="cpu")
    [benchmark] = find_benchmarks(folder)
    found = []
    for name, executor in (("ray", cluster), ("processes", find_executor("processes"))):
        jobs = with_drafts(make_jobs(benchmark, settings), tmp_path / name)
        found.append(run_jobs(jobs, plan(tmp_path / name, executor, ExecutorLimits(workers=2), VERIFY)))
    for one, other in zip(*found, strict=True):
        assert (one.key, one.verdict, one.reason) == (other.key, other.verdict, other.reason)
        assert one.statistics.domains == other.statistics.domains
    proofs = [record for record in found[0] if record.verdict is Verdict.UNSAT]
    assert len(proofs) >= 2
    for record in proofs:
        files = (folder / record.onnx, folder / record.vnnlib)
        assert check(*files, tmp_path / "ray" / record.certificate).status == CHECKED
    assert not list((tmp_path / "ray").rglob("*.part"))


@pytest.mark.slow
def test_the_command_answers_on_a_cluster_of_its_own(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    for name in ("ray", "processes"):
        command = [sys.executable, "-m", "toolkit.cli", "bench", str(folder), "--device", "cpu", "--workers", "2"]
        command += ["--executor", name, "--out", str(tmp_path / name)]
        process = subprocess.Popen(command, env=environment, start_new_session=True, cwd=tmp_path)
        assert process.wait(200) == 0
        assert not runner_tests.running(process.pid)
    found = [journal.history(tmp_path / name / journal.NAME) for name in ("ray", "processes")]
    verdicts = [{record.key: record.verdict for record in records} for records in found]
    assert verdicts[0] == verdicts[1]
    assert set(verdicts[0].values()) == {Verdict.SAT, Verdict.UNSAT}


@pytest.mark.slow
def test_a_node_that_is_killed_loses_no_job(tmp_path: Path, nodes: Any, cluster: RayCluster) -> None:
    extra = nodes.add_node(num_cpus=2)
    nodes.wait_for_nodes()
    jobs = made(tmp_path, ["slow"] * 24)
    events, killed = [], False
    for event in replace(cluster, workers=6)(jobs, TASK, LIMITS):
        events.append(event)
        if not killed and sum(isinstance(one, Finished) for one in events) == 6:
            nodes.remove_node(extra, allow_graceful=False)
            killed = True
    for job in jobs:
        assert [type(event) for event in events if event.job.key == job.key] == [Started, Finished]
    assert {event.answer.verdict for event in events if isinstance(event, Finished)} == {Verdict.UNSAT}


@pytest.mark.slow
def test_a_job_that_takes_its_worker_down_again_and_again_is_an_error(tmp_path: Path, cluster: RayCluster) -> None:
    records = run_jobs(made(tmp_path, ["ok", "lost", "ok", "ok"]), plan(tmp_path, cluster))
    assert [record.verdict for record in records] == [Verdict.UNSAT, Verdict.ERROR, Verdict.UNSAT, Verdict.UNSAT]
    assert "its worker was lost 3 times" in records[1].reason


@pytest.mark.slow
def test_an_actor_that_answers_no_more_is_given_up(tmp_path: Path, cluster: RayCluster) -> None:
    jobs = made(tmp_path, ["stopped", "ok", "ok"], timeout=0.5)
    records = run_jobs(jobs, plan(tmp_path, cluster, replace(LIMITS, startup=20)))
    assert [record.verdict for record in records] == [Verdict.TIMEOUT, Verdict.UNSAT, Verdict.UNSAT]
    assert "stopped from outside" in records[0].reason


def test_files_travel_by_content_and_each_network_once(
    tmp_path: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    sent: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value: (sent.append(value), put(value))[1])
    monkeypatch.setattr(ray_cluster, "files_beside", lambda path: ("weights/a.bin",) if path.stem == "1" else ())
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.bin").write_bytes(b"weights")
    jobs = made(tmp_path, ["files"] * 8)
    records = run_jobs(jobs, plan(tmp_path, cluster))
    for number, (job, record) in enumerate(zip(jobs, records, strict=True)):
        network, spec, *names = json.loads(record.reason)
        assert network == hashlib.sha256(b"network %d" % (number % 2)).hexdigest()
        assert spec == hashlib.sha256(job.spec.read_bytes()).hexdigest()
        assert names == ([["0.onnx"], ["1.onnx", "weights", "weights/a.bin"]][number % 2])
    assert len([value for value in sent if isinstance(value, ray_cluster.PackedNetwork)]) == 2


def test_workers_are_elsewhere_and_speak_of_the_files_that_were_asked(
    tmp_path: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "onnx.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')")
    monkeypatch.chdir(hostile)
    [job] = made(tmp_path, ["where"])
    [record] = run_jobs([job], plan(tmp_path, cluster))
    network, spec, folder, modules = record.reason.split("|")
    assert (network, spec) == (str(job.networks[0][1]), str(job.spec))
    assert folder != str(hostile)
    assert str(hostile) not in modules
    assert not (tmp_path / "was run").exists()


def test_a_certificate_comes_back_by_content(tmp_path: Path, cluster: RayCluster) -> None:
    jobs = [replace(job, draft=tmp_path / f"{job.key}.part") for job in made(tmp_path, ["draft", "draft", "ok"])]
    for event in cluster(jobs, TASK, LIMITS):
        if isinstance(event, Finished) and event.job.draft is not None and event.job != jobs[2]:
            assert event.job.draft.read_bytes() == b"a proof of " + event.job.spec.read_bytes()
    assert len(list(tmp_path.glob("*.part"))) == 2


def test_an_answer_about_other_content_is_an_error(tmp_path: Path, folder: Path, cluster: RayCluster) -> None:
    [benchmark] = find_benchmarks(folder)
    jobs = make_jobs(benchmark, Settings(device="cpu"))[:2]
    jobs[0].spec.write_text(jobs[0].spec.read_text() + "; later\n")
    events = list(cluster(jobs, TASK, LIMITS))
    answers = {event.job.key: event.answer for event in events if isinstance(event, Finished)}
    assert [answers[job.key].verdict for job in jobs] == [Verdict.ERROR, Verdict.UNSAT]
    assert "others on the worker's node" in answers[jobs[0].key].reason


def test_nodes_with_another_version_are_left_out(
    tmp_path: Path, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "versions", lambda: {"onnx": "0.1"})
    with pytest.raises(MachineError, match=r"differs: .*onnx .* there, 0\.1 here"):
        run_jobs(made(tmp_path, ["ok"]), plan(tmp_path, cluster))


def test_workers_that_cannot_start_are_one_error(tmp_path: Path, cluster: RayCluster) -> None:
    with pytest.raises(MachineError, match=r"no worker of the ray cluster can start: .*no such library"):
        run_jobs(made(tmp_path, ["ok"]), plan(tmp_path, cluster, task=WorkerTask(runner_tests.broken, behave)))


def test_what_no_node_has_is_told(tmp_path: Path, cluster: RayCluster) -> None:
    jobs = made(tmp_path, ["ok"])
    with pytest.raises(InputError, match=r"no node .* 64 CPUs .*at most 2 CPUs"):
        run_jobs(jobs, plan(tmp_path, replace(cluster, cpus=64)))
    with pytest.raises(InputError, match="on a machine of the cluster"):
        run_jobs(jobs, plan(tmp_path, RayCluster("ray://127.0.0.1:10001")))
    with pytest.raises(InputError, match="no cluster at the address"):
        run_jobs(jobs, plan(tmp_path, RayCluster("127.0.0.1:1")))


def test_a_worker_gets_its_threads_and_its_share_of_the_memory(tmp_path: Path, cluster: RayCluster) -> None:
    limits = ExecutorLimits(workers=1, memory=1 << 30, startup=60)  # the memory of the run
    jobs = made(tmp_path, ["threads", "memory"])
    records = run_jobs(jobs, plan(tmp_path, replace(cluster, workers=None, cpus=2), limits))
    assert [record.reason for record in records] == ["2", "False"]


def test_workers_get_their_gpus(tmp_path: Path, nodes: Any, cluster: RayCluster) -> None:
    """Those that the cluster counts; whether there is such a device does not matter."""
    extra = nodes.add_node(num_cpus=2, num_gpus=2)
    nodes.wait_for_nodes()
    try:
        jobs = made(tmp_path, ["gpu"] * 12)
        records = run_jobs(jobs, plan(tmp_path, replace(cluster, workers=None, gpus=1.0), LIMITS))
        assert {record.reason for record in records} <= {"0", "1"}
    finally:
        nodes.remove_node(extra)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_complete_journal(tmp_path: Path, nodes: Any, how: signal.Signals) -> None:
    script = tmp_path / "main.py"
    execute = f"RayCluster({nodes.address!r}, workers=2)"
    text = runner_tests.INTERRUPTED.format(out=str(tmp_path)).replace("run_with(", "replace(run_with(")
    text = text.replace(")))", f")), execute={execute}))")
    script.write_text(f"from dataclasses import replace\nfrom toolkit.bench.ray_cluster import RayCluster\n{text}")
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True, env=dict(os.environ))
    path = tmp_path / journal.NAME
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 500) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    assert process.wait(30) == 130
    assert all(json.loads(line)["verdict"] == "unsat" for line in path.read_text().splitlines())


def test_ray_that_is_not_installed_is_told(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _name: None)
    assert run(["bench", str(folder), "--executor", "ray", "--out", str(tmp_path / "out")]) == 2
    assert "ray is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["ray_address", "ray_cpus", "ray_gpus"])
def test_options_of_ray_are_for_ray_alone(name: str) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: only with --executor ray"):
        Options(**{name: 1}).check()  # type: ignore[arg-type]
