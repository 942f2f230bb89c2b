"""Bounds hold over the real numbers, whatever rounds: against the network in rational arithmetic.

Networks here are made to lose digits: long sums of equal weights, whose errors all have one sign, offsets that cancel,
weights that single precision cannot hold. Every technique's bounds must contain the exact values all the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from toolkit.bounds.backward_rounding import computed_errors, shared_errors
from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.crown import bound_features, crown_bounds, tighten
from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.forward import forward_bounds
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.network_reduction import reduce_program
from toolkit.bounds.optimised_bound import Domain, Multipliers
from toolkit.bounds.recentred_crown import centre_of, recentred_bounds
from toolkit.problem.affine import DenseAffine
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import added_up, gamma, long_terms, outward

Matrix = list[list[Fraction]]


def program_of(weights: list[np.ndarray], biases: list[np.ndarray], dtype: torch.dtype) -> Program:
    """A network of dense layers and ReLUs, given in double precision, in some precision."""
    layers: list[Layer] = []
    for number, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        start = layers[-1].stop if layers else 0
        affine = DenseAffine((number - 1,), (torch.as_tensor(weight),), torch.as_tensor(bias))
        layers.append(Layer(f"relu{number}", "relu", affine, start))
    last = DenseAffine((len(layers) - 1,), (torch.as_tensor(weights[-1]),), torch.as_tensor(biases[-1]))
    program = Program(weights[0].shape[1], tuple(layers), last, torch.device("cpu"), torch.float64)
    return program.to(torch.device("cpu"), dtype)


def exact_values(weights: list[np.ndarray], biases: list[np.ndarray], point: list[Fraction]) -> list[list[Fraction]]:
    """Pre-activations of every layer, and then the outputs, at a point."""
    found, values = [], point
    for weight, bias in zip(weights, biases, strict=True):
        rows = [
            sum((Fraction(w) * v for w, v in zip(row, values, strict=True) if w and v), Fraction(b))
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        found.append(rows)
        values = [max(row, Fraction(0)) for row in rows]
    return found


def contains(bounds: Bounds, exact: list[Fraction], row: int = 0) -> bool:
    pairs = zip(bounds.lower[row].tolist(), bounds.upper[row].tolist(), exact, strict=True)
    return all(Fraction(low) <= value <= Fraction(high) for low, high, value in pairs)


def losing(rng: np.random.Generator, kind: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of a network that loses digits."""
    inputs, width = int(rng.integers(2, 6)), int(rng.integers(3, 9))
    if kind == "cancelling offsets":
        first = rng.integers(-3, 4, (width, inputs)).astype(float)
        large = 2.0 ** int(rng.integers(18, 27)) * rng.integers(1, 4, width)
        second = rng.integers(-2, 3, (width, width)).astype(float)
        lost = -second @ large + rng.integers(-2, 3, width)
        return [first, second, rng.integers(-2, 3, (2, width)).astype(float)], [large, lost, np.zeros(2)]
    if kind == "weights between floats":
        scale = 1 + 2.0 ** -int(rng.integers(25, 33)) * rng.integers(-9, 10, (width, inputs))
        bias = np.full(width, 2.0 ** int(rng.integers(0, 24)))
        out = np.where(np.arange(width) % 2, 1.0, -1.0)[None] * np.ones((2, 1))
        return [scale, out], [bias, np.zeros(2)]
    exponents = rng.integers(-12, 13, (width, 1)).astype(float)
    first = rng.normal(size=(width, inputs)) * 2.0**exponents
    second = rng.normal(size=(width, width)) * 2.0**-exponents.T
    return [first, second, rng.normal(size=(2, width))], [rng.normal(size=width), rng.normal(size=width), np.ones(2)]


KINDS = ["cancelling offsets", "weights between floats", "scales"]


def box_of(rng: np.random.Generator, inputs: int, dtype: torch.dtype) -> tuple[Bounds, list[list[Fraction]]]:
    """A box in some precision, and points of it."""
    centre, radius = (
        torch.as_tensor(rng.normal(size=inputs)),
        torch.as_tensor(rng.random(inputs) * rng.choice([0.1, 1])),
    )
    lower, upper = outward(centre - radius, centre + radius, dtype)
    ends = list(zip(lower.tolist(), upper.tolist(), strict=True))
    corners = [[Fraction(end[int(rng.integers(2))]) for end in ends] for _ in range(3)]
    inner = [[Fraction(a) + Fraction(int(rng.integers(17)), 16) * (Fraction(b) - Fraction(a)) for a, b in ends]]
    return Bounds(lower.unsqueeze(0), upper.unsqueeze(0)), corners + inner


def by_crown(program: Program, box: Bounds, rng: np.random.Generator) -> Bounds:
    return crown_bounds(program, box)


def by_forward(program: Program, box: Bounds, rng: np.random.Generator) -> Bounds:
    return forward_bounds(program, box, interval_bounds(program, box)[0])


def by_rows(program: Program, box: Bounds, rng: np.random.Generator) -> Bounds:
    none = box.lower.new_zeros(1, 0, program.num_inputs)
    return tighten(program, box, interval_bounds(program, box)[0], HalfSpaces(none, none[..., 0])).bounds


def by_interval(program: Program, box: Bounds, rng: np.random.Generator) -> Bounds:
    return interval_bounds(program, box)[0]


NEURONS = [by_interval, by_crown, by_forward, by_rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("technique", NEURONS)
@pytest.mark.parametrize("kind", KINDS)
def test_neurons_bounds_contain_exact_values(
    kind: str, technique: Callable[[Program, Bounds, np.random.Generator], Bounds], dtype: torch.dtype
) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        weights, biases = losing(rng, kind)
        program = program_of(weights, biases, dtype)
        box, points = box_of(rng, program.num_inputs, dtype)
        bounds = technique(program, box, rng)
        for point in points:
            neurons = list(chain(*exact_values(weights, biases, point)[:-1]))
            assert contains(bounds, neurons), (kind, seed)


def atom_bound(program: Program, box: Bounds, bounds: Bounds, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random atom ``(F,)`` of a program, and its bound with random multipliers."""
    atom = torch.as_tensor(rng.choice([-1.0, 1.0], program.features.size)).to(program.dtype)
    free = torch.as_tensor(rng.random(program.num_neurons)).to(program.dtype).unsqueeze(0)
    none = torch.zeros(1, program.num_neurons, dtype=torch.int8)
    domain = Domain(box, bounds, none, atom.reshape(1, 1, -1), atom.new_zeros(1, 1))
    return atom, evaluate(program, relax(program, domain), Multipliers(free, 0 * free, atom.new_ones(1, 1))).bound.lower


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_atoms_are_below_exact_values(kind: str, reduced: bool, dtype: torch.dtype) -> None:
    for seed in range(16):
        rng = np.random.default_rng(seed)
        weights, biases = losing(rng, kind)
        program = program_of(weights, biases, torch.float64)
        box, points = box_of(rng, program.num_inputs, dtype)
        wide = Bounds(box.lower.double(), box.upper.double())
        bounds = crown_bounds(program, wide)
        if reduced:
            reduction = reduce_program(program, wide, bounds, recentred=bool(seed % 2))
            program, bounds, wide = reduction.program, bounds.of(reduction.neurons), reduction.restrict_box(wide)
        bounds, box = (Bounds(*outward(part.lower, part.upper, dtype)) for part in (bounds, wide))
        atom, lower = atom_bound(program.to(torch.device("cpu"), dtype), box, bounds, rng)
        for point in points:
            outputs = exact_values(weights, biases, point)[-1]
            value = sum((Fraction(a) * y for a, y in zip(atom.tolist(), outputs, strict=True)), Fraction(0))
            assert Fraction(lower.item()) <= value, (kind, seed)


@pytest.mark.parametrize("terms", [3072, 49152])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_long_sums_of_equal_terms(terms: int, dtype: torch.dtype) -> None:
    """All errors have one sign: they add up to far more than the root of their number."""
    for weight in (0.1, 1 / 3, 0.7):
        value = float(np.float32(weight))
        weights = [np.full((2, terms), value) * [[1], [-1]], np.array([[1.0, -1.0]])]
        biases = [np.zeros(2), np.zeros(1)]
        program = program_of(weights, biases, dtype)
        at = torch.full((1, terms), value, dtype=dtype)
        exact = terms * Fraction(value) ** 2
        for technique in NEURONS:
            bounds = technique(program, Bounds(at, at), np.random.default_rng(0))
            assert contains(bounds, [exact, -exact]), (technique, terms)
        neurons = crown_bounds(program, Bounds(at, at))
        for sign in (1.0, -1.0):
            rows = torch.full((1, 1, 1), sign, dtype=dtype)
            _, lower = bound_features(program, rows, Bounds(at, at), neurons)
            assert Fraction(lower.item()) <= Fraction(sign) * exact


@pytest.mark.parametrize("width", [1025, 1500, 4096])
def test_wide_layers_have_the_bounds_of_double_precision(width: int) -> None:
    """Long sums of single precision are added up in blocks: as exact as the rest, and for several boxes at once."""
    rng = np.random.default_rng(width)
    weights = [rng.normal(size=(width, 3)), np.full((3, width), 1 / 3), np.array([[1.0, -1.0, 1.0]])]
    biases = [rng.normal(size=width), np.full(3, 0.1), np.full(1, 0.1)]
    single, double = (program_of(weights, biases, dtype) for dtype in (torch.float32, torch.float64))
    centre = torch.as_tensor(rng.normal(size=(2, 3))).float()
    box = Bounds(centre - 0.25, centre + 0.25)
    wide = Bounds(box.lower.double(), box.upper.double())
    for technique in (by_crown, by_rows):
        for row in torch.arange(2).split(1):
            bounds, exact = technique(single, box.select(row), rng), technique(double, wide.select(row), rng)
            assert (bounds.lower <= exact.lower).all() and (bounds.upper >= exact.upper).all()
            size = torch.maximum(exact.lower.abs(), exact.upper.abs()).clamp(min=1)
            assert ((exact.lower - bounds.lower) / size).max() < 1e-2
    none = box.lower.new_zeros(2, 0, 3)
    both = tighten(single, box, interval_bounds(single, box)[0], HalfSpaces(none, none[..., 0])).bounds
    for row in torch.arange(2).split(1):
        apart = by_rows(single, box.select(row), rng)
        assert torch.allclose(both.select(row).lower, apart.lower, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 64, 1024, 1025, 4096, 4097, 300_000])
def test_sums_meet_no_more_roundings_than_said(count: int) -> None:
    terms = torch.full((2, count), float(np.float32(1 / 3)))
    exact = count * Fraction(terms[0, 0].item())
    for found in added_up(terms).tolist():
        assert abs(Fraction(found) - exact) <= Fraction(gamma(long_terms(count, terms.dtype), terms.dtype)) * exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sums_over_the_rows_of_a_layer_are_counted(dtype: torch.dtype) -> None:
    """Many neurons of equal weight on one input: the coefficient on it is a long sum, met on the way back only."""
    width = 40_000
    for seed in range(12):
        rng = np.random.default_rng(seed)
        into, out = (float(np.float32(value)) for value in rng.random(2))
        sums = np.full((2, width), out) * [[1], [-1]]
        weights = [np.full((width, 1), into), sums, np.array([[1.0, 0.0]]), np.array([[1.0]])]
        program = program_of(weights, [np.zeros(width), np.full(2, 0.0), np.zeros(1), np.zeros(1)], dtype)
        at = Bounds(torch.ones(1, 1, dtype=dtype), torch.ones(1, 1, dtype=dtype))
        exact = width * Fraction(into) * Fraction(out)
        for technique in (by_crown, by_rows):
            bounds = technique(program, at, rng)
            last = Bounds(bounds.lower[:, width:], bounds.upper[:, width:])
            assert contains(last, [exact, -exact, exact]), (technique, seed)
        neurons = by_crown(program, at, rng)
        for sign in (1.0, -1.0):
            rows = torch.full((1, 1, 1), sign, dtype=dtype)
            _, lower = bound_features(program, rows, at, neurons)
            assert Fraction(lower.item()) <= Fraction(sign) * exact, (sign, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_offsets_that_cancel_are_counted_by_their_magnitudes(dtype: torch.dtype) -> None:
    """Differences of neurons near zero with large offsets: inputs and offsets cancel in the sums, and so do rows."""
    digits = 24 if dtype == torch.float32 else 53
    for seed in range(12):
        rng = np.random.default_rng(seed)
        at = float(rng.integers(2 ** (digits - 1), 2**digits)) * 2.0 ** -(digits - 20)
        offsets = at * (1 - np.float64(rng.integers(1, 9, 2)) * 2.0 ** -(digits - 2))
        third = float(torch.tensor(rng.random(), dtype=dtype))
        weights = [np.ones((2, 1)), np.array([[third, -third], [-third, third]]), np.array([[1.0, 1.0]])]
        biases = [-torch.as_tensor(offsets).to(dtype).double().numpy(), np.zeros(2), np.zeros(1)]
        point = torch.full((1, 1), at, dtype=dtype)
        program, box = program_of(weights, biases, dtype), Bounds(point, point)
        neurons = list(chain(*exact_values(weights, biases, [Fraction(point.item())])[:-1]))
        for technique in (by_crown, by_rows):
            assert contains(technique(program, box, rng), neurons), (technique, seed)


def test_bounds_leave_room_for_what_maps_were_stored_with() -> None:
    rng = np.random.default_rng(0)
    plain = program_of([rng.normal(size=(4, 2)), rng.normal(size=(1, 4))], [np.zeros(4), np.zeros(1)], torch.float64)
    slack = torch.full((1,), 0.5, dtype=torch.float64)
    rounded = replace(plain, features=replace(plain.features, slack=slack))
    box = Bounds(-torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))
    neurons, rows = crown_bounds(plain, box), torch.ones(1, 1, 1, dtype=torch.float64)
    (_, lower), (_, with_room) = (bound_features(program, rows, box, neurons) for program in (plain, rounded))
    assert float(lower - with_room) == pytest.approx(0.5)


def test_what_was_stored_rounded_is_counted() -> None:
    """A map says how far it may be from the exact one, and so do parts of it, in every precision."""
    affine = DenseAffine(
        (INPUT,),
        (torch.ones(2, 3, dtype=torch.float64),),
        torch.zeros(2, dtype=torch.float64),
        errors=(torch.tensor([[0.0, 0, 1], [0, 2, 0]], dtype=torch.float64),),
        slack=torch.tensor([0.5, 0.0], dtype=torch.float64),
    )
    reach = torch.tensor([[1.0, 2, 3]], dtype=torch.float64)
    assert affine.uncertainty([reach]).tolist() == [[3.5, 4.0]]
    single = affine.part(torch.tensor([1])).to(torch.device("cpu"), torch.float32)
    assert single.uncertainty([reach.float()]).tolist() == [[4.0]]
    assert replace(affine, errors=None, slack=None).uncertainty([reach]).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_recentred_bounds_contain_exact_values(kind: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        weights, biases = losing(rng, kind)
        exact = program_of(weights, biases, torch.float64)
        box, points = box_of(rng, exact.num_inputs, torch.float32)
        centre = centre_of(exact, box)
        assert centre is not None
        bounds = recentred_bounds(exact.to(torch.device("cpu"), torch.float32), box, centre)
        for point in points:
            neurons = list(chain(*exact_values(weights, biases, point)[:-1]))
            assert contains(bounds, neurons), (kind, seed)


def test_recentred_bounds_are_those_of_double_precision_for_small_boxes() -> None:
    """Where activations are large beside their changes, single precision by itself says next to nothing."""
    rng = np.random.default_rng(0)
    sizes = (400, 300, 200, 3)
    weights = [np.abs(rng.normal(size=(b, a))) / a for a, b in itertools.pairwise(sizes)]
    values, biases = 0.5 + np.zeros(400), []
    for weight in weights:
        biases.append(0.5 - weight @ values)
        values = np.full(len(weight), 0.5)
    biases[1] = biases[1] - 0.5  # unstable neurons
    exact = program_of(weights, biases, torch.float64)
    lower, upper = (torch.full((1, 400), 0.5 + sign * 5e-4) for sign in (-1, 1))
    box, wide = Bounds(lower, upper), Bounds(lower.double(), upper.double())
    single, centre = exact.to(torch.device("cpu"), torch.float32), centre_of(exact, box)
    assert centre is not None
    truth, plain = crown_bounds(exact, wide), crown_bounds(single, box)
    found = recentred_bounds(single, box, centre)
    width = float((truth.upper - truth.lower).mean())
    assert float((truth.lower - found.lower).max()) < 0.01 * width
    assert float((found.upper - truth.upper).max()) < 0.01 * width
    assert float((truth.lower - plain.lower).mean()) > 0.03 * width


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_errors_that_serve_all_boxes_are_known_or_none_are_shared(dtype: torch.dtype) -> None:
    """They are no less than those of any box; where numbers are too large for one to be known, each box has its own."""
    rng = np.random.default_rng(0)
    for scale, known in ((1.0, True), (float(torch.finfo(dtype).max) / 2, False)):
        weights = [rng.normal(0, 1, (4, 3)), rng.uniform(0.5, 1, (2, 4)) * scale]
        program = program_of(weights, [rng.normal(0, 1, 4), rng.normal(0, 1, 2)], dtype)
        centre = torch.as_tensor(rng.normal(0, 9, (5, 3)), dtype=dtype)
        boxes = Bounds(centre - 1, centre + 1)
        bounds, _ = interval_bounds(program, boxes)
        shared = shared_errors(program, boxes, bounds)
        assert (shared is not None) == known
        if shared is not None:
            own = computed_errors(program, boxes, bounds)
            parts = zip((*shared.layers, shared.features, shared.underflow),
                        (*own.layers, own.features, own.underflow), strict=True)  # fmt: skip
            assert all(len(one) == 1 and bool((one >= each).all()) for one, each in parts)
