"""Neurons that differ by something affine made one: an exact simplification of a program.

Equal rows of equal sources give equal activations. Opposite rows need one ReLU, for ``relu(-z) = relu(z) - z``, as do
rows scaled by powers of two, for ``relu(2 z) = 2 relu(z)``, and squares of rows that differ by their bias need one
square, for ``(z + d)^2 = z^2 + 2 d z + d^2``; ``z`` is affine in the layer's sources, which the readers of the layer
then read themselves. Neurons that depend on nothing are constants, and
those that nothing reads any more vanish.

A lattice network writes ``min(a, b) = (a + b - |a - b|) / 2`` with four ReLUs, of which this leaves one; a product with
a factor that is fixed, written with two squares, becomes affine again. What cancels is bounded without any relaxation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.folding import multiples
from toolkit.problem.fuse import fuse_layers
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sparse import product

CONSTANT: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
}
"""Operators whose finite value at a constant replaces the neuron."""

PARTIAL = frozenset({"reciprocal", "sqrt", "rsqrt", "log", "float32", "float16", "bfloat16"})
"""Operators that are not defined everywhere, or overflow. Their neurons stay, and the features keep reading them, were
it with coefficients zero: where such a value may be undefined, its bounds are infinite and nothing is proved."""


@dataclass(frozen=True)
class Groups:
    """What the activations of one layer are: ``weight * representative + slope * its z + offset``, ``(size,)`` each."""

    kept: Tensor
    """The representatives, ``(size',)``."""
    member: Tensor
    """Position among these of every neuron's own; any for a constant."""
    weight: Tensor
    """1, or the factor of a multiple, or 0 for a constant."""
    slope: Tensor
    offset: Tensor


def merge_neurons(program: Program) -> Program:
    """The program with equal and opposite neurons merged, where all maps are matrices and that makes them smaller."""
    if not all(isinstance(affine, DenseAffine) for affine in program.maps()):
        return program
    program = fuse_layers(program)
    layers: list[Layer] = []
    groups: list[Groups] = []
    for layer in program.layers:
        affine = _readers(layer.affine, layers, groups, program.num_inputs)
        groups.append(_grouped(layer.op, affine))
        start = layers[-1].stop if layers else 0
        layers.append(replace(layer, affine=_rows(affine, groups[-1].kept), start=start))
    if all(len(group.kept) == len(group.member) for group in groups):
        return program  # as most networks are
    features = _readers(program.features, layers, groups, program.num_inputs)
    merged = _without_dead(replace(program, layers=tuple(layers), features=features, rational=False))
    return merged if _elements(merged) < _elements(program) else program


def _dense(affine: Affine) -> DenseAffine:
    assert isinstance(affine, DenseAffine)
    return affine


def _elements(program: Program) -> int:
    return sum(matrix.numel() for affine in program.maps() for matrix in _dense(affine).matrices)


def _rows(affine: DenseAffine, index: Tensor) -> DenseAffine:
    return DenseAffine(affine.sources, tuple(matrix[index] for matrix in affine.matrices), affine.bias[index])


def _grouped(op: str, affine: DenseAffine) -> Groups:
    """Neurons by their rows, up to what their operator makes of a sign and of a bias."""
    rows = torch.cat(affine.matrices, 1) + 0.0  # -0.0 becomes 0.0
    constant, value = _constants(op, rows, affine.bias)
    if op == "relu":
        return _grouped_relus(torch.cat([rows, affine.bias.unsqueeze(1)], 1), constant, value)
    sign = _signs(rows) if op == "square" else torch.ones_like(affine.bias)
    key = rows * sign.unsqueeze(1) + 0.0
    if op != "square":
        key = torch.cat([key, (sign * affine.bias).unsqueeze(1) + 0.0], 1)
    kept, member = _distinct(key, ~constant)
    turned = sign * sign[kept[member]] if len(kept) else sign
    shift = affine.bias - turned * affine.bias[kept[member]] if len(kept) else torch.zeros_like(sign)
    slope = 2 * turned * shift if op == "square" else torch.zeros_like(sign)
    offset = shift.square() if op == "square" else torch.zeros_like(sign)
    free = (~constant).to(sign.dtype)
    return Groups(kept, member, free, slope * free, torch.where(constant, value, offset))


def _grouped_relus(rows: Tensor, constant: Tensor, value: Tensor) -> Groups:
    """ReLUs of rows (with their bias) that are multiples: ``relu(t z)`` is ``t relu(z)``, or ``t z - t relu(z)``."""
    free = (~constant).nonzero().squeeze(1)
    groups = multiples(rows[free])
    member = torch.zeros(len(rows), dtype=torch.int64).index_copy(0, free, groups.member)
    factor = torch.zeros_like(value).index_copy(0, free, groups.factor)
    offset = torch.where(constant, value, torch.zeros_like(value))
    return Groups(free[groups.kept], member, factor.abs(), factor.clamp(max=0), offset)


def _constants(op: str, rows: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Which neurons depend on nothing, and their finite values."""
    if op not in CONSTANT:
        return torch.zeros_like(bias, dtype=torch.bool), bias
    value = CONSTANT[op](bias)
    return ~rows.any(1) & torch.isfinite(value), value


def _signs(rows: Tensor) -> Tensor:
    """The sign of the first element of each row that is not zero, ``(size,)``."""
    first = (rows != 0).to(torch.int8).argmax(1, keepdim=True)
    return torch.where(rows.gather(1, first).squeeze(1) < 0, -1.0, 1.0).to(rows.dtype)


def _distinct(key: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each group of equal rows among those wanted, and every row's group (0 for the others)."""
    array = key.numpy()
    seen: dict[bytes, int] = {}
    kept: list[int] = []
    member = [0] * len(array)
    for index in wanted.nonzero().squeeze(1).tolist():
        member[index] = seen.setdefault(array[index].tobytes(), len(seen))
        if member[index] == len(kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(member, dtype=torch.int64)


def _readers(affine: Affine, layers: Sequence[Layer], groups: Sequence[Groups], inputs: int) -> DenseAffine:
    """A map of old activations as a map of the representatives', and of their own sources where signs differ."""
    dense = _dense(affine)
    found: dict[int, Tensor] = {}
    bias = dense.bias
    for source, matrix in zip(dense.sources, dense.matrices, strict=True):
        if source == INPUT:
            _add(found, INPUT, matrix)
            continue
        own, group = _dense(layers[source].affine), groups[source]
        bias = bias + matrix @ group.offset
        if not len(group.kept):
            continue
        _add(found, source, _collected(matrix, group, group.weight))
        linear = _collected(matrix, group, group.slope)
        bias = bias + linear @ own.bias
        for earlier, part in zip(own.sources, own.matrices, strict=True):
            _add(found, earlier, product(linear, part))
    return _affine_of(found, bias, inputs)


def _collected(matrix: Tensor, group: Groups, factor: Tensor) -> Tensor:
    """Coefficients of all neurons, times their factors, summed over each group."""
    some = factor.nonzero().squeeze(1)
    new = torch.zeros(len(matrix), len(group.kept), dtype=matrix.dtype)
    return new.index_add(1, group.member[some], matrix[:, some] * factor[some])


def _add(found: dict[int, Tensor], source: int, matrix: Tensor) -> None:
    found[source] = found[source] + matrix if source in found else matrix


def _affine_of(matrices: dict[int, Tensor], bias: Tensor, inputs: int) -> DenseAffine:
    """A map with sources in order, without those it does not depend on; a constant is a map of the inputs."""
    used = [source for source in sorted(matrices) if bool(matrices[source].any())]
    if not used:
        return DenseAffine((INPUT,), (bias.new_zeros(len(bias), inputs),), bias)
    return DenseAffine(tuple(used), tuple(matrices[source] for source in used), bias)


def _without_dead(program: Program) -> Program:
    """The program without neurons whose activation has no coefficient that is not zero."""
    alive = _alive(program)
    numbers = {INPUT: INPUT}
    layers: list[Layer] = []
    for number, (layer, rows) in enumerate(zip(program.layers, alive, strict=True)):
        if not len(rows):
            continue
        numbers[number] = len(layers)
        start = layers[-1].stop if layers else 0
        affine = _living(_rows(_dense(layer.affine), rows), alive, numbers, program.num_inputs)
        layers.append(replace(layer, affine=affine, start=start))
    features = _living(_dense(program.features), alive, numbers, program.num_inputs)
    return replace(program, layers=tuple(layers), features=_reading_partial(features, layers))


def _reading_partial(features: DenseAffine, layers: Sequence[Layer]) -> DenseAffine:
    """The features, as functions of all layers that may be undefined somewhere."""
    found = dict(zip(features.sources, features.matrices, strict=True))
    for number, layer in enumerate(layers):
        if layer.op in PARTIAL and number not in found:
            found[number] = features.bias.new_zeros(features.size, layer.affine.size)
    sources = tuple(sorted(found))
    return DenseAffine(sources, tuple(found[source] for source in sources), features.bias)


def _alive(program: Program) -> list[Tensor]:
    """Neurons of each layer that some living neuron, or a feature, reads, and those that may be undefined."""
    read = [torch.full((layer.affine.size,), layer.op in PARTIAL) for layer in program.layers]
    alive: list[Tensor] = [mask.nonzero().squeeze(1) for mask in read]
    _mark(read, _dense(program.features))
    for number in range(len(program.layers) - 1, INPUT, -1):
        alive[number] = read[number].nonzero().squeeze(1)
        _mark(read, _rows(_dense(program.layers[number].affine), alive[number]))
    return alive


def _mark(read: list[Tensor], affine: DenseAffine) -> None:
    for source, matrix in zip(affine.sources, affine.matrices, strict=True):
        if source != INPUT:
            read[source] |= (matrix != 0).any(0)


def _living(affine: DenseAffine, alive: list[Tensor], numbers: dict[int, int], inputs: int) -> DenseAffine:
    """A map of living neurons only, by their layers' new numbers."""
    matrices = {
        numbers[source]: matrix if source == INPUT else matrix[:, alive[source]].contiguous()
        for source, matrix in zip(affine.sources, affine.matrices, strict=True)
        if source in numbers
    }
    return _affine_of(matrices, affine.bias, inputs)
