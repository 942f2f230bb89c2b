"""Queries that fix inputs: on points there is nothing to split, to vary or to reduce, and the answer is a value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from random_networks import PIECEWISE_LINEAR, SMOOTH, NetworkBuilder, random_network, save, sizes
from random_queries import QueryCase, query_text

from toolkit.batched_queries import bound_together
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.quick_proof import quick_proof
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

FAMILIES = sorted({**PIECEWISE_LINEAR, **SMOOTH})
MARGIN = 1e-3
SETTINGS = [
    Settings(device="cpu", timeout=20, strategy=strategy, attack_restarts=restarts, attack_steps=3, alpha_iterations=2)
    for strategy in ("auto", "relu", "input")
    for restarts in (0, 3)
]


def outputs_at(path: Path, point: np.ndarray) -> np.ndarray:
    """What onnxruntime says of one point, flat."""
    session = onnxruntime.InferenceSession(path)
    (info,) = session.get_inputs()
    return session.run(None, {info.name: point.astype(np.float32).reshape(info.shape)})[0].ravel()


def random_points(path: Path, size: tuple[int, int], generator: np.random.Generator) -> tuple[list[QueryCase], bool]:
    """One or two cases on points of single precision, each a margin on one side of its atoms; whether one holds."""
    inputs, outputs = size
    cases, satisfiable = [], False
    for _ in range(int(generator.integers(1, 3))):
        point = generator.normal(size=inputs).astype(np.float32).astype(np.float64)
        on_y = generator.normal(size=(2, outputs)).round(1)
        values = on_y @ outputs_at(path, point)
        holds = bool(generator.random() < 0.3)
        shift = np.array([-MARGIN, -MARGIN if holds else MARGIN])
        cases.append(QueryCase(point, point, np.zeros((2, inputs)), on_y, shift - values))
        satisfiable |= holds
    return cases, satisfiable


def answered(result: Result, satisfiable: bool) -> None:
    assert result.verdict == (Verdict.SAT if satisfiable else Verdict.UNSAT), result.reason


@pytest.mark.parametrize("name", FAMILIES)
def test_points_are_decided_whatever_the_settings(name: str, tmp_path: Path) -> None:
    model = random_network(name, 3)
    path, generator = save(model, tmp_path), np.random.default_rng(17)
    networks = load_networks({"": path})
    for settings in SETTINGS:
        cases, satisfiable = random_points(path, sizes(model), generator)
        answered(verify(networks, parse_query(query_text(cases)), settings), satisfiable)


@pytest.mark.parametrize("name", FAMILIES)
def test_points_are_proved_lightly_and_surveyed(name: str, tmp_path: Path) -> None:
    onnx_model = random_network(name, 4)
    path, generator = save(onnx_model, tmp_path), np.random.default_rng(18)
    model = load_model(path)
    specs, expected = [], []
    for number in range(4):
        cases, satisfiable = random_points(path, sizes(onnx_model), generator)
        specs.append(tmp_path / f"{number}.vnnlib")
        specs[-1].write_text(query_text(cases))
        expected.append(satisfiable)
        query = parse_query(specs[-1].read_text())
        found = quick_proof(query, compile_cases(query), model, Clock.started(5)) is not None
        assert not (found and satisfiable)
    answers = bound_together(load_networks({"": path}), specs, SETTINGS[0], Clock.started(20))
    for answer, satisfiable in zip(answers, expected, strict=True):
        assert not (isinstance(answer, Result) and satisfiable)


def linear(constant: bool) -> NetworkBuilder:
    """A network without neurons, whose output may not depend on its input."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 3))
    weight = np.zeros((3, 2)) if constant else np.arange(6.0).reshape(3, 2)
    builder.op("Gemm", "x", builder.constant(weight), builder.constant(np.array([0.5, -1.5])))
    return builder


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("width", [0.0, 1.0])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.strategy}-{s.attack_restarts}")
def test_networks_without_neurons(constant: bool, width: float, settings: Settings, tmp_path: Path) -> None:
    path = save(linear(constant).model("t0", 2), tmp_path)
    lower, upper = np.full(3, 0.25), np.full(3, 0.25 + width)
    least = outputs_at(path, lower)[0]
    for offset, satisfiable in ((MARGIN, False), (-MARGIN, True)):
        case = QueryCase(lower, upper, np.zeros((1, 3)), np.array([[1.0, 0.0]]), np.array([offset - least]))
        answered(verify(load_networks({"": path}), parse_query(query_text([case])), settings), satisfiable)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.strategy}-{s.attack_restarts}")
def test_atoms_over_inputs_alone_on_a_point(settings: Settings, tmp_path: Path) -> None:
    path, point = save(linear(False).model("t0", 2), tmp_path), np.full(3, 0.25)
    for offset, satisfiable in ((0.125, False), (-0.125, True)):
        case = QueryCase(point, point, np.array([[1.0, 1.0, 0.0]]), np.zeros((1, 2)), np.array([offset - 0.5]))
        answered(verify(load_networks({"": path}), parse_query(query_text([case])), settings), satisfiable)


@pytest.mark.parametrize("sign", ["<", ">", "!="])
def test_a_point_that_rounding_leaves_open_is_told_at_once(sign: str, tmp_path: Path) -> None:
    """Over the reals a sigmoid's value is next to the one that onnxruntime computes, which alone is no witness."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    x = builder.op("Sigmoid", builder.dense(builder.op("Sigmoid", builder.dense("x", 2, 3)), 3, 2))
    path, point = save(builder.model(builder.op("Identity", x), 2), tmp_path), np.array([0.25, -0.5])
    value = float(outputs_at(path, point)[0])
    lines = ["(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)"]
    lines += [f"(assert (= X_{k} {at}))" for k, at in enumerate(point)] + [f"(assert ({sign} Y_0 {value!r}))"]
    for settings in SETTINGS:
        answer = verify(load_networks({"": path}), parse_query("\n".join(lines)), settings)
        assert answer.verdict in (Verdict.UNSAT, Verdict.UNKNOWN)
        assert answer.verdict == Verdict.UNSAT or "all inputs are fixed" in answer.reason
        assert answer.statistics.seconds < settings.timeout / 2
