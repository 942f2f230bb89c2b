"""Atoms that come down to zero exactly: strict ones are refuted, others hold, and the least shift changes that.

Networks have small integer weights and boxes integer corners, so that single precision makes no error either and every
answer is certain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import NetworkBuilder, save

from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Problem, bind_module, compile_problem
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.search.farkas import LinearSystem, refute, solve
from toolkit.search.root import root_bounds
from toolkit.search.search_task import SearchTask, UnmergedProblem
from toolkit.search.strict_atoms import closed_by_images, worth_deciding
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

SETTINGS = [
    Settings(device="cpu", timeout=30, strategy=strategy, attack_restarts=restarts, attack_steps=5)
    for strategy, restarts in (("auto", 3), ("relu", 0), ("input", 0))
]
LEAST = 2.0**-10


def ask(path: Path, lower: np.ndarray, upper: np.ndarray, *assertions: str, settings: Settings) -> Result:
    """The answer about a network with two outputs on a box."""
    return verify(load_networks({"": path}), parse_query(query_about(lower, upper, *assertions)), settings)


def query_about(lower: np.ndarray, upper: np.ndarray, *assertions: str) -> str:
    """The text of a query about a network with two outputs on a box."""
    lines = [f"(declare-const X_{k} Real)" for k in range(len(lower))]
    lines += ["(declare-const Y_0 Real)", "(declare-const Y_1 Real)"]
    for k, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += [f"(assert (>= X_{k} {low}))", f"(assert (<= X_{k} {high}))"]
    lines += [f"(assert {assertion})" for assertion in assertions]
    return "\n".join(lines)


def integers(generator: np.random.Generator, low: int, high: int, *shape: int) -> np.ndarray:
    return generator.integers(low, high, shape, endpoint=True).astype(np.float64)


def hidden_layer(builder: NetworkBuilder, weight: np.ndarray, bias: np.ndarray, last: np.ndarray) -> str:
    """``last @ relu(weight @ x + bias)``."""
    z = builder.op("Gemm", "x", builder.constant(weight.T), builder.constant(bias))
    return builder.op("MatMul", builder.op("Relu", z), builder.constant(last.T))


def convex(generator: np.random.Generator, folder: Path) -> tuple[Path, np.ndarray, np.ndarray, float]:
    """A sum of ReLUs with weights that are not negative, an integer box, and its largest value, which a corner has."""
    inputs, width = int(generator.integers(1, 4)), int(generator.integers(1, 7))
    weight, bias = integers(generator, -3, 3, width, inputs), integers(generator, -2, 2, width)
    last = np.stack([integers(generator, 0, 3, width), np.zeros(width)])
    builder = NetworkBuilder(generator, (1, inputs))
    path = save(builder.model(hidden_layer(builder, weight, bias, last), 2), folder)
    lower = integers(generator, -2, 1, inputs)
    upper = lower + integers(generator, 0, 3, inputs)
    corners = np.array(list(itertools.product(*zip(lower, upper, strict=True))))
    return path, lower, upper, float((np.maximum(corners @ weight.T + bias, 0) @ last[0]).max())


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.strategy)
@pytest.mark.parametrize("seed", range(3))
def test_a_maximum_is_reached_and_not_exceeded(seed: int, settings: Settings, tmp_path: Path) -> None:
    path, lower, upper, most = convex(np.random.default_rng(seed), tmp_path)
    for assertion, verdict in (
        (f"(> Y_0 {most})", Verdict.UNSAT),
        (f"(> (* 3 Y_0) {3 * most})", Verdict.UNSAT),
        (f"(>= Y_0 {most})", Verdict.SAT),
        (f"(> Y_0 {most - LEAST})", Verdict.SAT),
        ("(< Y_0 0)", Verdict.UNSAT),
        (f"(>= Y_0 {most:.0f}.{'0' * 400}1)", Verdict.UNSAT),
        (f"(> Y_0 {most - 1:.0f}.{'9' * 25})", Verdict.SAT),
        ("(<= Y_0 -1e-400)", Verdict.UNSAT),
        (f"(or (< Y_0 0) (and (> Y_0 {most}) (<= X_0 {upper[0]})) (< Y_0 Y_0))", Verdict.UNSAT),
    ):
        answer = ask(path, lower, upper, assertion, settings=settings)
        assert answer.verdict == verdict, (assertion, answer.reason)


def two_copies(generator: np.random.Generator, folder: Path, deep: bool) -> tuple[Path, int]:
    """``f(u) - f(v)`` and zero for inputs (u, v) and a network f that grows with each of its n inputs."""
    count, width = int(generator.integers(1, 3)), int(generator.integers(1, 3))
    weight, bias, last = (integers(generator, 0, 3, *shape) for shape in ((width, count), (width,), (1, width)))
    bias -= 3
    both, none = np.zeros((2 * width, 2 * count)), np.zeros((1, 2 * width))
    both[:width, :count], both[width:, count:] = weight, weight
    builder = NetworkBuilder(generator, (1, 2 * count))
    z = builder.op("Gemm", "x", builder.constant(both.T), builder.constant(np.concatenate([bias, bias])))
    hidden = builder.op("Relu", z)
    if deep:
        more = np.kron(np.eye(2), integers(generator, 0, 2, width, width))
        hidden = builder.op("Relu", builder.op("MatMul", hidden, builder.constant(more.T)))
    weights = np.concatenate([np.concatenate([last, -last], 1), none])
    return save(builder.model(builder.op("MatMul", hidden, builder.constant(weights.T)), 2), folder), count


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_networks_that_grow(seed: int, deep: bool, tmp_path: Path) -> None:
    path, count = two_copies(np.random.default_rng(seed), tmp_path, deep)
    lower, upper = np.full(2 * count, -2.0), np.full(2 * count, 2.0)
    above = [f"(>= X_{k} X_{count + k})" for k in range(count)]
    for settings in SETTINGS[:2]:
        assert ask(path, lower, upper, *above, "(< Y_0 0)", settings=settings).verdict == Verdict.UNSAT
        assert ask(path, lower, upper, *above, "(<= Y_0 0)", settings=settings).verdict == Verdict.SAT
    equal = [f"(== X_{k} X_{count + k})" for k in range(count)]
    assert ask(path, lower, upper, *equal, "(!= Y_0 Y_1)", settings=SETTINGS[0]).verdict == Verdict.UNSAT


@pytest.mark.parametrize("seed", range(2))
def test_a_value_at_a_point_is_that_value(seed: int, tmp_path: Path) -> None:
    path, lower, _, _ = convex(np.random.default_rng(seed), tmp_path)
    point = lower + 0.5
    for settings in SETTINGS:
        value = float(load_networks({"": path})[""].session(()).run([point[None].astype(np.float32)])[0].ravel()[0])
        for sign, verdict in (("!=", "unsat"), ("<", "unsat"), (">", "unsat"), ("<=", "sat"), ("==", "sat")):
            answer = ask(path, point, point, f"({sign} Y_0 {value})", settings=settings)
            assert answer.verdict == verdict, (sign, answer.reason)


def wide(generator: np.random.Generator, folder: Path, last: np.ndarray) -> Path:
    """Two layers of so many ReLUs with random weights, then ``last``."""
    builder, width = NetworkBuilder(generator, (1, 4)), last.shape[1]
    x = builder.op("Relu", builder.dense("x", 4, width))
    x = builder.op("Relu", builder.dense(x, width, width))
    return save(builder.model(builder.op("MatMul", x, builder.constant(last.T)), 2), folder)


def test_sums_of_what_is_not_negative_are_not_negative(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    last = generator.uniform(0, 1, (2, 60))
    path = wide(generator, tmp_path, last)
    box = np.full(4, -1.0), np.full(4, 1.0)
    for assertion in ("(< Y_0 0)", "(< (+ Y_0 (* 0.3 Y_1)) 0)", "(or (< Y_1 0) (> 0 Y_0))"):
        answer = ask(path, *box, assertion, settings=SETTINGS[0])
        assert (answer.verdict, answer.statistics.decided_by) == (Verdict.UNSAT, "images"), assertion
    assert ask(path, *box, "(>= Y_0 0)", settings=SETTINGS[0]).verdict == Verdict.SAT
    last[0] = -last[0]
    path = wide(generator, tmp_path, last)
    assert ask(path, *box, "(< Y_0 0)", settings=SETTINGS[0]).verdict == Verdict.SAT


@pytest.mark.parametrize("seed", range(4))
def test_images_refute_what_is_strict_and_nothing_that_holds_at_zero(seed: int, tmp_path: Path) -> None:
    """A sum of ReLUs is zero at one point of the box, where an atom that is not strict holds."""
    generator = np.random.default_rng(seed)
    inputs = int(generator.integers(1, 5))
    zero, rows = integers(generator, -7, 7, inputs) / 8, np.concatenate([np.eye(inputs), -3 * np.eye(inputs)])
    builder = NetworkBuilder(generator, (1, inputs))
    last = np.stack([np.ones(2 * inputs), np.zeros(2 * inputs)])
    path = save(builder.model(hidden_layer(builder, rows, np.concatenate([-zero, 3 * zero]), last), 2), tmp_path)
    for comparison, refuted in (("<", True), ("<=", False)):
        text = query_about(np.full(inputs, -1.0), np.full(inputs, 1.0), f"({comparison} Y_0 0)")
        problem = problem_about(path, text)
        task = replace(task_of(problem), original=UnmergedProblem(problem, lambda point, region: False))
        root = root_bounds(problem, task.clock, task.observer)
        assert not bool((root.lower > 0).any())
        assert bool((closed_by_images(task, root).lower > 0).any()) == refuted


def task_of(problem: Problem) -> SearchTask:
    """A task that nobody watches."""
    return SearchTask(
        problem, Settings(), Clock.started(60), lambda point, region: False, lambda event: None, lambda **facts: None,
        lambda *spent: None,
    )  # fmt: skip


def box_system(rows: list[list[int]], strict: list[bool]) -> LinearSystem:
    """Integer rows over the box [-1, 1]^n."""
    count = len(rows[0]) - 1
    fractions = [[Fraction(entry) for entry in row] for row in rows]
    return LinearSystem.over_box(fractions, strict, [Fraction(-1)] * count, [Fraction(1)] * count)


@pytest.mark.parametrize("seed", range(30))
def test_systems_with_a_planted_combination(seed: int) -> None:
    """The last row is minus a combination of the others, shifted: at zero only strictness refutes, beyond it all do."""
    generator = np.random.default_rng(seed)
    rows, count = generator.integers(-9, 10, (int(generator.integers(2, 6)), 4)), 3
    weights = generator.integers(1, 9, len(rows))
    rows[:, -1] = rows[:, :count] @ generator.integers(-1, 2, count) * -1  # all hold with equality at one corner
    last = -(weights @ rows)
    for shift, strict, refuted in ((0, True, True), (0, False, False), (1, False, True), (-1, True, False)):
        table = [*rows.tolist(), [*last[:count].tolist(), int(last[-1]) + shift]]
        system = box_system(table, [False] * len(rows) + [strict])
        assert refute(system)[0] == refuted, (shift, strict)


def test_only_multipliers_that_are_not_negative_refute() -> None:
    """A system that every point solves is refuted by no multipliers; strictness counts where its row is used."""
    one, zero = Fraction(1), Fraction(0)
    holds = LinearSystem([[zero, -one]], [False])
    assert not holds.refuted_by([one]) and not holds.refuted_by([-one])
    mixed = LinearSystem([[one, -one], [zero, zero], [zero, zero]], [False, True, False])
    assert mixed.refuted_by([zero, one, zero]) and mixed.refuted_alone(1)
    assert not mixed.refuted_by([zero, zero, one]) and not mixed.refuted_by([-one, one, zero])
    assert refute(LinearSystem([], [])) == (False, None)


def test_rows_that_a_whole_box_satisfies_are_left_out_unless_strict() -> None:
    """``x - 1 <= 0`` holds on all of [-1, 1]; ``x - 1 < 0`` does not."""
    for strict in (False, True):
        assert len(box_system([[1, -1]], [strict]).rows) == strict
    assert len(box_system([[1, 0]], [False]).rows) == 1


def test_equations_that_leave_unknowns_free_keep_the_guess() -> None:
    one = Fraction(1)
    found = solve([[one, one, Fraction(0), Fraction(3)], [one, one, Fraction(0), Fraction(3)]], [one, one, one / 3])
    assert found == [2, 1, one / 3]


@pytest.mark.parametrize("seed", range(6))
def test_images_give_the_least_value_of_sums_of_both_signs(seed: int, tmp_path: Path) -> None:
    """By integers: intervals of the hidden layer, then the least sum. What is below it by an eighth is refuted, what is
    above it by an eighth is not; nothing else was known of the case."""
    generator = np.random.default_rng(seed)
    inputs, width = int(generator.integers(1, 4)), int(generator.integers(2, 6))
    weight, bias = integers(generator, -3, 3, width, inputs), integers(generator, -2, 2, width)
    last, shift = integers(generator, -3, 3, 2, width), integers(generator, -2, 2, 2)
    builder = NetworkBuilder(generator, (1, inputs))
    sums = builder.op("Add", hidden_layer(builder, weight, bias, last), builder.constant(shift))
    path = save(builder.model(sums, 2), tmp_path)
    reach = np.abs(weight).sum(1)
    low, high = np.maximum(bias - reach, 0), np.maximum(bias + reach, 0)
    factors = np.array([2.0, -3.0])
    total = factors @ last
    least = float(np.minimum(total * low, total * high).sum() + factors @ shift)
    for difference in (-0.125, 0.125):
        atom = f"(< (+ (* 2 Y_0) (* -3 Y_1)) {least + difference})"
        problem = problem_about(path, query_about(np.full(inputs, -1.0), np.full(inputs, 1.0), atom))
        task = replace(task_of(problem), original=UnmergedProblem(problem, lambda point, region: False))
        root = root_bounds(problem, task.clock, task.observer)
        closed = closed_by_images(task, replace(root, lower=torch.full_like(root.lower, -1.0)))
        assert bool((closed.lower > 0).all()) == (difference < 0)


def test_leaves_are_decided_exactly_of_small_networks_of_relus_alone(tmp_path: Path, tune: Callable[..., None]) -> None:
    tune(exact={"most_products": 1000})
    generator = np.random.default_rng(0)
    text = query_about(np.full(2, -1.0), np.full(2, 1.0), "(< Y_0 0)")
    for activation, width, worth in (("Relu", 8, True), ("Tanh", 8, False), ("Relu", 100, False), ("Tanh", 100, False)):
        builder = NetworkBuilder(generator, (1, 2))
        hidden = builder.op(activation, builder.dense("x", 2, width))
        path = save(builder.model(builder.dense(hidden, width, 2), 2), tmp_path)
        assert worth_deciding(problem_about(path, text)) == worth, (activation, width)


def problem_about(path: Path, text: str) -> Problem:
    """The problem that a query about one network is compiled to."""
    query = parse_query(text)
    return compile_problem(query, {query.networks[0].name: bind_module(load_model(path))})
