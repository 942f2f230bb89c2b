"""Data sets: shapes, ranges, splits, and errors that tell what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.recipe import Data


def test_digits_are_split_the_same_way_every_time() -> None:
    first, second = (load_dataset(Data(name="digits")) for _ in range(2))
    assert [len(split) for split in (first.train, first.validation, first.test)] == [1200, 197, 400]
    assert first.input_shape == (1, 8, 8)
    assert first.train.images.dtype == torch.float32
    assert first.train.labels.dtype == torch.int64
    assert (float(first.train.images.min()), float(first.train.images.max())) == (0, 1)
    assert torch.equal(first.test.images, second.test.images)
    assert first.digest == second.digest


def test_digits_are_stratified() -> None:
    counts = load_dataset(Data(name="digits")).test.labels.bincount()
    assert counts.min() >= 38
    assert counts.max() <= 42


def _arrays(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (20, *shape), dtype=np.uint8) for part in ("train", "test")}
    return images | {f"y_{part}": np.arange(20, dtype=np.uint8) % 4 for part in ("train", "test")}


@pytest.mark.parametrize(("shape", "channels"), [((6, 5, 3), 3), ((3, 6, 5), 3), ((6, 5), 1), ((6, 5, 1), 1)])
def test_npz_images_come_out_channels_first(tmp_path: Path, shape: tuple[int, ...], channels: int) -> None:
    arrays = _arrays(shape)
    np.savez(tmp_path / "images.npz", **arrays)
    dataset = load_dataset(Data(name="npz:images.npz", base=tmp_path, validation=0.25))
    assert dataset.input_shape == (channels, 6, 5)
    assert dataset.classes == 4
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (15, 5, 20)
    first = arrays["x_test"][0].astype(np.float32) / 255
    wanted = first.transpose(2, 0, 1) if shape[-1:] in ((3,), (1,)) else first.reshape(channels, 6, 5)
    assert torch.equal(dataset.test.images[0], torch.from_numpy(wanted.copy()))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (3, 6, 5)])
def test_npz_images_may_be_floats(tmp_path: Path, kind: type, shape: tuple[int, ...]) -> None:
    """Floats in [0, 1] are read as the images that they are as uint8, up to the precision of their type."""
    arrays = _arrays(shape)
    floats = {key: (value / 255).astype(kind) if key[0] == "x" else value for key, value in arrays.items()}
    for name, given in (("bytes", arrays), ("floats", floats)):
        np.savez(tmp_path / f"{name}.npz", **given)
    whole, parts = (load_dataset(Data(name=f"npz:{name}.npz", base=tmp_path)) for name in ("bytes", "floats"))
    assert parts.test.images.dtype is torch.float32
    assert torch.allclose(parts.test.images, whole.test.images, atol=float(np.finfo(kind).eps), rtol=0)
    assert kind is np.float16 or torch.equal(parts.train.images, whole.train.images)
    assert parts.train.images.shape == whole.train.images.shape


def test_only_the_classes_of_a_folder_have_names() -> None:
    with pytest.raises(InputError, match="only the classes of a folder"):
        load_dataset(Data(name="digits", classes=("a", "b")))


def test_an_entry_may_say_mean_and_deviation(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", **_arrays((6, 5, 3)))
    entry = Data(name="npz:images.npz", base=tmp_path, mean=(0.5,), std=(0.1, 0.2, 0.3))
    dataset = load_dataset(entry)
    assert (dataset.mean, dataset.std) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    with pytest.raises(InputError, match=r"data\.std: 2 numbers for images of 3 channels"):
        load_dataset(entry.model_copy(update={"std": (0.1, 0.2)}))


def test_classes_of_a_folder_in_an_order_of_ones_own(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name, shade in (("one", 1), ("two", 2), ("zero", 0)):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (3, 2), (shade, 0, 0)).save(tmp_path / part / name / "a.png")
    entry = Data(name="folder:.", base=tmp_path, validation=0, classes=("zero", "one", "two"))
    test = load_dataset(entry).test
    shades = (test.images[:, 0, 0, 0] * 255).round().int()
    assert torch.equal(shades, test.labels.int())
    with pytest.raises(InputError, match=r"data\.classes: zero, one are not the classes of"):
        load_dataset(entry.model_copy(update={"classes": ("zero", "one")}))
    with pytest.raises(InputError, match="no folder train/ in it"):
        load_dataset(Data(name="folder:train", base=tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_train": None}, "no array 'x_train'"),
        ({"x_test": np.zeros((20, 6, 5, 3), dtype=np.int64)}, "int64"),
        ({"x_test": np.full((20, 6, 5, 3), 1.5)}, r"x_test has values from 0 to 1\.5"),
        ({"x_test": np.full((20, 6, 5, 3), -0.5, dtype=np.float16)}, r"values from -0\.5 to 0;"),
        ({"x_train": np.full((20, 6, 5, 3), np.nan)}, "values from nan"),
        ({"x_train": np.full((20, 6, 5, 3), np.inf)}, "to inf"),
        ({"y_train": np.zeros(3, dtype=np.uint8)}, "y_train"),
        ({"x_train": np.zeros((20, 6), dtype=np.uint8)}, "shape"),
    ],
)
def test_malformed_npz_is_one_line(tmp_path: Path, change: dict[str, np.ndarray | None], words: str) -> None:
    arrays = {key: value for key, value in (_arrays((6, 5, 3)) | change).items() if value is not None}
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(InputError, match=words) as caught:
        load_dataset(Data(name="npz:images.npz", base=tmp_path))
    assert "images.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken", b"no zip file"])
def test_unreadable_npz_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "images.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"images\.npz"):
        load_dataset(Data(name="npz:images.npz", base=tmp_path))


def test_image_folders(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (5, 4), (255 * label, 51 * index, 0)).save(folder / f"{index}.png")
    dataset = load_dataset(Data(name=f"folder:{tmp_path}", validation=0.5))
    assert dataset.input_shape == (3, 4, 5)
    assert dataset.test.labels.tolist() == [0, 1, 0, 1]
    assert dataset.test.images[3, :, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])
    Image.new("RGB", (7, 4)).save(tmp_path / "test" / "dog" / "odd.png")
    with pytest.raises(InputError, match=r"odd\.png"):
        load_dataset(Data(name=f"folder:{tmp_path}"))


@pytest.mark.parametrize(("odd", "channels", "augmentation"), [("L", 1, "none"), ("RGB", 3, "crop_flip")])
def test_a_folder_of_grey_images_has_one_channel(tmp_path: Path, odd: str, channels: int, augmentation: str) -> None:
    for part, mode in (("train", "L"), ("test", odd)):
        for label in range(2):
            (tmp_path / part / str(label)).mkdir(parents=True)
            Image.new(mode, (5, 4), 51 * label if mode == "L" else (51 * label,) * 3).save(
                tmp_path / part / str(label) / "a.png"
            )
    dataset = load_dataset(Data(name=f"folder:{tmp_path}", validation=0))
    assert dataset.train.images.shape == dataset.test.images.shape == (2, channels, 4, 5)
    assert torch.equal(dataset.test.images, dataset.test.labels.reshape(2, 1, 1, 1).expand(2, channels, 4, 5) * 0.2)
    assert dataset.augmentation == augmentation


def test_the_first_test_images_of_a_folder_are_of_all_classes(tmp_path: Path) -> None:
    """Verification takes the first test images: of a folder sorted by class, they would be of one class only."""
    for part in ("train", "test"):
        for name, count in (("a", 1), ("b", 4), ("c", 2)):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (3, 2)).save(tmp_path / part / name / f"{index}.png")
    assert load_dataset(Data(name=f"folder:{tmp_path}")).test.labels.tolist() == [0, 1, 2, 1, 2, 1, 1]


@pytest.mark.parametrize("name", ["digit", "npz", "folder:missing", "url:somewhere"])
def test_unknown_data_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError):
        load_dataset(Data(name=name))


def test_a_source_keeps_what_the_name_stands_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x_train=pixels, y_train=np.arange(20) % 3, x_test=pixels, y_test=np.arange(20) % 3)
    data = Data(name="cifar10", source="npz:own.npz", base=tmp_path, validation=0.1, train=7)
    dataset = load_dataset(data)
    assert (dataset.name, dataset.classes, dataset.mean) == ("cifar10", 10, (0.4914, 0.4822, 0.4465))
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (7, 2, 20)
    larger = load_dataset(data.model_copy(update={"train": 12}))
    assert torch.equal(larger.train.images[:7], dataset.train.images)
    with pytest.raises(InputError, match="mnist has 1 channels, these images have 3"):
        load_dataset(data.model_copy(update={"name": "mnist"}))


def test_absent_download_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mnist is not in"):
        load_dataset(Data(name="mnist", root=tmp_path, download=False))
