"""Leaves whose rows have magnitudes far apart: what refutes them has no price, and no unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_networks import NetworkBuilder, save

from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Verdict
from toolkit.search import lp_leaf
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

PHASES = Settings(device="cpu", timeout=30, strategy="relu", attack_restarts=0, processes=1)


def roof(generator: np.random.Generator, folder: Path, scale: float, unit: float) -> Path:
    """``1 - scale * sum |w_i . x / unit - c_i|`` of three absolute values of four inputs of magnitude ``unit``."""
    weight, shift = generator.normal(size=(3, 4)) / unit, generator.normal(size=3) * 0.3
    builder = NetworkBuilder(generator, (1, 4))
    both = np.concatenate([weight, -weight]).T, np.concatenate([-shift, shift])
    hidden = builder.op("Relu", builder.op("Gemm", "x", *(builder.constant(part) for part in both)))
    last = builder.constant(np.full((6, 1), -scale)), builder.constant(np.ones(1))
    return save(builder.model(builder.op("Gemm", hidden, *last), 1), folder)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e5, 1e6])
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_roof_is_no_higher_than_its_ridge(scale: float, unit: float, tmp_path: Path) -> None:
    path = roof(np.random.default_rng(round(np.log10(scale)) + 10), tmp_path, scale, unit)
    lines = [f"(declare-const X_{k} Real)(assert (and (>= X_{k} {-unit}) (<= X_{k} {unit})))" for k in range(4)]
    lines.append("(declare-const Y_0 Real)")
    networks = load_networks({"": path})
    for assertion in ("(>= Y_0 1.01)", "(and (>= Y_0 1.01) (<= (* 1000000 X_0) 1.0))"):
        answer = verify(networks, parse_query("\n".join([*lines, f"(assert {assertion})"])), PHASES)
        assert answer.verdict == Verdict.UNSAT, (assertion, answer.reason)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rows_are_measured_in_their_own_units(scale: float) -> None:
    generator = np.random.default_rng(1)
    coefficients, constant = generator.normal(size=(5, 3)), generator.normal(size=5)
    lower, upper = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 0.5, 2.0])
    rows = lp_leaf.LeafRows.over_box(scale * coefficients, scale * constant, lower, upper)
    u = generator.uniform(-1, 1, 3)
    x = (lower + upper) / 2 + u * (upper - lower) / 2
    np.testing.assert_allclose((rows.coefficients @ u + rows.constant) * rows.scale,
                               scale * (coefficients @ x + constant))  # fmt: skip
    assert (np.abs(rows.coefficients).sum(1) + np.abs(rows.constant) <= 1 + 1e-12).all()
