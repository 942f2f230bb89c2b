"""The first look for a proof: CROWN bounds of every case, and a few bisections of boxes of few inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.attack.case_losses import CaseLosses
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.vnncomp.witness import hidden_names
from toolkit.formats.vnnlib.query import Network, Query, reduce_rows
from toolkit.numpy_prover.expression_bounds import NotFinite, every_row, layer_lines, lower_bounds
from toolkit.numpy_prover.expression_intervals import INPUT, BoxBatch
from toolkit.numpy_prover.expressions import (
    AffineExpression,
    Array,
    NotRead,
    affine,
    evaluated,
    joined,
    matrix_times,
    piece,
    placed,
    reshaped,
    total,
)
from toolkit.numpy_prover.neuron_layers import NeuronLayer, NeuronLayers, values
from toolkit.numpy_prover.node_calls import as_expression
from toolkit.numpy_prover.read_graph import read_graph
from toolkit.problem.cases import Cases
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned

TYPES = ("float32", "float64")
"""Element types that are taken for real numbers. No operator is read that converts them."""


@dataclass(frozen=True)
class LayerQuestion:
    """Layers, the atoms as rows over them, and the cases that the atoms are conjoined to."""

    layers: tuple[NeuronLayer, ...]
    atoms: AffineExpression
    cases: Cases
    varying: NDArray[np.int64]
    """The inputs that are not the same all over the boxes: the others count as constants."""

    def at(self, points: Array) -> Array:
        """Values of the atoms, ``(B, m)``, at points ``(B, n)`` of the boxes."""
        return evaluated(self.atoms, values(self.layers, points[:, self.varying]))

    @property
    def boxes(self) -> BoxBatch:
        """The cases' boxes of varying inputs."""
        return BoxBatch(self.cases.lower[:, self.varying], self.cases.upper[:, self.varying])

    @property
    def size(self) -> int:
        """Coefficients of all layers and of the atoms."""
        every = [*(layer.rows for layer in self.layers), self.atoms]
        return sum(part.size for rows in every for part in rows.coefficients.values())

    @property
    def work(self) -> int:
        """Multiplications that bounding one box takes."""
        sizes = [sum(part.size for part in layer.rows.coefficients.values()) for layer in self.layers]
        return sum(length * sum(sizes[:number]) for number, length in enumerate(self.lengths))

    @property
    def lengths(self) -> list[int]:
        """How many rows are bounded for each layer, at most, and for the atoms."""
        return [2 * len(layer.rows.constant) for layer in self.layers] + [len(self.atoms.constant)]

    @property
    def boxes_at_once(self) -> int:
        """Boxes whose coefficients are held at once."""
        longest = max([len(layer.rows.constant) for layer in self.layers] + [len(self.varying)])
        # Where all inputs are fixed there may be no layer and nothing that varies.
        return max(1, tuned().numpy_prover.most_coefficients // max(1, max(self.lengths) * longest))

    def bounds(self, box: BoxBatch) -> tuple[Array, Array]:
        """Lower bounds of the atoms over boxes, ``(B, m)``, and their coefficients on the input, ``(B, m, n)``."""
        rows = every_row(self.atoms, len(box.lower))
        linear = lower_bounds(rows, self.layers, layer_lines(self.layers, box), box)
        lower = linear.minimum(box.lower[rows.box], box.upper[rows.box])
        shape = len(box.lower), len(self.atoms.constant)
        return lower.reshape(shape), linear.coefficients.reshape(*shape, box.lower.shape[1])


def read_question(query: Query, cases: Cases, models: Mapping[str, OnnxModel]) -> LayerQuestion:
    """A query about models, by the name of the network. Raises NotRead."""
    varying = np.flatnonzero(((cases.lower != cases.lower[0]) | (cases.upper != cases.lower[0])).any(0))
    if query.products or query.num_variables * (len(cases.atoms) + len(varying)) > tuned().numpy_prover.most_numbers:
        raise NotRead("products, or many variables")
    x, layers = _inputs(BoxBatch(cases.lower.min(0)[None], cases.upper.max(0)[None]), varying)
    position, parts = 0, dict[int, AffineExpression]()
    for network in query.networks:
        size = sum(tensor.size for tensor in network.inputs)
        parts |= _variables(network, models[network.name], piece(x, position, size), layers)
        position += size
    variables = joined([parts[offset] for offset in sorted(parts)], 0)
    weights = np.zeros((len(cases.atoms), query.num_variables))
    np.add.at(weights, (cases.atoms.row_of_term, cases.atoms.monomial), cases.atoms.coefficient)
    atoms = total(matrix_times(weights, variables), affine({}, cases.atoms.constant))
    return LayerQuestion(tuple(layers.found), atoms, cases, varying)


def _inputs(hull: BoxBatch, varying: NDArray[np.int64]) -> tuple[AffineExpression, NeuronLayers]:
    """The input vector, of which some elements vary and the others are constants, and no layers yet."""
    if not np.isfinite(hull.reach).all():
        raise NotRead("unbounded inputs")
    constant = hull.lower[0].copy()
    constant[varying] = 0.0
    x = AffineExpression({INPUT: placed(varying, len(constant))}, constant, hull.reach[0])
    return x, NeuronLayers([BoxBatch(hull.lower[:, varying], hull.upper[:, varying])])


def _variables(
    network: Network, model: OnnxModel, inputs: AffineExpression, layers: NeuronLayers
) -> dict[int, AffineExpression]:
    """The flat values of a network's tensors, by their offset."""
    fed, found, position = dict[str, AffineExpression](), dict[int, AffineExpression](), 0
    for tensor, info in zip(network.inputs, model.inputs, strict=True):
        if info.dtype not in TYPES:
            raise NotRead(info.dtype)
        found[tensor.offset] = piece(inputs, position, tensor.size)
        fed[info.name] = reshaped(found[tensor.offset], info.shape)
        position += tensor.size
    values = read_graph(model.proto.graph, fed, layers)
    names = [*hidden_names(network), *(info.name for info in model.outputs)]
    for tensor, name in zip((*network.hidden, *network.outputs), names, strict=True):
        found[tensor.offset] = reshaped(as_expression(values[name]), (tensor.size,))
    return found


@dataclass(frozen=True)
class OpenBoxes:
    """Boxes that are open, each a part of one of the cases' boxes."""

    box: BoxBatch
    region: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.region)

    def parts(self, size: int) -> list[OpenBoxes]:
        """Up to so many at a time."""
        cuts = [slice(start, start + size) for start in range(0, len(self), size)]
        return [OpenBoxes(BoxBatch(self.box.lower[cut], self.box.upper[cut]), self.region[cut]) for cut in cuts]


def proof(losses: CaseLosses, models: Mapping[str, OnnxModel], clock: Clock) -> LayerQuestion | None:
    """What was bounded where every case of a query about models, by the name of the network, is refuted in time.

    Whether it was read rightly is for the caller to try out, before anything is concluded.
    """
    try:
        question = read_question(losses.query, losses.cases, models)
        affordable = question.work <= tuned().numpy_prover.most_multiplications
        return question if affordable and refuted(question, clock) else None
    except (NotRead, NotFinite, OutOfTime):
        return None


def refuted(question: LayerQuestion, clock: Clock) -> bool:
    """Whether all cases are refuted on all of their boxes. Raises OutOfTime as soon as they can hardly be in time.

    Boxes of few inputs that are left open are halved, across the input to which the bounds of their atoms owe most.
    """
    boxes = OpenBoxes(question.boxes, np.arange(len(question.cases.lower)))
    few = 0 < len(question.varying) <= tuned().numpy_prover.most_bisected_inputs
    while True:
        began = clock.elapsed
        left = together([_left(question, part, clock) for part in boxes.parts(question.boxes_at_once)])
        if not len(left) or not few:
            return not len(left)
        if clock.left * len(boxes) < (clock.elapsed - began) * len(left):  # one more round would not end in time
            raise OutOfTime
        boxes = left


def _left(question: LayerQuestion, boxes: OpenBoxes, clock: Clock) -> OpenBoxes:
    """The halves of those boxes on which some case is not refuted. Raises OutOfTime and NotFinite."""
    clock.check()
    lower, coefficients = question.bounds(boxes.box)
    open_boxes = ~_refuted(question.cases, lower, boxes.region)
    owed = (np.abs(coefficients) * (lower <= 0)[..., None]).sum(1)[open_boxes]
    return _halves(BoxBatch(boxes.box.lower[open_boxes], boxes.box.upper[open_boxes]), owed, boxes.region[open_boxes])


def _refuted(cases: Cases, lower: Array, region: NDArray[np.int64]) -> NDArray[np.bool_]:
    """On which boxes a positive finite bound of an atom refutes each case, ``(B,)``."""
    positive = np.isfinite(lower) & (lower > 0)
    some = reduce_rows(np.logical_or, positive[:, cases.rows], cases.starts, False)
    return (some | (cases.region != region[:, None])).all(1)


def _halves(box: BoxBatch, owed: Array, region: NDArray[np.int64]) -> OpenBoxes:
    """Both halves of every box, across the dimension whose width times ``owed``, ``(B, n)``, is largest; a point is
    one half."""
    width = box.upper - box.lower
    if not width.shape[1]:
        return OpenBoxes(box, region)
    rows, across = np.arange(len(region)), (width * owed).argmax(1)
    middle = ((box.lower + box.upper) / 2)[rows, across]
    lower, upper = box.lower.copy(), box.upper.copy()
    lower[rows, across], upper[rows, across] = middle, middle
    halves = BoxBatch(np.concatenate([box.lower, lower]), np.concatenate([upper, box.upper]))
    return OpenBoxes(halves, np.concatenate([region, region]))


def together(parts: Sequence[OpenBoxes]) -> OpenBoxes:
    """All boxes of some parts."""
    lower, upper = (np.concatenate(sides) for sides in zip(*((p.box.lower, p.box.upper) for p in parts), strict=True))
    return OpenBoxes(BoxBatch(lower, upper), np.concatenate([part.region for part in parts]))
