"""Attention with masks of every kind: an output is a mean of what is not masked, never more than the largest of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from attention import AttentionNetwork, random_attention
from small_models import save_text

from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify


def drawn(seed: int, folder: Path) -> tuple[AttentionNetwork, Path]:
    """A random network and the file that it is written to."""
    attention = random_attention(np.random.default_rng(seed))
    path = folder / "attention.onnx"
    onnx.save(attention.model, path)
    return attention, path


@pytest.mark.parametrize("seed", range(14))
def test_a_mean_is_never_above_its_largest_part(seed: int, tmp_path: Path) -> None:
    attention, path = drawn(seed, tmp_path)
    result = verify(load_networks({"": path}), parse_query(attention.query(0.1)), Settings(timeout=20.0))
    assert result.verdict == Verdict.UNSAT, result.reason


@pytest.mark.parametrize("seed", range(4))
def test_what_a_sample_attains_is_never_refuted(seed: int, tmp_path: Path) -> None:
    attention, path = drawn(100 + seed, tmp_path)
    session, generator = onnxruntime.InferenceSession(path), np.random.default_rng(seed)
    points = attention.lower + generator.random((200, len(attention.lower))) * (attention.upper - attention.lower)
    values = [session.run(None, {"x": point.astype(np.float32)[None]})[0][0, attention.output] for point in points]
    text = attention.query(max(values) - attention.most - 1e-4)
    assert verify(load_networks({"": path}), parse_query(text), Settings(timeout=5.0)).verdict != Verdict.UNSAT


@pytest.mark.parametrize("gap", [50.0, 90.0, 100.0, 800.0, 1e5])
def test_a_share_that_vanishes_is_refuted(gap: float, tmp_path: Path) -> None:
    """onnxruntime says 0 where a cut-off exponential leaves a tiny share: no disagreement."""
    text = "main (float[1,3] x) => (float[1,3] y) { s = Gemm(x, w, b) y = Softmax<axis = 1>(s) }"
    weight = np.random.default_rng(0).permuted(np.eye(3), axis=0).astype(np.float32) * np.float32(gap)
    path = save_text(tmp_path / "far.onnx", text, w=weight, b=np.array([0, -3, 0], np.float32) * np.float32(gap))
    lines = [f"(declare-const {name}_{i} Real)" for name in "XY" for i in range(3)]
    lines += [f"(assert (>= X_{i} 0)) (assert (<= X_{i} 1))" for i in range(3)]
    query = parse_query("\n".join([*lines, "(assert (>= Y_1 0.3))"]))
    result = verify(load_networks({"": path}), query, Settings(timeout=20.0))
    assert result.verdict == Verdict.UNSAT, result.reason
