"""Studies in the repository: their tables are those of their answers, and answers come out again."""

from __future__ import annotations

import csv
import gzip
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from toolkit.bench import expected, generate_properties
from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.recipe import load_recipe
from toolkit.result import DECIDED, Verdict
from toolkit.run.clock import Clock
from toolkit.run.events import silent
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify_files

STUDIES = sorted(path.parent for path in (Path(__file__).parents[2] / "benchmarks" / "studies").glob("*/recipe.toml"))


def answers(study: Path) -> list[dict[str, str]]:
    text = gzip.decompress((study / "answers.csv.gz").read_bytes()).decode()
    return list(csv.DictReader(text.splitlines()))


def benchmark_of(study: Path, folder: Path) -> Path:
    """The study as a benchmark below a folder, with all its specifications."""
    benchmark = folder / study.name
    shutil.copytree(study, benchmark)
    subprocess.run([sys.executable, "-P", "-m", generate_properties.__name__, "0"], cwd=benchmark, check=True)
    return benchmark


def test_there_is_one() -> None:
    assert STUDIES


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_tables_count_the_answers(study: Path) -> None:
    counts = Counter((Path(row["network"]).stem, row["verdict"]) for row in answers(study))
    with (study / "summary.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert {Path(row["network"]).stem for row in answers(study)} == {row["model"] for row in table}
    for row in table:
        assert int(row["certified"]) == counts[row["model"], "unsat"]
        assert int(row["falsified"]) == counts[row["model"], "sat"]
        assert int(row["images"]) == sum(number for (model, _), number in counts.items() if model == row["model"])


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_folder_is_a_benchmark_once_its_generator_has_run(study: Path, tmp_path: Path) -> None:
    """Every specification of an answer is written, and the proof that was fastest is found again."""
    assert load_recipe(study / "recipe.toml").name == study.name
    folder = benchmark_of(study, tmp_path)
    rows = answers(study)
    assert all((folder / row["network"]).is_file() and (folder / row["specification"]).is_file() for row in rows)
    known = expected.read_expected(folder)
    decided = {(row["network"], row["specification"]): Verdict(row["verdict"]) for row in rows}
    assert known == {key: verdict for key, verdict in decided.items() if verdict in DECIDED}
    fastest = min((row for row in rows if row["verdict"] == "unsat"), key=lambda row: float(row["seconds"]))
    found = verify_files({"": folder / fastest["network"]}, folder / fastest["specification"], Settings(device="cpu"))
    assert found.verdict is Verdict.UNSAT


CERTIFIED = [study for study in STUDIES if load_recipe(study / "recipe.toml").verification.certified]


def test_some_study_has_certificates() -> None:
    assert CERTIFIED


@pytest.mark.parametrize("study", CERTIFIED, ids=lambda path: path.name)
def test_proofs_that_took_several_turns_are_certified_again(study: Path, tmp_path: Path) -> None:
    """Searches over phases that give way to searches over boxes of many inputs, within the study's passes."""
    folder = benchmark_of(study, tmp_path)
    passes = load_recipe(study / "recipe.toml").verification.passes
    rows = [row for row in answers(study) if row["verdict"] == "unsat" and passes // 2 < int(row["passes"]) < passes]
    chosen = sorted(rows, key=lambda row: float(row["seconds"]))[:5]
    assert len(chosen) == 5
    ways = Counter[str]()
    for row in chosen:
        networks = {"": folder / row["network"]}
        files = ProofFiles(networks, folder / row["specification"], tmp_path / "certificate")
        settings = Settings(device="cpu", timeout=120, passes=passes, certified=True)
        clock = Clock.started(settings.timeout, passes=settings.passes)
        found = verify_with_certificate(files, load_networks(networks), settings, silent, clock)
        assert (found.verdict, found.statistics.certificate) == (Verdict.UNSAT, "checked"), (row, found.reason)
        ways[found.statistics.decided_by] += 1
    assert ways["input-split"]
