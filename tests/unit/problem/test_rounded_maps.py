"""Maps that are results of sums say how far they may be from the exact ones: composed operators, merged neurons,
reduced networks.

Weights are drawn so that sums of products lose digits and cancel; the truth is rational arithmetic.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.interval import Bounds
from toolkit.bounds.network_reduction import reduce_program
from toolkit.problem.affine import DenseAffine
from toolkit.problem.merge_neurons import merge_neurons
from toolkit.problem.program import INPUT, Layer, Program, build_program
from toolkit.problem.trace import trace

Vector = list[Fraction]
INPUTS = 3


def fractions(values: Tensor) -> Vector:
    return [Fraction(value) for value in values.flatten().tolist()]


def times(matrix: Tensor, vector: Vector) -> Vector:
    """A matrix times a vector, without rounding."""
    rows = (fractions(row) for row in matrix)
    return [sum((w * v for w, v in zip(row, vector, strict=True)), Fraction(0)) for row in rows]


def plus(first: Vector, second: Vector) -> Vector:
    return [a + b for a, b in zip(first, second, strict=True)]


def exact_value(affine: DenseAffine, sources: dict[int, Vector]) -> Vector:
    """The value of a map as it is stored, without rounding."""
    total = fractions(affine.bias)
    for source, matrix in zip(affine.sources, affine.matrices, strict=True):
        total = plus(total, times(matrix, sources[source]))
    return total


def random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def chain(seed: int) -> list[nn.Linear]:
    """Linear layers one after the other; of every third seed, pairs of rows nearly cancel in the layer behind."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [INPUTS, *torch.randint(2, 6, (2 + seed % 2,), generator=generator).tolist(), 2]
    layers = [nn.Linear(before, after).double() for before, after in pairwise(sizes)]
    for layer in layers:
        layer.weight.data = random(generator, *layer.weight.shape)
        layer.bias.data = random(generator, *layer.bias.shape)
    if seed % 3 == 0:
        first, second = layers[:2]
        first.weight.data[1] = first.weight.data[0] * (1 + 2.0**-30)
        first.bias.data[1] = first.bias.data[0] * (1 + 2.0**-30)
        second.weight.data[:, 1] = -second.weight.data[:, 0]
        second.weight.data[:, 2:] = 0.0
    return layers


@pytest.mark.parametrize("as_operators", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_what_composing_rounds_is_counted(seed: int, as_operators: bool, tune) -> None:  # type: ignore[no-untyped-def]
    layers = chain(seed)
    columns = [fractions(unit) for unit in torch.eye(INPUTS)]
    bias = [Fraction(0)] * INPUTS
    for layer in layers:
        columns = [times(layer.weight, column) for column in columns]
        bias = plus(times(layer.weight, bias), fractions(layer.bias))
    if as_operators:
        tune(problem={"most_dense_elements": 0})
    network = nn.Sequential(*layers)
    example = torch.zeros(INPUTS, dtype=torch.float64)
    found = build_program(trace(lambda x: network(x.unsqueeze(0)).squeeze(0), [example])).features
    nothing = found.uncertainty([torch.zeros(1, INPUTS, dtype=torch.float64)])
    assert all(
        abs(Fraction(stored) - exact) <= Fraction(off)
        for stored, exact, off in zip(found.bias.tolist(), bias, nothing[0].tolist(), strict=True)
    )
    if as_operators:
        return
    assert isinstance(found, DenseAffine)
    errors = found.element_errors()
    off = torch.zeros_like(found.matrices[0]) if errors is None else errors[0]
    for number, column in enumerate(columns):
        for stored, exact, most in zip(found.matrices[0][:, number].tolist(), column, off[:, number].tolist(),
                                       strict=True):  # fmt: skip
            assert abs(Fraction(stored) - exact) <= Fraction(most)


def pairs(seed: int, op: str) -> Program:
    """A layer of pairs of neurons that are made one: opposite ReLUs of a scale, squares that differ by their bias."""
    generator = torch.Generator().manual_seed(seed)
    count = 4
    rows, bias = random(generator, count, INPUTS), random(generator, count)
    scale = -(2.0 ** torch.randint(-3, 4, (count, 1), generator=generator).double())
    if op == "relu":
        weight, shift = torch.cat([rows, scale * rows]), torch.cat([bias, scale.squeeze(1) * bias])
    else:
        weight, shift = torch.cat([rows, -rows]), torch.cat([bias, random(generator, count)])
    first = DenseAffine((INPUT,), (weight,), shift)
    read = random(generator, 2, 2 * count) * 2.0 ** torch.randint(-9, 9, (2, 2 * count), generator=generator)
    features = DenseAffine((0,), (read,), random(generator, 2))
    return Program(INPUTS, (Layer(op, op, first, 0),), features, torch.device("cpu"), torch.float64)


def outputs(program: Program, point: Vector) -> tuple[Vector, list[Vector]]:
    """Features without rounding, and the values that their map reads."""
    sources = {INPUT: point}
    for number, layer in enumerate(program.layers):
        assert isinstance(layer.affine, DenseAffine)
        z = exact_value(layer.affine, sources)
        sources[number] = [max(v, Fraction(0)) if layer.op == "relu" else v * v for v in z]
    assert isinstance(program.features, DenseAffine)
    return exact_value(program.features, sources), [sources[source] for source in program.features.sources]


@pytest.mark.parametrize("op", ["relu", "square"])
@pytest.mark.parametrize("seed", range(12))
def test_what_merging_rounds_is_counted(seed: int, op: str) -> None:
    program = pairs(seed, op)
    merged = merge_neurons(program)
    assert merged.num_neurons == program.num_neurons // 2
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.0, 1e-6, 1.0, 1e6):
        point = fractions(random(generator, INPUTS) * scale)
        (exact, _), (found, read) = outputs(program, point), outputs(merged, point)
        reach = [torch.tensor([[abs(float(v)) for v in values]], dtype=torch.float64) for values in read]
        most = merged.features.uncertainty(reach)[0].tolist()
        assert all(abs(a - b) <= Fraction(off) for a, b, off in zip(exact, found, most, strict=True)), scale


def test_a_weight_that_rounding_made_zero_keeps_its_neuron() -> None:
    """Three equal neurons with the weights 1, 2^-60 and -1: in doubles these add up to zero, and are not zero."""
    rows = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64).repeat(3, 1)
    first = DenseAffine((INPUT,), (rows,), torch.zeros(3, dtype=torch.float64))
    read = torch.tensor([[1.0, 2.0**-60, -1.0]], dtype=torch.float64)
    features = DenseAffine((0,), (read,), torch.zeros(1, dtype=torch.float64))
    program = Program(3, (Layer("relu", "relu", first, 0),), features, torch.device("cpu"), torch.float64)
    merged = merge_neurons(program)
    assert merged.num_neurons == 1
    assert merged.features.uncertainty([torch.ones(1, 1, dtype=torch.float64)]).item() >= 2.0**-60


@pytest.mark.parametrize("seed", range(6))
def test_what_reducing_rounds_is_counted(seed: int) -> None:
    """A network whose first neurons are all active is reduced to one of its second layer, which reads the input."""
    generator = torch.Generator().manual_seed(seed)
    width = 5
    first = DenseAffine((INPUT,), (random(generator, width, INPUTS),), torch.full((width,), 9.0, dtype=torch.float64))
    second = DenseAffine((0,), (random(generator, width, width),), random(generator, width))
    second = replace(second, bias=second.bias - 9 * second.matrices[0].sum(1))
    features = DenseAffine((0, 1), (random(generator, 2, width), random(generator, 2, width)), random(generator, 2))
    layers = (Layer("first", "relu", first, 0), Layer("second", "relu", second, width))
    program = Program(INPUTS, layers, features, torch.device("cpu"), torch.float64)
    box = Bounds(-torch.ones(1, INPUTS, dtype=torch.float64), torch.ones(1, INPUTS, dtype=torch.float64))
    smaller = reduce_program(program, box, crown_bounds(program, box)).program
    assert len(smaller.layers) == 1
    for _ in range(3):
        point = fractions(random(generator, INPUTS).clamp(-1, 1))
        (exact, _), (found, read) = outputs(program, point), outputs(smaller, point)
        reach = [torch.tensor([[abs(float(v)) for v in values]], dtype=torch.float64) for values in read]
        off = times(smaller.features.matrices[-1].abs(), fractions(smaller.layers[0].affine.uncertainty([reach[0]])))
        most = plus(fractions(smaller.features.uncertainty(reach)), off)
        assert all(abs(a - b) <= room for a, b, room in zip(exact, found, most, strict=True))


def test_rows_that_carry_rounding_are_not_taken_for_one_another() -> None:
    """Two rows that are stored alike, one of which may be another."""
    program = pairs(0, "relu")
    first = program.layers[0].affine
    assert isinstance(first, DenseAffine)
    off = torch.zeros_like(first.matrices[0])
    off[0, 0] = 1e-9
    rounded = DenseAffine(first.sources, first.matrices, first.bias, errors=(off,))
    kept = merge_neurons(Program(INPUTS, (Layer("relu", "relu", rounded, 0),), program.features, program.device,
                                 program.dtype))  # fmt: skip
    assert kept.num_neurons == program.num_neurons // 2 + 1
