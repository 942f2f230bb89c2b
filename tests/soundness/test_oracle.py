"""The oracle itself: its optimum is attained by the network and never undercut by a sampled point."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from oracle import optimum
from random_networks import PIECEWISE_LINEAR, random_network, sizes
from random_queries import random_cases

SEEDS = 4


def run(model: onnx.ModelProto, points: np.ndarray) -> np.ndarray:
    """Outputs (B, m) by onnxruntime for points (B, n)."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    rows = [session.run(None, {"x": point.astype(np.float32).reshape(shape)})[0].reshape(-1) for point in points]
    return np.stack(rows).astype(np.float64)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_optimum_is_attained_and_not_undercut(name: str, seed: int) -> None:
    model = random_network(name, seed)
    generator = np.random.default_rng(seed + 1000)
    for case in random_cases(generator, *sizes(model)):
        value, point = optimum(model, case)
        assert (point >= case.lower - 1e-7).all() and (point <= case.upper + 1e-7).all()
        assert case.worst(point[None], run(model, point[None]))[0] == pytest.approx(value, abs=2e-5)
        sampled = case.points(generator, 200)
        assert case.worst(sampled, run(model, sampled)).min() >= value - 2e-5
