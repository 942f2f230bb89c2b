"""A frozen benchmark is small, and says the same as the one that it was made from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from toolkit.bench.expected import read_expected
from toolkit.bench.freeze import LARGE, POOL, freeze
from toolkit.bench.journal import Record
from toolkit.errors import InputError
from toolkit.formats.instances import read_instances
from toolkit.formats.text import read_source
from toolkit.result import Statistics, Verdict

SPECS = {"large": "(assert (<= X_0 1.0))\n" * LARGE, "small": "(assert (<= X_0 1.0))\n"}


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """Two instances of a benchmark whose test set has more images than are kept, frozen."""
    source = tmp_path / "benchmark"
    for place in (source, source / "2.0"):
        for part in ("onnx", "vnnlib"):
            (place / part).mkdir(parents=True)
        (place / "onnx" / "net.onnx").write_bytes(b"network")
        for name, text in SPECS.items():
            (place / "vnnlib" / f"{name}.vnnlib").write_text(text)
    (source / "properties.json").write_text(json.dumps({"images": 2}))
    images = np.arange(4 * POOL, dtype=np.float32)
    np.savez(source / "images.npz", images=images, labels=images.astype(np.int64))
    verdicts = {"large": Verdict.UNSAT, "small": Verdict.TIMEOUT}
    records = [
        Record(name, "toy", "onnx/net.onnx", f"vnnlib/{name}.vnnlib", 9.5, verdict, "", 0.1, Statistics())
        for name, verdict in verdicts.items()
    ]
    freeze(source, tmp_path / "frozen", records)
    freeze(source, tmp_path / "frozen", records)  # in place of the first
    return tmp_path / "frozen"


@pytest.mark.parametrize("part", [".", "2.0"])
def test_large_specifications_are_compressed_and_found_again(frozen: Path, part: str) -> None:
    instances = read_instances(frozen / part / "instances.csv")
    assert [instance.spec_field for instance in instances] == ["vnnlib/large.vnnlib.gz", "vnnlib/small.vnnlib"]
    assert [instance.timeout for instance in instances] == [9.5, 9.5]
    assert [read_source(instance.spec).text for instance in instances] == list(SPECS.values())
    assert gzip.decompress(instances[0].spec.read_bytes()).decode() == SPECS["large"]
    assert {path.name for path in (frozen / part / "vnnlib").iterdir()} == {"large.vnnlib.gz", "small.vnnlib"}
    assert all(path.exists() for instance in instances for path in instance.networks.values())


@pytest.mark.parametrize("part", [".", "2.0"])
def test_only_decided_verdicts_are_expected(frozen: Path, part: str) -> None:
    assert read_expected(frozen / part) == {("onnx/net.onnx", "vnnlib/large.vnnlib.gz"): Verdict.UNSAT}


def test_the_first_images_are_kept_to_draw_from(frozen: Path) -> None:
    with np.load(frozen / "images.npz") as pool:
        assert pool["images"].tolist() == list(range(POOL))
        assert pool["labels"].tolist() == list(range(POOL))


def test_a_file_is_no_place_to_freeze_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        freeze(tmp_path, tmp_path / "file", [])
