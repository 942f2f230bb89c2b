"""What takes part in an answer is found by following imports, and every change of it shows."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import sources
from toolkit.bench.fingerprint import VERIFIER, versions
from toolkit.pruning.chain import MAKERS

ROOT = Path(sources.__file__).parent
RUN = """
import sys, tempfile
from pathlib import Path
import onnx
import toolkit.bench.warmup as warmup
from toolkit.bench import verify_job
from toolkit.bench.job import InstanceJob
from toolkit.settings import Settings
from toolkit.verify import verify_files
with tempfile.TemporaryDirectory() as folder:
    net, spec, draft = Path(folder) / "net.onnx", Path(folder) / "spec.vnnlib", Path(folder) / "draft"
    onnx.save(warmup._network(), net)
    spec.write_text(warmup.SPEC)
    verify_files({"": net}, spec, Settings())
    assert "torch" not in sys.modules, "the first query was to be decided without it"
    warmup.warm_up()
    for strategy in ("auto", "input"):
        jobs = [InstanceJob(str(n), "c", "n", "s", (("", net),), spec, Settings(strategy=strategy)) for n in range(2)]
        verify_job.survey(jobs)
        verify_job.answer(jobs[0])
    certified = Settings(certified=True)
    verify_job.answer(InstanceJob("certified", "c", "n", "s", (("", net),), spec, certified, draft=draft))
    assert draft.stat().st_size
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "toolkit":
        print(module.__file__)
"""


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    yield
    for function in (sources.sources_of, sources.libraries_of, sources.code_hash, sources.library_versions, versions):
        function.cache_clear()


def test_every_module_that_a_worker_loads_is_among_the_sources() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = {Path(line) for line in done.stdout.split()}
    assert ROOT / "quick_proof.py" in loaded
    assert ROOT / "batched_queries.py" in loaded
    assert ROOT / "certificates" / "verify_with_certificate.py" in loaded
    assert loaded <= set(sources.sources_of(VERIFIER))


CHAIN = """
import sys
from pathlib import Path
from typing import get_args
from toolkit.data.load import load_dataset
from toolkit.pruning.chain import ChainContext
from toolkit.pruning.controls import chain_with_controls
from toolkit.pruning.criterion import CRITERIA
from toolkit.recipe import parse_recipe
values = {"name": "n", "data": {"name": "digits", "train": 60}, "specification": {"epsilon": 0.05}}
values["models"] = {"net": {"architecture": "digits_conv", "channels": [2, 2], "hidden": [4]}}
values["training"] = {"loss": "crown_ibp", "epochs": 1, "initialisation": "ibp", "regularisers": ["nrs", "fastibp"]}
methods = [
    {"name": name} | ({"epochs": 1} if "epochs" in options.model_fields else {})
    for options in CRITERIA.loaded() for name in get_args(options.model_fields["name"].annotation)
]
values["sweeps"] = [{"name": "s", "models": ["net"], "methods": methods, "densities": [0.5],
                     "controls": ["retrained", "random_masks", "narrow"]}]
recipe = parse_recipe(values, "test", Path())
context = ChainContext(load_dataset(recipe.data))
for chain in recipe.all_chains:
    for state in chain_with_controls(context, recipe.models[chain.model], chain, recipe.training_of(chain)):
        pass
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] == "toolkit":
        print(module.__file__)
"""


def test_every_module_that_makes_a_pruned_network_is_among_its_sources() -> None:
    """Stored states are kept by their source: a criterion that is mended must not find what it made before."""
    done = subprocess.run([sys.executable, "-c", CHAIN], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = {Path(line) for line in done.stdout.split()}
    assert {ROOT / "pruning" / "learned_scores.py", ROOT / "pruning" / "criteria" / "hydra.py"} <= loaded
    assert loaded <= set(sources.sources_of(MAKERS))


def test_all_modules_of_a_package_that_is_walked_through_are_imported() -> None:
    found = set(sources.imports_in('Registry("technique", folder="toolkit.bounds")'))
    assert found == {f"toolkit.bounds.{path.stem}" for path in (ROOT / "bounds").glob("*.py")} - {
        "toolkit.bounds.__init__"
    }
    assert "toolkit.bounds.recentred_crown" in found


def test_what_only_shows_answers_is_no_part_of_them() -> None:
    parts = {path.relative_to(ROOT).parts[0] for path in sources.sources_of(VERIFIER)}
    assert parts >= {
        "bounds",
        "formats",
        "problem",
        "proof",
        "search",
        "quick_proof.py",
        "verify.py",
        "batched_queries.py",
        "settings.py",
    }
    assert not parts & {
        "report",
        "commands",
        "training",
        "pruning",
        "campaign.py",
        "study.py",
        "study_networks.py",
        "study_report.py",
        "cli.py",
    }
    assert {path.relative_to(ROOT).parts[0] for path in sources.sources_of(MAKERS)} >= {"training", "models", "data"}


@pytest.mark.parametrize("modules", [VERIFIER, MAKERS])
def test_a_change_of_any_source_file_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...]
) -> None:
    shutil.copytree(ROOT, tmp_path / ROOT.name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    paths = sources.sources_of(modules)
    seen = {sources.code_hash(modules)}
    chosen = random.Random(len(paths)).sample(paths, 15)
    for path in chosen:
        path.write_text(path.read_text(encoding="utf-8") + "\n# another\n", encoding="utf-8")
        sources.code_hash.cache_clear()
        seen.add(sources.code_hash(modules))
    assert len(seen) == len(chosen) + 1
    outside = tmp_path / ROOT.name / "report" / "plots.py"
    outside.write_text("", encoding="utf-8")
    sources.code_hash.cache_clear()
    sources.sources_of.cache_clear()
    assert sources.code_hash(modules) in seen


def test_the_versions_of_all_libraries_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(versions())
    assert before.keys() >= {
        "prunecert", "code", "python", "torch", "onnx", "onnxruntime", "onnx2torch", "vnnlib", "numpy", "scipy",
        "highspy", "auto_LiRPA", "protobuf", "pydantic", "ml_dtypes", "torchvision",
    }  # fmt: skip
    real = sources.version
    for library in sorted(before.keys() - {"prunecert", "code", "python", "auto_LiRPA"}):
        monkeypatch.setattr(sources, "version", lambda name, of=library: "99" if name == of else real(name))
        versions.cache_clear()
        sources.library_versions.cache_clear()
        assert {name for name, found in versions().items() if found != before[name]} == {library}


def test_a_library_that_is_not_there_is_missing_and_one_of_another_name_is_found() -> None:
    assert sources.library_version("no_such_library_at_all") == "missing"
    assert sources.library_version("PIL") not in ("missing", "")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a.b as c, d\n", {"a.b", "d"}),
        ("from a import b\n", {"a", "a.b"}),
        ("from a.b import (  # why\n    c as d,\n    e,  # because\n)\n", {"a.b", "a.b.c", "a.b.e"}),
        ("def f():\n    from a import b, c\n", {"a", "a.b", "a.c"}),
        ("x = importlib.import_module('a.b')\n", {"a.b"}),
        ("if TYPE_CHECKING:\n\timport a\n", {"a"}),
        ("important = 1\nfromage = 2\n", set()),
    ],
)
def test_imports_of_all_forms_are_found(text: str, names: set[str]) -> None:
    assert set(sources.imports_in(text)) == names
