"""Importing onnx2torch without torchvision.

The library imports torchvision for two operators of object detectors (NonMaxSuppression, RoiAlign), which the
verifier cannot bound; that import alone takes longer than torch's own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Placeholders for torchvision while the library is imported, unless torchvision is loaded anyway."""
    if "torchvision" in sys.modules:
        yield
        return
    package, operators = ModuleType("torchvision"), ModuleType("torchvision.ops")
    operators.roi_align = None  # type: ignore[attr-defined]
    package.ops = operators  # type: ignore[attr-defined]
    sys.modules.update({"torchvision": package, "torchvision.ops": operators})
    try:
        yield
    finally:
        del sys.modules["torchvision"], sys.modules["torchvision.ops"]


with _without_torchvision():
    onnx2torch = importlib.import_module("onnx2torch")
