"""Which GPUs there are, and how processes share them; found out without loading torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import InputError

T = TypeVar("T")
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
    """Inside, single precision is that: torch may round factors of products and convolutions to ten bits (TF32) on
    GPUs, which for convolutions is the default, and to seven (bfloat16) on some processors.

    That is far more than the rounding that bounds are widened for, and in training as large as small radii.
    """
    import torch

    before, products = _single_precisions(), _legacy(torch.get_float32_matmul_precision)
    convolutions = _legacy(lambda: torch.backends.cudnn.allow_tf32)
    try:
        # Both ways to say it, as some code of torch refuses to run where they contradict each other.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        for one in before:
            one.operators.fp32_precision = "ieee"
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for one in before:
            one.operators.fp32_precision = one.precision


@dataclass(frozen=True)
class _SinglePrecision:
    """How some operators of one of torch's libraries compute in single precision."""

    operators: Any
    precision: str
    """``none`` where that is set for the library as a whole."""


def _single_precisions() -> list[_SinglePrecision]:
    """What is set for each kind of operators; nothing in versions of torch that do not tell them apart."""
    import torch

    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    libraries = [(backends.cudnn, ("conv", "rnn")), (backends.mkldnn, ("matmul", "conv", "rnn"))]
    places = [(getattr(library, kind), library) for library, kinds in libraries for kind in kinds]
    found = [(place, place.fp32_precision, above) for place, above in [(backends.cuda.matmul, backends), *places]]
    return [
        _SinglePrecision(place, "none" if value == above.fp32_precision else value) for place, value, above in found
    ]


def _legacy(read: Callable[[], T]) -> T | None:
    """A setting of torch's older interface; None where the newer one was used, with which it does not agree."""
    try:
        return read()
    except RuntimeError:
        return None


@contextmanager
def without_modes_of_the_caller() -> Iterator[None]:
    """Inside, tensors are made as they are where nothing was asked of torch: on the processor, with versions (no
    inference mode), and by operators in the precision of their operands (no autocast)."""
    torch = sys.modules.get("torch")
    with ExitStack() as stack:
        if torch is not None:
            stack.enter_context(torch.inference_mode(False))
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
        yield
