"""Surveys of several jobs: whatever goes wrong in one, every job is answered, on its own if need be."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_networks import NetworkBuilder, save
from silent_observer import SilentObserver

from toolkit.bench import journal
from toolkit.bench.executor_table import find_executor
from toolkit.bench.executors import ExecutorLimits, conclude
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Answer, Finished, InstanceJob, Started, WorkerTask, survey_limit
from toolkit.bench.job_queue import put_back, queue, take
from toolkit.bench.runner import RunPlan, run_jobs
from toolkit.bench.verify_job import VERIFY
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.result import Statistics, Verdict
from toolkit.settings import Settings
from toolkit.tuning import tuned

LIMITS = ExecutorLimits(workers=2, grace=0.3, startup=60)
EXECUTORS = ["in-process", "processes"]


def make_job(number: int, spec: str = "ok", timeout: float = 20.0, network: str = "a.onnx") -> InstanceJob:
    settings = Settings(timeout=timeout)
    name = f"{spec}_{number}.vnnlib"
    return InstanceJob(f"{number}-{spec}", "toy", network, name, (("", Path(network)),), Path(name), settings)


def what(job: InstanceJob) -> str:
    return job.spec.name.split("_")[0]


def ready() -> None:
    pass


def alone(job: InstanceJob) -> Answer:
    """Unknown, with how much of its time a job had lost."""
    return Answer(Verdict.UNKNOWN, f"{job.spent:.6f}", statistics=Statistics(decided_by="alone"))


def survey(jobs: Sequence[InstanceJob]) -> list[Answer | None]:
    """Answer the jobs that are called easy, unless another does something first."""
    for job in jobs:
        match what(job):
            case "hang":
                time.sleep(60)
            case "slow":
                time.sleep(0.4)
            case "die":
                os._exit(3)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise RuntimeError("no survey")
            case "short":
                return [Answer(Verdict.UNSAT)]
    easy = Answer(Verdict.UNSAT, statistics=Statistics(decided_by="survey"))
    return [easy if what(job) == "easy" else None for job in jobs]


TASK = WorkerTask(ready, alone, survey)


def events_of(
    jobs: Sequence[InstanceJob], executor: str, task: WorkerTask = TASK, limits: ExecutorLimits = LIMITS
) -> list:
    return list(find_executor(executor)(jobs, task, limits))


def answers_of(
    jobs: Sequence[InstanceJob], executor: str, task: WorkerTask = TASK, limits: ExecutorLimits = LIMITS
) -> dict[str, Answer]:
    events = events_of(jobs, executor, task, limits)
    return {event.job.key: event.answer for event in events if isinstance(event, Finished)}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_survey_answers_some_and_the_others_follow(executor: str) -> None:
    jobs = [make_job(n, "easy" if n % 3 else "other") for n in range(9)]
    events = events_of(jobs, executor)
    for job in jobs:
        assert [type(event) for event in events if event.job == job] == [Started, Finished]
    answers = {event.job.key: event.answer for event in events if isinstance(event, Finished)}
    assert {job.key: answers[job.key].statistics.decided_by for job in jobs} == {
        job.key: "survey" if what(job) == "easy" else "alone" for job in jobs
    }


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_time_of_a_survey_is_divided_among_its_jobs(executor: str) -> None:
    jobs = [make_job(0, "slow"), make_job(1, "easy"), make_job(2, "other"), make_job(3, "easy")]
    answers = answers_of(jobs, executor, limits=replace(LIMITS, workers=1))
    shares = [answers["1-easy"].seconds, answers["3-easy"].seconds]
    assert shares[0] == shares[1]
    assert 0.1 <= shares[0] < 0.3
    # What is answered alone has lost its share, and pays for it.
    assert float(answers["2-other"].reason) == pytest.approx(shares[0], abs=1e-5)
    assert answers["2-other"].seconds >= shares[0]


@pytest.mark.parametrize("how", ["hang", "die", "killed", "raise", "short"])
def test_a_survey_that_fails_leaves_every_job_to_be_answered_alone(how: str) -> None:
    jobs = [make_job(0, "easy", 1.0), make_job(1, how, 1.0), make_job(2, "easy", 1.0), make_job(3, "other", 1.0)]
    answers = answers_of(jobs, "processes", limits=replace(LIMITS, workers=1))
    assert {answer.statistics.decided_by for answer in answers.values()} == {"alone"}
    assert len(answers) == len(jobs)
    assert all(float(answer.reason) <= tuned().bench.survey_cost_share * 1.0 + 1e-6 for answer in answers.values())


def test_a_crash_in_one_survey_does_not_touch_other_networks() -> None:
    jobs = [make_job(n, "easy", network="b.onnx") for n in range(4)]
    jobs += [make_job(4, "die"), make_job(5, "easy"), make_job(6, "easy")]
    answers = answers_of(jobs, "processes")
    by = {job.key: answers[job.key].statistics.decided_by for job in jobs}
    assert [by[job.key] for job in jobs[:4]] == ["survey"] * 4
    assert len(answers) == len(jobs)


def test_an_answer_later_than_the_limit_of_a_job_does_not_count() -> None:
    jobs = [make_job(0, "easy", timeout=1.0), make_job(1, "easy", timeout=9.0)]
    for seconds, expected in ((0.9, 2), (1.1, 0)):
        waiting = queue([])
        events = conclude(waiting, 0, jobs, survey(jobs), seconds)
        assert len(events) == expected
        assert bool(waiting) == (expected == 0)
    assert survey_limit(jobs) <= 0.5


def test_time_spent_counts_towards_the_limit() -> None:
    late = replace(make_job(0, "ok", timeout=1.0), spent=0.8)

    def slow(job: InstanceJob) -> Answer:
        time.sleep(0.3)
        return Answer(Verdict.UNSAT)

    (answer,) = answers_of([late], "in-process", WorkerTask(ready, slow)).values()
    assert answer.verdict == Verdict.TIMEOUT
    assert answer.seconds >= 1.1


def test_only_jobs_of_one_kind_are_surveyed_together() -> None:
    jobs = [make_job(n, network=f"{n % 2}.onnx") for n in range(6)]
    other = replace(jobs[0], key="other", settings=Settings(timeout=3.0, seed=1))
    limit = replace(jobs[0], key="limit", settings=Settings(timeout=3.0))
    waiting, taken = queue([*jobs, other, limit], together=64), []
    while found := take(waiting, 0, None):
        taken.append(sorted(job.key for job in found))
    assert sorted(taken) == [["0-ok", "2-ok", "4-ok", "limit"], ["1-ok", "3-ok", "5-ok"], ["other"]]


def test_what_a_survey_leaves_open_waits_for_its_worker_and_then_for_any() -> None:
    jobs = [make_job(n) for n in range(8)]
    waiting = queue(jobs, together=64, workers=2)
    first, second = take(waiting, 0, None), take(waiting, 1, None)
    assert [len(first), len(second)] == [4, 4]
    put_back(waiting, 0, first)
    put_back(waiting, 1, second)
    assert take(waiting, 1, None) == [second[0]]
    assert [take(waiting, 0, None) for _ in range(4)] == [[job] for job in first]
    assert take(waiting, 0, None) == [second[1]]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_run_continues_with_what_no_survey_had_answered(executor: str, tmp_path: Path) -> None:
    jobs = [make_job(n, "easy" if n < 3 else "other") for n in range(6)]

    class Impatient(SilentObserver):
        """Interrupts the run at the first answer that is not of a survey."""

        def see(self, event: object) -> None:
            if isinstance(event, Finished) and event.answer.statistics.decided_by == "alone":
                raise KeyboardInterrupt

    limits = replace(LIMITS, workers=1)
    run = RunPlan(tmp_path, TASK, find_executor(executor), limits, Impatient())
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, run)
    kept = journal.read(tmp_path / journal.NAME)
    assert [record.key for record in kept if record.verdict == Verdict.UNSAT] == [job.key for job in jobs[:3]]
    assert len(kept) == 4
    records = run_jobs(jobs, replace(run, observer=SilentObserver()))
    assert records[:3] == kept[:3]
    assert [record.key for record in records] == [job.key for job in jobs]
    assert len(journal.read(tmp_path / journal.NAME)) == len(jobs)


def write_folder(folder: Path) -> None:
    """A network of three hidden layers, with specifications of every outcome; no strategy decides the hard one soon."""
    generator, x = np.random.default_rng(0), "x"
    builder = NetworkBuilder(generator, (1, 40))
    for inputs, outputs in ((40, 120), (120, 120), (120, 120)):
        x = builder.op("Relu", builder.dense(x, inputs, outputs))
    folder.mkdir()
    path = save(builder.model(builder.dense(x, 120, 1), 1), folder).rename(folder / "net.onnx")
    session = Session(load_model(path))
    values = [float(session.run([generator.uniform(-1, 1, 40)])[0].item()) for _ in range(200)]
    least, middle = min(values), float(session.run([np.zeros(40)])[0].item())
    box = "".join(f"(declare-const X_{i} Real)" for i in range(40)) + "(declare-const Y_0 Real)"
    box += "".join(f"(assert (<= X_{i} 1.0))(assert (>= X_{i} -1.0))" for i in range(40))
    small = box.replace("1.0", "0.001")
    texts = {
        "unsat_far": box + "(assert (<= Y_0 -1000.0))",
        "unsat_near": small + f"(assert (<= Y_0 {middle - 0.5:.6f}))",
        "unsat_none": box + "(assert (>= X_0 3.0))(assert (<= Y_0 5.0))",
        "sat_low": box + f"(assert (<= Y_0 {np.mean(values):.6f}))",
        "sat_near": small + f"(assert (<= Y_0 {middle + 0.5:.6f}))",
        "hard": box + f"(assert (<= Y_0 {least - 3 * abs(least) - 1:.6f}))",
        "broken": "(assert (<= X_0",
        "other": "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))"
        "(assert (<= Y_0 0))",
    }
    for name, text in texts.items():
        (folder / f"{name}.vnnlib").write_text(text)
    rows = [f"net.onnx,{name}.vnnlib,{3 if name == 'hard' else 30}" for name in [*texts, "missing"]]
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_verdicts_are_the_same_with_and_without_surveys(executor: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "mixed")
    (benchmark,) = find_benchmarks(tmp_path / "mixed")
    jobs = make_jobs(benchmark, Settings(device="cpu"))
    limits = replace(LIMITS, workers=1, grace=5.0)
    together = answers_of(jobs, executor, VERIFY, limits)
    one_by_one = answers_of(jobs, executor, replace(VERIFY, survey=None), limits)
    verdicts = {job.vnnlib.split(".")[0]: str(together[job.key].verdict) for job in jobs}
    assert verdicts == {job.vnnlib.split(".")[0]: str(one_by_one[job.key].verdict) for job in jobs}
    assert {name: verdict for name, verdict in verdicts.items() if name != "hard"} == {
        "unsat_far": "unsat", "unsat_near": "unsat", "unsat_none": "unsat", "sat_low": "sat", "sat_near": "sat",
        "broken": "error", "other": "error", "missing": "error",
    }  # fmt: skip
    assert verdicts["hard"] == "timeout"
    for job in jobs:
        theirs = one_by_one[job.key]
        assert (together[job.key].witness is None) == (theirs.witness is None)
        if theirs.verdict == Verdict.ERROR:
            assert together[job.key].reason == theirs.reason
    hard = next(job for job in jobs if job.vnnlib.startswith("hard"))
    assert together[hard.key].seconds < 3 + limits.grace
    proved = [together[job.key] for job in jobs if job.vnnlib in ("unsat_far.vnnlib", "unsat_near.vnnlib")]
    assert {answer.statistics.decided_by for answer in proved} == {"crown"}
    assert proved[0].seconds == proved[1].seconds  # equal parts of one survey
