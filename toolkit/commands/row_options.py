"""What commands may be told about rows of a user's data; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from numpy.typing import ArrayLike

from toolkit.data.row_units import RowUnits, given_numbers
from toolkit.data.rows import RowSource
from toolkit.experiments.row_questions import RowQuestion

Numbers = Annotated[str | tuple[float, ...] | None, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True)
class RowBalls:
    """Which balls are asked about."""

    data: str
    """FILE.npy, FILE.npz:KEY, FILE.csv with a header, a folder of images in folders named by their classes, or a data
    set by name (digits, mnist, cifar10, ...)."""
    epsilon: str
    """Radius in the maximum norm, of values divided by --scale: a number, numbers between commas, or a file of them;
    one for all features, or one for each channel or feature."""
    labels: str | None = None
    """File of the labels (.npy, .npz:KEY, or a text of one a line), or `predicted` for the network's own answers."""


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """Which rows are meant, how they become inputs of the network, and how its outputs are read."""

    rows: str | None = None
    """N, A:B or A:B:STEP, counted from 0; without it up to 100 rows, evenly spread."""
    label_column: str | None = None
    """Column of a .csv that has the labels; one that is called label, class, target or the like is found."""
    drop: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Column of a .csv that is left out; may be repeated."""
    classes: str | None = None
    """Names of the classes between commas, in the order of the network's outputs; many exports have them."""
    clip: Annotated[tuple[float, float] | None, Parameter(negative=())] = None
    """Least and largest value, after --scale; pixels of images stay between 0 and 1 anyway."""
    scale: float | None = None
    """What stored values are divided by; 255 for whole numbers of eight bits, and 1 for others."""
    mean: Numbers = None
    """What the network wants subtracted then: a number, numbers between commas, or a file of them; one for all, or one
    for each channel or feature."""
    std: Numbers = None
    """What the network wants it divided by then, as --mean."""
    output_name: str | None = None
    """The output of scores, where the network has several."""
    threshold: float | None = None
    """Score from which on a network with a single one says class 1; 0, or 0.5 after a sigmoid."""

    def question(self, network: Path, data: str, labels: str | None, epsilon: str | ArrayLike) -> RowQuestion:
        """What is asked about a network. Raises InputError."""
        source = RowSource(data, self.rows, labels, self.label_column, tuple(self.drop))
        mean, std = (
            None if numbers is None else given_numbers(numbers, option)
            for numbers, option in ((self.mean, "--mean"), (self.std, "--std"))
        )
        units = RowUnits(given_numbers(epsilon, "--epsilon"), self.clip, self.scale, mean, std)
        names = tuple(name.strip() for name in self.classes.split(",")) if self.classes else ()
        return RowQuestion(network, source, units, names, self.output_name, self.threshold)


READING = Reading()
