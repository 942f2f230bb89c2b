"""``prunecert prune``: prune a network of one's own, fine-tune it, and say what that did to its certified accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter

from toolkit.bench.run_options import Options
from toolkit.commands.arguments import Flag, on_stderr, print_json
from toolkit.commands.row_options import Numbers
from toolkit.data.row_units import given_numbers
from toolkit.errors import InputError
from toolkit.options import told_as_options

if TYPE_CHECKING:
    from toolkit.data.dataset import Dataset
    from toolkit.recipe import Recipe

WITH_BOUNDS = {"ibp", "crown_ibp", "sabr", "mtl_ibp", "cc_ibp", "exp_ibp"}
"""Losses that follow bounds, which a network that was not trained with them makes wide at the full radius."""
CHANNELS = {"slim", "refill", "nrs_channel", "upper_bound", "hydra_filter"}
"""Methods that remove whole channels."""


@Parameter(name="*")
@dataclass(frozen=True)
class Pruning:
    """What is taken away, and by which method."""

    method: str = "magnitude"
    """Method that prunes weights: magnitude, random, snip, taylor, wanda, hydra, crown_margin; or one that removes
    channels and neurons: slim, refill, nrs_channel, upper_bound, hydra_filter."""
    density: Annotated[tuple[float, ...], Parameter(negative=())] = (0.5,)
    """Part of the weights (or channels) to keep; may be repeated, from the largest down."""
    layers: Annotated[tuple[Literal["conv", "linear"], ...], Parameter(negative=())] = ("conv", "linear")
    """Kinds of layers whose weights are pruned; may be repeated."""
    control: Annotated[tuple[Literal["retrained", "random_masks"], ...], Parameter(negative=())] = (
        "retrained",
        "random_masks",
    )
    """Networks beside each pruned one: the unpruned one after as many epochs, and one pruned at random to the same
    density in every layer; may be repeated."""


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkInput:
    """How images or rows become what the network takes, and classes its outputs."""

    normalise: Flag = False
    """The network expects images, or features, standardised by the mean and deviation of the data set's training part;
    it gets that as a first layer."""
    mean: Numbers = None
    """The mean of that in place of the data set's: numbers between commas or a file, for all channels or for each, or
    for each feature."""
    std: Numbers = None
    """The deviation, as --mean."""
    classes: str | None = None
    """Names of the classes of a folder, or of the labels of rows, between commas, in the order of the network's
    outputs; by default alphabetical."""
    label_column: str | None = None
    """Column of a .csv that has the labels; one that is called label, class, target or the like is found."""
    drop: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Column of a .csv that is left out; may be repeated."""
    test: Path | None = None
    """A .csv of test rows; without it a quarter of each class of the .csv is kept for tests."""
    scale: float | None = None
    """What rows are divided by; 255 for whole numbers of eight bits, and 1 for others."""
    clip: Annotated[tuple[float, float] | None, Parameter(negative=())] = None
    """Least and greatest value of rows, after --scale; there is no limit without it."""

    @property
    def standardised(self) -> bool:
        """Whether a layer before the network is wanted."""
        return self.normalise or self.mean is not None or self.std is not None

    def entries(self) -> dict[str, Any]:
        """What the recipe says of its data. Raises InputError."""
        names = [name.strip() for name in self.classes.split(",")] if self.classes else []
        numbers = {"mean": self.mean, "std": self.std}
        given = {key: given_numbers(text, f"--{key}").tolist() for key, text in numbers.items() if text is not None}
        test = None if self.test is None else str(self.test)
        rows = {"label_column": self.label_column, "drop": self.drop, "scale": self.scale, "clip": self.clip}
        return given | {"classes": names, "test": test} | rows


@Parameter(name="*")
@dataclass(frozen=True)
class Tuning:
    """Training after each step of pruning."""

    loss: Literal["standard", "pgd", "fgsm_gradalign", "ibp", "crown_ibp", "sabr", "mtl_ibp", "cc_ibp", "exp_ibp"] = (
        "pgd"
    )
    """Loss of the fine-tuning; those with bounds need a network that is a line of layers with residual additions."""
    epochs: int = 10
    """Epochs after each step; 0 leaves the pruned networks as they are."""
    ramp: int | None = None
    """Epochs of each step in which the radius grows from 0; by default half of them for losses with bounds, else 0."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    batch: int = 128
    """Images, or rows, in a batch."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Mixed precision where it is not float32."""
    augmentation: Literal["none", "crop", "crop_flip", "edge_crop_flip"] | None = None
    """How images to train on are changed at random: none, cut out of a margin of four zeros, that and mirrored, or cut
    out of a margin of two repeated pixels and mirrored. By default as the data set's name says; own images in colour
    are cut out of zeros and mirrored, others are not changed."""


@Parameter(name="*")
@dataclass(frozen=True)
class Check:
    """What is verified, and how it is run."""

    images: int | None = None
    """Test images, or rows, to verify; by default 50, or all of a .csv or .npz with fewer."""
    timeout: float = 30.0
    """Seconds for each image or row."""
    seed: int = 0
    """Seed of fine-tuning, pruning and attack."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train and to bound."""
    workers: int | None = None
    """Processes that verify at the same time."""
    json: Flag = False
    """Print one JSON object on stdout at the end, with networks, scores and all answers, and all else on stderr."""


OPTIONS = {
    "chains": "--density",
    "chains.method": "--method",
    "chains.method.layers": "--layers",
    "chains.ramp": "--ramp",
    "chains.controls": "--control",
    "data.augmentation": "--augmentation",
    "training.epochs": "--epochs",
    "training.batch": "--batch",
    "training.learning_rate": "--learning-rate",
    "training.loss": "--loss",
    "training.precision": "--precision",
    "data.name": "--data",
    "data.mean": "--mean",
    "data.std": "--std",
    "data.classes": "--classes",
    "data.label_column": "--label-column",
    "data.drop": "--drop",
    "data.test": "--test",
    "data.scale": "--scale",
    "data.clip": "--clip",
    "data.radii": "--epsilon",
    "specification.images": "--images",
    "specification.epsilon": "--epsilon",
    "verification.timeout": "--timeout",
    "seed": "--seed",
}
"""The options that keys of the recipe are made of."""
PRUNING, NETWORK_INPUT, TUNING, CHECK = Pruning(), NetworkInput(), Tuning(), Check()


def prune(
    model: Path,
    /,
    *,
    data: str,
    epsilon: str,
    output: Annotated[Path, Parameter(alias="-o")],
    network_input: NetworkInput = NETWORK_INPUT,
    pruning: Pruning = PRUNING,
    tuning: Tuning = TUNING,
    check: Check = CHECK,
) -> int:
    """Prune and fine-tune an ONNX classifier, export and verify it, and compare it with the original.

    The folder gets benchmark/ (networks and specifications in VNN-COMP layout), results.csv, summary.csv and
    report.html. Beside each pruned network stand the original after as many epochs without pruning, which tells what
    pruning does from what training does, and one pruned at random. The same command continues an interrupted run.

    Parameters
    ----------
    model
        The network, .onnx or .onnx.gz: a classifier of images in [0, 1], or of rows of numbers, whose largest output is
        its answer.
    data
        digits, mnist, cifar10, ..., or npz:FILE (x_train, y_train, x_test, y_test; images uint8 or floats in [0, 1], or
        rows of any numbers), csv:FILE (rows with a header and a column of labels) or folder:DIRECTORY (train/CLASS/,
        test/CLASS/).
    epsilon
        Radius of robustness in the maximum norm, of pixels in [0, 1]; a number, or a quotient as 2/255. Of rows in
        their own units, after --scale, and also numbers between commas or a file of them, one for each feature. With 0
        robustness is left out: training is plain, and certified accuracy is the standard one of the verified images.
    output
        Folder for everything.
    """
    from toolkit.experiments.study import run_parsed

    if not model.is_file():
        raise InputError(f"{model}: no such file")
    options = Options(out=output, device=check.device, workers=check.workers)
    options.check()
    with on_stderr(check.json), told_as_options(OPTIONS):
        recipe = as_recipe(model, data, epsilon, network_input, pruning, tuning, check)
        recipe, dataset = verifying_what_there_is(recipe) if check.images is None else (recipe, None)
        code = run_parsed(recipe, options, dataset)
    if check.json:
        from toolkit.commands.run_json import run_values

        print_json(run_values(output))
    return code


def as_recipe(
    model: Path,
    data: str,
    epsilon: str,
    network_input: NetworkInput = NETWORK_INPUT,
    pruning: Pruning = PRUNING,
    tuning: Tuning = TUNING,
    check: Check = CHECK,
) -> Recipe:
    """What the options ask for, as a recipe. Raises InputError."""
    from toolkit.recipe import parse_recipe

    largest, radii = radius(epsilon)
    values = {
        "name": recipe_name(model),
        "seed": check.seed,
        "data": {"name": place(data), "radii": radii, "augmentation": tuning.augmentation, **network_input.entries()},
        "models": {"original": network(model, pruning, network_input.standardised)},
        "training": training(tuning),
        "chains": [chain(pruning, tuning)],
        "specification": {"epsilon": largest, **({} if check.images is None else {"images": check.images})},
        "verification": {"timeout": check.timeout},
    }
    return parse_recipe(values, "prunecert prune", Path.cwd())


def verifying_what_there_is(recipe: Recipe) -> tuple[Recipe, Dataset | None]:
    """The recipe with no more images than its table or archive has for tests, and that data, as it was read. A folder,
    whose images take long to read, is not looked into. Raises InputError."""
    from toolkit.data.load import load_dataset

    if not recipe.data.name.startswith(("csv:", "npz:")):
        return recipe, None
    dataset = load_dataset(recipe.data)
    images = min(recipe.specification.images, len(dataset.test))
    specification = recipe.specification.model_copy(update={"images": images})
    return recipe.model_copy(update={"specification": specification}), dataset


def place(data: str) -> str:
    """A data set as a recipe names it: a path of an archive or a folder gets the word that goes before it."""
    if ":" in data:
        return data
    suffix = Path(data).suffix.lower()
    if suffix in (".npz", ".csv"):
        return f"{suffix[1:]}:{data}"
    return f"folder:{data}" if Path(data).is_dir() else data


def radius(epsilon: str) -> tuple[float, list[float]]:
    """The largest radius that an option says, and where it has several the multiples of it. Raises InputError."""
    numbers = given_numbers(epsilon, "--epsilon")
    if not numbers.size or not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise InputError(f"--epsilon {epsilon}: one number that is not negative is needed, or one for each feature")
    largest = float(numbers.max())
    return largest, (numbers / (largest or 1.0)).tolist() if numbers.size > 1 else []


def recipe_name(model: Path) -> str:
    """The file's name as a recipe may be called."""
    stem = model.name.removesuffix(".gz").removesuffix(".onnx")
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-") or "network"


def network(model: Path, pruning: Pruning, normalise: bool) -> dict[str, Any]:
    """The model of the recipe; channels are pruned by their batch normalisation."""
    whole = pruning.method in CHANNELS
    return {"architecture": "onnx", "file": model.resolve(), "batch_norm": whole, "normalise": normalise}


def training(tuning: Tuning) -> dict[str, Any]:
    """The training of the recipe; its ramp is the chain's, for the network from the file is not trained first."""
    values = {name: value for name, value in vars(tuning).items() if name not in ("ramp", "augmentation")}
    return values | {"optimizer": "adam", "weight_decay": 0.0}


def chain(pruning: Pruning, tuning: Tuning) -> dict[str, Any]:
    """The chain of the recipe. Without epochs there is no training to compare with."""
    length = (tuning.epochs // 2 if tuning.loss in WITH_BOUNDS else 0) if tuning.ramp is None else tuning.ramp
    controls = [control for control in pruning.control if tuning.epochs or control != "retrained"]
    single = {"name": pruning.method, "layers": pruning.layers}
    return {
        "name": pruning.method,
        "model": "original",
        "method": pruning.method if pruning.method in CHANNELS else single,
        "densities": pruning.density,
        "rewind": "finetune",
        "ramp": {"start": 1, "length": length} if length else None,
        "controls": controls,
    }
