"""The first look for a proof: bounds of every case by the engine that checks certificates, without importing torch.

The network is read, and bounded by intervals and backward passes with adaptive slopes, by `toolkit.proof`, in double
precision with errors of rounding carried along. A case is refuted where an atom of it has a positive lower bound in its
box; boxes of few inputs that are left open are halved, across the input to which these bounds owe most. Such a proof
takes less time than importing torch, where there is one, and it is a tree of splits with one atom at each leaf: a
certificate (`toolkit.certificates.quick_certificate`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.vnnlib.query import Query, offsets, ranges
from toolkit.problem.cases import Cases
from toolkit.proof.bounds import ELEMENTS, ContextBounds, Model, Rows, Watch, backward, fresh_bounds
from toolkit.proof.floats import FloatErrors, unsuited
from toolkit.proof.linear_maps import Array, BlockMatrix, Convolution, LinearMap
from toolkit.proof.network import AffineStep, ProofNetwork, UnreadableError, read_network
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned

Integers = NDArray[np.int64]
ROOM_FACTOR = 1 + 2.0**-10
"""Factor of the room of atoms: the checker moves the ends of boxes outward to doubles itself, and may find a little
more."""
LEAST_PASSES = 16
"""Estimated time of interval bounds of a network with their rounding errors, in backward passes."""
TYPES = ("float32", "float64")
"""Element types of networks that are read, as networks over real numbers."""


class TooLarge(Exception):  # noqa: N818 - not an error: others may know more
    """A proof would take too long, or is about something that is not read here."""


@dataclass(frozen=True)
class BoxedCases:
    """Cases over boxes ``(R, n)``.

    Case c is about box ``region[c]`` and has the atoms ``rows[starts[c] : starts[c + 1]]``; atom i is
    ``matrix[i] . (inputs, outputs) + constant[i] <= 0``.
    """

    lower: Array
    upper: Array
    region: Integers
    starts: Integers
    rows: Integers
    matrix: Array
    constant: Array

    @cached_property
    def atoms_of_box(self) -> list[Integers]:
        """The atoms of all cases of each box."""
        ends = zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)
        found: list[list[Integers]] = [[] for _ in self.lower]
        for region, (first, last) in zip(self.region.tolist(), ends, strict=True):
            found[region].append(self.rows[first:last])
        return [np.unique(np.concatenate([*parts, np.zeros(0, np.int64)])).astype(np.int64) for parts in found]


@dataclass(frozen=True)
class StepQuestion:
    """A network as the checker reads it, with one more value, the atoms of the cases."""

    network: ProofNetwork
    cases: BoxedCases

    @cached_property
    def atoms(self) -> int:
        """Number of the value that the atoms are, the last of the network."""
        return len(self.network.sizes) - 1

    @cached_property
    def costs(self) -> dict[int, int]:
        """Multiplications of one backward pass from each value, at most."""
        total, found = 0, {0: 0}
        for step in self.network.steps:
            if isinstance(step, AffineStep):
                total += sum(linear.outputs * max(1, linear.terms[0]) for _, linear in step.terms)
            found[step.value] = total + self.network.sizes[step.value]
        return found

    @property
    def affordable(self) -> float:
        """Multiplications that the passes for one layer of one box may take: those of windows take longer."""
        steps = [step for step in self.network.steps if isinstance(step, AffineStep)]
        windows = any(isinstance(linear, Convolution) for step in steps for _, linear in step.terms)
        return tuned().quick_proof.most_multiplications / (tuned().quick_proof.window_factor if windows else 1)

    @property
    def boxes_at_once(self) -> int:
        """Boxes whose values are held at once."""
        slopes = self.network.sizes[0] * len(self.cases.constant)
        return max(1, tuned().quick_proof.most_values // (slopes + sum(self.network.sizes)))


def question_of(network: ProofNetwork, cases: BoxedCases) -> StepQuestion:
    """Put cases to a network."""
    inputs, count = network.sizes[0], len(cases.constant)
    parts = [(0, cases.matrix[:, :inputs]), (network.output, cases.matrix[:, inputs:])]
    terms: list[tuple[int, LinearMap]] = [
        (value, BlockMatrix(part.shape[1], count, np.ascontiguousarray(part.T)))
        for value, part in parts
        if part.any() or value == network.output
    ]
    atoms = AffineStep(len(network.sizes), tuple(terms), cases.constant)
    return StepQuestion(replace(network, sizes=[*network.sizes, count], steps=[*network.steps, atoms]), cases)


def read_question(query: Query, cases: Cases, model: OnnxModel) -> StepQuestion:
    """A query about one model. Raises TooLarge and UnreadableError."""
    limits = tuned().quick_proof
    if not {info.dtype for info in model.inputs} <= set(TYPES) or len(model.data) > limits.most_bytes:
        raise TooLarge("element types, or a large file")
    if query.num_variables * len(cases.atoms) > limits.most_numbers:
        raise TooLarge("many atoms")
    return question_of(*read_cases(query, cases, model))


def read_cases(query: Query, cases: Cases, model: OnnxModel) -> tuple[ProofNetwork, BoxedCases]:
    """What a query is about, as the checker reads networks, of whatever size. Raises TooLarge and UnreadableError."""
    if len(query.networks) != 1 or query.networks[0].hidden or query.products:
        raise TooLarge("several networks, hidden tensors or products")
    if not np.isfinite(cases.upper - cases.lower).all():
        raise TooLarge("unbounded inputs")
    network = read_network(model.proto, model.path, hashlib.sha256())
    outputs = query.networks[0].outputs
    starts, sizes = (np.array(part, np.int64) for part in zip(*((t.offset, t.size) for t in outputs), strict=True))
    variables = np.concatenate([cases.inputs, ranges(starts, starts + sizes)])
    if sum(network.input_sizes) + sum(network.output_sizes) != len(variables) or (network.compared >= 0).any():
        raise TooLarge("a softmax, or other tensors")
    matrix, constant = cases.dense(variables)
    return network, BoxedCases(cases.lower, cases.upper, cases.region, cases.starts, cases.rows, matrix, constant)


def question_with_room(question: StepQuestion, clock: Clock) -> StepQuestion:
    """The question with room for rounding in the constants of its atoms."""
    steps = question.network.steps[:-1]
    network = replace(question.network, sizes=question.network.sizes[:-1], steps=steps)
    return question_of(network, with_room_in_constants(network, question.cases, clock))


def with_room_in_constants(network: ProofNetwork, cases: BoxedCases, clock: Clock) -> BoxedCases:
    """The cases with constants that are less what evaluations of their atoms in the network's type may be off by.

    An atom that is of several boxes has the largest room. Raises UnreadableError where nothing is known of that, and
    OutOfTime.
    """
    if reason := unsuited(network):
        raise UnreadableError(f"float execution: {reason}")
    model, room = Model.of(network), np.zeros(len(cases.constant))

    def watch(value: int, passes: int) -> None:
        clock.check()

    for lower, upper, atoms in zip(cases.lower, cases.upper, cases.atoms_of_box, strict=True):
        if not len(atoms):
            continue
        errors = FloatErrors(fresh_bounds(model, lower[None], upper[None], [], watch))
        found = errors.change(*np.split(cases.matrix[atoms], [network.sizes[0]], 1))
        room[atoms] = np.maximum(room[atoms], found)
    return replace(cases, constant=cases.constant - ROOM_FACTOR * room)


# Search


@dataclass(frozen=True)
class RoundOfBoxes:
    """The result of one round over boxes: which case was refuted where, by which atom, and how boxes were halved."""

    refuted: Array
    """Box, case and atom, ``(k, 3)``; an atom -1 where the box has no points."""
    halved: Array
    """Box and input, ``(h, 2)``."""
    middle: Array
    """Where each box is cut, ``(h,)``; the next round has the halves ``<=`` and ``>=`` of each, in this order."""


@dataclass
class OpenBoxes:
    """Boxes that are parts of the cases' boxes, with pairs of a box and a case that is not refuted there."""

    lower: Array
    upper: Array
    region: Integers
    box: Integers
    case: Integers

    def part(self, start: int, stop: int) -> OpenBoxes:
        """The boxes from one position to another, with their pairs of box and case."""
        pairs = slice(*np.searchsorted(self.box, [start, stop]).tolist())
        cut = slice(start, stop)
        return OpenBoxes(self.lower[cut], self.upper[cut], self.region[cut], self.box[pairs] - start, self.case[pairs])


def refute(question: StepQuestion, clock: Clock) -> list[RoundOfBoxes]:
    """Refute all cases on all of their boxes, round by round, halving boxes in between.

    Raises TooLarge and OutOfTime as soon as they can hardly be in time, and where a box of many inputs is left.
    """
    cases = question.cases
    if LEAST_PASSES * question.costs[question.atoms] > question.affordable:
        raise TooLarge("a large network")
    if (np.diff(cases.starts) == 0).any():
        raise TooLarge("a case without atoms is never refuted")
    model, order = Model.of(question.network), np.argsort(cases.region, kind="stable")
    boxes = OpenBoxes(cases.lower, cases.upper, np.arange(len(cases.lower)), cases.region[order], order)
    varying = int((cases.lower < cases.upper).any(0).sum())
    rounds = []
    while len(boxes.box):
        began, size = clock.elapsed, question.boxes_at_once
        parts = [boxes.part(start, start + size) for start in range(0, len(boxes.lower), size)]
        done = [one_round(question, model, part, clock) for part in parts]
        rounds.append(joined([found for found, _ in done], np.cumsum([0, *(len(part.lower) for part in parts)])))
        left = together([halves for _, halves in done])
        if len(left.box) and not 0 < varying <= tuned().quick_proof.most_bisected_inputs:
            raise TooLarge("a case is open")
        clock = clock if len(rounds) > 1 else clock.soon(tuned().quick_proof.halving_seconds)
        if clock.left * len(boxes.lower) < (clock.elapsed - began) * len(left.lower):
            raise OutOfTime  # one more round would not end in time
        boxes = left
    return rounds


def one_round(question: StepQuestion, model: Model, boxes: OpenBoxes, clock: Clock) -> tuple[RoundOfBoxes, OpenBoxes]:
    """Refute cases on boxes, and halve those where one is left. Raises TooLarge and OutOfTime."""

    def watch(value: int, passes: int) -> None:
        clock.check()
        if passes * question.costs[value] > question.affordable * len(boxes.lower):
            raise TooLarge("many neurons are unstable, or many atoms")

    bounds = fresh_bounds(model, boxes.lower, boxes.upper, [], watch)
    of_box = question.cases.atoms_of_box
    least, slopes = atom_bounds(question, bounds, boxes.region, watch)
    refuting = np.full(len(boxes.box), -1)
    owed = np.zeros_like(boxes.lower)
    refuted = bounds.crossed[boxes.box].copy()
    firsts = offsets(np.array([len(of_box[region]) for region in boxes.region.tolist()], np.int64))
    for pair, (box, case) in enumerate(zip(boxes.box.tolist(), boxes.case.tolist(), strict=True)):
        atoms = question.cases.rows[question.cases.starts[case] : question.cases.starts[case + 1]]
        places = firsts[box] + np.searchsorted(of_box[int(boxes.region[box])], atoms)
        if refuted[pair] or not len(atoms):
            continue
        best = int(least[places].argmax())
        refuted[pair] = bool(np.isfinite(least[places[best]]) and least[places[best]] > 0)
        refuting[pair] = atoms[best]
        if not refuted[pair]:
            owed[box] += np.abs(slopes[places]).sum(0)
    found = np.stack([boxes.box, boxes.case, refuting], 1)[refuted]
    return halves_of(boxes, ~refuted, owed, found)


def atom_bounds(question: StepQuestion, bounds: ContextBounds, region: Integers, watch: Watch) -> tuple[Array, Array]:
    """Lower bounds of the atoms of each box, one box after the other, and their coefficients on the input."""
    of_box = question.cases.atoms_of_box
    atoms = [of_box[number] for number in region.tolist()]
    owner = np.repeat(np.arange(len(region)), [len(part) for part in atoms])
    index = np.concatenate([*atoms, np.zeros(0, np.int64)]).astype(np.int64)
    least, coefficients = [np.zeros(0)], [np.zeros((0, question.network.sizes[0]))]
    most = max(1, ELEMENTS // max(question.network.sizes))
    for start in range(0, len(owner), most):
        watch(question.atoms, len(owner) - start)
        part = slice(start, start + most)
        unit = np.zeros((len(owner[part]), len(question.cases.constant)))
        unit[np.arange(len(unit)), index[part]] = 1
        found = backward(bounds, Rows(owner[part], {question.atoms: unit}, np.zeros(len(unit))))
        least.append(found.least)
        coefficients.append(found.coefficients)
    return np.concatenate(least), np.concatenate(coefficients)


def halves_of(boxes: OpenBoxes, left: NDArray[np.bool_], owed: Array, refuted: Array) -> tuple[RoundOfBoxes, OpenBoxes]:
    """Both halves of the boxes in which a case is left, across the input whose width times ``owed`` is largest."""
    open_boxes, place = np.unique(boxes.box[left], return_inverse=True)
    lower, upper = boxes.lower[open_boxes], boxes.upper[open_boxes]
    rows, across = np.arange(len(open_boxes)), ((upper - lower) * owed[open_boxes]).argmax(1)
    middle = lower[rows, across] / 2 + upper[rows, across] / 2
    below, above = upper.copy(), lower.copy()
    below[rows, across] = above[rows, across] = middle
    both = (
        np.stack([lower, above], 1).reshape(-1, lower.shape[1]),
        np.stack([below, upper], 1).reshape(-1, lower.shape[1]),
    )
    pairs = np.concatenate([2 * place, 2 * place + 1])
    order = np.argsort(pairs, kind="stable")
    case = np.concatenate([boxes.case[left]] * 2)[order]
    halves = OpenBoxes(*both, np.repeat(boxes.region[open_boxes], 2), pairs[order], case)
    return RoundOfBoxes(refuted, np.stack([open_boxes, across], 1), middle), halves


def together(parts: Sequence[OpenBoxes]) -> OpenBoxes:
    """All boxes of some parts."""
    firsts = np.cumsum([0, *(len(part.lower) for part in parts)])
    box = [part.box + first for part, first in zip(parts, firsts, strict=False)]
    columns = ([getattr(part, name) for part in parts] for name in ("lower", "upper", "region", "case"))
    lower, upper, region, case = map(np.concatenate, columns)
    return OpenBoxes(lower, upper, region, np.concatenate(box), case)


def joined(rounds: Sequence[RoundOfBoxes], firsts: Array) -> RoundOfBoxes:
    """One round of parts, with the number of the first box of each."""
    refuted = [part.refuted + np.array([first, 0, 0]) for part, first in zip(rounds, firsts, strict=False)]
    halved = [part.halved + np.array([first, 0]) for part, first in zip(rounds, firsts, strict=False)]
    return RoundOfBoxes(*map(np.concatenate, (refuted, halved, [part.middle for part in rounds])))


def quick_proof(
    query: Query, cases: Cases, model: OnnxModel, clock: Clock, floats: bool = False
) -> StepQuestion | None:
    """What was bounded where every case of a query about one model is refuted in time; with ``floats``, for every
    evaluation in the type of the network, too.

    Whether it was read rightly is for the caller to try out, before anything is concluded.
    """
    try:
        question = read_question(query, cases, model)
        refute(question_with_room(question, clock) if floats else question, clock)
    except (TooLarge, OutOfTime, UnreadableError, UnsupportedError):
        return None
    return question
