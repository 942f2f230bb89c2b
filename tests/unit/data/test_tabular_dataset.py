"""Rows of numbers as a data set: what is read, how it is divided, in which units, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.data.dataset import Dataset
from toolkit.data.input_space import OPEN, InputSpace
from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.recipe import Data

NAMES = ("tulip", "rose", "lily")
HEADER = "width,height,kind"


def _lines(count: int) -> list[str]:
    return [f"{k / 8},{-100 * k},{NAMES[k % 3]}" for k in range(count)]


def _write(path: Path, lines: list[str], header: str = HEADER) -> None:
    path.write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path / "flowers.csv", _lines(60))
    return tmp_path


def _load(folder: Path, name: str = "csv:flowers.csv", **entries: object) -> Dataset:
    return load_dataset(Data.model_validate({"name": name, "base": folder, "label_column": "kind"} | entries))


def test_a_table_is_divided_by_classes_and_every_row_keeps_its_label(folder: Path) -> None:
    dataset = _load(folder, validation=0.2)
    assert (dataset.classes, dataset.input_shape, dataset.augmentation, dataset.tabular) == (3, (2,), "none", True)
    parts = (dataset.train, dataset.validation, dataset.test)
    assert [len(part) for part in parts] == [36, 9, 15]
    assert dataset.test.labels.bincount().tolist() == [5, 5, 5]
    order = sorted(NAMES)
    found = {
        (row[0].item(), row[1].item(), order[label])
        for part in parts
        for row, label in zip(part.images, part.labels.tolist(), strict=True)
    }
    assert found == {(k / 8, -100.0 * k, NAMES[k % 3]) for k in range(60)}
    assert dataset.space == InputSpace(-OPEN, OPEN)
    assert _load(folder, validation=0.2).digest == dataset.digest


def test_classes_are_in_the_order_that_is_given(folder: Path) -> None:
    usual, given = _load(folder), _load(folder, classes=NAMES)
    assert torch.equal(usual.test.images, _load(folder).test.images)
    rose = {label: usual.test.images[usual.test.labels == label][:, 0] for label in range(3)}
    for label, name in enumerate(sorted(NAMES)):
        chosen = given.test.images[given.test.labels == NAMES.index(name)][:, 0]
        assert sorted(rose[label].tolist()) == sorted(chosen.tolist())


def test_a_table_of_tests_may_have_its_columns_in_another_order(folder: Path) -> None:
    _write(folder / "test.csv", ["5,rose,0.5", "7,lily,0.25"], "height,kind,width")
    dataset = _load(folder, test="test.csv", validation=0)
    assert dataset.test.images.tolist() == [[0.5, 5.0], [0.25, 7.0]]
    assert dataset.test.labels.tolist() == [1, 0]
    assert len(dataset.train) == 60
    _write(folder / "test.csv", ["5,rose"], "height,kind")
    with pytest.raises(InputError, match=r"data\.test: .*differ in their columns of features \(width\)"):
        _load(folder, test="test.csv")


def test_statistics_are_those_of_scikit_learn_and_a_constant_feature_has_one_of_its_own(tmp_path: Path) -> None:
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).normal((1e6, 0, 7), (1e-1, 1e-6, 0), (40, 3)).astype(np.float32)
    y = np.arange(40) % 2
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    dataset = _load(tmp_path, "npz:x.npz", validation=0)
    scaler = StandardScaler().fit(x.astype(np.float64))
    assert dataset.mean == pytest.approx(scaler.mean_, rel=1e-6)
    assert dataset.std == pytest.approx(scaler.scale_, rel=1e-6)
    assert dataset.std[2] == 1


@pytest.mark.parametrize(
    ("labels", "classes"), [(["1", "0"], ()), ([1.0, 0.0], ()), ([[0, 1], [1, 0]], ()), (["b", "a"], ("a", "b"))]
)
def test_labels_of_arrays_may_be_texts_numbers_or_one_hot(tmp_path: Path, labels: list, classes: tuple) -> None:
    x = np.arange(8.0).reshape(4, 2)
    y = np.array([*labels, *labels])
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    dataset = _load(tmp_path, "npz:x.npz", validation=0, classes=classes)
    assert (dataset.test.labels.tolist(), dataset.classes) == ([1, 0, 1, 0], 2)
    assert dataset.test.images.tolist() == x.tolist()


def test_whole_numbers_of_eight_bits_are_pixels_and_others_are_not(tmp_path: Path) -> None:
    y = np.array([0, 1])
    for name, kind in (("bytes", np.uint8), ("counts", np.int64)):
        x = np.array([[0, 255], [51, 102]], dtype=kind)
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    pixels, counts = (_load(tmp_path, f"npz:{name}.npz") for name in ("bytes", "counts"))
    assert pixels.test.images.tolist() == [[0, 1], [pytest.approx(0.2), pytest.approx(0.4)]]
    assert pixels.space == InputSpace(0, 1)
    assert counts.test.images.tolist() == [[0, 255], [51, 102]]
    scaled = _load(tmp_path, "npz:counts.npz", scale=51, clip=(0, 5), radii=(1, 0.5))
    assert scaled.test.images.tolist() == [[0, 5], [1, 2]]
    assert scaled.space == InputSpace(0, 5, (1, 0.5))
    assert scaled.digest != _load(tmp_path, "npz:counts.npz", scale=51, clip=(0, 6), radii=(1, 0.5)).digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_column": None, "name": "csv:other.csv"}, "add --label-column NAME, one of width, height, sort$"),
        ({"label_column": "sort"}, "--label-column sort: .* has the columns width, height, kind"),
        ({"drop": ("depth",)}, "--drop depth: "),
        ({"radii": (1.0,) * 3}, r"data\.radii: 3 numbers; one is needed, or one for each of 2 features"),
        ({"clip": (0.0, 1.0)}, r"row 1, feature height: -100 is not between 0 and 1"),
        ({"clip": (1.0, 0.0)}, r"data\.clip: "),
        ({"classes": NAMES[:2]}, "'lily' is none of"),
        ({"mean": (1.0, 2.0, 3.0)}, r"data\.mean: 3 numbers for rows of 2 features"),
        ({"augmentation": "crop"}, r"data\.augmentation"),
        ({"name": "csv:none.csv"}, "no such file"),
    ],
)
def test_what_does_not_fit_a_table_is_one_line(folder: Path, change: dict[str, object], words: str) -> None:
    _write(folder / "other.csv", _lines(9), "width,height,sort")
    with pytest.raises(InputError, match=words) as caught:
        _load(folder, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1,2"], "row 0 has 2 fields, the header 3"),
        (["1,nan,rose"], "row 0, column height: 'nan' is no number; --drop height"),
        (["1,,rose"], "row 0, column height: there is no value; fill it in, or take the row out"),
        (["1,2,rose", "3,4,lily"], "no class has three rows, so that one could be kept for tests"),
        (["1,2,rose"] * 8, "one class only"),
        (["1,2,0", "1,2,-1"] * 8, "a label is -1; classes are counted from 0"),
        (["1,2,0", "1,2,1e30"] * 8, "a label is 1000000000000000019884624838656; "),
        (["1,2,0", "1,2,1.5"] * 8, "'1.5' is a measured value and no class"),
        (["1,1e39,0", "1,2,1"] * 8, r"row 0, feature height: 1e\+39 is not finite in single precision"),
    ],
)
def test_rows_that_are_wrong_are_named(tmp_path: Path, lines: list[str], words: str) -> None:
    _write(tmp_path / "flowers.csv", lines)
    with pytest.raises(InputError, match=words) as caught:
        _load(tmp_path)
    assert "flowers.csv" in str(caught.value)


X, Y = np.zeros((4, 2)), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_train": None}, "needed: x_train, y_train, x_test, y_test"),
        ({"y_train": Y[:3]}, "y_train has 3 labels, x_train has 4 rows"),
        ({"x_test": np.zeros((4, 3))}, "2 features to train on and 3 in tests"),
        ({"x_test": np.zeros((4, 2, 2))}, r"rows of numbers are \(N, n\) in both parts"),
        ({"x_test": np.full((4, 2), np.nan)}, "test rows: row 0, feature 0: nan is not finite"),
        ({"x_train": np.full((4, 2), "a")}, "not rows of numbers"),
        ({"x_train": np.zeros((4, 0)), "x_test": np.zeros((4, 0))}, "no features"),
        ({"y_train": np.zeros(4, dtype=int)}, "one class only"),
    ],
)
def test_arrays_that_are_wrong_are_named(tmp_path: Path, change: dict[str, np.ndarray | None], words: str) -> None:
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y} | change
    np.savez(tmp_path / "x.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=words) as caught:
        _load(tmp_path, "npz:x.npz")
    assert "x.npz" in str(caught.value)


def test_images_have_no_keys_of_rows(tmp_path: Path) -> None:
    for key, value in {"radii": (1.0,), "clip": (0, 1), "scale": 2, "label_column": "a", "test": "a.csv"}.items():
        with pytest.raises(InputError, match=rf"data\.{key}: is for rows of numbers"):
            load_dataset(Data.model_validate({"name": "digits", key: value}))
