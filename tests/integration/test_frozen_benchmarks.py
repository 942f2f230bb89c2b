"""The benchmarks in the repository: complete, the same in both languages, and answered as their lists say."""

import json
from pathlib import Path

import pytest

from toolkit.bench import generate_properties
from toolkit.bench.folder import INSTANCES, find_benchmarks, make_jobs
from toolkit.bench.freeze import GENERATOR, MANIFEST, check_target
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import verify_files

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[2] / "benchmarks").glob(f"*/{INSTANCES}"))
SETTINGS = Settings(device="cpu", real_semantics=True)
"""The lists are of proofs in real arithmetic, whatever types the specifications of version 2.0 declare."""


def test_there_are_some():
    assert len(FOLDERS) > 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_all_files_are_as_they_were_frozen(folder):
    check_target(folder)
    listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert all((folder / name).is_file() for name in listed)
    assert (folder / GENERATOR).read_bytes() == Path(generate_properties.__file__).read_bytes()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_all_files_are_there_and_most_verdicts_are_known(folder, version):
    [benchmark] = find_benchmarks(folder, version)
    jobs = make_jobs(benchmark, SETTINGS)
    assert all(path.is_file() for job in jobs for path in (job.spec, *(network for _, network in job.networks)))
    known = [(job.onnx, job.vnnlib) in benchmark.expected for job in jobs]
    assert sum(known) > 0.7 * len(known)
    assert set(benchmark.expected) <= {(job.onnx, job.vnnlib) for job in jobs}
    assert set(benchmark.expected.values()) == {Verdict.SAT, Verdict.UNSAT}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_both_versions_have_the_same_verdicts(folder):
    first, second = (find_benchmarks(folder, version)[0] for version in ("1.0", "2.0"))
    assert first.folder != second.folder
    assert first.expected == second.expected


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("verdict", [Verdict.SAT, Verdict.UNSAT])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_an_answer_is_the_expected_one(folder, verdict, version):
    """The last instance of each verdict: its network is pruned, and answered in a second or two."""
    [benchmark] = find_benchmarks(folder, version)
    wanted = [key for key, known in benchmark.expected.items() if known == verdict][-1]
    [job] = [job for job in make_jobs(benchmark, SETTINGS, timeout=60) if (job.onnx, job.vnnlib) == wanted]
    assert verify_files(dict(job.networks), job.spec, job.settings).verdict == verdict
