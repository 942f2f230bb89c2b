"""Random cases without end: ``python tests/fuzz/fuzz.py`` (or ``make fuzz``) until it is interrupted.

Prints findings as they come, figures every ten seconds, and all figures at the end as one line of JSON. Ends with 1
where something went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

for name, value in (("OMP_WAIT_POLICY", "passive"), ("OMP_NUM_THREADS", "1")):
    os.environ.setdefault(name, value)  # before torch starts

from corpus import FOLDER, write_finding  # noqa: E402
from fuzz_campaign import Figures, Plan, load_kinds, run_here, run_in_processes  # noqa: E402
from kinds import KINDS, Finding  # noqa: E402

EVERY = 10.0
"""Seconds between two lines of figures."""


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description="Random cases of all kinds against the truth.")
    parser.add_argument("--kind", action="append", default=[], help="a kind to run; repeat it; all by default")
    parser.add_argument("--seed", type=int, default=None, help="seed of the cases; the time by default")
    parser.add_argument("--minutes", type=float, default=None, help="end after so many minutes")
    parser.add_argument("--cases", type=int, default=None, help="end after so many cases")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1)), help="processes")
    parser.add_argument("--shrinking", type=float, default=20.0, help="seconds to make a finding smaller")
    parser.add_argument("--corpus", type=Path, default=FOLDER, help="where findings are kept")
    parser.add_argument("--figures", type=Path, default=None, help="file that a line of figures is added to")
    parser.add_argument("--list", action="store_true", help="list the kinds")
    parser.add_argument("--seconds", type=float, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run what is asked for."""
    asked = arguments()
    seconds = asked.seconds if asked.minutes is None else 60 * asked.minutes
    seed = int(time.time()) if asked.seed is None else asked.seed
    plan = Plan(seed, tuple(asked.kind), asked.cases, seconds, asked.jobs, asked.shrinking)
    if asked.worker is not None:
        return work(plan, asked.worker)
    load_kinds()
    if asked.list or not set(asked.kind) <= set(KINDS):
        print("\n".join(f"{name:20} {KINDS[name].about}" for name in sorted(KINDS)))
        return 0 if asked.list else 2
    return lead(plan, asked)


def work(plan: Plan, share: str) -> int:
    """The part of one process: its lines of JSON go to the standard output, and nothing else does."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    load_kinds()
    first, step = map(int, share.split(":"))

    def tell(record: dict[str, Any]) -> None:
        out.write(json.dumps(record) + "\n")

    run_here(plan, tell, first, step)
    return 0


def lead(plan: Plan, asked: argparse.Namespace) -> int:
    """Start the processes and say what they come to."""
    figures, shown = Figures(), time.perf_counter()
    print(f"seed {plan.seed}; interrupt to end", flush=True)

    def told(finding: Finding) -> None:
        path = write_finding(asked.corpus, finding) if finding.choices else "no file"
        print(f"{finding.sort.upper()} {finding.kind}: {finding.label}\n  {finding.detail}\n  {path}", flush=True)

    def ticked() -> None:
        nonlocal shown
        if time.perf_counter() - shown > EVERY:
            shown = time.perf_counter()
            record = figures.record()
            print(f"{record['cases']} cases, {record['cases_a_minute']} a minute, {len(figures.findings)} findings",
                  flush=True)  # fmt: skip

    with suppress(KeyboardInterrupt):
        run_in_processes(plan, figures, told, ticked)
    line = json.dumps({"seed": plan.seed, "jobs": plan.jobs, **figures.record()})
    if asked.figures is not None:
        with asked.figures.open("a") as file:
            file.write(line + "\n")
    print(line)
    return 1 if figures.findings else 0


if __name__ == "__main__":
    sys.exit(main())
