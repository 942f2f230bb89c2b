"""Which GPUs there are, and how processes share them; found out without loading torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from toolkit.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads when a process first uses it."""
DRIVER = Path("/proc/driver/nvidia")
"""What NVIDIA's driver says about itself and its GPUs."""


def visible_gpus() -> list[str]:
    """Names of the GPUs that CUDA offers to this process: those of the environment, or numbers of all."""
    told = os.environ.get(VISIBLE)
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def uses_gpu(device: str) -> bool:
    """Whether a device setting means a GPU here; found out without loading torch, which only workers need."""
    return device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists())


def check_device(device: str) -> None:
    """Raise InputError for CUDA where torch finds none; torch is loaded for that setting alone."""
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise InputError("device cuda: torch finds no CUDA device here; use cpu, or auto")


def gpu_models() -> list[str]:
    """The driver's version and the different models of GPUs, as the driver tells them; empty where it tells nothing."""
    found = []
    with suppress(OSError):
        found += (DRIVER / "version").read_text(encoding="utf-8", errors="replace").splitlines()[:1]
    models = set()
    for path in DRIVER.glob("gpus/*/information"):
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            models |= {line.partition(":")[2].strip() for line in lines if line.startswith("Model")}
    return found + sorted(models)


def take_gpu(index: int) -> None:
    """Make one of several GPUs the only one of this process, which has not used CUDA yet; they are dealt in turn."""
    names = visible_gpus()
    if len(names) > 1:
        os.environ[VISIBLE] = names[index % len(names)]


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, single precision is that: by default torch lets GPUs round factors of convolutions to ten bits (TF32).

    That is far more than the rounding that bounds are widened for, and in training as large as small radii.
    """
    import torch

    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
