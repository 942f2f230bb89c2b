"""Many cases in several processes: what they came to, and what went wrong, made smaller.

Each worker is a process of its own, which writes lines of JSON: ``case`` before a case, ``sum`` after it, and
``finding``. A worker that dies is a finding of the case that it was at, and another takes its place.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import paths  # noqa: F401 - helpers of other tests are found by it
from choices import from_seed
from kinds import KINDS, Finding, Kind, judge, kind_of
from shrink import shrunk

HERE = Path(__file__).parent
MODULES = sorted(path.stem for path in HERE.glob("kind_*.py"))
"""Modules that register kinds when they are imported."""


@dataclass(frozen=True)
class Plan:
    """What a campaign runs."""

    seed: int = 0
    kinds: tuple[str, ...] = ()
    """Names of kinds; all where there are none."""
    cases: int | None = None
    seconds: float | None = None
    jobs: int = 1
    shrinking: float = 20.0
    """Seconds for making one finding smaller."""


@dataclass
class Figures:
    """What a campaign came to."""

    started: float = field(default_factory=time.perf_counter)
    cases: Counter[str] = field(default_factory=Counter)
    """Cases of each kind."""
    judged: Counter[str] = field(default_factory=Counter)
    """Judgements of each kind."""
    spent: Counter[str] = field(default_factory=Counter)
    """Seconds of each kind, of all workers."""
    again: Counter[str] = field(default_factory=Counter)
    """Cases that went wrong in each way."""
    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    """The first case of each fault, made smaller."""

    def record(self) -> dict[str, Any]:
        """The figures as one record of JSON."""
        seconds = time.perf_counter() - self.started
        total = sum(self.cases.values())
        return {
            "seconds": round(seconds, 1),
            "cases": total,
            "cases_a_minute": round(60 * total / max(seconds, 1e-9)),
            "judgements": sum(self.judged.values()),
            "kinds": {
                name: {
                    "cases": self.cases[name],
                    "judgements": self.judged[name],
                    "milliseconds_a_case": round(1e3 * self.spent[name] / max(1, self.cases[name]), 1),
                }
                for name in sorted(self.cases)
            },
            "findings": [
                {"kind": f.kind, "sort": f.sort, "label": f.label, "cases": self.again["/".join(f.key)]}
                for f in self.findings.values()
            ],
        }


def load_kinds() -> None:
    """Fill the table of kinds."""
    for module in MODULES:
        importlib.import_module(module)


def run_here(plan: Plan, tell: Callable[[dict[str, Any]], None], first: int = 0, step: int = 1) -> None:
    """Run every ``step``-th case from the ``first`` on, telling of each batch and finding as it comes."""
    seen: set[tuple[str, str, str]] = set()
    end = None if plan.seconds is None else time.perf_counter() + plan.seconds
    number = first
    while (plan.cases is None or number < plan.cases) and (end is None or time.perf_counter() < end):
        chosen = kind_of(number, list(plan.kinds) or None)
        tell({"case": number})
        began = time.perf_counter()
        judged, finding = judge(chosen, from_seed(plan.seed, number))
        spent = time.perf_counter() - began
        tell({"sum": chosen.name, "judged": judged, "seconds": spent})
        if finding is not None:
            if finding.key not in seen:
                seen.add(finding.key)
                finding = _smallest(chosen, finding, plan.shrinking)
            tell({"finding": asdict(finding)})
        number += step


def _smallest(chosen: Kind, finding: Finding, seconds: float) -> Finding:
    return finding if finding.sort == "hang" else shrunk(chosen, finding, seconds)


def run_in_processes(
    plan: Plan, figures: Figures, told: Callable[[Finding], None], ticked: Callable[[], None] = lambda: None
) -> None:
    """Run a campaign in so many processes until it ends by itself, or is interrupted; ``ticked`` is called often."""
    lines: queue.Queue[tuple[int, str | None]] = queue.Queue()
    at = dict.fromkeys(range(plan.jobs), 0)
    workers = {job: _start(plan, job, job, lines) for job in at}
    try:
        while workers:
            job, line = lines.get()
            ticked()
            if line is not None:
                _take(figures, json.loads(line), at, job, told)
                continue
            code = workers.pop(job).wait()
            if code:
                _lost(plan, figures, at[job], code, told)
                workers[job] = _start(plan, job, at[job] + plan.jobs, lines)
    finally:
        for worker in workers.values():
            worker.terminate()


def _start(plan: Plan, job: int, first: int, lines: queue.Queue[tuple[int, str | None]]) -> subprocess.Popen[str]:
    """A worker for every ``jobs``-th case from the first on; its lines go into the queue, None when it ends."""
    limits = [f"--{name}={value}" for name, value in (("cases", plan.cases), ("seconds", plan.seconds)) if value]
    command = [sys.executable, str(HERE / "fuzz.py"), f"--worker={first}:{plan.jobs}", f"--seed={plan.seed}", *limits]
    command += [f"--shrinking={plan.shrinking}", *(f"--kind={name}" for name in plan.kinds)]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    worker = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}, start_new_session=True
    )

    def read() -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.put((job, line))
        lines.put((job, None))

    threading.Thread(target=read, daemon=True).start()
    return worker


def _take(
    figures: Figures, record: dict[str, Any], at: dict[int, int], job: int, told: Callable[[Finding], None]
) -> None:
    if "case" in record:
        at[job] = record["case"]
    elif "sum" in record:
        figures.cases[record["sum"]] += 1
        figures.judged[record["sum"]] += record["judged"]
        figures.spent[record["sum"]] += record["seconds"]
    else:
        add_finding(figures, Finding(**{**record["finding"], "choices": tuple(record["finding"]["choices"])}), told)


def add_finding(figures: Figures, finding: Finding, told: Callable[[Finding], None]) -> None:
    """Count a finding; the first of its fault is told of."""
    figures.again["/".join(finding.key)] += 1
    if finding.key not in figures.findings:
        figures.findings[finding.key] = finding
        told(finding)


def _lost(plan: Plan, figures: Figures, number: int, code: int, told: Callable[[Finding], None]) -> None:
    chosen = kind_of(number, list(plan.kinds) or None)
    detail = f"case {number} of seed {plan.seed} ended its process with {code}"
    add_finding(figures, Finding(chosen.name, "crash", f"process ended with {code}", detail, ()), told)


def all_kinds() -> list[str]:
    """Names of all kinds."""
    load_kinds()
    return sorted(KINDS)
