"""Verdicts on hundreds of random queries equal those of an exact mixed-integer oracle.

Each case is shifted so that its optimum is a chosen small margin: above zero no point satisfies it, below zero some do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from oracle import optimum
from random_networks import PIECEWISE_LINEAR, random_network, save, sizes
from random_queries import QueryCase, query_text, random_cases

from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Result, Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

NETWORKS = 8
"""Random networks of each family."""
QUERIES = 6
"""Random queries on each network."""
FEW_INPUTS = ["mlp", "kinks", "residual", "wired"]
"""Families whose input box can be split in reasonable time."""


@dataclass(frozen=True)
class Example:
    """A query with its true answer."""

    cases: list[QueryCase]
    satisfiable: bool

    @property
    def text(self) -> str:
        return query_text(self.cases)


def place(
    case: QueryCase, value: float, generator: np.random.Generator, least: float, sat_share: float
) -> tuple[QueryCase, bool]:
    """Shift a case with a known optimum so that its optimum is a random margin on a random side of zero."""
    margin = float(np.exp(generator.uniform(np.log(least), np.log(0.2))))
    satisfiable = bool(generator.random() < sat_share)
    return case.shifted((-margin if satisfiable else margin) - value), satisfiable


def random_example(model: object, generator: np.random.Generator, least: float = 1e-4) -> Example:
    """A random query about a model. About half of all queries are satisfiable, whatever their number of cases."""
    cases = random_cases(generator, *sizes(model))
    share = 1 - 0.5 ** (1 / len(cases))
    placed = [place(case, optimum(model, case)[0], generator, least, share) for case in cases]
    return Example([case for case, _ in placed], any(satisfiable for _, satisfiable in placed))


def random_settings(generator: np.random.Generator, **fixed: object) -> Settings:
    """Settings that must not matter, at random."""
    choices = {
        "batch": [1, 2, 64],
        "alpha_iterations": [0, 3, 20],
        "beta_iterations": [2, 10, 20],
        "attack_restarts": [0, 0, 3],
        "seed": [0, 1, 2],
    }
    drawn = {name: int(generator.choice(values)) for name, values in choices.items()}
    return Settings(**{"timeout": 20.0, "strategy": "relu", "device": "cpu", "attack_steps": 10, **drawn, **fixed})


def contains(case: QueryCase, point: np.ndarray) -> bool:
    """Whether a point lies in the case's box, up to single precision where a side has no such number."""
    lower, upper = case.lower.astype(np.float32), case.upper.astype(np.float32)
    return bool(((point >= np.minimum(case.lower, lower)) & (point <= np.maximum(case.upper, upper))).all())


def assert_right(result: Result, example: Example, context: str) -> None:
    """The verdict is the oracle's, and a witness lies in a box of the query."""
    expected = Verdict.SAT if example.satisfiable else Verdict.UNSAT
    assert result.verdict == expected, f"{context}: {result.verdict} ({result.reason}), the oracle says {expected}"
    if result.witness is not None:
        assert any(contains(case, result.witness.inputs) for case in example.cases), context


@pytest.mark.parametrize("seed", range(NETWORKS))
@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_verdicts_equal_the_oracle(name: str, seed: int, tmp_path: Path) -> None:
    model = random_network(name, seed)
    networks = load_networks({"": save(model, tmp_path)})
    generator = np.random.default_rng(100 + seed)
    for number in range(QUERIES):
        example, settings = random_example(model, generator), random_settings(generator)
        result = verify(networks, parse_query(example.text), settings)
        assert_right(result, example, f"{name} {seed}, query {number}, {settings}")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", FEW_INPUTS)
def test_verdicts_by_input_splitting_equal_the_oracle(name: str, seed: int, tmp_path: Path) -> None:
    model = random_network(name, seed)
    networks = load_networks({"": save(model, tmp_path)})
    generator = np.random.default_rng(200 + seed)
    for number in range(4):
        example = random_example(model, generator, least=5e-3)
        settings = random_settings(generator, strategy="input")
        result = verify(networks, parse_query(example.text), settings)
        assert_right(result, example, f"{name} {seed}, query {number}, {settings}")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", ["relu", "input"])
@pytest.mark.parametrize("name", FEW_INPUTS)
def test_verdicts_of_several_processes_equal_the_oracle(
    name: str, strategy: str, seed: int, tmp_path: Path, tune: Callable[..., None]
) -> None:
    tune(sharing={"seconds_before": 1e-3, "least_turn_seconds": 1e-3, "least_domains": 1})
    model = random_network(name, seed)
    networks = load_networks({"": save(model, tmp_path)})
    generator = np.random.default_rng(500 + seed)
    for number in range(4):
        example = random_example(model, generator, least=5e-3)
        settings = random_settings(generator, strategy=strategy, processes=2, attack_restarts=0, alpha_iterations=0)
        result = verify(networks, parse_query(example.text), settings)
        assert_right(result, example, f"{name} {seed}, query {number}, {settings}")


@pytest.mark.parametrize("seed", range(8))
def test_verdicts_without_any_optimisation_equal_the_oracle(seed: int, tmp_path: Path) -> None:
    """Splits and linear programs alone are complete."""
    model = random_network("tiny", seed)
    networks = load_networks({"": save(model, tmp_path)})
    generator = np.random.default_rng(300 + seed)
    for _ in range(4):
        example = random_example(model, generator)
        settings = random_settings(generator, alpha_iterations=0, beta_iterations=0, attack_restarts=0)
        assert_right(verify(networks, parse_query(example.text), settings), example, f"{seed} {settings}")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["convolutional", "pooled", "wired"])
def test_single_precision_never_contradicts_the_oracle(
    name: str, seed: int, tmp_path: Path, tune: Callable[..., None]
) -> None:
    """The operators themselves, as large convolutions use them: rounding may hide an answer, but never change one."""
    tune(problem={"most_dense_elements": 0, "most_dense_convolution_elements": 0})
    model = random_network(name, seed)
    networks = load_networks({"": save(model, tmp_path)})
    generator = np.random.default_rng(400 + seed)
    for _ in range(2):
        example = random_example(model, generator, least=1e-5)
        result = verify(networks, parse_query(example.text), random_settings(generator, timeout=5.0))
        if result.verdict in {Verdict.SAT, Verdict.UNSAT}:
            assert_right(result, example, f"{name} {seed}")


@pytest.mark.parametrize("strategy", ["relu", "input"])
@pytest.mark.parametrize("seed", range(5))
def test_smooth_networks_are_never_proved_against_a_sample(seed: int, strategy: str, tmp_path: Path) -> None:
    model = random_network("smooth", seed)
    path = save(model, tmp_path)
    networks, session = load_networks({"": path}), onnxruntime.InferenceSession(path)
    generator = np.random.default_rng(500 + seed)
    for _ in range(3):
        cases = [sampled_example(session, case, generator) for case in random_cases(generator, *sizes(model))]
        settings = random_settings(generator, strategy=strategy, timeout=5.0)
        result = verify(networks, parse_query(query_text(cases)), settings)
        least = min(float(case.worst(*sample(session, case, generator, 500)).min()) for case in cases)
        assert not (result.verdict == Verdict.UNSAT and least <= 0)
        assert result.verdict != Verdict.ERROR
        if result.verdict == Verdict.SAT:
            assert result.witness is not None


def sample(session: onnxruntime.InferenceSession, case: QueryCase, generator: np.random.Generator, count: int) -> tuple:
    """Points of a case's box, rounded to the network's precision, and its outputs there."""
    points = np.clip(case.points(generator, count).astype(np.float32), case.lower, case.upper)
    outputs = [session.run(None, {"x": point.astype(np.float32)[None]})[0][0] for point in points]
    return points, np.stack(outputs).astype(np.float64)


def sampled_example(
    session: onnxruntime.InferenceSession, case: QueryCase, generator: np.random.Generator
) -> QueryCase:
    """The case shifted so that the best of some samples lies near zero, on either side."""
    least = float(case.worst(*sample(session, case, generator, 100)).min())
    return case.shifted(-least + float(generator.choice([-0.01, 0.003, 0.05])))
