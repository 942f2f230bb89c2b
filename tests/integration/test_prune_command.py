"""``prunecert prune`` on a small network: it prunes, tunes, writes, verifies and compares."""

import csv
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import toolkit.experiments.study
from toolkit.cli import run
from toolkit.commands.prune import CHANNELS, NetworkInput, place, radius
from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.formats.onnx.export import export_model
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.models.architecture_options import PresetNet, ResNet
from toolkit.models.build import build_model
from toolkit.pruning import ChainModel, build_chains
from toolkit.pruning.pruning_options import MethodOptions
from toolkit.recipe import Data, Recipe
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import train
from toolkit.training.training_options import Pgd, Training

QUICK = ["--epsilon", "0.02", "--epochs", "1", "--images", "4", "--workers", "1"]


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    digits = load_dataset(Data(name="digits"))
    model = build_model(PresetNet(architecture="digits_conv", channels=(4, 6), hidden=(12,)), digits, 0)
    training = Training(loss=Pgd(steps=1), epsilon=0.02, epochs=5, optimizer="adam", learning_rate=0.01)
    train(model, TrainingJob(training, digits.train))
    path = tmp_path_factory.mktemp("given") / "my net.onnx"
    export_model(model, torch.zeros(1, *digits.input_shape), path)
    return path


def prune(network: Path, out: Path, *arguments: str) -> list[dict[str, str]]:
    assert run(["prune", str(network), "--data", "digits", "-o", str(out), *QUICK, *arguments]) == 0
    return list(csv.DictReader((out / "summary.csv").read_text().splitlines()))


def tensors(path: Path) -> list[np.ndarray]:
    """The numbers that a file holds."""
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return [array for array in arrays if array.dtype.kind == "f"]


def weights(path: Path) -> list[tuple[int, int]]:
    """Size and zeros of each matrix or kernel in a file."""
    arrays = tensors(path)
    return [(array.size, int((array == 0).sum())) for array in arrays if array.ndim >= 2 and array.shape[0] > 1]


def test_weights_of_a_given_network(network, tmp_path, capsys):
    rows = prune(network, tmp_path / "out", "--density", "0.5", "--density", "0.25")
    assert [(row["method"], row["seed"]) for row in rows] == [
        (method, "0") for method in ("dense", *("magnitude", "retrained", "random_masks") * 2)
    ]  # fmt: skip
    assert [float(row["density"]) for row in rows] == pytest.approx([1, 0.5, 1, 0.5, 0.25, 1, 0.25], abs=0.01)
    folder = tmp_path / "out" / "benchmark"
    for name, kept in (("original-dense", 1), ("magnitude-01", 0.5), ("magnitude-02", 0.25)):
        found = weights(folder / "onnx" / f"{name}.onnx")
        assert 1 - sum(zeros for _, zeros in found) / sum(size for size, _ in found) == pytest.approx(kept, abs=0.01)
    assert len((folder / "instances.csv").read_text().splitlines()) == 7 * 4
    text = capsys.readouterr().out
    [first] = [line for line in text.splitlines() if "certified accuracy" in line][:1]
    assert "(as many epochs without pruning) to" in first
    assert "training alone" in text
    assert "magnitude-01 (magnitude, density 0.5" in text
    assert text.count("standard accuracy") >= 4
    assert "lottery ticket" not in text  # which only networks trained from their initial weights can be
    assert all(float(row["standard_accuracy"]) > 0.5 for row in rows[:3])


def test_the_original_is_as_it_was_given(network, tmp_path):
    prune(network, tmp_path / "out")
    images = load_dataset(Data(name="digits")).test.images.reshape(-1, 64).numpy()
    [before] = Session(load_model(network)).run_batch([images])
    [after] = Session(load_model(tmp_path / "out/benchmark/onnx/original-dense.onnx")).run_batch([images])
    assert np.allclose(before, after, atol=1e-4)


def test_channels_are_removed(network, tmp_path):
    rows = prune(network, tmp_path / "out", "--method", "slim", "--density", "0.6")
    assert [row["method"] for row in rows] == ["dense", "slim", "retrained", "random_masks"]
    assert int(rows[1]["parameters"]) < int(rows[0]["parameters"])
    for row in rows:  # without what was inserted, and the normalisation of pixels
        arrays = tensors(tmp_path / "out/benchmark/onnx" / f"{row['model']}.onnx")
        assert int(row["parameters"]) == sum(
            int(np.count_nonzero(array)) for array in arrays if array.shape != (1,) * 4
        )
    first = load_model(tmp_path / "out/benchmark/onnx/slim-01.onnx")
    shapes = [tuple(tensor.dims) for tensor in first.proto.graph.initializer]
    channels = sum(shape[0] for shape in shapes if len(shape) == 4 and shape[2] == 3)
    neurons = sum(shape[0] for shape in shapes if len(shape) == 2) - 10  # without the classes
    assert channels + neurons == 14  # 0.6 of 4 + 6 channels and 12 neurons, by one threshold


def pruned(monkeypatch, network: Path, out: Path, *arguments: str) -> dict[str, ChainModel]:
    """The networks that the command would export and verify."""
    recipes: list[Recipe] = []
    monkeypatch.setattr(toolkit.experiments.study, "run_parsed", lambda recipe, *_: recipes.append(recipe) or 0)
    assert run(["prune", str(network), "--data", "digits", "-o", str(out), *QUICK, *arguments]) == 0
    return {model.name: model for model in build_chains(recipes[0], load_dataset(recipes[0].data))}


WEIGHTS = ("magnitude", "random", "snip", "taylor", "wanda", "hydra", "crown_margin")


@pytest.mark.parametrize("method", [*WEIGHTS, *sorted(CHANNELS)])
def test_every_method_prunes_a_given_network(network, tmp_path, monkeypatch, method):
    models = pruned(monkeypatch, network, tmp_path, "--method", method, "--density", "0.6")
    assert list(models) == ["original-dense", *(f"{method}-01{kind}" for kind in ("", "-retrained", "-random_masks"))]
    dense, last = models["original-dense"], models[f"{method}-01"]
    assert last.method == method
    assert last.density == pytest.approx(0.6, abs=0.1)
    assert last.parameters < dense.parameters
    assert (last.relus < dense.relus) == (method in CHANNELS)


def test_every_method_of_a_recipe_can_be_said():
    kinds = {
        name for kind in get_args(get_args(MethodOptions)[0]) for name in get_args(kind.model_fields["name"].annotation)
    }
    assert kinds == CHANNELS | set(WEIGHTS)


@pytest.fixture(scope="module")
def residual(tmp_path_factory) -> Path:
    digits = load_dataset(Data(name="digits"))
    path = tmp_path_factory.mktemp("residual") / "residual.onnx"
    export_model(build_model(ResNet(depth=8, width=4), digits, 0).eval(), torch.zeros(1, *digits.input_shape), path)
    return path


def test_weights_of_a_residual_network(residual, tmp_path, monkeypatch):
    models = pruned(monkeypatch, residual, tmp_path, "--method", "snip", "--loss", "fgsm_gradalign")
    assert models["snip-01"].density == pytest.approx(0.5, abs=0.01)


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Path:
    """A network that is no line of layers."""

    class Square(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(64, 10), torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x).relu() * self.second(x).relu()

    path = tmp_path_factory.mktemp("product") / "product.onnx"
    export_model(Square(), torch.zeros(1, 64), path)
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--method", "slim"], "prune weights"), (["--loss", "ibp"], "use the loss standard, pgd or fgsm_gradalign")],
)
def test_what_a_product_of_branches_cannot_do_is_said(product, tmp_path, capsys, arguments, words):
    assert run(["prune", str(product), "--data", "digits", "-o", str(tmp_path / "out"), *QUICK, *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "magic"], "--method: no choice 'magic'; there are crown_margin, "),
        (["--method", "slm"], "; did you mean slim?"),
        (["--density", "0.2", "--density", "0.5"], "--density: densities must be a falling list"),
        (["--density", "2"], "--density 2.0: Input should be less than 1"),
        (["--density", "0.5", "--density", "nan"], "--density nan: Input should be a finite number"),
        (["--epochs", "-1"], "--epochs -1: Input"),
        (["--ramp", "-1"], "--ramp -1: Input"),
        (["--learning-rate", "0"], "--learning-rate 0.0: Input"),
        (["--batch", "0"], "--batch 0: Input"),
        (["--images", "0"], "--images 0: Input"),
        (["--images", "100000"], "--images: 100000 are wanted, and there are "),
        (["--timeout", "-1"], "--timeout -1.0: Input"),
        (["--seed", "-1"], "--seed -1: Input"),
        (["--mean", "1,2"], "--mean: 2 numbers for images of 1 channels"),
        (["--mean", "nan"], "--mean nan: Input"),
        (["--std", "0"], "--std 0.0: Input"),
        (["--classes", "a,b"], "--classes: only the classes of a folder"),
        (["--data", "npz:none.npz"], "--data: "),
        (["--data", "npz:none.npz"], "none.npz does not exist"),
        (["--data", "cifar"], "--data: no data set 'cifar'"),
    ],
)
def test_mistakes_are_one_line_that_names_the_option(network, tmp_path, capsys, arguments, words):
    data = [] if "--data" in arguments else ["--data", "digits"]
    quick = QUICK[:2] if {"--epochs", "--images"} & set(arguments) else QUICK
    assert run(["prune", str(network), "-o", str(tmp_path / "out"), *quick, *data, *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.startswith("prunecert: --")
    assert message.count("\n") == 1


def test_images_may_be_floats(network, tmp_path):
    """Images as floats in [0, 1] lead to the specifications and verdicts that they lead to as uint8."""
    test = load_dataset(Data(name="digits")).test.first(24)
    images = (test.images[:, 0].numpy() * 255).round().astype(np.uint8)
    labels = test.labels.numpy()
    found = []
    for name, given in (("bytes", images), ("floats", images.astype(np.float32) / 255)):
        np.savez(tmp_path / f"{name}.npz", x_train=given, y_train=labels, x_test=given, y_test=labels)
        arguments = ["--data", str(tmp_path / f"{name}.npz"), "-o", str(tmp_path / name), "--mean", "0", "--std", "1"]
        assert run(["prune", str(network), *QUICK, "--control", "retrained", *arguments]) == 0
        rows = csv.reader((tmp_path / name / "results.csv").read_text().splitlines())
        specs = sorted((tmp_path / name / "benchmark" / "vnnlib").iterdir())
        found.append(([(row[0], Path(row[2]).name, row[4]) for row in rows], [path.read_bytes() for path in specs]))
    assert found[0] == found[1]
    assert len(found[0][1]) == 4


def test_channels_need_convolutions(tmp_path, capsys):
    export_model(torch.nn.Linear(64, 10), torch.zeros(1, 64), tmp_path / "flat.onnx")
    assert (
        run(
            [
                "prune",
                str(tmp_path / "flat.onnx"),
                "-o",
                str(tmp_path / "o"),
                *QUICK,
                *["--data", "digits", "--method", "slim"],
            ]
        )
        == 2
    )
    assert "need a convolution or linear layer" in capsys.readouterr().err


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """A fully connected network for columns of numbers, not much trained."""
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10)]
    path = tmp_path_factory.mktemp("flat") / "flat.onnx"
    export_model(torch.nn.Sequential(*layers), torch.zeros(1, 64, 1), path)
    return path


def test_neurons_are_removed_and_the_input_keeps_its_shape(flat, tmp_path, capsys):
    arguments = ["--method", "slim", "--loss", "ibp", "--control", "retrained"]
    rows = prune(flat, tmp_path / "out", *arguments)
    assert "near chance" in capsys.readouterr().out
    assert [row["method"] for row in rows] == ["dense", "slim", "retrained"]
    assert int(rows[1]["parameters"]) == 64 * 6 + 6 + 6 * 10 + 10
    path = tmp_path / "out/benchmark/onnx/slim-01.onnx"
    assert load_model(path).inputs[0].shape == (1, 64, 1)
    assert {node.op_type for node in onnx.load(path).graph.node} <= {"Flatten", "Gemm", "Relu", "Identity"}
    images = load_dataset(Data(name="digits")).test.images.numpy().reshape(-1, 64, 1)
    session = onnxruntime.InferenceSession(path)
    [many] = session.run(None, {"input": images})
    [one] = session.run(None, {"input": images[3:4]})
    assert many.shape == (len(images), 10)
    assert many[3] == pytest.approx(one[0], abs=1e-5)


def test_without_epochs_networks_stay_as_they_are_pruned(flat, tmp_path, monkeypatch):
    recipes: list[Recipe] = []
    monkeypatch.setattr(toolkit.experiments.study, "run_parsed", lambda recipe, *_: recipes.append(recipe) or 0)
    arguments = ["--data", "digits", "-o", str(tmp_path), "--epsilon", "0.02", "--epochs", "0"]
    assert run(["prune", str(flat), *arguments]) == 0
    models = {model.name: model for model in build_chains(recipes[0], load_dataset(recipes[0].data))}
    assert list(models) == ["original-dense", "magnitude-01", "magnitude-01-random_masks"]
    before, after = (dict(models[name].module.named_parameters()) for name in ("original-dense", "magnitude-01"))
    for name, weight in after.items():
        assert torch.equal(weight, torch.where(weight == 0, 0, before[name]))


@pytest.mark.parametrize(("loss", "length"), [("crown_ibp", 2), ("pgd", None)])
def test_losses_with_bounds_have_a_ramp(flat, tmp_path, monkeypatch, loss, length):
    recipes: list[Recipe] = []
    monkeypatch.setattr(toolkit.experiments.study, "run_parsed", lambda recipe, *_: recipes.append(recipe) or 0)
    arguments = ["--data", "digits", "-o", str(tmp_path), "--epsilon", "0.02", "--epochs", "5", "--loss", loss]
    assert run(["prune", str(flat), *arguments]) == 0
    assert run(["prune", str(flat), *arguments, "--ramp", "3"]) == 0
    assert [chain.ramp and chain.ramp.length for recipe in recipes for chain in recipe.chains] == [length, 3]


def test_options_become_entries_of_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    assert [place(text) for text in ("a.npz", "npz:a.npz", "pets", "digits", "b.CSV")] == [
        "npz:a.npz", "npz:a.npz", "folder:pets", "digits", "csv:b.CSV",
    ]  # fmt: skip
    given = NetworkInput(mean="0.5", std="1/4,0.5,1", classes="b, a")
    assert given.standardised
    said = {key: value for key, value in given.entries().items() if value}
    assert said == {"mean": [0.5], "std": [0.25, 0.5, 1.0], "classes": ["b", "a"]}
    assert not NetworkInput().standardised
    assert radius("2/255") == (2 / 255, [])
    assert radius("0.1,0.2,0") == (0.2, [0.5, 1.0, 0.0])
    assert radius("0,0") == (0.0, [0.0, 0.0])
    for text in ("-1", "0.1,-0.2", "nan"):
        with pytest.raises(InputError, match="one number that is not negative is needed, or one for each feature"):
            radius(text)


def test_without_a_radius_certified_accuracy_is_that_of_the_verified_images(network, tmp_path):
    """The balls are single points: what is right is proved, what is wrong refuted, and nothing stays open."""
    out = tmp_path / "out"
    arguments = ["--epsilon", "0", "--epochs", "0", "--images", "30", "--workers", "1", "--control", "retrained"]
    assert run(["prune", str(network), "--data", "digits", "-o", str(out), *arguments]) == 0
    test = load_dataset(Data(name="digits")).test
    images, labels = test.images[:30].reshape(30, -1).numpy(), test.labels[:30].numpy()
    for row in csv.DictReader((out / "summary.csv").read_text().splitlines()):
        [scores] = Session(load_model(out / f"benchmark/onnx/{row['model']}.onnx")).run_batch([images])
        right = (scores.reshape(30, -1).argmax(axis=1) == labels).mean()
        assert float(row["certified_accuracy"]) == pytest.approx(right)
        assert row["undecided"] == "0"
