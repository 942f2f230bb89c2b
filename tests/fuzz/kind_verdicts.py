"""Kinds about verdicts on files: hidden counterexamples, exact extremes, an exact solver, and equal questions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from choices import Choices
from kind_graphs import answered, judge_light, judge_verdict, load, with_threshold
from kind_searches import Line, Problem
from kinds import Unsuited, Wrong, kind
from networks import Array, Dense, random_dense
from random_networks import PIECEWISE_LINEAR, random_network, sizes
from random_queries import QueryCase, number, query_text
from scenes import EIGHTHS, SIGNS, random_box, random_points
from test_verdicts import random_example

from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Result, Verdict
from toolkit.verify import LoadedNetwork

# --- hidden counterexamples -----------------------------------------------------------------------------------------


def with_spike(choices: Choices, base: Dense, place: Array, height: float) -> Dense:
    """The network with a narrow pyramid added to its first output at a place; its layers carry the rest through."""
    steep = 2.0 ** choices.of((2, 6, 10, 13))
    (first, bias), *rest = base.layers
    count = len(place)
    unit = np.eye(count)
    layers = [(np.concatenate([first, unit, -unit]), np.concatenate([bias, -place, place]))]
    for position, (matrix, row) in enumerate(rest):
        weight, shift = matrix, row
        # Minus the distance from the place, times the steepness, becomes one neuron, which the later layers pass on.
        carried = np.full((1, 2 * count), -steep) if position == 0 else np.ones((1, 1))
        extra = np.zeros((len(weight), carried.shape[1]))
        if position < len(rest) - 1:
            weight = np.block([[weight, extra], [np.zeros((1, weight.shape[1])), carried]])
            shift = np.append(shift, height if position == 0 else 0.0)
        else:
            extra[0] = 1.0
            weight = np.concatenate([weight, extra], 1)
        layers.append((weight, shift))
    return Dense(tuple(layers))


@kind(share=1)
def spikes(choices: Choices) -> int:
    """Counterexamples in narrow pyramids that attacks miss: never `unsat`."""
    inputs = choices.between(1, 4)
    base = random_dense(choices, EIGHTHS, inputs, choices.between(1, 2))
    if len(base.layers) < 3:
        raise Unsuited
    lower, upper = random_box(choices, inputs)
    place = random_points(choices, lower, upper, 20)[choices.below(20)]
    height = choices.of((1.0, 0.25, 4.0))
    network = with_spike(choices, base, place, height)
    top = network.values(place[None])[0, 0]
    loaded, judged = load(network.model()), 0
    for share in (choices.of((0.5, 0.0, 0.9)), choices.of((1e-3, 0.99))):
        threshold = np.float64(np.float32(top - share * height)) - 1e-6 * (1 + abs(top))
        row = np.zeros((1, base.outputs))
        row[0, 0] = -1.0
        case = QueryCase(lower, upper, np.zeros((1, inputs)), row, np.array([threshold]))
        judged += judged_case(choices, loaded, case, place, network)
    return judged


def judged_case(choices: Choices, loaded: LoadedNetwork, case: QueryCase, witness: Array | None, network: Dense) -> int:
    """Judge the verdict, and the proof without torch, of one case."""
    query = parse_query(query_text([case]))
    judged = judge_verdict(answered(choices, loaded, query), case, witness, network.values)
    return judged + judge_light(choices, loaded, query, witness)


# --- exact extremes -------------------------------------------------------------------------------------------------

SIGNS_OF = ("<=", "<", ">=", ">")


@kind(share=1)
def extremes(choices: Choices) -> int:
    """Files about networks of one input, with strict and other thresholds at and beside their true extremes."""
    network = random_dense(choices, choices.of((SIGNS, EIGHTHS)), 1, 1)
    program, loaded, judged = network.program(), load(network.model()), 0
    for _ in range(3):
        lower, upper = random_box(choices, 1)
        sign = choices.of(SIGNS_OF)
        weight = 1.0 if sign[0] == "<" else -1.0
        line = Line(program, float(lower[0]), float(upper[0]))
        problem = one_row(program, lower, upper, weight)
        least, place = line.lowest(problem, 0)
        threshold = weight * float(least)
        for _ in range(choices.of((0, 1, 2))):
            threshold = float(np.nextafter(threshold, choices.of((np.inf, -np.inf))))
        threshold += choices.of((0.0, 1e-9, -1e-9, 1e-3, -1e-3))
        gap = least - Fraction(weight * threshold)
        satisfiable = gap < 0 or (gap == 0 and len(sign) == 2)
        text = f"{box_text(lower, upper)}(assert ({sign} Y_0 {number(threshold)}))"
        result = answered(choices, loaded, parse_query(text))
        if result.verdict == Verdict.UNSAT and satisfiable:
            raise Wrong(
                f"unsat by {result.statistics.decided_by}", f"{float(least)} at {place}, asked {sign} {threshold}"
            )
        if result.verdict == Verdict.SAT and not satisfiable and replayed_exactly(network, result):
            raise Wrong("sat", f"the extreme is {weight * float(least)} at {float(place)}, asked {sign} {threshold}")
        judged += 1 + judge_light(choices, loaded, parse_query(text), np.array([float(place)]) if satisfiable else None)
    return judged


def one_row(program: object, lower: Array, upper: Array, weight: float) -> Problem:
    """The problem of one atom: the first feature times a weight."""
    tensor = torch.as_tensor
    rows, region = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    weights, offsets = torch.tensor([[weight]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return Problem(tensor(lower[None]), tensor(upper[None]), region, rows, weights, offsets, program)  # type: ignore[arg-type]


def box_text(lower: Array, upper: Array, outputs: int = 1) -> str:
    """Declarations and bounds of inputs."""
    names = [f"X_{n}" for n in range(len(lower))]
    declared = "".join(f"(declare-const {name} Real)" for name in [*names, *(f"Y_{n}" for n in range(outputs))])
    bounds = (
        f"(assert (>= {name} {number(low)}))(assert (<= {name} {number(high)}))"
        for name, low, high in zip(names, lower, upper, strict=True)
    )
    return declared + "".join(bounds)


def replayed_exactly(network: Dense, result: Result) -> bool:
    """Whether the witness's output is the true one, so that rounding in the replay is no excuse."""
    assert result.witness is not None
    return bool(network.values(result.witness.inputs[None])[0, 0] == float(result.witness.values[-1].reshape(-1)[0]))


# --- an exact solver ------------------------------------------------------------------------------------------------


@kind(share=1)
def solver(choices: Choices) -> int:
    """Small networks of all families against a mixed-integer program."""
    name = choices.of(sorted(PIECEWISE_LINEAR))
    model = random_network(name, choices.seed())
    generator = np.random.default_rng(choices.seed())
    loaded, judged = load(model), 0
    assert sizes(model)
    for _ in range(2):
        example = random_example(model, generator, least=1e-4)
        result = answered(choices, loaded, parse_query(example.text))
        expected = Verdict.SAT if example.satisfiable else Verdict.UNSAT
        if result.verdict in {Verdict.SAT, Verdict.UNSAT} and result.verdict != expected:
            raise Wrong(f"{result.verdict} by {result.statistics.decided_by}", f"{name}: {example.text}")
        judged += 1
    return judged


# --- equal questions ------------------------------------------------------------------------------------------------


def permuted(choices: Choices, network: Dense) -> Dense:
    """With the neurons of its hidden layers in another order."""
    layers = [list(pair) for pair in network.layers]
    for here, after in pairwise(layers):
        order = np.random.default_rng(choices.seed()).permutation(len(here[1]))
        here[0], here[1], after[0] = here[0][order], here[1][order], after[0][:, order]
    return Dense(tuple((weight, bias) for weight, bias in layers))


def rescaled(choices: Choices, network: Dense) -> Dense:
    """With hidden layers multiplied by powers of two, and the next ones divided by them."""
    layers = [list(pair) for pair in network.layers]
    for here, after in pairwise(layers):
        powers = np.array([2.0 ** choices.of((0, 4, -4, 20, -20, 40, -40)) for _ in here[1]])
        here[0], here[1], after[0] = here[0] * powers[:, None], here[1] * powers, after[0] / powers
    return Dense(tuple((weight, bias) for weight, bias in layers))


def with_dead(choices: Choices, network: Dense) -> Dense:
    """With neurons that nothing reads, or that are never active."""
    (first, bias), (second, shift), *rest = network.layers
    unread = choices.chance(0.5)
    row = np.array([[choices.signed(16) / 8 for _ in range(first.shape[1])]])
    column = np.zeros((len(second), 1)) if unread else np.ones((len(second), 1))
    grown = np.concatenate([first, row]), np.append(bias, 1.0 if unread else -1000.0)
    return Dense((grown, (np.concatenate([second, column], 1), shift), *rest))


def split_up(choices: Choices, network: Dense) -> Dense:
    """With z written as relu(z) - relu(-z) for all outputs."""
    *rest, (weight, bias) = network.layers
    unit = np.eye(len(bias))
    both = np.concatenate([weight, -weight]), np.concatenate([bias, -bias])
    return Dense((*rest, both, (np.concatenate([unit, -unit], 1), np.zeros(len(bias)))))


def in_halves(choices: Choices, network: Dense) -> Dense:
    """With a hidden neuron twice, each read by half of its weight."""
    (first, bias), (second, shift), *rest = network.layers
    read = second.copy()
    read[:, 0] /= 2
    grown = np.concatenate([first, first[:1]]), np.append(bias, bias[0])
    return Dense((grown, (np.concatenate([read, read[:, :1]], 1), shift), *rest))


TWINS = (permuted, rescaled, with_dead, split_up, in_halves)
"""Networks that compute what another does."""


def texts_of(choices: Choices, case: QueryCase) -> list[str]:
    """A case in other words: its assertions in another order, twice, turned round, with other zeros, in version 2.0."""
    text = query_text([case])
    lines = text.splitlines()
    declared = [line for line in lines if "declare" in line]
    asserted = [line for line in lines if "assert" in line]
    order = np.random.default_rng(choices.seed()).permutation(len(asserted))
    shuffled = "\n".join([*declared, *(asserted[n] for n in order)])
    twice = "\n".join([*declared, *asserted, *asserted])
    turned = "\n".join([*declared, *(f"(assert (and {line[8:-1]} (or {line[8:-1]})))" for line in asserted)])
    count, outputs = case.on_x.shape[1], case.on_y.shape[1]
    head = f"(declare-network N (declare-input X real [1,{count}]) (declare-output Y real [1,{outputs}]))"
    newer = "\n".join(["(vnnlib-version <2.0>)", head, *asserted])
    for name, size in (("X", count), ("Y", outputs)):
        for position in reversed(range(size)):
            newer = newer.replace(f"{name}_{position}", f"{name}[0,{position}]")
    return [shuffled, twice, turned, newer]


def boxes_of(choices: Choices, case: QueryCase) -> list[QueryCase]:
    """The case on both halves of its box."""
    across = choices.below(len(case.lower))
    middle = (case.lower + case.upper)[across] / 2
    lower, upper = case.lower.copy(), case.upper.copy()
    lower[across], upper[across] = middle, middle
    parts = (case.on_x, case.on_y, case.constant)
    return [QueryCase(case.lower, upper, *parts), QueryCase(lower, case.upper, *parts)]


@kind(share=2)
def twins(choices: Choices) -> int:
    """One question and its variants, to networks of one function: no two answers contradict each other."""
    inputs, outputs = choices.between(1, 3), choices.between(1, 2)
    network = random_dense(choices, choices.of((EIGHTHS, SIGNS)), inputs, outputs)
    lower, upper = random_box(choices, inputs)
    points = np.float64(np.float32(random_points(choices, lower, upper, 40)))
    on_y = np.array([[choices.of((1.0, -1.0, 0.5)) for _ in range(outputs)]])
    case = QueryCase(lower, upper, np.zeros((1, inputs)), on_y, np.zeros(1))
    case, witness = with_threshold(choices, case, points, network.values(points))
    other = choices.of(TWINS)(choices, network)
    first, second = load(network.model()), load(other.model())
    verdicts = [judged_verdict(choices, first, query_text([case]), case, witness, network)]
    verdicts.append(judged_verdict(choices, second, query_text([case]), case, witness, network))
    verdicts += [
        judged_verdict(choices, choices.of((first, second)), text, case, witness, network)
        for text in texts_of(choices, case)
        if choices.chance(0.4)
    ]
    halves = [
        judged_verdict(choices, second, query_text([half]), half, None, network) for half in boxes_of(choices, case)
    ]
    if all(half == Verdict.UNSAT for half in halves):
        verdicts.append(Verdict.UNSAT)
    elif Verdict.SAT in halves:
        verdicts.append(Verdict.SAT)
    if Verdict.SAT in verdicts and Verdict.UNSAT in verdicts:
        raise Wrong("contradiction", f"{[str(verdict) for verdict in verdicts]}")
    return len(verdicts)


def judged_verdict(
    choices: Choices, loaded: LoadedNetwork, text: str, case: QueryCase, witness: Array | None, network: Dense
) -> Verdict:
    """The verdict on a text, judged."""
    result = answered(choices, loaded, parse_query(text))
    judge_verdict(result, case, witness, network.values)
    return result.verdict
