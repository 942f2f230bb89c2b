"""``prunecert prune`` on tables: networks of features with units of their own, from their files to their verdicts."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

import toolkit.bench.generate_properties
import toolkit.data.tabular_dataset
from toolkit.cli import run
from toolkit.formats.onnx.export import export_model
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session

NAMES = ("rose", "lily", "tulip")
"""Names of the classes 0, 1, 2."""
CENTRES = np.array([[900.0, -2e-3, 5.0], [950.0, 0.0, 5.0], [1000.0, 2e-3, 5.0]])
DEVIATION = np.array([8.0, 3e-4, 0.0])
SCALE = np.array([50.0, 2e-3, 1.0])
QUICK = ["--epochs", "1", "--images", "4", "--workers", "1", "--control", "retrained"]


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    """Features of three sizes, one of them constant, and classes."""
    y = np.arange(96) % 3
    return (CENTRES[y] + DEVIATION * np.random.default_rng(0).normal(size=(96, 3))).astype(np.float32), y


@pytest.fixture(scope="module")
def table(tmp_path_factory, rows) -> Path:
    path = tmp_path_factory.mktemp("table") / "flowers.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "number", "shift", "five", "kind"])
        writer.writerows([x[0], k, x[1], x[2], NAMES[y]] for k, (x, y) in enumerate(zip(*rows, strict=True)))
    return path


def _layers(outputs: int) -> list[torch.nn.Linear]:
    """Scores of standardised features by hand: along the mean of the first two, class 1 in the middle."""
    first, second = torch.nn.Linear(3, 6), torch.nn.Linear(6, outputs)
    way = torch.tensor([0.5, 0.5, 0.0])
    with torch.no_grad():
        first.weight.copy_(torch.stack([way, -way, way, -way, 0.2 * way, -0.2 * way]))
        first.bias.copy_(torch.tensor([0.0, 0.0, -0.5, -0.5, 0.3, 0.3]))
        sides = torch.tensor([[-0.2, 1.0, 0.0, 2.0, -0.1, 0.3], [0.2, 0.2, -1.0, -1.0, 0.1, 0.1]])
        sides = torch.cat([sides, torch.tensor([[1.0, -0.2, 2.0, 0.0, 0.3, -0.1]])])
        second.weight.copy_(sides if outputs == 3 else sides[2:] - sides[:1])
        second.bias.copy_(torch.tensor([0.0, 0.6, 0.0]) if outputs == 3 else torch.zeros(1))
    return [first, second]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A classifier as skl2onnx writes it: a scaler, products, a softmax, a label and a map of probabilities."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13, "ai.onnx.ml" : 1]>
        net (float[N, 3] X) => (int64[N] label, float[N, 3] chances)
        <float[3, 6] w, float[6] b, float[6, 3] v, float[1, 3] c>
        {
            scaled = ai.onnx.ml.Scaler<offset: floats = [950.0, 0.0, 5.0], scale: floats = [0.02, 500.0, 1.0]>(X)
            cast = Cast<to = 1>(scaled)
            m = MatMul(cast, w)  a = Add(b, m)  r = Relu(a)
            n = MatMul(r, v)  s = Add(n, c)
            p = Softmax(s)
            chosen = ArgMax<axis = 1, keepdims = 0>(p)
            label = Cast<to = 7>(chosen)
            chances = ai.onnx.ml.ZipMap<classlabels_int64s: ints = [0, 1, 2]>(p)
        }"""
    )
    first, second = _layers(3)
    arrays = {"w": first.weight.T, "b": first.bias, "v": second.weight.T, "c": second.bias[None]}
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value.detach().numpy()), name) for name, value in arrays.items()
    )
    maps = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(
            onnx.TensorProto.INT64, onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
        )
    )
    proto.graph.output[1].CopyFrom(onnx.helper.make_value_info("chances", maps))
    path = tmp_path_factory.mktemp("exported") / "flowers.onnx"
    onnx.save(proto, path)
    return path


def _summary(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "summary.csv").read_text().splitlines()))


def test_an_export_of_scikit_learn_is_pruned_for_rows_of_a_table(exported, table, rows, tmp_path):
    radii = np.array([2.0, 1e-4, 0.0])
    out = tmp_path / "out"
    arguments = ["--data", str(table), "--label-column", "kind", "--drop", "number", "--classes", ",".join(NAMES)]
    ball = ["--epsilon", ",".join(map(str, radii)), "--method", "slim", "--loss", "ibp"]
    assert run(["prune", str(exported), *arguments, *ball, *QUICK, "-o", str(out)]) == 0
    dense, pruned, retrained = _summary(out)
    assert [dense["method"], pruned["method"], retrained["method"]] == ["dense", "slim", "retrained"]
    assert float(dense["standard_accuracy"]) > 0.9
    assert float(dense["certified_accuracy"]) > 0
    assert int(pruned["parameters"]) < int(dense["parameters"])
    assert [row["undecided"] for row in (dense, pruned, retrained)] == ["0"] * 3

    benchmark = out / "benchmark"
    x, y = rows
    own = np.load(benchmark / "images.npz")
    place = [int(np.argmin(np.abs(x - row).max(1))) for row in own["images"]]
    assert np.array_equal(x[place], own["images"])
    assert np.array_equal(y[place], own["labels"])
    _check_verdicts(out, own["images"], own["labels"], radii)


def test_a_table_is_read_once_to_verify_all_of_its_tests(exported, table, tmp_path, monkeypatch):
    reads, read = [], toolkit.data.tabular_dataset.read_rows
    monkeypatch.setattr(toolkit.data.tabular_dataset, "read_rows", lambda *given: reads.append(given) or read(*given))
    arguments = ["--label-column", "kind", "--drop", "number", "--classes", ",".join(NAMES), "--epsilon", "2,1e-4,0"]
    quick = ["--epochs", "0", "--workers", "1", "--control", "random_masks", "-o", str(tmp_path / "out")]
    assert run(["prune", str(exported), "--data", str(table), *arguments, *quick]) == 0
    assert [row["images"] for row in _summary(tmp_path / "out")] == ["24"] * 3
    assert len(reads) == 1


def _check_verdicts(out: Path, centres: np.ndarray, labels: np.ndarray, radii: np.ndarray) -> None:
    """Boxes are the balls of the rows, and no proved box has a point of another class among many."""
    generator = np.random.default_rng(1)
    answers = list(csv.reader((out / "results.csv").read_text().splitlines()))
    assert len(answers) == 3 * 4
    for _, network, spec, _, verdict, *_ in answers:
        index = int(Path(spec).stem.rpartition("_")[2])
        lower, upper = _box(out / "benchmark" / "vnnlib" / Path(spec).name, len(radii))
        centre = centres[index].astype(np.float64)
        assert (lower >= centre - radii).all()
        assert (upper <= centre + radii).all()
        assert upper - lower == pytest.approx(2 * radii, abs=1e-3, rel=1e-2)
        points = generator.choice([0, 0.5, 1], (400, len(radii))) * (upper - lower) + lower
        [scores] = Session(load_model(out / "benchmark" / "onnx" / Path(network).name)).run_batch([points])
        if verdict == "unsat":
            assert (scores.argmax(1) == labels[index]).all()


def _box(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.zeros((2, size))
    for line in path.read_text().splitlines():
        if line.startswith("(assert (<= X_") or line.startswith("(assert (>= X_"):
            name, number = line.rstrip(")").split()[2:]
            found[int("<=" in line), int(name[2:])] = float(number)
    return found[0], found[1]


def test_the_generator_repeats_the_specifications_of_rows(exported, table, tmp_path):
    arguments = ["--label-column", "kind", "--drop", "number", "--classes", ",".join(NAMES), "--epsilon", "2,1e-4,0"]
    limits = ["--clip", "-1", "1100"]
    out = tmp_path / "out"
    assert run(["prune", str(exported), "--data", str(table), *arguments, *limits, *QUICK, "-o", str(out)]) == 0
    folder = out / "benchmark"
    before = {path.name: path.read_bytes() for path in (folder / "vnnlib").iterdir()}
    generator = Path(toolkit.bench.generate_properties.__file__)
    subprocess.run([sys.executable, "-P", str(generator), "0"], cwd=folder, check=True)
    assert {path.name: path.read_bytes() for path in (folder / "vnnlib").iterdir()} == before


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_exported_networks_keep_the_shape_of_a_row_and_the_answers(rows, tmp_path, shape, outputs):
    x, y = rows
    y = y if outputs == 3 else y // 2
    first, second = _layers(outputs)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    network = torch.nn.Sequential(first, torch.nn.ReLU(), second)
    whole = torch.nn.Sequential(torch.nn.Flatten(), network) if len(shape) > 2 else network
    export_model(whole, torch.zeros(shape), tmp_path / "net.onnx", batched=len(shape) > 1)
    standard = ["--mean", "950,0,5", "--std", "50,2e-3,1"]
    arguments = ["--data", str(tmp_path / "x.npz"), "--epsilon", "0", *standard, *QUICK, "-o", str(tmp_path / "out")]
    assert run(["prune", str(tmp_path / "net.onnx"), *arguments]) == 0
    scaled = ((x - [950.0, 0.0, 5.0]) / SCALE).astype(np.float32)
    [before] = Session(load_model(tmp_path / "net.onnx")).run_batch([scaled])
    for name in ("original-dense", "magnitude-01"):
        model = load_model(tmp_path / "out" / "benchmark" / "onnx" / f"{name}.onnx")
        assert model.inputs[0].shape == shape
        assert model.outputs[0].size == max(2, outputs)
        assert model.inputs[0].batched == (len(shape) > 1)
        [after] = Session(model).run_batch([x])
        if name == "original-dense":
            single = outputs == 1
            assert np.allclose(after[:, 1:] - after[:, :1] if single else after, before, atol=1e-4)
    assert [row["undecided"] for row in _summary(tmp_path / "out")] == ["0"] * 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "add --label-column NAME, one of length, number, shift, five, kind"),
        (["--label-column", "colour"], "--label-column colour: "),
        (["--label-column", "kind"], "its input has shape (1, 3), but the rows have 4 features; --drop NAME"),
        (["--label-column", "kind", "--drop", "number", "--epsilon", "1,2"], "--epsilon: 2 numbers; one is needed, or"),
        (["--label-column", "kind", "--drop", "number", "--clip", "0", "1"], "is not between 0 and 1 (--clip"),
        (["--label-column", "kind", "--drop", "number", "--clip", "1", "0"], "--clip: 1 0: "),
        (["--label-column", "kind", "--drop", "number", "--scale", "0"], "--scale 0.0: Input should be"),
        (["--label-column", "number", "--drop", "kind"], "no class has three rows"),
        (["--label-column", "kind", "--drop", "number", "--test", "none.csv"], "none.csv: no such file"),
    ],
)
def test_mistakes_are_one_line_and_code_2(exported, table, tmp_path, capsys, arguments, words):
    ball = [] if "--epsilon" in arguments else ["--epsilon", "1"]
    given = ["--data", str(table), *ball, *QUICK, "-o", str(tmp_path / "out"), *arguments]
    assert run(["prune", str(exported), *given]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_labels_have_to_be_outputs(exported, rows, tmp_path, capsys):
    x, y = rows
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y + 1, x_test=x, y_test=y + 1)
    given = ["--data", str(tmp_path / "x.npz"), "--epsilon", "0", *QUICK]
    assert run(["prune", str(exported), *given, "-o", str(tmp_path / "out")]) == 2
    assert "has 3 outputs, but the data set has 4 classes; labels that are numbers count" in capsys.readouterr().err
    assert run(["prune", str(exported), *given, "--classes", "1,2,3", "-o", str(tmp_path / "named")]) == 0
    assert float(_summary(tmp_path / "named")[0]["standard_accuracy"]) > 0.9


def test_images_have_one_radius(exported, tmp_path, capsys):
    given = ["--data", "digits", "--epsilon", "0.1,0.2", "-o", str(tmp_path / "out"), *QUICK]
    assert run(["prune", str(exported), *given]) == 2
    assert "--epsilon: is for rows of numbers" in capsys.readouterr().err
