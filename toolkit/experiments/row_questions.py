"""Is the network's answer the same around each row of a user's data? A benchmark folder that asks it; no torch.

::

    onnx/NAME.onnx  vnnlib/NAME_00042.vnnlib  instances.csv     what every tool of VNN-COMP reads
    rows.csv                                                    row, label and answer of each specification

One specification for each row, of the whole ball around it; a row that the network gets wrong is one, too.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.bench.atomic_files import write_bytes_atomically, write_text_atomically
from toolkit.data.row_units import RowPoints, RowUnits, in_network_units
from toolkit.data.rows import RowSource, class_numbers, in_order, read_rows
from toolkit.errors import InputError
from toolkit.formats.onnx.classifier import Classifier, load_classifier
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.instances import write_instances
from toolkit.formats.vnncomp.model_binding import BARE
from toolkit.formats.vnnlib.convert_versions import upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.specs import InputBox, output_range, robustness
from toolkit.formats.vnnlib.write import write_query

INSTANCES = "instances.csv"
ROWS = "rows.csv"
"""Which row each specification is about; a folder with this file may be written again."""


@dataclass(frozen=True, eq=False)
class RowQuestion:
    """Which network, which rows, and how far around them."""

    network: Path
    source: RowSource
    units: RowUnits
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the network's outputs; empty for those that network or data have."""
    output_name: str | None = None
    """The output of scores, where the network has several."""
    threshold: float | None = None
    """Score from which on a network with a single one says class 1; by default 0, and 0.5 after a sigmoid."""


@dataclass(frozen=True, eq=False)
class RowQuestions:
    """A network with rows in its units, their labels, and what it answers there."""

    name: str
    classifier: Classifier
    points: RowPoints
    labels: NDArray[np.int64]
    """``(N,)``; the network's own answers where the data has none."""
    labelled: bool
    answers: NDArray[np.int64]
    """``(N,)``, by onnxruntime; -1 where no class is ahead of all others, which counts as wrong."""
    class_names: tuple[str, ...]
    threshold: float

    @property
    def classes(self) -> int:
        """Number of classes: two for a single score."""
        return max(2, self.classifier.num_scores)

    @property
    def specifications(self) -> list[str]:
        """Path of each row's specification in the folder."""
        return [f"vnnlib/{self.name}_{number:05d}.vnnlib" for number in self.points.rows.numbers]

    @property
    def network(self) -> str:
        """Path of the network in the folder."""
        return f"onnx/{self.name}.onnx"

    def queries(self) -> list[Query]:
        """What is unsafe around each row."""
        return [self._query(box, int(label)) for box, label in zip(self.points.boxes(), self.labels, strict=True)]

    def _query(self, box: InputBox, label: int) -> Query:
        if self.classifier.num_scores > 1:
            return robustness(box, label, self.classifier.num_scores)
        low, high = (self.threshold, None) if label else (None, self.threshold)
        return output_range(box, 1, low, high)

    def class_name(self, number: int) -> str:
        """Name of a class, or its number."""
        return self.class_names[number] if self.class_names and number >= 0 else str(number)


def ask(question: RowQuestion) -> RowQuestions:
    """Read network and data. Raises InputError and UnsupportedError."""
    classifier = load_classifier(question.network, question.output_name)
    rows = in_order(read_rows(question.source, classifier.input.size), classifier.features)
    if rows.features and len(rows.features) != classifier.input.size:
        raise InputError(
            f"{question.source.data}: {len(rows.features)} columns of features ({', '.join(rows.features)[:200]}), but "
            f"{question.network} has {classifier.input.size} inputs; --drop NAME leaves a column out"
        )
    points = in_network_units(rows, question.units, classifier.input.shape, classifier.input.dtype)
    threshold = question.threshold if question.threshold is not None else 0.5 * classifier.ends_in_sigmoid
    scores = _scores(question.network, classifier, points.points)
    answers = _answers(scores, threshold)
    classes = max(2, classifier.num_scores)
    names = question.classes or classifier.class_names
    labels = answers if rows.labels is None else class_numbers(rows.labels, rows, names, classes)
    if rows.labels is None and (answers < 0).any():
        row = rows.numbers[int(np.argmax(answers < 0))]
        raise InputError(f"{question.network}: two classes are equal at row {row}; give labels, or leave the row out")
    order = names or rows.class_names
    return RowQuestions(
        _name(question.network), classifier, points, labels, rows.labels is not None, answers, tuple(order), threshold
    )


def _scores(network: Path, classifier: Classifier, points: NDArray[np.float64]) -> NDArray[Any]:
    """The scores at each point ``(N, classes)`` by onnxruntime. Raises InputError where none are finite."""
    [scores] = Session(classifier.model).run_batch([points])
    if not np.isfinite(scores).all(1).any():
        raise InputError(
            f"{network}: its scores are not finite at any of the rows; look at its weights, and at --scale, --mean and "
            "--std"
        )
    return scores


def _answers(scores: NDArray[Any], threshold: float) -> NDArray[np.int64]:
    """The class at each point, -1 for a tie or scores that are no numbers."""
    if scores.shape[1] == 1:
        single = scores[:, 0]
        return np.where(single > threshold, 1, np.where(single < threshold, 0, -1)).astype(np.int64)
    best = scores.argmax(1)
    ahead = (scores < scores.max(1, keepdims=True)).sum(1) == scores.shape[1] - 1
    return np.where(ahead, best, -1).astype(np.int64)


def _name(network: Path) -> str:
    """The file's name as files of a benchmark may be called."""
    stem = network.name.removesuffix(".gz").removesuffix(".onnx")
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in stem).strip("_") or "network"


def write_folder(questions: RowQuestions, folder: Path, timeout: float, version: str = "1.0") -> None:
    """Write the benchmark; what an earlier run wrote there is replaced. Raises InputError for files of others."""
    queries = questions.queries()
    _make_room(folder)
    (folder / "vnnlib").mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / ROWS, _rows_csv(questions))
    model = questions.classifier.model
    write_bytes_atomically(folder / questions.network, model.data)
    x, y = model.inputs[0], model.outputs[0]
    for spec, query, number, label in zip(
        questions.specifications, queries, questions.points.rows.numbers, questions.labels.tolist(), strict=True
    ):
        lifted = upgrade(query, [x.shape], [y.shape], x.dtype, y.dtype) if version == "2.0" else query
        write_query(
            lifted, folder / spec, version, [f"row {number}, class {questions.class_name(label)}", _ball(questions)]
        )
    rows = [({BARE: questions.network}, spec, timeout) for spec in questions.specifications]
    write_instances(folder / INSTANCES, rows)


def _rows_csv(questions: RowQuestions) -> str:
    """Which row each specification is about: its number, class, the network's answer, and the specification."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("row", "label", "answer", "specification"))
    columns = (questions.points.rows.numbers, questions.labels.tolist(), questions.answers.tolist())
    for number, label, answer, spec in zip(*columns, questions.specifications, strict=True):
        table.writerow((number, questions.class_name(label), questions.class_name(answer), spec))
    return text.getvalue()


def _ball(questions: RowQuestions) -> str:
    radius = questions.points.radius
    text = f"{radius[0]:g}" if (radius == radius[0]).all() else f"{radius.min():g} to {radius.max():g}"
    return f"L-infinity radius {text} in the units of the network's input"


def _make_room(folder: Path) -> None:
    """Remove networks and specifications that were written here before. Raises InputError for a folder of others."""
    if folder.exists() and any(folder.iterdir()) and not (folder / ROWS).is_file():
        raise InputError(f"{folder}: holds files that were not written here; choose another --output")
    for path in (*folder.glob("onnx/*.onnx"), *folder.glob("vnnlib/*.vnnlib")):
        path.unlink()
