"""What all tests share: the helpers in ``tests/support`` can be imported by name, and torch uses one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from toolkit.tuning import tuned, using

# Set before torch starts: on tiny tensors threads cost more than they save, and spinning ones slow their neighbours.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SUPPORT = Path(__file__).parent / "support"
sys.path.insert(0, str(SUPPORT))


@pytest.fixture(scope="session")
def vnncomp() -> Path:
    """The folder of VNN-COMP families (``$VNNCOMP_DIR``); tests that need it are skipped without."""
    folder = os.environ.get("VNNCOMP_DIR")
    if not folder:
        pytest.skip("VNNCOMP_DIR is not set")
    return Path(folder)


@pytest.fixture
def tune() -> Iterator[Callable[..., None]]:
    """Puts other values of the tuning table in effect until the test ends: ``tune(evolution={"parents": 8})``."""
    with ExitStack() as stack:
        yield lambda **groups: stack.enter_context(using(tuned().changed(**groups)))
