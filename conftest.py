"""The pages for people as tests: Sybil runs what stands in their blocks, one folder for each page.

Blocks of ``bash`` are run as a reader would run them, blocks of ``python`` one after the other in one program. A block
that cannot be run here has a comment ``skip: next "why"`` above it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
PAGES = ("README.md", "docs/*.md")
INSTANCES = 6
"""Of ``benchmarks/digits`` in a reader's folder, so that a page takes seconds."""
SECONDS = 600
"""Time limit of a block."""


def put_files(namespace: dict[str, Any]) -> None:
    """Make the folder of a page with the files that the pages speak of, and go there."""
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
    os.chdir(folder)
    put_flowers(namespace)


def put_flowers(namespace: dict[str, Any]) -> None:
    """Write a classifier of scikit-learn's irises, pruned and not, and the irises as a table and as tiny images."""
    import numpy as np
    import torch
    from sklearn.datasets import load_iris
    from torch import nn
    from torch.nn.utils import prune

    import prunecert

    torch.manual_seed(0)
    flowers, labels = load_iris(return_X_y=True)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(torch.tensor(flowers).float()), torch.tensor(labels))
        loss.backward()
        optimizer.step()
    for name in ("net.onnx", "dense.onnx"):
        prunecert.export(module, name, input_shape=(4,))
    pruned = prune.l1_unstructured(module[1], "weight", amount=4)
    prunecert.export(nn.Sequential(module[0], prune.remove(pruned, "weight"), *module[2:]), "pruned.onnx", (4,))
    names = ("setosa", "versicolor", "virginica")
    rows = [",".join([*map(str, row), names[label]]) for row, label in zip(flowers, labels, strict=True)]
    Path("flowers.csv").write_text("\n".join(["length,width,petal_length,petal_width,species", *rows]) + "\n")
    images = (flowers.reshape(-1, 2, 2) * 32).astype(np.uint8)
    np.savez("images.npz", x_train=images, y_train=labels, x_test=images[::2], y_test=labels[::2])
    np.save("image.npy", flowers[0] / 8)
    put_property(flowers[0])
    namespace |= {"image": flowers[0], "module": module}


def put_property(center: Any) -> None:
    """Write a specification that holds: in a small ball the first output does not become huge."""
    lines = [f"(declare-const {name}_{i} Real)" for name, count in (("X", 4), ("Y", 3)) for i in range(count)]
    for i, value in enumerate(center):
        lines += [f"(assert (>= X_{i} {value - 0.01}))", f"(assert (<= X_{i} {value + 0.01}))"]
    Path("property.vnnlib").write_text("\n".join([*lines, "(assert (>= Y_0 1000.0))"]) + "\n")


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
