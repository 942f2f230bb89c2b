"""ONNX models as bounded programs, by the way that verification takes, with bounds of their outputs."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.attack.gradient_attack import forward
from toolkit.bounds.crown import bound_features, crown_bounds
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.problem.compile import bind_module, in_double
from toolkit.problem.evaluate_program import evaluate as with_errors
from toolkit.problem.program import Program, build_program
from toolkit.problem.trace import trace


def program_of_model(model: OnnxModel) -> Program:
    """The program of all outputs, flat, of all inputs, flat. Raises ToolkitError for what is not supported."""
    binding = in_double({"": bind_module(model)})[""]
    sizes = [math.prod(shape) for shape in binding.input_shapes]

    def run(flat: Tensor) -> Tensor:
        pieces = zip(flat.split(sizes), binding.input_shapes, strict=True)
        outputs = binding.module(*(piece.reshape(shape) for piece, shape in pieces))
        return torch.cat([output.reshape(-1).double() for output in outputs])

    return build_program(trace(run, [torch.full((sum(sizes),), 0.5, dtype=torch.float64)]))


def evaluate(program: Program, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the features, ``(B, F)``, at points ``(B, n)``."""
    return forward(program, torch.from_numpy(points)).detach().numpy()


def lost_digits(program: Program, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """What rounding may have changed in values of the features, ``(B, F)``, computed in double precision."""
    at = torch.from_numpy(points)
    return with_errors(program, at, torch.zeros_like(at), 0.0)[0].error.detach().numpy()


def output_bounds(program: Program, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> list[Bounds]:
    """Interval and CROWN bounds of the features, ``(1, F)`` each, over a box of two corners ``(n,)``."""
    box = Bounds(torch.from_numpy(lower).unsqueeze(0), torch.from_numpy(upper).unsqueeze(0))
    with torch.no_grad():
        _, by_intervals = interval_bounds(program, box)
        one = torch.eye(program.features.size, dtype=program.dtype)
        rows = torch.cat([one, -one]).unsqueeze(0)
        low, negated = bound_features(program, rows, box, crown_bounds(program, box))[1].chunk(2, 1)
    return [by_intervals, Bounds(low, -negated)]
