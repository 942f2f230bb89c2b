"""What one experiment is: data, models, training, pruning chains, specification, verification; read from TOML.

Everything is checked before any work starts; an error names the file and the key. Needs no torch.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from toolkit.errors import InputError
from toolkit.models.options import ModelOptions
from toolkit.options import Options
from toolkit.pruning.options import Chain
from toolkit.settings import Settings
from toolkit.training.options import Training


class Data(Options):
    """Which data set, and how it is divided."""

    name: str
    """A registered name (``digits``, ``mnist``, ``cifar10``, ...), ``npz:FILE`` or ``folder:DIRECTORY``."""
    root: Path = Path("data")
    """Where downloaded data sets are kept."""
    download: bool = True
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training images held out, for data sets without a split of their own."""
    base: Annotated[Path, Field(exclude=True)] = Path()
    """Folder at which relative files start; ``load_recipe`` puts the recipe's own folder here."""


class Specification(Options):
    """Local robustness of the first test images: no point of the L-infinity ball has another class."""

    epsilon: PositiveFloat
    """Radius in [0, 1] pixels; the ball is clipped to [0, 1]."""
    images: PositiveInt = 50


class Recipe(Options):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data
    models: Annotated[dict[str, ModelOptions], Field(min_length=1)]
    training: Training = Training()
    chains: Annotated[tuple[Chain, ...], Field(min_length=1)]
    specification: Specification
    verification: Settings = Settings()

    @model_validator(mode="after")
    def _check_references(self) -> Recipe:
        names = [chain.name for chain in self.chains]
        for index, chain in enumerate(self.chains):
            if chain.model not in self.models:
                raise ValueError(f"chains.{index}.model: no model {chain.model!r}; known: {', '.join(self.models)}")
            if names.count(chain.name) > 1:
                raise ValueError(f"chains.{index}.name: {chain.name!r} is used twice")
            self.training_of(chain)
        return self

    def training_of(self, chain: Chain) -> Training:
        """The training of one chain: the recipe's, with the chain's own keys and the specification's radius."""
        values = self.training.model_dump() | chain.training
        if values["epsilon"] is None:
            values["epsilon"] = self.specification.epsilon
        try:
            return Training.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"training of chain {chain.name!r}: {_first_problem(error)}") from error

    @property
    def digest(self) -> str:
        """Hash of everything in the recipe that can change a result, 16 hexadecimal digits."""
        text = self.model_dump_json(exclude={"data": {"root", "download"}})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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
        raise InputError(f"{source}: {_first_problem(error)}") from error
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"base": folder})})


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").replace("\n", " ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{key}: {message}{more}" if key else f"{message}{more}"
