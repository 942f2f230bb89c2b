"""Runs that keep a certificate of each answer `unsat`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, save
from random_queries import hard_query

from toolkit.bench import journal
from toolkit.bench.job import Answer, InstanceJob, WorkerTask
from toolkit.bench.journal import JournalRecord
from toolkit.bench.run_options import Options
from toolkit.bench.verify_job import VERIFY
from toolkit.cli import run as prunecert
from toolkit.experiments.campaign import run_folder
from toolkit.proof.check import CHECKED, check
from toolkit.result import Statistics, Verdict


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four networks with a specification each, in folders of the same name, most of them `unsat`."""
    place = tmp_path_factory.mktemp("folder") / "toy"
    lines = []
    for seed in range(4):
        inner = place / "vnnlib" / str(seed % 2)
        inner.mkdir(parents=True, exist_ok=True)
        network = save(random_network("mlp", seed), place, f"net{seed}.onnx")
        specification = inner / f"spec{seed // 2}.vnnlib"
        specification.write_text(hard_query(network, np.random.default_rng(seed), 0.05))
        lines.append(f"{network.name},{specification.relative_to(place)},20\n")
    (place / "instances.csv").write_text("".join(lines))
    return place


def options(out: Path, **more: object) -> Options:
    """Of a run in this process."""
    return Options(out=out, executor="in-process", device="cpu", **more)  # type: ignore[arg-type]


def records(out: Path) -> list[JournalRecord]:
    """All answers of the run."""
    return journal.history(out / journal.NAME)


def refuted(out: Path) -> list[JournalRecord]:
    """The answers `unsat`."""
    return [record for record in records(out) if record.verdict is Verdict.UNSAT]


def test_each_proof_of_a_run_is_a_file_that_the_checker_accepts(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_folder(folder, options(out, certified=True)) == 0
    proofs = refuted(out)
    assert len(proofs) >= 2
    for record in proofs:
        assert record.statistics.certificate == CHECKED
        assert (out / record.certificate).stat().st_size == record.statistics.certificate_bytes
        assert check(folder / record.onnx, folder / record.vnnlib, out / record.certificate).status == CHECKED
    files = {str(path.relative_to(out)) for path in (out / "certificates").rglob("*") if path.is_file()}
    assert files == {record.certificate for record in proofs}
    rows = list(csv.DictReader((out / "answers.csv").read_text().splitlines()))
    assert [row["certificate_file"] for row in rows if row["verdict"] == "unsat"] == [one.certificate for one in proofs]
    assert f"{len(proofs)} of {len(proofs)}" in (out / "report.html").read_text()


def test_all_certificates_of_a_run_are_checked_by_one_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_folder(folder, options(out, certificates=True))
    count = len(refuted(out))
    assert prunecert(["check", str(out)]) == 0
    assert f"{count} of {count} answers unsat have a certificate that is accepted" in capsys.readouterr().out
    specification = folder / refuted(out)[0].vnnlib
    before = specification.read_text()
    specification.write_text(before + "; another one\n")
    assert prunecert(["check", str(out), "--jobs", "2"]) == 1
    said = capsys.readouterr().out
    assert "refuted: toy net" in said and f"{count - 1} of {count}" in said
    specification.write_text(before)
    run_folder(folder, options(out, fresh=True))
    assert prunecert(["check", str(out)]) == 2
    assert "there is no certificate" in capsys.readouterr().out
    assert prunecert(["check", str(tmp_path)]) == prunecert(["check", str(specification)]) == 2


def test_certificates_can_be_written_and_not_checked(folder: Path, tmp_path: Path) -> None:
    run_folder(folder, options(tmp_path / "out", certificates=True))
    proofs = refuted(tmp_path / "out")
    assert proofs and {record.statistics.certificate for record in proofs} == {"complete"}


def test_an_answer_whose_certificate_is_gone_or_changed_is_asked_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_folder(folder, options(out, certificates=True))
    count, first = len(records(out)), refuted(out)
    run_folder(folder, options(out, certificates=True))
    assert len(records(out)) == count
    (out / first[0].certificate).unlink()
    (out / first[1].certificate).write_bytes(b"")
    run_folder(folder, options(out, certificates=True))
    assert [record.key for record in records(out)[count:]] == [first[0].key, first[1].key]
    run_folder(folder, options(out, fresh=True))
    assert not (out / "certificates").exists()


@pytest.mark.parametrize("verdict", [Verdict.UNSAT, Verdict.UNKNOWN, Verdict.TIMEOUT])
def test_nothing_stays_of_a_certificate_that_proves_nothing(folder: Path, tmp_path: Path, verdict: Verdict) -> None:
    """Neither where nothing was decided, nor where a proof has none, nor what a run leaves that is killed."""
    out = tmp_path / "out"

    def answer(job: InstanceJob) -> Answer:
        assert job.draft is not None
        job.draft.write_bytes(b"a beginning")
        return Answer(verdict, "a reason", statistics=Statistics(seconds=0.1))

    (out / "certificates").mkdir(parents=True)
    (out / "certificates" / "killed.part").write_bytes(b"a beginning")
    run_folder(folder, options(out, certificates=True), WorkerTask(lambda: None, answer))
    assert not list((out / "certificates").iterdir())
    assert len(records(out)) == 4 and not any(record.certificate for record in records(out))


def test_workers_that_would_look_at_queries_together_do_not_where_there_are_to_be_certificates(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = WorkerTask(lambda: None, VERIFY.answer, lambda jobs: pytest.fail("a survey"))
    run_folder(folder, options(tmp_path / "out", certificates=True), task)
    assert len(records(tmp_path / "out")) == 4
