"""Products of variables in a query: of convex factors that are not negative, corners have the largest value."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from random_networks import NetworkBuilder, save

from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

SETTINGS = Settings(device="cpu", timeout=30, attack_steps=10)


def two_blocks(generator: np.random.Generator, folder: Path) -> tuple[Path, np.ndarray, np.ndarray, np.ndarray]:
    """Two sums of ReLUs, each of inputs of its own and not negative, their box with one more input, and its corners."""
    width = 3
    weight = np.zeros((2 * width, 5))
    weight[:width, :2], weight[width:, 2:4] = generator.integers(-2, 3, (2, width, 2))
    bias, last = generator.integers(-1, 3, 2 * width).astype(float), np.zeros((2, 2 * width))
    last[0, :width], last[1, width:] = generator.integers(1, 4, (2, width))
    builder = NetworkBuilder(generator, (1, 5))
    z = builder.op("Gemm", "x", builder.constant(weight.T), builder.constant(bias))
    path = save(builder.model(builder.op("MatMul", builder.op("Relu", z), builder.constant(last.T)), 2), folder)
    lower = np.array([*generator.integers(-1, 1, 4), generator.integers(0, 2)]).astype(float)
    upper = lower + generator.integers(1, 3, 5)
    corners = np.array(list(itertools.product(*zip(lower, upper, strict=True))))
    outputs = np.maximum(corners @ weight.T + bias, 0) @ last.T
    return path, lower, upper, np.concatenate([corners, outputs], 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_value_of_a_product(seed: int, tmp_path: Path) -> None:
    path, lower, upper, corners = two_blocks(np.random.default_rng(seed), tmp_path)
    names = [f"X_{k}" for k in range(5)] + ["Y_0", "Y_1"]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [
        f"(assert (and (>= X_{k} {a}) (<= X_{k} {b})))" for k, (a, b) in enumerate(zip(lower, upper, strict=True))
    ]
    networks = load_networks({"": path})
    for factors in (("Y_0", "Y_1"), ("Y_0", "Y_1", "X_4"), ("Y_1", "Y_1")):
        most = float(np.prod(corners[:, [names.index(name) for name in factors]], 1).max())
        margin = 0.02 * most + 0.01
        for bound, verdict in ((most + margin, Verdict.UNSAT), (most - margin, Verdict.SAT)):
            query = parse_query("\n".join([*lines, f"(assert (>= (* {' '.join(factors)}) {bound:.6f}))"]))
            answer = verify(networks, query, SETTINGS)
            assert answer.verdict == verdict, (factors, bound, answer.reason)
