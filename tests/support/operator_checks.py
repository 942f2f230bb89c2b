"""Whether a model is refused with a reason, or compiled to a program and bounds that hold what onnxruntime says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx_programs import evaluate, lost_digits, output_bounds, program_of_model

from toolkit.errors import ToolkitError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session

RADII = (0.5, 3.0)
POINTS = 8
LARGEST = 1e30
"""Magnitude of a result beyond which single precision may have overflowed on the way."""


def fault_of(model: onnx.ModelProto, folder: Path, rng: np.random.Generator) -> str | None:
    """What is wrong in words, "" for nothing, None where the model is refused. Exceptions are faults, too."""
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        loaded = load_model(path)
        program = program_of_model(loaded)
    except ToolkitError:
        return None
    session, size = Session(loaded), loaded.inputs[0].size
    for radius in RADII:
        centre = rng.uniform(-1, 1, size) * radius
        lower, upper = centre - radius, centre + radius
        points = rng.uniform(lower, upper, (POINTS, size)).astype(np.float32).astype(np.float64)
        outputs = [session.run_undeclared([point])[0] for point in points]
        expected = np.array([output.astype(np.float64).reshape(-1) for output in outputs])
        expected = np.where(np.abs(expected) < LARGEST, expected, np.nan)
        whole = ~np.isnan(expected).any(1)  # what is undefined in one place spoils a matrix product in all
        lost = lost_digits(program, points[whole])
        fault = _difference(evaluate(program, points[whole]), expected[whole], np.where(lost < LARGEST, lost, 0.0))
        if fault:
            return fault
        for name, bounds in zip(("interval", "CROWN"), output_bounds(program, lower, upper), strict=True):
            slack = 2e-3 * np.abs(expected) + 1e-4
            low, high = bounds.lower.numpy(), bounds.upper.numpy()
            if (low > expected + slack).any() or (high < expected - slack).any():
                return f"{name} bounds {low.tolist()} {high.tolist()} of {expected[:2].tolist()} within {radius}"
    return ""


def _difference(
    value: NDArray[np.float64], expected: NDArray[np.float64], lost: NDArray[np.float64] | float = 0.0
) -> str:
    """How far values are from those expected, beyond what rounding lost; NaN is expected where nothing is."""
    known = ~np.isnan(expected)
    scale = lost + 1e-3 * np.abs(expected) + 1e-4 * max(1.0, float(np.abs(expected[known]).max(initial=0.0)))
    with np.errstate(invalid="ignore"):
        wrong = known & ~(np.abs(value - expected) <= scale)
    return f"{value[wrong][:4].tolist()} for {expected[wrong][:4].tolist()}" if wrong.any() else ""
