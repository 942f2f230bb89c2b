"""How fast specifications are read, compiled and written: prints one JSON object of seconds and sizes.

Usage: ``python benchmarks/perf/formats.py [FILE.vnnlib ...]``. Without files it makes its own: an image of 3,072
inputs with ten classes, and many boxes of 308 inputs in one disjunction, as learned-index benchmarks have them.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.formats.vnnlib.convert_versions import upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query
from toolkit.formats.vnnlib.specs import linf_box, robustness
from toolkit.formats.vnnlib.write import write_query
from toolkit.problem.cases import compile_cases


def timed(action: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """The shortest of several processor times, and the last result."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        result = action()
        times.append(time.process_time() - start)
    return min(times), result


def many_boxes(disjuncts: int, inputs: int) -> Iterator[str]:
    """A 1.0 file with a box of its own, and one output bound, in every disjunct."""
    rng = np.random.default_rng(0)
    yield from (f"(declare-const X_{i} Real)" for i in range(inputs))
    yield "(declare-const Y_0 Real)"
    yield "(assert (or"
    for values in rng.integers(0, 2, size=(disjuncts, inputs)):
        bounds = " ".join(f"(>= X_{i} {v}.0) (<= X_{i} {v}.0)" for i, v in enumerate(values))
        yield f"(and {bounds} (<= Y_0 -1e-5))"
    yield "))"


def image() -> Query:
    """L-infinity robustness of one CIFAR-sized image."""
    return robustness(linf_box(np.random.default_rng(0).random(3072), 2 / 255), 3, 10)


def measure(path: Path, repeat: int) -> dict[str, float]:
    """Seconds to read and to compile one file, its size, and the most memory that was in use so far."""
    read, query = timed(lambda: read_query(path), repeat)
    compiled, cases = timed(lambda: compile_cases(query), repeat)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sizes = {"atoms": len(query.atoms), "cases": len(cases), "regions": len(cases.lower)}
    return {"megabytes": path.stat().st_size / 1e6, "read": read, "compile": compiled, "peak_mebibytes": peak, **sizes}


def own_files(folder: Path, disjuncts: int) -> Iterator[tuple[Path, int]]:
    """The generated files, each with the number of repetitions."""
    query = image()
    write_query(query, folder / "image-1.0.vnnlib")
    write_query(upgrade(query, [(1, 3, 32, 32)], [(1, 10)]), folder / "image-2.0.vnnlib")
    (folder / "boxes.vnnlib").write_text("\n".join(many_boxes(disjuncts, 308)))
    yield from ((folder / "image-1.0.vnnlib", 5), (folder / "image-2.0.vnnlib", 5), (folder / "boxes.vnnlib", 1))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--disjuncts", type=int, default=9000, help="boxes in the large file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [(path, 3) for path in options.files] or list(own_files(Path(folder), options.disjuncts))
        report = {path.name: measure(path, repeat) for path, repeat in files}
        report["write image-1.0"] = {"seconds": timed(lambda: write_query(image(), Path(folder) / "w.vnnlib"), 3)[0]}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
