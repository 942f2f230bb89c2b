"""Stacked matrices push back what the maps one by one do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toolkit.bounds.backward import Functional, backward, layer_lines
from toolkit.bounds.interval import Bounds
from toolkit.problem.affine import DenseAffine
from toolkit.problem.fast_maps import with_sparse_maps, with_stacks
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import MapErrors

INPUTS, WIDTHS = 700, (110, 7, 9, 5, 6)
DOMAINS = 4


def program_of(missing: tuple[tuple[int, int], ...] = (), sparse: bool = True) -> Program:
    """Layers that read the input and every earlier layer, but for some pairs (reader, source)."""
    torch.manual_seed(0)
    layers: list[Layer] = []
    start = 0
    for number, width in enumerate((*WIDTHS, 4)):
        sources = tuple(source for source in range(INPUT, number) if (number, source) not in missing)
        sizes = [INPUTS if source == INPUT else WIDTHS[source] for source in sources]
        matrices = [torch.randn(width, size, dtype=torch.float64) / size**0.5 for size in sizes]
        if number == 0 and sparse:
            matrices[0] *= torch.rand(matrices[0].shape) < 0.05
        affine = DenseAffine(sources, tuple(matrices), torch.randn(width, dtype=torch.float64))
        layers.append(Layer(str(number), "relu", affine, start))
        start += width
    return Program(INPUTS, tuple(layers[:-1]), layers[-1].affine, torch.device("cpu"), torch.float64)


def some_bounds(program: Program) -> Bounds:
    centre = torch.randn(DOMAINS, program.num_neurons, dtype=torch.float64)
    return Bounds(centre - 1, centre + 1)


def results(program: Program, end: int) -> list[Tensor]:
    """What is left on the input, of functionals of the sources of one layer's map or of the features."""
    torch.manual_seed(1)
    bounds = some_bounds(program)
    lines = layer_lines(program, bounds)
    affine = program.maps()[end]
    sizes = [matrix.shape[1] for matrix in affine.matrices]  # type: ignore[attr-defined]
    rows = [torch.randn(DOMAINS, 2, size, dtype=torch.float64) for size in sizes]
    offset = torch.randn(DOMAINS, 2, dtype=torch.float64)
    linear = backward(program, Functional(affine.sources, rows, offset), lines, None)
    owner = torch.tensor([3, 1, 1, 0, 2])
    start = Functional(affine.sources, [part[owner, 0].unsqueeze(0) for part in rows], offset[owner, 0].unsqueeze(0))
    none = [torch.zeros(1, layer.affine.size, dtype=torch.float64) for layer in program.layers]
    errors = MapErrors(none, torch.zeros(1, affine.size, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
    owned = backward(program, replace(start, error=torch.zeros_like(start.offset)), lines, errors, owner=owner)
    posts = [post for post in linear.post if post is not None]
    return [linear.coefficients, linear.offset, *posts, owned.coefficients, owned.offset]


@pytest.mark.parametrize("missing", [(), ((5, 4), (5, 3))], ids=str)
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("end", [1, 3, 5])
def test_what_is_left_on_the_input_is_the_same(missing: tuple[tuple[int, int], ...], sparse: bool, end: int) -> None:
    plain = program_of(missing, sparse)
    stacked = with_stacks(with_sparse_maps(plain))
    assert stacked.stacks is not None
    for new, old in zip(results(stacked, end), results(plain, end), strict=True):
        torch.testing.assert_close(new, old)


@pytest.mark.parametrize("missing", [((3, 1),), ((4, INPUT),), ((1, 0),)], ids=str)
def test_programs_without_some_map_have_no_stacks(missing: tuple[tuple[int, int], ...]) -> None:
    assert with_stacks(with_sparse_maps(program_of(missing))).stacks is None


def test_chains_and_programs_of_operators_have_no_stacks() -> None:
    chain = program_of(tuple((reader, source) for reader in range(6) for source in range(-1, reader - 1)))
    assert with_stacks(chain) is chain
    assert with_stacks(with_sparse_maps(chain)).stacks is None
