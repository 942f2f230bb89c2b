"""Which compiled maps count as stored without any rounding, and rational evaluation of those that do."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from random_networks import NetworkBuilder, save
from torch import fx

from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import bind_module, compile_problem
from toolkit.problem.exactness import computed_exactly, grid_of
from toolkit.problem.program import INPUT, Program
from toolkit.problem.rational import RationalProgram, dyadic, is_rational
from toolkit.problem.trace import trace


def never(node: fx.Node) -> bool:
    return False


def exact(function: object, size: int = 3) -> bool:
    """Whether a function of a vector is written out without rounding."""
    module = trace(function, [torch.zeros(size, dtype=torch.float64)])
    return not module.meta["folded"] and computed_exactly(module, never)


def matrix(generator: np.random.Generator, single: bool) -> torch.Tensor:
    """A random matrix in double precision, whose entries may have the digits of single precision only."""
    values = generator.normal(size=(3, 3))
    return torch.as_tensor(values.astype(np.float32) if single else values).double()


def test_one_product_of_single_precision_is_exact_and_compositions_need_few_digits() -> None:
    generator = np.random.default_rng(0)
    weight, other = matrix(generator, True), matrix(generator, True)
    whole, half = weight.mul(8).round(), other.mul(8).round() / 8
    bias = matrix(generator, True)[0]
    assert exact(lambda x: weight @ x + bias)
    assert exact(lambda x: whole @ (half @ x + 0.5) - x)
    assert not exact(lambda x: weight @ (other @ x))
    assert not exact(lambda x: whole @ x + x / 3)
    assert not exact(lambda x: matrix(generator, False) @ (half @ x))


def test_what_is_computed_of_constants_counts_as_rounded() -> None:
    third = torch.ones(3, dtype=torch.float64)
    assert exact(lambda x: x * third)
    assert not exact(lambda x: x * (third / 3))


def test_grids() -> None:
    assert grid_of(0.0).fine == 0
    assert grid_of(0.375).fine == 3
    assert grid_of([[1.0, 2.0], [3.0, 0.5]]).fine == 1
    assert not grid_of(float("inf")).exact
    assert not grid_of([1e300, 1e-300]).exact


def test_doubles_are_read_as_they_are() -> None:
    values = np.array([0.0, -0.1, 1e-310, 3e200, -7.0])
    found = dyadic(values)
    assert [Fraction(int(i), 1 << found.bits) for i in found.integers] == [Fraction(v) for v in values.tolist()]


def program_of(path: Path) -> Program:
    """The program of a network with three inputs and two outputs."""
    names = ["X_0", "X_1", "X_2", "Y_0", "Y_1"]
    lines = [f"(declare-const {name} Real)" for name in names]
    lines += [f"(assert (and (>= {name} -1) (<= {name} 1)))" for name in names[:3]]
    query = parse_query("\n".join([*lines, "(assert (<= Y_0 Y_1))"]))
    return compile_problem(query, {"N": bind_module(load_model(path))}).program


def test_linear_functions_of_a_network_with_known_phases(tmp_path: Path) -> None:
    builder, generator = NetworkBuilder(np.random.default_rng(1), (1, 3)), np.random.default_rng(2)
    x = builder.op("Relu", builder.dense("x", 3, 4))
    x = builder.op("Concat", builder.op("Relu", builder.dense(x, 4, 4)), "x", x, axis=1)
    path = save(builder.model(builder.dense(x, 11, 2), 2), tmp_path)
    program = program_of(path)
    assert is_rational(program)
    point = generator.integers(-8, 9, 3) / 8
    values, phases = {INPUT: torch.as_tensor(point).unsqueeze(0)}, []
    for number, layer in enumerate(program.layers):
        values[number] = layer.affine.apply([values[source] for source in layer.affine.sources]).relu()
        phases.append(np.where(values[number][0].numpy() > 0, 1, -1))
    expected = program.features.apply([values[source] for source in program.features.sources])[0].numpy()
    _, features = RationalProgram.of(program).linear(np.concatenate(phases).astype(np.int8))
    exactly = [*map(Fraction, point.tolist()), Fraction(1)]
    rows = [[Fraction(int(entry), 1 << features.bits) for entry in row] for row in features.integers]
    found = [sum(a * b for a, b in zip(row, exactly, strict=True)) for row in rows]
    np.testing.assert_allclose(list(map(float, found)), expected, rtol=1e-13)
