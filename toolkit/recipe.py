"""What one experiment is: data, models, training, pruning chains, specification, verification; read from TOML.

Everything is checked before any work starts; an error names the file and the key. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from toolkit.errors import FieldError, InputError, did_you_mean
from toolkit.models.architecture_options import ModelOptions, OnnxNet, identity
from toolkit.options import RecipeRecord
from toolkit.pruning.pruning_options import Chain, Sweep
from toolkit.settings import Settings
from toolkit.training.training_options import Training

Seed = Annotated[int, Field(ge=0)]


class Data(RecipeRecord):
    """Which data set, and how it is divided."""

    name: str
    """A registered name (``digits``, ``mnist``, ``cifar10``, ...), ``npz:FILE``, ``folder:DIRECTORY``, ``csv:FILE``."""
    source: Annotated[str | None, Field(pattern=r"^(npz|folder|csv):.")] = None
    """Where the images are, ``npz:FILE`` or ``folder:DIRECTORY``, in place of a download, or rows, ``csv:FILE``; a
    registered name keeps its normalisation and augmentation. The command line says ``--data``."""
    root: Path = Path("data")
    """Where downloaded data sets are kept."""
    download: bool = True
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training images held out, for data sets without a split of their own."""
    train: PositiveInt | None = None
    """Only so many of the training images, the same for every run; None takes all."""
    classes: tuple[str, ...] = ()
    """Names of the classes of ``folder:``, or of labels of rows, in the order of the network's outputs; by default in
    alphabetical order, and labels of rows that are numbers as they are, from 0 on."""
    mean: tuple[float, ...] | None = None
    """What networks subtract from images in [0, 1], for all channels or for each, or from features of rows; by default
    that of the data set."""
    std: tuple[PositiveFloat, ...] | None = None
    """What they divide by then."""
    augmentation: Literal["none", "crop", "crop_flip", "edge_crop_flip"] | None = None
    """How training images are changed at random: cut out of a margin of four zeros, mirrored, or cut out of a margin of
    two repeated pixels and mirrored; by default that of the data set. Own images in colour are cut out of zeros and
    mirrored by default, others are left as they are."""
    label_column: str | None = None
    """Column of a table that has the labels; one that is called label, class, target or the like is found."""
    drop: tuple[str, ...] = ()
    """Columns of a table that are neither features nor labels."""
    test: str | None = None
    """A table of test rows; by default a quarter of each class is kept for tests."""
    scale: PositiveFloat | None = None
    """What rows of numbers are divided by; by default 255 for whole numbers of eight bits, and 1 for others."""
    clip: tuple[float, float] | None = None
    """Least and greatest value of rows of numbers, after the scale; without it there is no limit."""
    radii: tuple[NonNegativeFloat, ...] = ()
    """Radius of each feature of rows in multiples of the specification's; by default all have that one."""
    base: Annotated[Path, Field(exclude=True)] = Path()
    """Folder at which relative files start; ``load_recipe`` puts the recipe's own folder here."""


class Specification(RecipeRecord):
    """Local robustness of the first test images: no point of the L-infinity ball has another class."""

    epsilon: NonNegativeFloat
    """Radius in [0, 1] pixels, and the ball is clipped to [0, 1]; or of rows in their own units. With 0 the only point
    is the image itself: networks are trained without attacks or bounds, and certified accuracy is the standard one of
    these images."""
    images: PositiveInt = 50


class Recipe(RecipeRecord):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Seed = 0
    seeds: tuple[Seed, ...] = ()
    """Several seeds in place of one: every network is made once for each, and the table averages over them."""
    data: Data
    models: Annotated[dict[str, ModelOptions], Field(min_length=1)]
    training: Training = Training()
    trainings: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]
    """Named sets of keys that replace those of ``training`` in the chains which say ``trained = NAME``."""
    chains: tuple[Chain, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    """Many chains at once: every model with every method."""
    specification: Specification
    verification: Settings = Settings()

    @model_validator(mode="after")
    def _check_references(self) -> Recipe:
        names = [chain.name for chain in self.all_chains]
        if not names:
            raise ValueError("chains: a recipe needs at least one chain or sweep")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: a seed is given twice in {list(self.seeds)}")
        for index, chain in enumerate(self.all_chains):
            self._check_name(f"chains.{index}.model", "model", chain.model, self.models)
            if chain.trained is not None:
                self._check_name(f"chains.{index}.trained", "training", chain.trained, self.trainings)
            if names.count(chain.name) > 1:
                raise ValueError(f"chains.{index}.name: {chain.name!r} is used twice")
            self.training_of(chain)
        return self

    def _check_name(self, key: str, what: str, name: str, known: Mapping[str, object]) -> None:
        if name not in known:
            raise ValueError(f"{key}: no {what} {name!r}; known: {', '.join(known) or 'none'}")

    @property
    def all_chains(self) -> tuple[Chain, ...]:
        """The chains, and then those of the sweeps."""
        return (*self.chains, *(chain for sweep in self.sweeps for chain in sweep.chains))

    def seeds_of(self, chain: Chain) -> tuple[int, ...]:
        """The seeds to run a chain with."""
        return chain.seeds or self.seeds or (self.seed,)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to run, in order."""
        return tuple(dict.fromkeys(seed for chain in self.all_chains for seed in self.seeds_of(chain)))

    def only_seed(self, seed: int) -> Recipe:
        """All of the experiment with this one seed."""
        chains = tuple(chain.model_copy(update={"seeds": None}) for chain in self.all_chains)
        return self.model_copy(update={"seed": seed, "seeds": (), "chains": chains, "sweeps": ()})

    def with_seed(self, seed: int) -> Recipe:
        """The part of the experiment that runs with one seed."""
        chains = tuple(chain for chain in self.all_chains if seed in self.seeds_of(chain))
        return self.model_copy(update={"chains": chains, "sweeps": ()}).only_seed(seed)

    def training_of(self, chain: Chain) -> Training:
        """The training of one chain: the recipe's, with the keys of ``trained`` and the chain's own, and the
        specification's radius where none is given."""
        named = {} if chain.trained is None else self.trainings[chain.trained]
        values = self.training.model_dump() | named | chain.training
        for radius in ("epsilon", "measured_epsilon"):
            if values[radius] is None:
                values[radius] = self.specification.epsilon
        try:
            return Training.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"training of chain {chain.name!r}: {_field_error(error)}") from error

    @property
    def digest(self) -> str:
        """Hash of everything in the recipe that can change a result, 16 hexadecimal digits."""
        values = self.model_dump(mode="json", exclude={"data": {"root", "download", "source"}})
        values["models"] = {name: identity(options) for name, options in self.models.items()}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(path: Path | str) -> Recipe:
    """Reads a recipe from a TOML file; relative ``npz:`` and ``folder:`` paths start at the recipe's folder.

    Raises:
        InputError: the file is missing, is not TOML, or has a wrong, missing or unknown key.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the recipe: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error
    return parse_recipe(values, str(path), path.parent)


def parse_recipe(values: dict[str, Any], source: str, folder: Path) -> Recipe:
    """Checks a recipe's values; ``source`` names it in errors, ``folder`` is where relative data paths start."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _field_error(error, source) from error
    models = {name: _located(options, folder) for name, options in recipe.models.items()}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"base": folder}), "models": models})


def _located(options: ModelOptions, folder: Path) -> ModelOptions:
    """Relative files of a network start at the recipe's folder."""
    if isinstance(options, OnnxNet):
        return options.model_copy(update={"file": folder / options.file})
    return options


def _field_error(error: ValidationError, source: str = "") -> FieldError:
    """What is wrong with the first field that is, and how many there are besides."""
    problems = error.errors(include_url=False)
    first = problems[0]
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    value = str(first["input"]) if isinstance(first["input"], int | float | str) else ""
    if first["type"] == "extra_forbidden":
        message = f"no such key{did_you_mean(str(first['loc'][-1]), _all_keys())}"
    elif first["type"] == "union_tag_invalid":
        context = first["ctx"]
        tag, known = context["tag"], sorted(context["expected_tags"].replace("'", "").split(", "))
        message = f"no choice {tag!r}; there are {', '.join(known)}{did_you_mean(tag, known)}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return FieldError(".".join(map(str, first["loc"])), f"{message}{more}", source, value)


def _all_keys() -> set[str]:
    """The names of keys, wherever in a recipe they may stand."""
    schema = Recipe.model_json_schema()
    return {key for record in (schema, *schema["$defs"].values()) for key in record.get("properties", ())}
