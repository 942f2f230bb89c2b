"""Linear maps of the checker against their matrices, in whole numbers, so that nothing is rounded."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.proof.linear_maps import BlockMatrix, Convolution, LinearMap, Pick, Window


def convolution(rng: np.random.Generator, axes: int, turned: bool) -> Convolution:
    groups, images = (int(rng.integers(1, 3)) for _ in range(2))
    shape, kernel, strides, dilations = (
        tuple(rng.integers(low, high, axes).tolist()) for low, high in ((3, 7), (1, 4), (1, 3), (1, 2))
    )
    window = Window(shape, kernel, strides, tuple((int(rng.integers(0, 2)), 1) for _ in range(axes)), dilations)
    weight = rng.integers(-3, 4, (2 * groups, 2, *kernel)).astype(float)
    sizes = images * 2 * groups * math.prod(shape), images * 2 * groups * math.prod(window.out)
    return Convolution(*(sizes[::-1] if turned else sizes), weight, window, groups, images, turned)


def pick(rng: np.random.Generator) -> Pick:
    return Pick(5, 40, rng.integers(-1, 5, 40), rng.integers(-3, 4, 40).astype(float))


def block_matrix(rng: np.random.Generator, share: float, blocks: int) -> BlockMatrix:
    matrix = rng.integers(1, 4, (30, 20)) * (rng.random((30, 20)) < share)
    return BlockMatrix(30 * blocks, 20 * blocks, matrix.astype(float), blocks)


MAPS = {
    "pick": pick,
    "picks nothing": lambda rng: Pick(5, 3, np.full(3, -1)),
    "no inputs": lambda rng: Pick(0, 3, np.full(3, -1)),
    "matrix": lambda rng: block_matrix(rng, 0.5, 1),
    "matrix with few numbers": lambda rng: block_matrix(rng, 0.01, 1),
    "matrix of zeros": lambda rng: block_matrix(rng, 0.0, 1),
    "blocks with few numbers": lambda rng: block_matrix(rng, 0.01, 2),
    "convolution": lambda rng: convolution(rng, 2, False),
    "convolution of one axis": lambda rng: convolution(rng, 1, False),
    "transposed convolution": lambda rng: convolution(rng, 2, True),
}


def dense(linear: LinearMap) -> np.ndarray:
    """The matrix ``(inputs, outputs)``, one input at a time."""
    return (
        np.stack([linear.forward(unit[None])[0] for unit in np.eye(linear.inputs)])
        if linear.inputs
        else np.zeros((0, 3))
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MAPS)
def test_products_are_those_of_the_matrix(name, seed):
    """Rows that are zero, that have one number, or few that lie together, or many, one after the other and alone."""
    rng = np.random.default_rng(seed)
    linear = MAPS[name](rng)
    matrix = dense(linear)
    rows = [np.zeros(linear.outputs), *np.eye(linear.outputs)]
    rows += [rng.integers(-3, 4, linear.outputs) * (rng.random(linear.outputs) < share) for share in (0.05, 0.5, 1.0)]
    first = np.zeros(linear.outputs)
    first[: linear.outputs // 3] = 1
    rows.append(first)
    for batch in (np.stack(rows).astype(float), *(row[None].astype(float) for row in rows)):
        np.testing.assert_array_equal(linear.adjoint(batch), batch @ matrix.T)
    x = rng.integers(-3, 4, (6, linear.inputs)).astype(float)
    np.testing.assert_array_equal(linear.forward(x), x @ matrix)


@pytest.mark.parametrize("name", MAPS)
def test_no_number_stays_none(name):
    """What is no number in a row makes every element that it reaches no number, too."""
    linear = MAPS[name](np.random.default_rng(7))
    rows = np.full((2, linear.outputs), np.nan)
    rows[0] = 0
    with np.errstate(all="ignore"):
        found = linear.adjoint(rows)
    assert not found[0].any()
    assert np.isnan(found[1][(dense(linear) != 0).any(1)]).all()
