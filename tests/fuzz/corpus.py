"""Cases that once went wrong, one small file each: they are run again by every test run."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from kinds import Finding

FOLDER = Path(__file__).parent / "corpus"


def write_finding(folder: Path, finding: Finding) -> Path:
    """Keep a finding as ``KIND-LABEL-DIGEST.json``."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{finding.kind} {finding.label}".lower()).strip("-")[:60]
    text = json.dumps(list(finding.choices))
    digest = hashlib.sha256(f"{finding.key}{text}".encode()).hexdigest()[:8]
    record = {"kind": finding.kind, "sort": finding.sort, "label": finding.label, "detail": finding.detail}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{words}-{digest}.json"
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in record.items()]
    path.write_text("\n".join(["{", *lines, f'  "choices": {text}', "}"]) + "\n")
    return path


def read_finding(path: Path) -> Finding:
    """A finding as it was written."""
    record = json.loads(path.read_text())
    return Finding(**{**record, "choices": tuple(record["choices"])})
