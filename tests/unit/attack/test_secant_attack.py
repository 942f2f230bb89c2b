"""Walks along secants find what random points miss, stay in their boxes, and end in time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from small_models import load_text
from sums import INPUTS, posed, text_of

from toolkit.attack.case_losses import CaseLosses, Points
from toolkit.attack.point_sampling import sample
from toolkit.attack.secant_attack import follow_secants
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.run.clock import Clock


def found(losses: CaseLosses, walks: int = 4, seed: int = 0) -> Points | None:
    points: list[Points] = []
    keep = lambda point, region: points.append(point) is None  # noqa: E731
    return points[-1] if follow_secants(losses, Clock.started(60), seed, keep, walks) else None


@pytest.mark.parametrize("condition", ["(>= Y_0 29.5)", "(<= Y_0 -29.5)", "(and (>= Y_1 28.0) (<= Y_0 29.9))"])
def test_a_corner_that_no_random_point_is_near(tmp_path: Path, condition: str) -> None:
    query, _, losses = posed(tmp_path, condition)
    point = found(losses)
    assert point is not None
    assert np.abs(point).max() <= 1
    assert query.holds(np.array([*point, point.sum(), max(point.sum(), 0.0)]))
    assert not sample(losses, 0, Clock.started(60), lambda point, region: True)


def test_every_case_and_every_box_is_followed(tmp_path: Path) -> None:
    high = "(and (>= X_0 0.5) (>= Y_0 40.0))"
    low = "(and (<= X_0 -0.5) (or (>= Y_0 35.0) (<= Y_0 -29.0)))"
    _, cases, losses = posed(tmp_path, f"(or {high} {low})")
    assert (len(cases), len(cases.lower)) == (3, 2)
    point = found(losses)
    assert point is not None
    assert point.sum() <= -29


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    *_, losses = posed(tmp_path, "(>= Y_0 30.5)")
    assert found(losses) is None


def test_a_refused_witness_is_none(tmp_path: Path) -> None:
    *_, losses = posed(tmp_path, "(>= Y_0 29.0)")
    assert not follow_secants(losses, Clock.started(60), 0, lambda point, region: False, walks=2)


def test_losses_are_the_largest_atoms(tmp_path: Path) -> None:
    _, cases, losses = posed(tmp_path, "(or (and (<= Y_0 1.0) (<= X_0 Y_1)) (>= (* X_1 Y_0) 2.0) (<= X_3 0.5))")
    points = np.random.default_rng(0).uniform(-1, 1, (5, INPUTS))
    total = points.sum(1)
    positive = np.maximum(total, 0)
    first = np.maximum(total - 1, points[:, 0] - positive)
    expected = np.stack([first, 2 - points[:, 1] * total, np.full(5, -np.inf)], 1)
    assert np.allclose(losses.at(points), expected, atol=1e-5)
    assert len(cases) == 3


def test_what_is_not_a_number_is_no_witness(tmp_path: Path) -> None:
    text = "main (float[1,30] x) => (float[1,2] y) { s = Sqrt(x)  y = Slice(s, a, b, c) }"
    ints = {name: np.array([value], dtype=np.int64) for name, value in (("a", 0), ("b", 2), ("c", 1))}
    query = parse_query(text_of("(<= Y_0 5.0)", -1.0, -0.5))
    session = Session(load_text(tmp_path / "net.onnx", text, **ints))
    losses = CaseLosses(query, compile_cases(query), {query.networks[0].name: session})
    assert np.isposinf(losses.at(np.full((1, INPUTS), -0.75))).all()
    assert found(losses) is None


def test_it_ends_in_time(tmp_path: Path) -> None:
    *_, losses = posed(tmp_path, "(>= Y_0 30.5)")
    began = time.perf_counter()
    assert not follow_secants(losses, Clock.started(0.2), 0, lambda point, region: False, walks=1_000_000)
    assert time.perf_counter() - began < 5
