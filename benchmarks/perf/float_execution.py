"""How many answers `unsat` are left with ``--float-execution``, of those that the checker accepts without it.

    python benchmarks/perf/float_execution.py OUT.json PASSES EVERY FOLDER [FOLDER ...]

Of each folder with an ``instances.csv``, every EVERY-th instance is decided with a certificate that is checked, with at
most so many bounding passes, which do not depend on how busy the machine is; where that is ``unsat``, it is again, with
the room for float execution. ``room`` is the largest of an atom. A row is written as soon as it is known.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from host import machine, taken

from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import compile_cases
from toolkit.proof.network import UnreadableError
from toolkit.quick_proof import read_cases, with_room_in_constants
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent

LIMIT = 600.0


def main() -> None:
    """Measure the instances and write one JSON object."""
    out, passes, every, *folders = sys.argv[1:]
    names = " ".join(Path(folder).name for folder in folders)
    command = f"python benchmarks/perf/float_execution.py OUT.json {passes} {every} {names}"
    report: dict[str, Any] = {**taken(command), "machine": machine(), "instances": []}
    for folder in map(Path, folders):
        with (folder / "instances.csv").open() as file:
            rows = list(csv.reader(file))[:: int(every)]
        for network, specification, *_ in rows:
            row = measured(folder / network, folder / specification, int(passes))
            report["instances"].append({"folder": folder.name, **row})
            print(json.dumps(report["instances"][-1]), flush=True)
            Path(out).write_text(json.dumps(report, indent=1) + "\n")


def measured(network: Path, specification: Path, passes: int) -> dict[str, Any]:
    """One instance."""
    plain = decided(network, specification, passes, False)
    found: dict[str, Any] = {"network": network.name, "specification": specification.name, "plain": plain.verdict.value}
    if plain.verdict is not Verdict.UNSAT:
        return found
    began = time.process_time()
    floats = decided(network, specification, passes, True)
    found |= {"floats": floats.verdict.value, "cpu_seconds": round(time.process_time() - began, 2)}
    found["domains"] = [plain.statistics.domains, floats.statistics.domains]
    try:
        query = read_query(specification)
        read, boxed = read_cases(query, compile_cases(query), load_model(network))
        room = boxed.constant - with_room_in_constants(read, boxed, Clock.started(LIMIT)).constant
        found["room"] = float(np.max(room))
    except UnreadableError as error:
        found["room"] = str(error)
    return found | ({} if floats.verdict is Verdict.UNSAT else {"said": floats.reason[:200]})


def decided(network: Path, specification: Path, passes: int, floats: bool) -> Result:
    """The answer with a certificate that is accepted."""
    settings = Settings(timeout=LIMIT, passes=passes, device="cpu", processes=1, certified=True, float_execution=floats)
    with tempfile.TemporaryDirectory() as name:
        files = ProofFiles({"": network}, specification, Path(name) / "certificate")
        clock = Clock.started(LIMIT, passes=passes)
        return verify_with_certificate(files, load_networks(files.networks), settings, silent, clock)


if __name__ == "__main__":
    main()
