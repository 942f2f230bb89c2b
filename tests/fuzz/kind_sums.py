"""Kinds about rounding: long sums of equal weights, numbers that cancel, and models of double precision."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch
from choices import Choices
from exact_reference import values_of
from kind_graphs import SINGLE, judge_light, judge_verdict, load, without_attacks
from kind_programs import crown, intervals, reduced, refined, tightened, zonotopes
from kind_searches import SearchProblem, judge_search, random_settings
from kinds import Unsuited, kind
from networks import Dense
from random_queries import QueryCase, query_text
from scenes import CPU, Array, Scene

from toolkit.bounds.interval import Bounds
from toolkit.errors import ToolkitError
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.affine import DenseAffine
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.run.clock import Clock
from toolkit.tuning import tuned, using
from toolkit.verify import decide, load_query

LENGTHS = (3, 40, 700, 3072, 9000, 49152)
WEIGHTS = (0.1, 1 / 3, 1.0, 0.7, 1 + 2.0**-24, 1e-3)
PRECISIONS = (torch.float32, torch.float64)


def equal_rows(choices: Choices, count: int) -> tuple[Array, Array]:
    """Two rows of equal weights, perhaps of alternating signs, whose sums have a bias that nearly cancels them."""
    value, rows = choices.of(WEIGHTS), np.ones((2, count))
    style = choices.of(("equal", "alternating", "blocks", "random"))
    if style == "alternating":
        rows[:, ::2] = -1
    elif style == "blocks":
        rows[:, : count // 2] = -1
    elif style == "random":
        rows[0] = np.random.default_rng(choices.seed()).choice([1.0, -1.0], count)
    rows = rows * value
    level = choices.of((0.0, -1.0, 0.5, -0.9999))
    return rows, level * np.abs(rows).sum(1)


@kind(share=4)
def long_sums(choices: Choices) -> int:
    """Sums of up to 50,000 equal weights, in both precisions, against exact values at corners of the box."""
    count = choices.of(LENGTHS[:4]) if choices.chance(0.8) else choices.of(LENGTHS)
    rows, bias = equal_rows(choices, count)
    lower, upper = choices.of(((0.0, 1.0), (0.9, 1.0), (-1.0, 1.0), (0.1, 0.1), (-1e-3, 2.0)))
    first = DenseAffine((INPUT,), (torch.as_tensor(rows),), torch.as_tensor(bias))
    last = torch.tensor([[choices.of((1.0, -1.0)), choices.of((1.0, -1.0, 0.0))]], dtype=torch.float64)
    layers = (Layer("relu", "relu", first, 0),)
    program = Program(
        count, layers, DenseAffine((0,), (last,), torch.zeros(1, dtype=torch.float64)), CPU, torch.float64
    )
    low, high = np.full(count, lower), np.full(count, upper)
    points = np.stack([low, high, np.where(rows[0] > 0, high, low), np.where(rows[0] > 0, low, high)])
    scene = scene_at(program, low, high, points, choices.of(PRECISIONS))
    return sum(technique(choices, scene) for technique in (intervals, crown, choices.of((refined, reduced, zonotopes))))


def scene_at(program: Program, lower: Array, upper: Array, points: Array, dtype: torch.dtype) -> Scene:
    """One box of a program with some of its points."""
    sides = (torch.as_tensor(side[None]).to(dtype) for side in (lower, upper))
    return Scene(program.to(CPU, dtype), Bounds(*sides), points[None], (values_of(program, points),))


def differences(choices: Choices, inputs: int) -> Dense:
    """Differences of active neurons whose weights are equal but for a part in millions or billions."""
    large = 2.0 ** choices.of((30, 24, 12))
    share = choices.of((1e-9, 2.0**-26, 1e-7, 3e-8))
    count = choices.between(1, 3)
    rows = np.array([choices.of((1.0, -1.0, 0.0, 2.0)) for _ in range(count * inputs)]).reshape(count, inputs)
    first = large * np.concatenate([rows, rows * (1 + share)])
    bias = np.full(2 * count, large * choices.of((4.0, 8.0, 2.0)))
    unit = np.concatenate([-np.ones((1, count)), np.ones((1, count))], 1)
    return Dense(((first, bias), (unit * choices.of((1.0, 1 / (large * share))), np.zeros(1))))


def cancelling(choices: Choices, inputs: int) -> Dense:
    """A network whose large parts cancel: equal weights but for a small difference, and offsets that take them away."""
    if choices.chance(0.3):
        return differences(choices, inputs)
    large = 2.0 ** choices.of((4, 16, 24, 30, 40))
    small = choices.of((1.0, 2.0**-10, 1e-9 * large, 2.0**-3))
    width = choices.between(2, 6)
    generator = np.random.default_rng(choices.seed())
    first = generator.integers(-3, 4, (width, inputs)).astype(float)
    bias = generator.integers(-2, 3, width).astype(float) + choices.of((0.0, large))
    last = generator.choice([-1.0, 1.0], (1, width)) * choices.of((1.0, large))
    middle = generator.integers(-2, 3, (width, width)) * choices.of((1.0, large)) + small * np.eye(width)
    if choices.chance(0.5):  # pairs that are nearly equal, read with opposite signs
        half = width // 2
        middle[half : 2 * half] = middle[:half] * (1 + small / large)
        last[0, half : 2 * half] = -last[0, :half]
    shift = -(middle @ np.maximum(bias, 0)) + generator.integers(-2, 3, width)
    return Dense(((first, bias), (middle, shift), (last, np.zeros(1))))


@kind(share=4)
def cancellation(choices: Choices) -> int:
    """Bounds and searches where large numbers cancel, in both precisions, on weights of double precision."""
    inputs = choices.between(1, 3)
    network, dtype = cancelling(choices, inputs), choices.of(PRECISIONS)
    lower, upper = -np.ones(inputs), np.ones(inputs)
    points = np.random.default_rng(choices.seed()).integers(-4, 5, (24, inputs)) / 4
    program = network.program()
    scene = scene_at(program, lower, upper, points, dtype)
    chosen = (intervals, crown, choices.of((refined, reduced, zonotopes, tightened)))
    judged = sum(technique(choices, scene) for technique in chosen)
    sign = choices.of((1.0, -1.0))
    values = sign * scene.truth[0].features[:, 0]
    best = int(values.argmin())
    weights, offsets = torch.tensor([[sign]], dtype=torch.float64), torch.tensor([-values[best]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.int64)
    sides = (torch.as_tensor(side[None]) for side in (lower, upper))
    problem = Problem(*sides, zero, zero[None], weights, offsets, program)
    return judged + judge_search(choices, SearchProblem(problem, points[best]), dtype)


@kind(share=2)
def double_models(choices: Choices) -> int:
    """Models of double precision whose weights single precision rounds, bounded as wide ones are."""
    inputs = choices.between(1, 3)
    network = cancelling(choices, inputs)
    lower, upper = -np.ones(inputs), np.ones(inputs)
    points = np.random.default_rng(choices.seed()).integers(-4, 5, (24, inputs)) / 4
    sign = choices.of((1.0, -1.0))
    values = network.values(points)
    best = int((sign * values[:, 0]).argmin())
    size = np.abs(values).max() + 1
    room = size * choices.of((1e-9, 1e-6, 1e-3, 0.2))
    constant = -sign * values[best, :1] - room
    case = QueryCase(lower, upper, np.zeros((1, inputs)), np.array([[sign]]), constant)
    return judged_in_single(choices, network, case, points[best], choices.of(("float64", "float32")))


def judged_in_single(choices: Choices, network: Dense, case: QueryCase, witness: Array, dtype: str) -> int:
    """Judge the verdict on a case that has a witness, bounded in single precision first."""
    if dtype == "float32":  # the file says what the network is
        rounded = tuple((np.float64(np.float32(w)), np.float64(np.float32(b))) for w, b in network.layers)
        network = Dense(rounded)
    truth = case.worst(witness[None], network.values(witness[None]))[0]
    known = witness if truth <= 0 else None
    loaded, query = load(network.model(dtype)), parse_query(query_text([case]))
    try:
        with using(tuned().changed(precision=SINGLE)), ExitStack() as stack:
            settings = without_attacks(choices, stack, random_settings(choices))
            result = decide(load_query({"": loaded}, query), settings, Clock.started(settings.timeout))
    except ToolkitError:
        raise Unsuited from None
    return judge_verdict(result, case, known, network.values, np.inf) + judge_light(choices, loaded, query, known)
