"""Files and functions that one query enters, and how deep bounds are optimised below the proof.

    python benchmarks/perf/house_query.py

Decides a query about a small network of random weights, of the size of those for scikit-learn's digits, and prints one
JSON object. A process of its own, as the proof without torch is only tried where torch was not imported before.

What counts is a ``def`` of the package that runs on behalf of the query: methods and properties count, one each,
however often they run. What runs inside another function's text belongs to that one: lambdas, comprehensions and nested
functions. What runs while a module is imported does not count: bodies of modules and classes, decorators that fill
tables, and what these call; nor does what has no text here, as the methods that dataclasses are given.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections import Counter
from inspect import CO_OPTIMIZED
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolkit.formats.vnnlib.read import parse_query
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "toolkit"
OUTER, INNER = "toolkit.search.strategy.prove", "toolkit.bounds.dual_ascent.optimise"
"""Functions between which frames are counted."""
SIZES = (64, 40, 40, 10)
"""Inputs, neurons of the hidden layers, and outputs."""
LABEL, LEAD = 1, 1.0
"""Output that is the largest at the image, and a bias that it is given."""
RADIUS = 0.075
"""Half the side of the input box, for pixels from 0 to 1."""


class EntryRecorder:
    """A profiler that keeps which functions below a folder are entered, and how deep one runs below another."""

    def __init__(self, folder: Path, outer: str, inner: str) -> None:
        """Record functions of files below ``folder``, and the first call of ``inner`` below ``outer``, by their dotted
        names from the folder's own name on."""
        self.folder, self.outer, self.inner = folder, outer, inner
        self.entered: dict[int, CodeType] = {}
        """Code by identity, as what is alike in two files is equal."""
        self.depth: int | None = None
        """Frames from the outer function, not counted, to the inner one."""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Take note of a call; the signature is that of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or id(code) in self.entered or not code.co_filename.startswith(f"{self.folder}/"):
            return
        if code.co_name.startswith("<") or not code.co_flags & CO_OPTIMIZED:
            return  # bodies of modules and classes run by imports; lambdas belong to the function around them
        if self.importing(frame):
            return
        self.entered[id(code)] = code
        if self.depth is None and self.name(code) == self.inner:
            self.depth = self.below(frame)

    def importing(self, frame: FrameType) -> bool:
        """Whether a call is made while a module of the folder is imported."""
        above: FrameType | None = frame
        while above is not None:
            if above.f_code.co_name == "<module>" and above.f_code.co_filename.startswith(f"{self.folder}/"):
                return True
            above = above.f_back
        return False

    def name(self, code: CodeType) -> str:
        """Dotted name of a function, from the folder's own name on; of a nested one, that of the function around it."""
        path = Path(code.co_filename).relative_to(self.folder.parent).with_suffix("")
        return ".".join([*path.parts, code.co_qualname.partition(".<locals>")[0]])

    def below(self, frame: FrameType) -> int | None:
        """Frames from the outer function to this one; none where the outer one is not running."""
        depth, above = 0, frame.f_back
        while above is not None:
            depth += 1
            if above.f_code.co_filename.startswith(f"{self.folder}/") and self.name(above.f_code) == self.outer:
                return depth
            above = above.f_back
        return None

    def report(self) -> dict[str, Any]:
        """What was entered: numbers of files and functions, those of each folder and of each file, and the depth."""
        entered = {self.name(code): Path(code.co_filename).relative_to(self.folder.parent)
                   for code in self.entered.values()}  # fmt: skip
        paths = Counter(path.as_posix() for path in entered.values())
        functions = Counter(path.parent.as_posix() for path in entered.values())
        files = Counter(Path(path).parent.as_posix() for path in paths)
        return {
            "files": len(paths),
            "functions": len(entered),
            "frames_to_optimised_bounds": self.depth,
            "folders": {folder: [files[folder], functions[folder]] for folder in sorted(files)},
            "paths": dict(sorted(paths.items())),
        }


def network(path: Path) -> Path:
    """Write a network of fully connected layers and ReLUs, with random weights from a fixed seed, as ONNX."""
    generator, nodes, constants, value = np.random.default_rng(0), [], [], "x"
    for layer, (inputs, outputs) in enumerate(pairwise(SIZES)):
        weights = generator.normal(0, np.sqrt(2 / inputs), (outputs, inputs)).astype(np.float32)
        constants += [numpy_helper.from_array(weights, f"w{layer}")]
        bias = np.zeros(outputs, np.float32)
        bias[LABEL] = LEAD if outputs == SIZES[-1] else 0
        constants += [numpy_helper.from_array(bias, f"b{layer}")]
        nodes.append(helper.make_node("Gemm", [value, f"w{layer}", f"b{layer}"], [f"a{layer}"], transB=1))
        value = f"a{layer}"
        if outputs != SIZES[-1]:
            nodes.append(helper.make_node("Relu", [value], [f"h{layer}"]))
            value = f"h{layer}"
    [x, y] = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size))
              for name, size in (("x", SIZES[0]), (value, SIZES[-1]))]  # fmt: skip
    graph = helper.make_graph(nodes, "digits", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def robustness(label: int, radius: float) -> str:
    """A query, in VNN-LIB 1, that is unsatisfiable where all images near a fixed random one get this label.

    ``radius`` is in units of pixels, each from 0 to 1.
    """
    image = np.random.default_rng(1).uniform(0, 1, SIZES[0])
    declared = [f"(declare-const X_{i} Real)" for i in range(SIZES[0])]
    declared += [f"(declare-const Y_{i} Real)" for i in range(SIZES[-1])]
    sides = [f"(assert (>= X_{i} {x - radius:.6f}))(assert (<= X_{i} {x + radius:.6f}))" for i, x in enumerate(image)]
    others = [f"(and (<= Y_{label} Y_{i}))" for i in range(SIZES[-1]) if i != label]
    return "\n".join([*declared, *sides, f"(assert (or {' '.join(others)}))"])


def recorded(recorder: EntryRecorder, path: Path, text: str) -> dict[str, Any]:
    """How a query is decided in this process alone, and what is entered on the way."""
    settings = Settings(device="cpu", timeout=300, processes=1)
    networks, query = load_networks({"": path}), parse_query(text)
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        result = verify(networks, query, settings)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    statistics = result.statistics
    how = {"verdict": str(result.verdict), "decided_by": statistics.decided_by, "domains": statistics.domains}
    return {**how, **recorder.report()}


def main() -> None:
    """Record one query and print what it entered; an error where it was not decided by branch and bound."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = EntryRecorder(FOLDER, OUTER, INNER)
        report = recorded(recorder, network(Path(folder) / "digits.onnx"), robustness(LABEL, RADIUS))
    if report["decided_by"] != "branch-and-bound" or report["frames_to_optimised_bounds"] is None:
        raise SystemExit(f"no branch and bound with optimised bounds was seen: {report}")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
