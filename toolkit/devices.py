"""Which GPUs there are, and how processes share them; found out without loading torch."""

from __future__ import annotations

import os
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads when a process first uses it."""


def visible_gpus() -> list[str]:
    """Names of the GPUs that CUDA offers to this process: those of the environment, or numbers of all."""
    told = os.environ.get(VISIBLE)
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def take_gpu(index: int) -> None:
    """Make one of several GPUs the only one of this process, which has not used CUDA yet; they are dealt in turn."""
    names = visible_gpus()
    if len(names) > 1:
        os.environ[VISIBLE] = names[index % len(names)]
