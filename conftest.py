"""The pages for people as tests: Sybil runs what stands in their blocks, one folder for each page.

Blocks of ``bash`` are run as a reader would run them, blocks of ``python`` one after the other in one program. A block
that cannot be run here has a comment ``skip: next "why"`` above it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parent
PAGES = ("README.md", "docs/*.md")
INSTANCES = 6
"""Of ``benchmarks/digits`` in a reader's folder, so that a page takes seconds."""
SECONDS = 600
"""Time limit of a block."""


def put_files(namespace: dict[str, Any]) -> None:
    """Make the folder of a page with the files that the pages speak of, and go there."""
    import numpy as np
    from torch import nn

    namespace["__name__"] = "__main__"
    namespace["before"], folder = Path.cwd(), Path(tempfile.mkdtemp())
    namespace["folder"] = folder
    for name in ("specs", "toolkit", "run_benchmark.py"):
        (folder / name).symlink_to(ROOT / name)
    digits = folder / "benchmarks" / "digits"
    digits.mkdir(parents=True)
    for name in ("onnx", "vnnlib", "expected.csv"):
        (digits / name).symlink_to(ROOT / "benchmarks" / "digits" / name)
    lines = (ROOT / "benchmarks" / "digits" / "instances.csv").read_text().splitlines()[:INSTANCES]
    (digits / "instances.csv").write_text("\n".join(lines) + "\n")
    for path in flowers().iterdir():
        shutil.copy(path, folder)
    os.chdir(folder)
    namespace |= {"image": np.full((3, 32, 32), 0.5), "module": nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))}


@cache
def flowers() -> Path:
    """A folder with a classifier of scikit-learn's irises, pruned and not, and the irises as a table and as images."""
    import numpy as np
    from sklearn.datasets import load_iris
    from torch.nn.utils import prune

    import prunecert

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    values, labels = load_iris(return_X_y=True)
    module = classifier(values, labels)
    for name in ("net.onnx", "dense.onnx"):
        prunecert.export(module, folder / name, input_shape=(4,))
    prune.remove(prune.l1_unstructured(module[0], "weight", amount=4), "weight")
    prunecert.export(module, folder / "pruned.onnx", input_shape=(4,))
    names = ("setosa", "versicolor", "virginica")
    rows = [",".join([*map(str, row), names[label]]) for row, label in zip(values, labels, strict=True)]
    (folder / "flowers.csv").write_text("\n".join(["length,width,petal_length,petal_width,species", *rows]) + "\n")
    images = (values.reshape(-1, 2, 2) * 32).astype(np.uint8)
    np.savez(folder / "images.npz", x_train=images, y_train=labels, x_test=images[::2], y_test=labels[::2])
    np.save(folder / "image.npy", values[0] / 8)
    (folder / "property.vnnlib").write_text(property_around(values[0]))
    return folder


def classifier(values: Any, labels: Any) -> nn.Sequential:
    """A small network that was trained on flowers."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(values).float()), torch.tensor(labels)).backward()
        optimizer.step()
    return module


def property_around(center: Any) -> str:
    """A specification that holds: in a small ball the first output does not become huge."""
    lines = [f"(declare-const {name}_{i} Real)" for name, count in (("X", 4), ("Y", 3)) for i in range(count)]
    for i, value in enumerate(center):
        lines += [f"(assert (>= X_{i} {value - 0.01}))", f"(assert (<= X_{i} {value + 0.01}))"]
    return "\n".join([*lines, "(assert (>= Y_0 1000.0))"]) + "\n"


def remove_files(namespace: dict[str, Any]) -> None:
    """Go back, and remove the folder of a page."""
    os.chdir(namespace["before"])
    shutil.rmtree(namespace["folder"], ignore_errors=True)


def run_commands(example: Any) -> str | None:
    """Run a block as bash does, with this Python and its commands; what went wrong, or None."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{found}" if found else str(ROOT)}
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", str(example.parsed)],
        cwd=example.namespace["folder"], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    return None if ended.returncode == 0 else f"exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}"


if find_spec("sybil"):
    from sybil import Sybil
    from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

    pytest_collect_file = Sybil(
        parsers=[CodeBlockParser("bash", run_commands), PythonCodeBlockParser(), SkipParser()],
        patterns=list(PAGES),
        setup=put_files,
        teardown=remove_files,
    ).pytest()
