"""Imports run one way through the package, and commands that need no torch do not wait for it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import toolkit

ROOT = Path(toolkit.__file__).parent
BASE = {"", "errors", "result", "settings", "options", "paper", "devices", "run", "sources", "tuning", "registry"}
"""What everyone may import: the package itself, its errors, verdicts, records of settings, the tuning table, the tables
that modules fill themselves, and how processes run."""
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "devices": set(),
    "sources": set(),
    "options": set(),
    "registry": set(),
    "paper": set(),
    "run": set(),
    "ops": set(),
    "settings": set(),
    "tuning": set(),
    "result": {"formats"},
    "formats": {"ops"},
    "problem": {"ops", "formats"},
    "bounds": {"ops", "problem", "formats"},
    "attack": {"ops", "problem", "formats"},
    "search": {"ops", "attack", "bounds", "problem", "formats"},
    "quick_proof": {"proof", "problem", "formats"},
    "backends": {"search", "problem", "formats"},
    "agreement": {"ops", "quick_proof", "proof", "search", "attack", "problem", "formats"},
    "explanation": {"problem", "formats"},
    "verify": {
        "agreement",
        "backends",
        "explanation",
        "quick_proof",
        "search",
        "attack",
        "bounds",
        "problem",
        "formats",
    },
    "certificates": {"verify", "quick_proof", "search", "bounds", "problem", "formats", "ops", "proof"},
    "batched_queries": {"verify", "agreement", "search", "attack", "bounds", "problem", "formats"},
    "bench": {"batched_queries", "certificates", "verify", "search", "formats"},
    "report": {"bench", "formats"},
    "data": {"recipe", "formats"},
    "catalogue": set(),
    "models": {"data", "formats"},
    "training": {"data", "models", "bounds", "problem", "formats"},
    "pruning": {"training", "data", "models", "bounds", "problem", "formats", "recipe"},
    "recipe": {"data", "models", "training", "pruning"},
    "proof": set(),
    "experiments": {"bench", "report", "verify", "formats", "data", "models", "training", "pruning", "recipe"},
}
"""Package -> the others it may import. The command line and its commands may import all of them."""
TOP = {"", "cli", "commands"}
TORCH_FREE = [
    "prunecert", "toolkit", "toolkit.errors", "toolkit.result", "toolkit.settings", "toolkit.tuning", "toolkit.cli",
    "toolkit.ops", "toolkit.ops.softmax_parts",
    "toolkit.problem.cases", "toolkit.attack.point_sampling", "toolkit.attack.secant_attack", "toolkit.run.clock",
    "toolkit.run.events", "toolkit.verify", "toolkit.quick_proof", "toolkit.run.forked_query",
    "toolkit.run.memory_limits", "toolkit.agreement.against_onnxruntime", "toolkit.agreement.bounded_steps",
    "toolkit.formats.vnnlib.read", "toolkit.formats.vnnlib.write", "toolkit.formats.vnnlib.vnnlib1",
    "toolkit.formats.vnnlib.vnnlib2", "toolkit.formats.vnnlib.query", "toolkit.formats.onnx.model_file",
    "toolkit.formats.onnx.runtime", "toolkit.formats.vnncomp.witness", "toolkit.formats.vnncomp.instances",
    "toolkit.formats.vnncomp.model_binding", "toolkit.formats.vnnlib.convert_versions",
    "toolkit.formats.vnnlib.specs", "toolkit.commands.spec", "toolkit.formats.points", "toolkit.commands.inspect",
    "toolkit.commands.convert", "toolkit.commands.check_witness", "toolkit.commands.ops",
    "toolkit.commands.check", "toolkit.proof.check", "toolkit.certificates.quick_certificate",
    "toolkit.commands.export_proof", "toolkit.certificates.proof_formats",
    "toolkit.certificates.exports.aptp_export", "toolkit.certificates.exports.torchlean_export",
    "toolkit.experiments.row_questions", "toolkit.commands.row_options",
]  # fmt: skip
"""Modules that must not import torch."""


def package_of(module: str) -> str:
    """The part of a dotted name after ``toolkit``: ``search`` for ``toolkit.search.root``."""
    return module.split(".")[1] if "." in module else ""


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of this package that run when the code does; those for type checkers alone are not counted."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "toolkit")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "toolkit":
                yield from (f"toolkit.{a.name}" if (ROOT / a.name).is_dir() or (ROOT / f"{a.name}.py").is_file() else
                            "toolkit" for a in node.names)  # fmt: skip
            elif node.module and node.module.startswith("toolkit."):
                yield node.module
        yield from imports(node)


def imports_of(path: Path) -> set[str]:
    return set(imports(ast.parse(path.read_text())))


def uses(path: Path, package: str) -> bool:
    """Whether a file imports something of a package, wherever in it."""
    return re.search(rf"^\s*(?:from|import) {package}\b", path.read_text(), re.MULTILINE) is not None


def test_every_package_has_its_place() -> None:
    packages = {package_of(module_of(path)) for path in files()}
    assert packages <= set(MAY_IMPORT) | TOP


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | BASE | {package}
    wrong = [
        f"{module_of(path)} imports {name}"
        for path in files()
        if package_of(module_of(path)) == package
        for name in imports_of(path)
        if package_of(name) not in allowed
    ]
    assert not wrong


def test_the_order_has_no_cycles_below_the_verifier() -> None:
    order = [
        "ops",
        "formats",
        "problem",
        "bounds",
        "search",
        "quick_proof",
        "agreement",
        "verify",
        "batched_queries",
        "bench",
        "report",
        "experiments",
    ]
    for position, package in enumerate(order):
        assert not MAY_IMPORT[package] & set(order[position:])


def test_the_face_stands_on_top() -> None:
    """``prunecert`` uses ``toolkit``, and nothing in ``toolkit`` knows of it."""
    face = sorted((ROOT.parent / "prunecert").rglob("*.py"))
    assert all(uses(path, "toolkit") for path in face)
    assert not [path for path in files() if uses(path, "prunecert")]


def test_proof_checker_stands_alone() -> None:
    checkers = [path for path in files() if path.relative_to(ROOT).as_posix().startswith("proof/")]
    used = set().union(*(imports_of(path) for path in checkers))
    assert "toolkit.proof.bounds" in used
    assert {package_of(name) for name in used} == {"proof"}


def test_the_checks_see_a_wrong_import() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n  import toolkit.cli\ndef f():\n  from toolkit.search.root import RootBounds\n"
    )
    assert list(imports(tree)) == ["toolkit.search.root"]


def test_torch_free_modules_do_not_import_torch() -> None:
    """One fresh interpreter imports them in turn and says after which one torch was there."""
    code = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} imports torch')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT.parent, timeout=60
    )
    assert result.returncode == 0, result.stderr.strip().splitlines()[-1]
