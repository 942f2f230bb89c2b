"""Quick proofs never contradict an exact mixed-integer oracle, nor points; most queries of small networks have one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from random_networks import NetworkBuilder, random_network, save
from test_verdicts import random_example

from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.quick_proof import quick_proof
from toolkit.run.clock import Clock

NETWORKS, QUERIES = 6, 8


@pytest.mark.parametrize("name", ["mlp", "tiny", "residual", "convolutional"])
def test_quick_proofs_agree_with_the_oracle(name: str, tmp_path: Path) -> None:
    proofs = unsatisfiable = 0
    for seed in range(NETWORKS):
        onnx_model = random_network(name, seed)
        model = load_model(save(onnx_model, tmp_path, f"{seed}.onnx"))
        generator = np.random.default_rng(500 + seed)
        for number in range(QUERIES):
            example = random_example(onnx_model, generator, least=1e-3)
            query = parse_query(example.text)
            found = quick_proof(query, compile_cases(query), model, Clock.started(0.5)) is not None
            assert not (found and example.satisfiable), f"{name} {seed}, query {number}"
            proofs, unsatisfiable = proofs + found, unsatisfiable + (not example.satisfiable)
    assert proofs >= 0.5 * unsatisfiable > 0, f"{proofs} of {unsatisfiable}"


ACTIVATIONS = ["Relu", "Sigmoid", "Tanh"]


def random_smooth(generator: np.random.Generator) -> onnx.ModelProto:
    """A convolution with normalisation or a dense layer, and two more dense layers, of random operators."""
    builder = NetworkBuilder(generator, (1, 1, 3, 2))
    activation = lambda x: builder.op(str(generator.choice(ACTIVATIONS)), x)  # noqa: E731
    x, size = builder.op("Flatten", "x"), 6
    if generator.random() < 0.5:
        x = activation(builder.batch_norm(builder.convolution("x", 1, 2, pads=[0, 1, 0, 0]), 2))
        x, size = builder.op("Flatten", x), 8
    x = activation(builder.dense(x, size, 5))
    return builder.model(builder.dense(activation(builder.dense(x, 5, 4)), 4, 2), 2)


def box_text(lower: np.ndarray, upper: np.ndarray, assertion: str) -> str:
    """A query about two outputs for inputs in a box."""
    names = [f"X_{k}" for k in range(len(lower))] + ["Y_0", "Y_1"]
    lines = [f"(declare-const {name} Real)" for name in names]
    for k, (low, high) in enumerate(zip(lower, upper, strict=True)):
        lines += [f"(assert (>= X_{k} {low:.17f}))", f"(assert (<= X_{k} {high:.17f}))"]
    return "\n".join([*lines, assertion])


@pytest.mark.parametrize("seed", range(12))
def test_quick_proofs_of_smooth_networks_agree_with_points(seed: int, tmp_path: Path) -> None:
    """Thresholds lie close to the largest value at points: none that a point exceeds is proved, and some others are."""
    generator = np.random.default_rng(900 + seed)
    model = load_model(save(random_smooth(generator), tmp_path))
    session, proofs = Session(model), 0
    for _ in range(6):
        centre, radius = generator.normal(size=6), generator.choice([0.0, 1e-3, 0.1, 0.5], 6) * generator.random()
        lower, upper = centre - radius, centre + radius
        points = generator.uniform(lower, upper, (300, 6))
        points[:64] = np.where(generator.random((64, 6)) < 0.5, lower, upper)
        outputs = np.array([session.run([point])[0].reshape(-1) for point in points], dtype=np.float64)
        differences = outputs[:, 0] - outputs[:, 1]
        scale = max(0.02, float(np.ptp(differences)))  # values at points are in single precision
        for margin in (-0.1, -1e-2, -1e-3, 1e-3, 0.03, 0.3):
            threshold = differences.max() + margin * scale
            text = box_text(lower, upper, f"(assert (>= (- Y_0 Y_1) {threshold:.12f}))")
            query = parse_query(text)
            found = (
                quick_proof(query, compile_cases(query), model, Clock.started(1.0 if margin > 0.01 else 0.1))
                is not None
            )
            assert not (found and margin < 0), f"{margin}: {threshold}"
            proofs += found
    assert proofs >= 6
