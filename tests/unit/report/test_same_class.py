"""When two networks have one class on a whole box, by their verdicts."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product

import pytest

from toolkit.bench.journal import JournalRecord
from toolkit.report.same_class import ClassAgreement, agreement_csv, agreement_table, class_agreements
from toolkit.report.summary import ModelRecord
from toolkit.result import Statistics, Verdict

PAIRS = list(product((Verdict.UNSAT, Verdict.SAT, Verdict.TIMEOUT), repeat=2))
DENSE = ModelRecord("dense", ("c",), "net", "dense", 0, 1.0, 100, "dense.onnx", 0.9, 0.8)
PRUNED = replace(DENSE, name="pruned", method="magnitude", state=1, density=0.5, network="pruned.onnx")


def records(network: str, verdicts: list[Verdict]) -> list[JournalRecord]:
    return [
        JournalRecord(f"{network} {index}", "c", network, f"{index}.vnnlib", 1.0, verdict, "", 0.1, Statistics())
        for index, verdict in enumerate(verdicts)
    ]


def test_only_a_pair_of_proofs_proves_and_only_a_proof_refutes() -> None:
    answers = records("dense.onnx", [a for a, _ in PAIRS]) + records("pruned.onnx", [b for _, b in PAIRS])
    [found] = class_agreements([DENSE, PRUNED], answers)
    assert (found.images, found.proved, found.refuted) == (9, 1, 2)
    assert (found.least, found.most) == (pytest.approx(1 / 9), pytest.approx(7 / 9))
    assert "for 11.1-77.8 % of 9 images: proved for 1, refuted for 2" in str(found)


def test_networks_are_compared_with_the_dense_one_of_their_seed_and_chain() -> None:
    other = replace(DENSE, name="other", seed=1, network="other.onnx")
    second = replace(PRUNED, name="second", seed=1, network="second.onnx", control="retrained")
    answers = records("dense.onnx", [Verdict.UNSAT] * 2) + records("pruned.onnx", [Verdict.UNSAT] * 2)
    answers += records("other.onnx", [Verdict.SAT] * 2) + records("second.onnx", [Verdict.UNSAT] * 2)
    found = class_agreements([DENSE, other, PRUNED, second], answers)
    assert [(row.model, row.dense, row.proved, row.refuted) for row in found] == [
        ("pruned", "dense", 2, 0), ("second", "other", 0, 2),
    ]  # fmt: skip
    assert class_agreements([DENSE, PRUNED], []) == []


def test_the_table_and_the_file_have_the_rates() -> None:
    row = ClassAgreement("pruned", "dense", 0.5, 0, 4, 3, 1)
    assert [cell.text for cell in agreement_table([row]).rows[0]][-2:] == ["75.0 %", "75.0 %"]
    [line] = csv.DictReader(agreement_csv([row]).splitlines())
    assert (line["model"], line["proved"], line["least"], line["most"]) == ("pruned", "3", "0.750000", "0.750000")
    assert "for 75.0 % of 4 images" in str(row)
