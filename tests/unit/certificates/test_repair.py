"""Certificates with leaves that the checker refuses, repaired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, save
from random_queries import hard_query

from toolkit.certificates.repair import repaired
from toolkit.certificates.verify_with_certificate import ProofFiles, check_or_repair
from toolkit.certificates.writer import CertificateWriter, references
from toolkit.proof.check import CHECKED, REFUTED, CertificateChecker, check
from toolkit.proof.formula import load_formula
from toolkit.proof.network import load_network
from toolkit.proof.stream import LinearRows
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned, using


def refuted_at_once(folder: Path, family: str, seed: int, margin: float, named: bool = True) -> tuple[Path, Path, Path]:
    """A query that points miss by a margin, with a certificate that refutes each case as a whole, by all its atoms."""
    network = save(random_network(family, seed), folder, f"{family}{seed}.onnx")
    specification = folder / f"{family}{seed}.vnnlib"
    specification.write_text(hard_query(network, np.random.default_rng(seed), margin))
    checker = CertificateChecker(load_network(network), load_formula(specification))
    names = sorted(checker.model.network.names) if named else []
    writer = CertificateWriter(checker.model.network.digest, checker.formula.digest, names)
    parts = [writer.header()]
    for case in sorted(checker.open_cases):
        context, record = writer.case(case)
        one = np.zeros(1, int)
        atoms = references([dict.fromkeys(range(len(checker.case_arrays(case).constant)), 1.0)])
        none = references([{}])
        parts += [record, writer.refute(LinearRows(False, one + context, one, atoms, none, none))]
    certificate = specification.with_suffix(".certificate")
    certificate.write_bytes(b"".join(parts) + writer.end())
    return network, specification, certificate


@pytest.mark.parametrize("named", [True, False], ids=["neurons are named", "inputs alone"])
@pytest.mark.parametrize("family", ["mlp", "convolutional"])
def test_refused_leaves_are_split_until_they_are_refuted(tmp_path: Path, family: str, named: bool) -> None:
    mended = 0
    for seed in range(8):
        paths = refuted_at_once(tmp_path, family, seed, 0.3, named)
        if check(*paths).status == REFUTED:
            better = repaired(*paths, Clock.started(20.0))
            if better is not None:
                paths[2].write_bytes(better)
                assert check(*paths).status == CHECKED
                mended += 1
    assert mended >= 3


def test_a_certificate_that_is_accepted_needs_no_repair(tmp_path: Path) -> None:
    paths = refuted_at_once(tmp_path, "mlp", 0, 100.0)
    assert check(*paths).status == CHECKED
    assert repaired(*paths, Clock.started(20.0)) is None


def test_what_is_not_true_is_not_repaired(tmp_path: Path) -> None:
    """A query that has a counterexample."""
    paths = refuted_at_once(tmp_path, "mlp", 1, -0.5)
    before = paths[2].read_bytes()
    with using(tuned().changed(certificates={"most_repaired_leaves": 200})):
        assert repaired(*paths, Clock.started(60.0)) is None
        files = ProofFiles({"": paths[0]}, paths[1], paths[2])
        assert check_or_repair(files, Clock.started(60.0)).status == REFUTED
    assert paths[2].read_bytes() == before
    assert check_or_repair(files, Clock.started(0.6)).status == REFUTED
    with pytest.raises(OutOfTime):
        repaired(*paths, Clock.started(0.0))


def test_only_refused_leaves_are_repaired(tmp_path: Path) -> None:
    """No record that is damaged, or missing at the end."""
    paths = refuted_at_once(tmp_path, "mlp", 1, 0.3)
    whole = paths[2].read_bytes()
    for data in (whole[:-20], whole[: len(whole) // 2]):
        paths[2].write_bytes(data)
        assert repaired(*paths, Clock.started(20.0)) is None
