"""A frozen benchmark is small, and says the same as the one that it was made from."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

from toolkit.bench.expected import read_expected
from toolkit.bench.freeze import MANIFEST, check_target, freeze
from toolkit.bench.journal import JournalRecord
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import read_instances
from toolkit.formats.vnnlib.text import read_source
from toolkit.result import Statistics, Verdict
from toolkit.tuning import tuned

SPECS = {"large": "(assert (<= X_0 1.0))\n" * tuned().bench.compressed_from_bytes, "small": "(assert (<= X_0 1.0))\n"}

RECORDS = [
    JournalRecord(name, "toy", "onnx/net.onnx", f"vnnlib/{name}.vnnlib", 9.5, verdict, "", 0.1, Statistics())
    for name, verdict in {"large": Verdict.UNSAT, "small": Verdict.TIMEOUT}.items()
]


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
    images = np.arange(4 * tuned().bench.most_kept_images, dtype=np.float32)
    np.savez(source / "images.npz", images=images, labels=images.astype(np.int64))
    freeze(source, tmp_path / "frozen", RECORDS)
    freeze(source, tmp_path / "frozen", RECORDS)  # in place of the first
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
        assert pool["images"].tolist() == list(range(tuned().bench.most_kept_images))
        assert pool["labels"].tolist() == list(range(tuned().bench.most_kept_images))


def test_a_file_is_no_place_to_freeze_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        freeze(tmp_path, tmp_path / "file", [])


def listed(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_frozen_is_listed_and_nothing_else_is_left(frozen: Path) -> None:
    manifest = json.loads((frozen / MANIFEST).read_text())
    assert listed(frozen).keys() == {*manifest, MANIFEST}
    assert {path.name for path in frozen.iterdir()} == {path.split("/")[0] for path in (*manifest, MANIFEST)}


OWN = ["notes.txt", "onnx/mine.onnx", "vnnlib/deep/mine.vnnlib", "2.0/mine", "instances.csv", "vnnlib", "frozen.json"]


@pytest.mark.parametrize("name", OWN)
def test_a_folder_of_somebody_else_is_refused_as_it_is(frozen: Path, tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text("mine")
    with pytest.raises(InputError, match=str(other)):
        check_target(other)
    with pytest.raises(InputError, match=str(other)):
        freeze(tmp_path / "benchmark", other, [])
    assert listed(other) == {name: b"mine"}


@pytest.mark.parametrize("name", OWN[:4])
def test_other_files_in_a_frozen_folder_stay(frozen: Path, tmp_path: Path, name: str) -> None:
    (frozen / name).parent.mkdir(parents=True, exist_ok=True)
    (frozen / name).write_text("mine")
    (tmp_path / "benchmark" / "onnx" / "net.onnx").rename(tmp_path / "benchmark" / "onnx" / "other.onnx")
    freeze(tmp_path / "benchmark", frozen, [])
    assert (frozen / name).read_text() == "mine"
    assert (frozen / "onnx" / "other.onnx").exists()
    assert not (frozen / "onnx" / "net.onnx").exists()


def test_a_file_in_the_way_or_changed_since_is_not_replaced(frozen: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmark" / "onnx" / "new.onnx").write_text("new")
    (frozen / "onnx" / "new.onnx").write_text("mine")
    before = listed(frozen)
    with pytest.raises(InputError, match="is in the way"):
        freeze(tmp_path / "benchmark", frozen, [])
    (frozen / "onnx" / "new.onnx").unlink()
    (frozen / "expected.csv").write_text("corrected by hand")
    with pytest.raises(InputError, match=r"expected\.csv: was changed"):
        freeze(tmp_path / "benchmark", frozen, [])
    before["expected.csv"] = b"corrected by hand"
    del before["onnx/new.onnx"]
    assert listed(frozen) == before


@pytest.mark.parametrize("number", range(0, 14, 3))
def test_a_call_cut_short_can_be_repeated(
    frozen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whichever file is the last one that is moved or removed."""
    whole = listed(frozen)
    left = [number]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr("toolkit.bench.freeze.TemporaryDirectory", lambda dir, prefix: nullcontext(mkdtemp(prefix, dir)))
        with suppress(KeyboardInterrupt):
            freeze(tmp_path / "benchmark", frozen, RECORDS)
    freeze(tmp_path / "benchmark", frozen, RECORDS)
    assert listed(frozen) == whole


def mkdtemp(prefix: str, folder: Path) -> str:
    """A folder for a draft that nobody removes, as after a kill."""
    return tempfile.mkdtemp(prefix=prefix, dir=folder)
