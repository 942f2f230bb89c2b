"""A user's own rows: which are read, their labels, and the boxes around them in the network's units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.row_units import RowUnits, arranged, given_numbers, in_network_units
from toolkit.data.rows import DataRows, RowSource, class_numbers, in_order, read_rows
from toolkit.errors import InputError

IMAGES = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
"""Four colour images of two by three pixels, colours last."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.arange(20.0).reshape(5, 4))
    train = {"x_train": np.zeros((2, 2)), "y_train": [0, 1]}
    np.savez("test.npz", **train, x_test=IMAGES, y_test=[[1], [0], [2], [1]], words=["a"])
    Path("flowers.csv").write_text("id,width,class,height\na,1.5,rose,2\nb,-1,tulip,3e1\nc,0,rose,4\n")
    Path("numbers.csv").write_text("width,height,target\n1,2,1.0\n3,4,0\n")
    Path("bare.csv").write_text("1,2,0\n3,4,1\n")
    Path("bare names.csv").write_text("1.5,2,rose\n3,4.5,tulip\n")
    Path("bare pixels.csv").write_text("0,0,rose\n3,4,tulip\n")
    Path("numbered.csv").write_text("0,1,kind\n3,4,tulip\n5,6,rose\n")
    Path("two.csv").write_text("a,y,label\n1,0,1\n")
    Path("many.csv").write_text("".join(f"c{k}," for k in range(9)) + "\n" + "1," * 9 + "\n")
    np.save("nothing.npy", np.zeros((0, 4)))
    Path("labels.txt").write_text("name\n1\n0\n1\n0\n1\n")
    for name, shades in (("cat", (10, 20, 30)), ("dog", (40,))):
        Path("pets", name).mkdir(parents=True)
        for shade in shades:
            Image.new("RGB", (3, 2), (shade, 0, 255)).save(Path("pets", name, f"{shade}.png"))
    return tmp_path


def rows_of(data: str, size: int, **options: object) -> DataRows:
    return read_rows(RowSource(data, **options), size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "expected"), [("1", [1]), ("1:3", [1, 2]), ("::2", [0, 2, 4]), (None, [0, 1, 2, 3, 4]), ("3:99", [3, 4])]
)
def test_rows_are_chosen_as_in_python(folder: Path, rows: str | None, expected: list[int]) -> None:
    found = rows_of("x.npy", 4, rows=rows)
    assert list(found.numbers) == expected
    assert np.array_equal(found.values, np.arange(20.0).reshape(5, 4)[expected])
    assert found.total == 5
    assert found.labels is None


def test_rows_are_spread_where_there_are_many() -> None:
    assert list(RowSource("x", most=3).chosen(7)) == [0, 3, 6]
    assert list(RowSource("x", most=7).chosen(7)) == list(range(7))


def test_an_archive_has_the_labels_beside_its_test_images(folder: Path) -> None:
    for place in ("test.npz", "test.npz:x_test"):
        found = rows_of(place, 18, rows="1:3")
        assert found.labels is not None
        assert found.labels.tolist() == [0, 2]
        assert np.array_equal(found.values, IMAGES[1:3])
        assert found.pixels
    assert rows_of("test.npz", 18, labels="predicted").labels is None


def test_whole_numbers_may_be_names_of_columns(folder: Path) -> None:
    found = rows_of("numbered.csv", 2)
    assert (found.features, found.label_column, found.total) == (("0", "1"), "kind", 2)


def test_a_table_has_features_and_labels(folder: Path) -> None:
    found = rows_of("flowers.csv", 2, drop=("id",))
    assert found.values.tolist() == [[1.5, 2], [-1, 30], [0, 4]]
    assert found.labels is not None
    assert found.labels.tolist() == ["rose", "tulip", "rose"]
    assert found.class_names == ("rose", "tulip")
    assert class_numbers(found.labels, found, (), 2).tolist() == [0, 1, 0]
    assert class_numbers(found.labels, found, ("tulip", "rose"), 2).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "text",
    ["width;class;height\n1.5;rose;2\n-1;tulip;30\n", ",width,class,height\n0,1.5,rose,2\n1,-1,tulip,30\n"],
    ids=["semicolons", "numbered rows"],
)
def test_tables_as_other_programs_write_them(folder: Path, text: str) -> None:
    Path("table.csv").write_text(text)
    found = rows_of("table.csv", 2)
    assert found.values.tolist() == [[1.5, 2.0], [-1.0, 30.0]]
    assert found.features == ("width", "height")


def test_the_only_column_of_words_is_the_label_where_the_others_are_the_inputs(folder: Path) -> None:
    Path("table.csv").write_text("a,kind,b\n1,rose,2\n3,tulip,4\n")
    found = rows_of("table.csv", 2)
    assert found.labels is not None
    assert (found.labels.tolist(), found.label_column, found.features) == (["rose", "tulip"], "kind", ("a", "b"))
    assert rows_of("table.csv", 2, label_column="kind").label_column == ""
    with pytest.raises(InputError, match="no column that is plainly the label"):
        rows_of("table.csv", 3)  # a network that reads all three cannot be certified on words
    Path("table.csv").write_text("a,kind,b,colour\n1,rose,2,red\n3,tulip,4,red\n")
    with pytest.raises(InputError, match="one of a, kind, b, colour, or"):
        rows_of("table.csv", 3)


def test_features_are_found_by_their_names() -> None:
    rows = DataRows(np.array([[1.0, 2.0, 3.0]]), None, range(1), 1, features=("id", "petal (cm)", "width"))
    assert in_order(rows, ("width", "petal__cm_")).values.tolist() == [[3.0, 2.0]]
    assert in_order(rows, ("width", "height")) is rows, "one of them is not there"
    alike = replace(rows, features=("width", "petal (cm)", "petal [cm]"))
    assert in_order(alike, ("width", "petal__cm_")) is alike, "which column is meant is not known"


def test_labels_may_be_numbers_in_a_table_or_a_file(folder: Path) -> None:
    found = rows_of("numbers.csv", 2)
    assert found.labels is not None
    assert class_numbers(found.labels, found, ("no", "yes"), 2).tolist() == [1, 0]
    assert class_numbers(found.labels, found, ("1", "0"), 2).tolist() == [0, 1], "names come before positions"
    with pytest.raises(InputError, match="label '0' is none"):
        class_numbers(found.labels, found, ("1", "2"), 2)
    given = rows_of("x.npy", 4, rows="1::2", labels="labels.txt").labels
    assert given is not None
    assert given.tolist() == ["0", "0"]


def test_images_of_each_class_come_in_turn_and_as_the_network_wants_them(folder: Path) -> None:
    colour = rows_of("pets", 18)
    assert colour.values.shape == (4, 3, 2, 3)
    assert colour.labels is not None
    assert colour.labels.tolist() == ["cat", "dog", "cat", "cat"]
    assert colour.values[:, 0, 0, 0].tolist() == [10, 40, 20, 30]
    assert rows_of("pets", 6).values.shape == (4, 2, 3)
    assert rows_of("pets/cat", 18).labels is None


def test_a_data_set_by_its_name(folder: Path) -> None:
    np.savez("small.npz", x_train=IMAGES, y_train=[0, 1, 0, 1], x_test=IMAGES, y_test=[1, 0, 1, 0])
    assert rows_of("npz:small.npz", 18, rows="2").values.shape == (1, 3, 2, 3)
    found = rows_of("digits", 64, rows="0:3")
    assert found.values.shape == (3, 1, 8, 8)
    assert found.total == 400
    assert found.labels is not None
    assert found.pixels


Mistake = tuple[str, int, dict[str, object], str]
MISTAKES: dict[str, Mistake] = {
    "no file": ("none.npy", 4, {}, "no such file"),
    "no name": ("nowhere", 4, {}, "no file .* nor one of .*digits"),
    "words": ("test.npz:words", 4, {}, "not rows of numbers"),
    "no key": ("test.npz:z", 4, {}, "name one of its arrays"),
    "no rows at all": ("nothing.npy", 4, {}, "nothing.npy: no rows in it"),
    "rows beyond": ("x.npy", 4, {"rows": "7:9"}, "has 5"),
    "rows of words": ("x.npy", 4, {"rows": "few"}, "A:B"),
    "a word in a column": ("flowers.csv", 3, {}, "column id: 'a' is no number; --drop id"),
    "an unknown column": ("flowers.csv", 3, {"drop": ("age",)}, "--drop age"),
    "no header": ("bare.csv", 3, {}, "a header"),
    "no header, but a word": ("bare names.csv", 2, {}, "1.5, 2, rose, is a row of numbers; a header"),
    "no header, but a word beside pixels": ("bare pixels.csv", 2, {}, "a header"),
    "an unknown label column": ("flowers.csv", 3, {"label_column": "age"}, "--label-column age"),
    "two label columns": ("two.csv", 1, {}, "several columns .* one of y, label$"),
    "many columns": ("many.csv", 8, {}, r"one of c0, c1, c2, \.\.\., c7, c8, or"),
    "too few labels": ("x.npy", 4, {"labels": "test.npz:y_train"}, "2 labels for 5 rows"),
    "no images": (".", 4, {}, "no images"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_told(folder: Path, case: str) -> None:
    data, size, options, message = MISTAKES[case]
    with pytest.raises(InputError, match=message):
        rows_of(data, size, **options)


def test_names_beside_an_array_are_sorted(folder: Path) -> None:
    np.savez("named.npz", images=IMAGES, labels=np.array(["rose", "aster", "tulip", "rose"]))
    Path("names.txt").write_text("b\na\nc\nb\nb\n")
    beside, given = rows_of("named.npz", 18, rows="2:"), rows_of("x.npy", 4, rows="1:3", labels="names.txt")
    assert beside.class_names == ("aster", "rose", "tulip"), "also of rows that are not chosen"
    assert given.class_names == ("a", "b", "c")
    for found, numbers in ((beside, [2, 1]), (given, [0, 2])):
        assert found.labels is not None
        assert class_numbers(found.labels, found, (), 3).tolist() == numbers


def test_measured_values_are_no_classes(folder: Path) -> None:
    rows = DataRows(np.zeros((2, 1)), np.array([0.25, 1]), range(2), 2)
    with pytest.raises(InputError, match=r"row 0: the label 0\.25 is a measured value.*spec output-range"):
        class_numbers(np.array([0.25, 1]), rows, (), 2)
    np.savez("targets.npz", x=np.zeros((2, 3)), y=[[0.5, 2.5], [0.25, 1]])
    with pytest.raises(InputError, match="no shares of classes"):
        rows_of("targets.npz", 3)
    np.savez("shares.npz", x=np.zeros((2, 3)), y=[[0.1, 0.9], [1, 0]])
    found = rows_of("shares.npz", 3).labels
    assert found is not None
    assert found.tolist() == [1, 0]


def test_a_class_has_one_name() -> None:
    rows = DataRows(np.zeros((1, 1)), np.array(["a"]), range(1), 1)
    with pytest.raises(InputError, match="--classes: 'a' is there twice"):
        class_numbers(np.array(["a"]), rows, ("a", "a"), 2)


@pytest.mark.parametrize("labels", [["rose", "tulip"], [0, 2], [0.5, 1], [-1, 0]])
def test_labels_that_no_class_has_are_told(labels: list[object]) -> None:
    rows = DataRows(np.zeros((2, 1)), np.array(labels), range(2), 2)
    with pytest.raises(InputError, match="none of the network's 2 classes"):
        class_numbers(np.array(labels), rows, ("no", "yes"), 2)


def test_measured_values_are_told_what_can_be_asked() -> None:
    rows = DataRows(np.zeros((2, 1)), np.array([0, 151]), range(2), 2)
    with pytest.raises(InputError, match=r"label 151 is none .*of a regressor, `prunecert spec output-range`"):
        class_numbers(np.array([0, 151]), rows, (), 2)


def units(epsilon: str = "0.1", **given: object) -> RowUnits:
    return RowUnits(given_numbers(epsilon, "--epsilon"), **given)  # type: ignore[arg-type]


def test_the_box_holds_what_the_users_ball_holds() -> None:
    """Corners of the ball in pixels, standardised by hand, are the corners of the box."""
    rows = DataRows(IMAGES, None, range(4), 4, pixels=True)
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.25, 2.0])
    found = in_network_units(rows, units("0.02,0.03,0", mean=mean, std=std), (1, 3, 2, 3), "float32")
    radius = np.array([0.02, 0.03, 0.0])
    for image, box in zip(IMAGES, found.boxes(), strict=True):
        edges = [(np.clip(image / 255 + sign * radius, 0, 1) - mean) / std for sign in (-1, 1)]
        low, high = (edge.transpose(2, 0, 1).reshape(-1) for edge in edges)
        assert np.allclose(box.lower, low, atol=1e-6)
        assert np.allclose(box.upper, high, atol=1e-6)
        wide = np.tile(radius[:, None] > 0, (1, 6)).reshape(-1)
        assert (box.lower[wide] >= low[wide]).all()
        assert (box.upper[wide] <= high[wide]).all()


def test_values_are_cut_only_where_it_is_known_or_said() -> None:
    table = DataRows(np.array([[0.05, 7.0]]), None, range(1), 1)
    [free] = in_network_units(table, units("0.1"), (1, 2), "float64").boxes()
    assert np.allclose([free.lower, free.upper], [[-0.05, 6.9], [0.15, 7.1]])
    [cut] = in_network_units(table, units("0.1", clip=(0.0, 7.05)), (1, 2), "float64").boxes()
    assert np.allclose([cut.lower, cut.upper], [[0, 6.9], [0.15, 7.05]])
    with pytest.raises(InputError, match="row 0: the centre leaves"):
        next(in_network_units(table, units("0.1", clip=(0.0, 1.0)), (1, 2), "float64").boxes())


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e39])
def test_numbers_that_the_network_cannot_read_are_told_with_their_row(value: float) -> None:
    table = DataRows(np.array([[0.0, 1.0], [2.0, value]]), None, range(4, 6), 6)
    with pytest.raises(InputError, match="row 5 has numbers that are not finite, or too large for float32"):
        in_network_units(table, units(), (1, 2), "float32")


def test_one_radius_for_each_feature_and_whole_numbers_as_they_are() -> None:
    rows = DataRows(np.array([[10, 20]], dtype=np.uint8), None, range(1), 1, pixels=True)
    [box] = in_network_units(rows, units("1,0", scale=1.0), (1, 2), "float32").boxes()
    assert [box.lower.tolist(), box.upper.tolist()] == [[9, 20], [11, 20]]


@pytest.mark.parametrize(
    ("own", "wanted", "order"),
    [
        ((2, 3, 4), (1, 4, 2, 3), lambda x: x.transpose(0, 3, 1, 2)),
        ((4, 2, 3), (1, 2, 3, 4), lambda x: x.transpose(0, 2, 3, 1)),
        ((4, 2, 3), (1, 4, 2, 3), lambda x: x),
        ((2, 12), (1, 24), lambda x: x),
        ((2, 3), (1, 1, 2, 3), lambda x: x),
    ],
)
def test_channels_move_where_the_shapes_say_so(
    own: tuple[int, ...], wanted: tuple[int, ...], order: Callable[[np.ndarray], np.ndarray]
) -> None:
    values = np.random.default_rng(0).random((2, *own))
    assert np.array_equal(arranged(values, wanted), order(values).reshape(2, -1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": "-1"}, "not negative"),
        ({"epsilon": "nan"}, "finite"),
        ({"epsilon": "1,2"}, "2 numbers; one is needed, or one for each of 3 features"),
        ({"std": np.zeros(1)}, "--std"),
        ({"scale": 0.0}, "--scale"),
        ({"clip": (1.0, 0.0)}, "--clip 1 0"),
        ({"mean": np.array([np.inf])}, "--mean"),
    ],
)
def test_units_that_cannot_be_are_told(given: dict[str, object], message: str) -> None:
    rows = DataRows(np.zeros((1, 3)), None, range(1), 1)
    with pytest.raises(InputError, match=message):
        in_network_units(rows, units(**given), (1, 3), "float32")  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_told() -> None:
    with pytest.raises(InputError, match=r"3 numbers, .* has 4"):
        arranged(np.zeros((1, 3)), (1, 4))
    with pytest.raises(InputError, match="for one sample"):
        arranged(np.zeros((1, 3)), (2, 3))
    with pytest.raises(InputError, match="resize them"):
        arranged(np.zeros((1, 3, 4, 4)), (1, 3, 2, 2))
    for text, message in (("many", "neither a number"), ("1/0", "neither a number"), (" ", "it is empty")):
        with pytest.raises(InputError, match=message):
            given_numbers(text, "--epsilon")


def test_quotients_are_numbers() -> None:
    assert given_numbers("2/255,0.5", "--epsilon").tolist() == [2 / 255, 0.5]
