"""How long threads should spin while they wait for each other: whole queries, alone and beside busy processes.

    python benchmarks/perf/time_spinning.py OUT.json REPEATS NETWORK SPECIFICATION [NETWORK SPECIFICATION ...]

Each query is decided by ``prunecert verify`` with each of the `SPINS` as ``GOMP_SPINCOUNT``, in turns, first while
nothing else is run by this script, then beside one busy loop for each core. A row has the verdict, the seconds on the
clock and those of the processor.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from host import machine, taken

SPINS = (0, 1_000, 10_000, 50_000, 300_000)
"""Loops of a waiting thread before it sleeps; libgomp's own default is the last."""
LIMIT = 60.0


def main() -> None:
    """Measure the queries and write one JSON object."""
    out, repeats, *files = sys.argv[1:]
    queries = list(zip(files[::2], files[1::2], strict=True))
    names = " ".join(Path(file).name for file in files)
    report: dict[str, Any] = {
        **taken(f"python benchmarks/perf/time_spinning.py OUT.json {repeats} {names}"),
        "machine": machine(),
        "rows": [],
    }
    for beside in (0, os.cpu_count() or 1):
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
        try:
            for query in queries * int(repeats):
                for spins in SPINS:
                    report["rows"].append({"busy loops": beside, "spins": spins, **measured(*query, spins)})
                    print(json.dumps(report["rows"][-1]), flush=True)
                    Path(out).write_text(json.dumps(report, indent=1) + "\n")
        finally:
            for loop in loops:
                loop.kill()


def measured(network: str, specification: str, spins: int) -> dict[str, Any]:
    """One answer with its seconds."""
    command = [sys.executable, "-P", "-m", "toolkit.cli", "verify", network, specification, "--timeout", str(LIMIT)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    answer = subprocess.run(
        command, env=os.environ | {"GOMP_SPINCOUNT": str(spins)}, capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "specification": Path(specification).name,
        "verdict": answer.stdout.split()[-1] if answer.stdout.split() else f"exit code {answer.returncode}",
        "seconds": round(seconds, 2),
        "processor": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
    }


if __name__ == "__main__":
    main()
