"""Real VNN-COMP instances whose answers several verifiers agree on: ours never contradicts them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import verify_files

INSTANCES = [
    ("acasxu", "ACASXU_run2a_1_7_batch_2000", "prop_3", True),
    ("acasxu", "ACASXU_run2a_1_7_batch_2000", "prop_4", True),
    ("acasxu", "ACASXU_run2a_5_4_batch_2000", "prop_3", True),
    ("acasxu", "ACASXU_run2a_4_7_batch_2000", "prop_4", True),
    ("mnist_fc", "mnist-net_256x2", "prop_0_0.03", True),
    ("mnist_fc", "mnist-net_256x2", "prop_12_0.03", False),
    ("rl_benchmarks", "lunarlander", "lunarlander_case_unsafe_4", True),
    ("rl_benchmarks", "cartpole", "cartpole_case_unsafe_0", True),
    ("rl_benchmarks", "dubinsrejoin", "dubinsrejoin_case_unsafe_24", False),
]
"""Family, network, specification, and whether ten seconds are always enough."""


def expected(folder: Path, network: str, spec: str) -> tuple[Path, Path, str]:
    """Files and known answer of an instance."""
    with (folder / "expected.csv").open(newline="") as file:
        for onnx, vnnlib, _, answer in csv.reader(file):
            if Path(onnx).name.split(".onnx")[0] == network and Path(vnnlib).name.split(".vnnlib")[0] == spec:
                return folder / onnx, folder / vnnlib, answer
    raise LookupError(f"{network} {spec} is not in {folder / 'expected.csv'}")


@pytest.mark.parametrize(("family", "network", "spec", "decided"), INSTANCES)
def test_known_answers(family: str, network: str, spec: str, decided: bool, vnncomp: Path) -> None:
    onnx, vnnlib, answer = expected(vnncomp / family, network, spec)
    result = verify_files({"": onnx}, vnnlib, Settings(timeout=10.0 if not decided else 60.0, device="cpu"))
    assert result.verdict in {answer, Verdict.TIMEOUT, Verdict.UNKNOWN}
    if decided:
        assert result.verdict == answer, result.reason
