"""GPUs by name, dealt in turn, and precisions of torch; without any GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from toolkit.devices import take_gpu, visible_gpus


@pytest.mark.parametrize(
    ("told", "names"), [("", []), ("0", ["0"]), ("0,3", ["0", "3"]), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])]
)
def test_names_of_the_environment(monkeypatch: pytest.MonkeyPatch, told: str, names: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible_gpus() == names


@pytest.mark.parametrize(
    ("told", "index", "left"), [("0,3", 0, "0"), ("0,3", 3, "3"), ("7", 1, "7"), ("", 1, ""), ("a,b,c", 2, "c")]
)
def test_gpus_are_dealt_in_turn(monkeypatch: pytest.MonkeyPatch, told: str, index: int, left: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    take_gpu(index)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left


LOOK = """
import torch
from toolkit.devices import full_precision

B = torch.backends
places = [B.cuda.matmul, B.cudnn.conv, B.cudnn.rnn, B.mkldnn.matmul, B.mkldnn.conv, B.mkldnn.rnn]

def read():
    found = [place.fp32_precision for place in places]
    for legacy in (torch.get_float32_matmul_precision, lambda: B.cuda.matmul.allow_tf32, lambda: B.cudnn.allow_tf32):
        try:
            found.append(legacy())
        except RuntimeError:  # both interfaces were used, and differ
            found.append(None)
    return found

{asked}
before = read()
assert before != (inside := ["ieee"] * 6 + ["highest", False, False])
with full_precision():
    assert read() == inside, read()
assert read() == before, read()
"""


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "torch.set_float32_matmul_precision('medium')",
        "B.cuda.matmul.allow_tf32 = True",
        "B.cudnn.allow_tf32 = False",
        "B.cuda.matmul.fp32_precision = 'tf32'",
        "B.mkldnn.matmul.fp32_precision = B.mkldnn.conv.fp32_precision = 'bf16'",
        "B.fp32_precision = 'tf32'",
    ],
)
def test_single_precision_is_that_whatever_torch_was_told(asked: str) -> None:
    """In a process of its own: what a setting says is kept by torch in more places than one."""
    pytest.importorskip("torch")
    if not _tells_precisions_apart():
        pytest.skip("this version of torch has one setting for all")
    subprocess.run([sys.executable, "-W", "ignore", "-c", LOOK.replace("{asked}", asked)], check=True)


def _tells_precisions_apart() -> bool:
    import torch

    return hasattr(torch.backends, "fp32_precision")
