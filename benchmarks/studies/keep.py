"""Keep a study in the repository: networks, images, recipe, tables and answers, without the large specifications.

    python benchmarks/studies/keep.py RECIPE RESULTS

writes ``benchmarks/studies/NAME``, in place of what was there. In that folder, ``python -m
toolkit.bench.generate_properties 0`` writes its specifications again, byte by byte, and ``instances.csv``; ``prunecert
bench`` on it then answers them and compares with ``expected.csv``.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
from pathlib import Path

from toolkit.bench import expected
from toolkit.bench.freeze import keep_first_images
from toolkit.recipe import load_recipe
from toolkit.result import DECIDED, Verdict

HERE = Path(__file__).parent
TABLES = ("summary.csv", "seeds.csv", "stability.csv", "agreement.csv")
ANSWERS = "answers.csv"


def keep(recipe: Path, results: Path) -> Path:
    """Copy what belongs in the repository from a study's results; the folder."""
    folder = HERE / load_recipe(recipe).name
    shutil.rmtree(folder, ignore_errors=True)
    benchmark = results / "benchmark"
    shutil.copytree(benchmark / "onnx", folder / "onnx")
    shutil.copyfile(recipe, folder / "recipe.toml")
    for name in TABLES:
        if (results / name).exists():
            shutil.copyfile(results / name, folder / name)
    about = json.loads((results / "run.json").read_text(encoding="utf-8"))
    kept = {key: about[key] for key in ("name", "started", "machine")}
    (folder / "run.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(benchmark / "properties.json", folder / "properties.json")
    keep_first_images(benchmark, folder)
    answers = (results / ANSWERS).read_bytes()
    (folder / f"{ANSWERS}.gz").write_bytes(gzip.compress(answers, mtime=0))
    rows = [
        (row["network"], row["specification"], float(row["timeout"]), Verdict(row["verdict"]))
        for row in csv.DictReader(answers.decode().splitlines())
    ]
    text = expected.format_expected((*row[:3], row[3] if row[3] in DECIDED else None) for row in rows)
    (folder / expected.NAME).write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/studies/keep.py RECIPE RESULTS")
    print(keep(Path(sys.argv[1]), Path(sys.argv[2])))
