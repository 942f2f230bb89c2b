"""Whole processes of two checkouts in turn, on instances of VNN-COMP drawn among those with a published verdict.

    VNNCOMP_DIR=... python benchmarks/perf/pairs.py OTHER_CHECKOUT OUT.json [--seed 0] [--each 2] [--timeout 60]

Draws so many instances of each family, decides each with ``prunecert verify`` of the other checkout and of this one,
one after the other, and writes down verdicts and seconds, contradictions and PAR-2: an instance that
is not decided counts for twice its limit. Only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from host import machine, taken

ROOT = Path(__file__).resolve().parents[2]
DECIDED = ("sat", "unsat")


def drawn(folder: Path, each: int, seed: int) -> list[tuple[str, str, str, str]]:
    """Family, network, specification and published verdict of some instances whose files are there."""
    generator, found = random.Random(seed), []
    for family in sorted(path for path in folder.iterdir() if (path / "expected.csv").is_file()):
        with (family / "expected.csv").open(newline="") as file:
            rows = [row for row in csv.reader(file) if len(row) > 3 and row[3] in DECIDED]
        there = [row for row in rows if (family / row[0]).is_file() and (family / row[1]).is_file()]
        found += [(family.name, *row[:2], row[3]) for row in generator.sample(there, min(each, len(there)))]
    return found


def answer(checkout: Path, family: Path, network: str, spec: str, timeout: float) -> dict[str, Any]:
    """First line, seconds and errors of one whole process."""
    command = [sys.executable, "-m", "toolkit.cli", "verify", spec, "--network", network, "--timeout", str(timeout)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_WAIT_POLICY": "passive"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=family, env=environment, check=False)
    seconds = round(time.perf_counter() - start, 1)
    said = next(iter(done.stdout.splitlines()), f"exit {done.returncode}")
    return {"verdict": said, "seconds": seconds, "error": " ".join(done.stderr.split())[-120:]}


def summary(rows: list[dict[str, Any]], side: str, timeout: float) -> dict[str, Any]:
    """Decided instances, contradictions and PAR-2 in seconds of one of the checkouts."""
    decided = [row for row in rows if row[side]["verdict"] in DECIDED]
    return {
        "instances": len(rows),
        "decided": len(decided),
        "contradictions": [row["spec"] for row in decided if row[side]["verdict"] != row["published"]],
        "par2": round(sum(row[side]["seconds"] for row in decided) + 2 * timeout * (len(rows) - len(decided)), 1),
    }


def main() -> None:
    """Measure and write down, after each instance what there is by then."""
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60.0)
    options = parser.parse_args()
    folder, rows = Path(os.environ["VNNCOMP_DIR"]), list[dict[str, Any]]()
    for family, network, spec, published in drawn(folder, options.each, options.seed):
        row: dict[str, Any] = {"family": family, "network": network, "spec": spec, "published": published}
        for side, checkout in (("before", options.other.resolve()), ("after", ROOT)):
            row[side] = answer(checkout, folder / family, network, spec, options.timeout)
        rows.append(row)
        print(family, spec, row["before"]["verdict"], row["before"]["seconds"], row["after"], flush=True)
        report = {
            "machine": {**taken("python benchmarks/perf/pairs.py OTHER OUT " + " ".join(sys.argv[3:])), **machine()},
            "before": summary(rows, "before", options.timeout),
            "after": summary(rows, "after", options.timeout),
            "instances": rows,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
