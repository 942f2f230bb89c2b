"""Decided instances a second over folders: instances of one network together, and one after the other.

    python benchmarks/perf/time_batched_queries.py OUT.json LIMIT FOLDER...

Answers the first LIMIT instances of each folder in this process, in three ways that take turns; of each way the fastest
round counts. What is loaded of a network is forgotten before each.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from run import machine

from toolkit.bench.executors import ExecutorLimits, in_process
from toolkit.bench.folder import find_benchmarks, make_jobs
from toolkit.bench.job import Answer, Finished, InstanceJob, WorkerTask
from toolkit.bench.scoring import DECIDED
from toolkit.bench.verify_job import VERIFY, load
from toolkit.result import Verdict
from toolkit.settings import Settings

ROUNDS = 2
TIMEOUT = 20.0
EASY = 2.0
"""Seconds within which the instances that count are decided on their own: hard ones take the same time in all ways."""


Found = dict[tuple[str, str], tuple[Verdict, str]]
"""Verdict and deciding phase by network and specification."""


def forgetful(job: InstanceJob) -> Answer:
    """The answer, with only the network's file and module kept from the job before."""
    for network in load(job.networks).values():
        network.sessions.clear()
        network.binding.programs.clear()
    return VERIFY.answer(job)


WAYS = {
    "nothing_shared": WorkerTask(VERIFY.prepare, forgetful),
    "program_shared": replace(VERIFY, survey=None),
    "together": VERIFY,
}
"""The file and the module of a network alone kept between jobs, the compiled program and the session too, and root
bounds of many jobs at once."""


def answers(jobs: Sequence[InstanceJob], task: WorkerTask) -> tuple[float, Found]:
    """Seconds of all, and each job's verdict with the phase that decided."""
    load.cache_clear()
    start = time.perf_counter()
    events = [event for event in in_process(jobs, task, ExecutorLimits()) if isinstance(event, Finished)]
    taken = time.perf_counter() - start
    return taken, {(e.job.onnx, e.job.vnnlib): (e.answer.verdict, e.answer.statistics.decided_by) for e in events}


def decided(found: Found) -> int:
    """How many are proved or refuted."""
    return sum(verdict in DECIDED for verdict, _ in found.values())


def measure(folder: Path, limit: int) -> dict[str, Any]:
    """All ways on the instances of one folder."""
    (benchmark,) = find_benchmarks(folder)
    short = make_jobs(benchmark, Settings(device="cpu"), EASY, limit)
    _, first = answers(short, WAYS["nothing_shared"])
    jobs = make_jobs(benchmark, Settings(device="cpu"), TIMEOUT, limit)
    jobs = [job for job in jobs if first[job.onnx, job.vnnlib][0] in DECIDED]
    rounds: dict[str, list[Any]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            rounds[name].append(answers(jobs, way))
    report: dict[str, Any] = {
        "folder": folder.name,
        "instances": len(short),
        "easy": len(jobs),
        "networks": len({j.networks for j in jobs}),
    }
    for name, runs in rounds.items():
        taken, found = min(runs, key=lambda run: run[0])
        report[name] = {
            "seconds": round(taken, 3),
            "decided": decided(found),
            "decided_per_second": round(decided(found) / taken, 3),
            "by": Counter(by or str(verdict) for verdict, by in found.values()),
        }
    rate = {name: report[name]["decided_per_second"] for name in WAYS}
    report["speed_up"] = round(rate["together"] / rate["nothing_shared"], 2)
    return report


def main() -> None:
    """Measure each folder and write everything down."""
    out, limit, *folders = sys.argv[1:]
    VERIFY.prepare()
    names = " ".join(Path(folder).name for folder in folders)
    report = {
        "machine": machine()
        | {"command": f"python benchmarks/perf/time_batched_queries.py {Path(out).name} {limit} {names}"},
        "timeout": TIMEOUT,
        "easy_within": EASY,
        "folders": [measure(Path(folder), int(limit)) for folder in folders],
    }
    text = json.dumps(report, indent=2)
    print(text)
    Path(out).write_text(text + "\n")


if __name__ == "__main__":
    main()
