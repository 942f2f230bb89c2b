"""Imported first: the folders of helpers that other tests have, too."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
FOLDERS = [TESTS / "fuzz", TESTS.parent, TESTS / "support", TESTS / "soundness", TESTS / "unit" / "formats"]
sys.path[:0] = [str(folder) for folder in FOLDERS if str(folder) not in sys.path]
