"""The shape of the code: its sizes, what one query enters, and what makes it harder to read, with the places.

    python benchmarks/perf/house.py > OUT.json

Prints a table for people to stderr and one JSON object to stdout. Counts are taken from the syntax trees of the files
(`house_counts.py`), but for what one query enters, which is recorded while it runs (`house_query.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from host import machine, taken
from house_counts import (
    ELEMENT_TYPES,
    circles,
    constants,
    core_sizes,
    inner_imports,
    longest_function,
    operator_tables,
    registries,
    repeated_classes,
    repeated_files,
    sizes,
    sources,
    unclear_docstrings,
)

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "toolkit"


def main() -> None:
    """Measure this checkout."""
    report = {**taken("python benchmarks/perf/house.py"), "machine": machine(), "commit": commit(), **counted(ROOT)}
    report["query"] = entered()
    for name, figure in rows(report):
        print(f"{name:<48} {figure}", file=sys.stderr)
    print(json.dumps(report, indent=1))


def commit() -> str:
    """What is checked out, marked where files differ from it; empty outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def operator_names() -> set[str]:
    """Operators of ONNX and names of relaxations, without those that are names of types of numbers, too."""
    import onnx

    from toolkit.ops import RELAXATIONS

    return ({schema.name for schema in onnx.defs.get_all_schemas()} | set(RELAXATIONS)) - ELEMENT_TYPES


def counted(root: Path) -> dict[str, Any]:
    """All counts over the sources of a checkout."""
    tree = sources(root)
    package = [source for source in tree if source.path.startswith(f"{PACKAGE}/")]
    names = operator_names()
    return {
        "core": core_sizes(package),
        "packages": sizes(package),
        "operator_tables": operator_tables(package, names),
        "operator_registries": registries(package, names),
        "constants": constants(package),
        "file_names": {"package": repeated_files(package), "tree": repeated_files(tree)},
        "class_names": {"package": repeated_classes(package), "tree": repeated_classes(tree)},
        "circles": {
            "at_import": circles(package, False),
            "with_imports_in_functions": circles(package, True),
            "with_imports_for_type_checkers": circles(package, True, types=True),
        },
        "imports_in_functions": inner_imports(package),
        "unclear_docstrings": unclear_docstrings(package),
        "longest_function": longest_function(package),
    }


def entered() -> dict[str, Any]:
    """What one query enters, recorded in a process of its own. Raises CalledProcessError where it fails."""
    command = [sys.executable, str(Path(__file__).parent / "house_query.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    query: dict[str, Any] = json.loads(done.stdout)
    return query


def rows(report: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Names and figures of the table for people."""
    for group in ("core", "packages"):
        for name, size in report[group].items():
            if isinstance(size, dict):
                yield f"{name}: files, code, lines", " ".join(f"{size[key]:>6}" for key in ("files", "code", "lines"))
    yield "modules to be counted apart that are not there", " ".join(report["core"]["absent"]) or 0
    query = report["query"]
    yield "files and functions that one query enters", f"{query['files']} {query['functions']}"
    yield "frames from the proof to optimised bounds", query["frames_to_optimised_bounds"]
    yield "tables of operators", len(report["operator_tables"])
    yield "registries of operators", len(report["operator_registries"])
    yield "numeric constants outside the tuning table", len(report["constants"]["all"])
    yield "of these, with a measurement named", len(report["constants"]["measured"])
    for kind in ("file_names", "class_names"):
        for where, repeated in report[kind].items():
            yield f"{kind.replace('_', ' ')} that occur twice or more, {where}", len(repeated)
    for when, found in report["circles"].items():
        yield f"import circles, {when.replace('_', ' ')}", f"{len(found)} {sorted(map(len, found), reverse=True)}"
    yield "imports in functions", report["imports_in_functions"]
    yield "docstrings that lean on others or say little", len(report["unclear_docstrings"])
    yield "longest function", f"{report['longest_function']['lines']} {report['longest_function']['function']}"


if __name__ == "__main__":
    main()
