"""Generated specifications: unsafe exactly where they should be, inside the ball in every precision, deterministic."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
import vnnlib
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib import specs
from toolkit.formats.vnnlib.convert_versions import upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import parse_query
from toolkit.formats.vnnlib.write import format_query
from toolkit.problem.cases import compile_cases

UNIT = specs.interval_box([0.0, 0.0], [1.0, 1.0])
INSIDE = [0.5, 0.25]


def unsafe(query: Query, *outputs: float) -> bool:
    return query.holds(np.array([*INSIDE, *outputs]))


@given(
    st.lists(st.one_of(st.integers(0, 255).map(lambda pixel: pixel / 255), st.floats(0, 1)), min_size=1, max_size=8),
    st.one_of(st.sampled_from([0.0, 2 / 255, 0.1, 1e-9]), st.floats(0, 1)),
)
@settings(deadline=None)
def test_boxes_never_leave_the_ball(center: list[float], epsilon: float) -> None:
    box = specs.linf_box(center, epsilon)
    back = compile_cases(parse_query("\n".join(format_query(specs.output_range(box, 1, 0)))))
    assert (back.lower[0].tolist(), back.upper[0].tolist()) == (box.lower.tolist(), box.upper.tolist())
    for x, lower, upper in zip(center, box.lower.tolist(), box.upper.tolist(), strict=True):
        nearest = float(np.float32(x))
        least, most = max(Fraction(x) - Fraction(epsilon), 0), min(Fraction(x) + Fraction(epsilon), 1)
        assert (float(np.float32(lower)), float(np.float32(upper))) == (lower, upper)
        assert least <= lower <= upper <= most or lower == upper == nearest
        # The ball is used up: one step further is outside.
        assert step(lower, -1) < least or lower == nearest
        assert step(upper, 2) > most or upper == nearest


def step(value: float, towards: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(towards)))


def test_bounds_of_each_pixel_and_other_ranges() -> None:
    box = specs.linf_box(np.array([[10.0, 200.0]]), np.array([[0.0, 100.0]]), low=0, high=255)
    assert (box.lower.tolist(), box.upper.tolist()) == ([10, 100], [10, 255])
    double = specs.linf_box([0.3], 0.1, dtype="float64")
    assert Fraction(double.lower[0]) >= Fraction(0.3) - Fraction(0.1)
    assert double.upper[0] == pytest.approx(0.4, abs=1e-15)


@pytest.mark.parametrize(
    ("center", "epsilon"), [([1.5], 0.1), ([-0.1], 0.1), ([0.5], -0.1), ([np.nan], 0.1), ([0.5], np.inf)]
)
def test_bad_balls_are_refused(center, epsilon) -> None:
    with pytest.raises(InputError):
        specs.linf_box(center, epsilon)


def test_bad_intervals_are_refused() -> None:
    with pytest.raises(InputError, match="no float32 value between the bounds of input 1"):
        specs.interval_box([0, 0.1], [1, 0.1])
    with pytest.raises(InputError, match="same shape"):
        specs.interval_box([0], [1, 2])


def test_robustness() -> None:
    query = specs.robustness(UNIT, 1, 3)
    assert not unsafe(query, 0.0, 1.0, 0.9)
    assert unsafe(query, 0.0, 1.0, 1.0)
    assert not query.holds(np.array([1.5, 0, 0, 1, 2]))
    targeted = specs.robustness(UNIT, 1, 3, target=0)
    assert not unsafe(targeted, 0.0, 1.0, 2.0)
    assert unsafe(targeted, 1.5, 1.0, 2.0)
    lowest = specs.robustness(UNIT, 1, 3, lowest=True)
    assert not unsafe(lowest, 1.0, 0.0, 2.0)
    assert unsafe(lowest, 1.0, 0.0, -1.0)


def test_top_k() -> None:
    query = specs.top_k(UNIT, 0, 4, 2)
    assert not unsafe(query, 1.0, 2.0, 0.0, 0.0)
    assert unsafe(query, 1.0, 2.0, 0.0, 3.0)


def test_output_range() -> None:
    query = specs.output_range(UNIT, 2, low=[-1.0, -2.0], high=5.0)
    assert not unsafe(query, 0.0, -1.5)
    assert unsafe(query, -1.5, 0.0)
    assert unsafe(query, 0.0, 5.5)
    assert len(specs.output_range(UNIT, 2, high=5.0).atoms) == 4 + 2


def test_agreement_of_two_networks() -> None:
    query = specs.agreement(UNIT, (1, 2), (2,), 0.25)
    assert not query.holds(np.array([0.5, 0.5, 1, 2, 0.5, 0.5, 1.25, 2]))
    assert query.holds(np.array([0.5, 0.5, 1, 2, 0.5, 0.5, 1, 2.26]))
    assert query.holds(np.array([0.5, 0.5, 1, 2, 0.5, 0.5, 0.7, 2]))
    assert not query.holds(np.array([0.5, 0.5, 1, 2, 0.5, 0.6, 0.0, 2]))


def test_monotonicity() -> None:
    up = specs.monotonicity(UNIT, (2,), (1,), feature=1, output=0)
    down = specs.monotonicity(UNIT, (2,), (1,), feature=1, output=0, increasing=False)
    assert up.networks[1].equal_to == "f"
    for query, unsafe_first, unsafe_second in ((up, 2.0, 1.0), (down, 1.0, 2.0)):
        assert query.holds(np.array([0.5, 0.25, unsafe_first, 0.5, 0.75, unsafe_second]))
        assert not query.holds(np.array([0.5, 0.25, unsafe_second, 0.5, 0.75, unsafe_first]))
        assert not query.holds(np.array([0.5, 0.75, unsafe_first, 0.5, 0.25, unsafe_second]))
        assert not query.holds(np.array([0.5, 0.25, unsafe_first, 0.6, 0.75, unsafe_second]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: specs.robustness(UNIT, 3, 3),
        lambda: specs.robustness(UNIT, 0, 1),
        lambda: specs.robustness(UNIT, 1, 3, target=1),
        lambda: specs.robustness(UNIT, 1, 3, target=7),
        lambda: specs.top_k(UNIT, 0, 4, 4),
        lambda: specs.output_range(UNIT, 2),
        lambda: specs.agreement(UNIT, (3,), (2,), 0.1),
        lambda: specs.monotonicity(UNIT, (2,), (1,), feature=2, output=0),
        lambda: specs.monotonicity(UNIT, (2,), (1,), feature=0, output=1),
    ],
)
def test_inconsistent_requests_are_refused(make) -> None:
    with pytest.raises(InputError):
        make()


def test_a_top_k_of_many_outputs_is_too_large() -> None:
    with pytest.raises(UnsupportedError, match="disjuncts"):
        specs.top_k(UNIT, 0, 200, 5)


ALL = [
    specs.robustness(UNIT, 1, 3),
    specs.top_k(UNIT, 0, 4, 2),
    specs.output_range(UNIT, 2, low=-0.5, high=1e-7),
    specs.agreement(UNIT, (1, 2), (2,), 0.0005),
    specs.monotonicity(UNIT, (2,), (1,), 1, 0, dtype="real"),
]


@pytest.mark.parametrize("query", ALL)
def test_text_reads_back_and_suits_the_official_package(query: Query) -> None:
    text = "\n".join(format_query(query))
    back = parse_query(text)
    assert str(back) == str(query)
    assert "\n".join(format_query(back)) == text
    newer = upgrade(query, [(1, 2)], [(query.networks[0].outputs[0].size,)])
    assert vnnlib.parse_query_string("\n".join(format_query(newer))).assertions


def test_an_image_takes_milliseconds() -> None:
    image = np.random.default_rng(0).random(3072)
    start = time.process_time()
    text = "\n".join(format_query(specs.robustness(specs.linf_box(image, 2 / 255), 3, 10)))
    assert time.process_time() - start < 1.0
    assert text.count("\n") == 3082 + 1 + 6144 + 11 - 1
