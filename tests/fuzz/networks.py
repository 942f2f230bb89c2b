"""Fully connected ReLU networks of small numbers: as layers, as ONNX models, and exactly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import torch
from choices import Choices
from exact_reference import values_of
from graphs import Typed
from numpy.typing import NDArray
from scenes import CPU, Numbers

from toolkit.problem.affine import DenseAffine
from toolkit.problem.program import INPUT, Layer, Program

Array = NDArray[Any]


@dataclass(frozen=True)
class Dense:
    """Weights ``(rows, columns)`` and biases of the layers of a network; a ReLU follows each but the last."""

    layers: tuple[tuple[Array, Array], ...]

    @property
    def inputs(self) -> int:
        return self.layers[0][0].shape[1]

    @property
    def outputs(self) -> int:
        return self.layers[-1][0].shape[0]

    def program(self) -> Program:
        """The network as a bounded program: the evaluator's form of it."""
        maps = [
            DenseAffine((number - 1 if number else INPUT,), (torch.as_tensor(weight),), torch.as_tensor(bias))
            for number, (weight, bias) in enumerate(self.layers)
        ]
        starts = np.cumsum([0, *(one.size for one in maps)])
        layers = tuple(Layer(f"relu_{n}", "relu", one, int(starts[n])) for n, one in enumerate(maps[:-1]))
        return Program(self.inputs, layers, maps[-1], CPU, torch.float64)

    def values(self, points: Array) -> Array:
        """Outputs ``(P, m)`` at points ``(P, n)``, the nearest doubles."""
        return values_of(self.program(), points).features

    def model(self, dtype: str = "float32") -> onnx.ModelProto:
        """The network as an ONNX model with an input ``x``."""
        build, x = Typed((1, self.inputs), dtype), "x"
        for number, (weight, bias) in enumerate(self.layers):
            x = build.op("Relu", x) if number else x
            x = build.op("Gemm", x, build.constant(weight), build.constant(bias), transB=1)
        return build.finished(x, self.outputs)


def random_dense(choices: Choices, numbers: Numbers, inputs: int, outputs: int, width: int = 4) -> Dense:
    """A network of one to three hidden layers."""
    widths = [inputs, *(choices.between(1, width) for _ in range(choices.between(1, 3))), outputs]
    sizes = pairwise(widths)
    return Dense(tuple((numbers.array(choices, rows, cols), numbers.array(choices, rows)) for cols, rows in sizes))
