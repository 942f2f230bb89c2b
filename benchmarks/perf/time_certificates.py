"""What certificates cost, and how many answers have one: searches without and with them, then the checker.

    python benchmarks/perf/time_certificates.py OUT.json SECONDS EVERY FOLDER [FOLDER ...]

Of each folder with an ``instances.csv``, every EVERY-th instance is decided without a certificate, in one process and
so many SECONDS at most, then with one, which is checked. ``without`` and ``with`` have the verdict, the seconds and the
domains; the specification is read in both. Seconds are the processor's, those of the limit and of the shares of a
search as well: other programs hardly change what is decided, or how long that takes. The first row has the imports, in
``without``. A row is written as soon as it is known; the file has no row of what is ``sat``.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host import machine, taken

from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.formats.vnnlib.read import read_query
from toolkit.proof.check import check
from toolkit.proof.network import UnreadableError
from toolkit.result import Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent, verify


def main() -> None:
    """Measure the instances and write one JSON object."""
    time.perf_counter = time.process_time  # the clock that limits of queries count by
    out, seconds, every, *folders = sys.argv[1:]
    names = " ".join(Path(folder).name for folder in folders)
    command = f"python benchmarks/perf/time_certificates.py OUT.json {seconds} {every} {names}"
    report: dict[str, Any] = {**taken(command), "machine": machine(), "instances": []}
    for folder in map(Path, folders):
        with (folder / "instances.csv").open() as file:
            rows = list(csv.reader(file))[:: int(every)]
        for network, specification, *_ in rows:
            if row := measured(folder / network, folder / specification, float(seconds)):
                report["instances"].append({"folder": folder.name, **row})
                print(json.dumps(report["instances"][-1]), flush=True)
                Path(out).write_text(json.dumps(report, indent=1) + "\n")


def measured(network: Path, specification: Path, limit: float) -> dict[str, Any] | None:
    """One instance; None where it has a witness."""
    paths, settings = {"": network}, Settings(timeout=limit, device="cpu", processes=1)
    plain, without = timed(
        lambda: verify(load_networks(paths), read_query(specification), settings, silent, Clock.started(limit))
    )
    if plain.verdict is Verdict.SAT:
        return None
    found: dict[str, Any] = {"network": network.name, "specification": specification.name,
                             "without": [plain.verdict.value, without, plain.statistics.domains]}  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        certificate = Path(name) / "certificate"
        files = ProofFiles(paths, specification, certificate)
        result, seconds = timed(
            lambda: verify_with_certificate(files, load_networks(paths), settings, silent, Clock.started(limit))
        )
        found["with"] = [result.verdict.value, seconds, result.statistics.domains]
        if result.verdict is Verdict.UNSAT and certificate.exists():
            try:
                outcome, found["checking"] = timed(lambda: check(network, specification, certificate))
                found |= {"status": outcome.status, "message": outcome.message, "bytes": certificate.stat().st_size}
            except UnreadableError as error:
                found |= {"status": "unreadable", "message": str(error)}
    return found | ({"said": result.reason} if result.reason else {})


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, round(time.perf_counter() - began, 3)


if __name__ == "__main__":
    main()
