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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.ops import ELEMENTWISE, RELAXATIONS
from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.fold_channels import multiples
from toolkit.problem.fuse_layers import fuse_layers
from toolkit.problem.matrix_errors import MatrixWithErrors, added_by_group, scaled, squared
from toolkit.problem.program import INPUT, Layer, Program


@dataclass(frozen=True)
class MergedNeurons:
    """What the activations of one layer are: ``weight * representative + slope * its z + offset``, ``(size,)`` each."""

    kept: Tensor
    """The representatives, ``(size',)``."""
    member: Tensor
    """Position among these of every neuron's own; any for a constant."""
    weight: Tensor
    """1, or the factor of a multiple, or 0 for a constant."""
    slope: MatrixWithErrors
    offset: MatrixWithErrors

    @property
    def whole(self) -> bool:
        """Whether every neuron stands for itself."""
        return len(self.kept) == len(self.member)


def merge_neurons(program: Program) -> Program:
    """The program with equal and opposite neurons merged, where all maps are matrices and that makes them smaller."""
    if not all(isinstance(affine, DenseAffine) for affine in program.maps()):
        return program
    program = fuse_layers(program)
    layers: list[Layer] = []
    groups: list[MergedNeurons] = []
    for layer in program.layers:
        affine = _readers(layer.affine, layers, groups, program.num_inputs)
        groups.append(_grouped(layer.op, affine))
        start = layers[-1].stop if layers else 0
        layers.append(replace(layer, affine=affine.part(groups[-1].kept), start=start))
    if all(group.whole for group in groups):
        return program  # as most networks are
    features = _readers(program.features, layers, groups, program.num_inputs)
    merged = _without_dead(replace(program, layers=tuple(layers), features=features, rational=None))
    return merged if _elements(merged) < _elements(program) else program


def _dense(affine: Affine) -> DenseAffine:
    assert isinstance(affine, DenseAffine)
    return affine


def _elements(program: Program) -> int:
    return sum(matrix.numel() for affine in program.maps() for matrix in _dense(affine).matrices)


def _grouped(op: str, affine: DenseAffine) -> MergedNeurons:
    """Neurons by their rows, up to what their operator makes of a sign and of a bias.

    Rows that carry rounding need not be equal where they are stored as equal: their neurons stay.
    """
    rows = torch.cat(affine.matrices, 1) + 0.0  # -0.0 becomes 0.0
    rows_exact, bias_exact = _exact(affine)
    exact = rows_exact if op == "square" else rows_exact & bias_exact  # of squares, biases need not be equal
    constant, value = _constants(op, rows, affine.bias, rows_exact & bias_exact)
    if op == "relu":
        return _grouped_relus(torch.cat([rows, affine.bias.unsqueeze(1)], 1), constant, value, exact)
    sign = _signs(rows) if op == "square" else torch.ones_like(affine.bias)
    key = rows * sign.unsqueeze(1) + 0.0
    if op != "square":
        key = torch.cat([key, (sign * affine.bias).unsqueeze(1) + 0.0], 1)
    kept, member = _distinct(key, ~constant, exact)
    turned = sign * sign[kept[member]] if len(kept) else sign
    bias = MatrixWithErrors(affine.bias, affine.slack)
    shift = (
        bias.plus(scaled(bias.select(kept[member]), -turned)) if len(kept) else MatrixWithErrors(torch.zeros_like(sign))
    )
    slope = scaled(shift, 2 * turned) if op == "square" else MatrixWithErrors(0 * sign)
    offset = squared(shift) if op == "square" else MatrixWithErrors(0 * sign)
    free = (~constant).to(sign.dtype)
    return MergedNeurons(kept, member, free, scaled(slope, free), _where(constant, _rounded_value(op, value), offset))


def _grouped_relus(rows: Tensor, constant: Tensor, value: Tensor, exact: Tensor) -> MergedNeurons:
    """ReLUs of rows (with their bias) that are multiples: ``relu(t z)`` is ``t relu(z)``, or ``t z - t relu(z)``."""
    free = (~constant).nonzero().squeeze(1)
    groups = multiples(rows[free], exact[free])
    member = torch.zeros(len(rows), dtype=torch.int64).index_copy(0, free, groups.member)
    factor = torch.zeros_like(value).index_copy(0, free, groups.factor)
    offset = torch.where(constant, value, torch.zeros_like(value))
    kept = free[groups.kept]
    return MergedNeurons(kept, member, factor.abs(), MatrixWithErrors(factor.clamp(max=0)), MatrixWithErrors(offset))


def _exact(affine: DenseAffine) -> tuple[Tensor, Tensor]:
    """Which rows of a map's matrices, and which elements of its bias, are exactly what is stored, ``(size,)`` each."""
    rows = torch.ones_like(affine.bias, dtype=torch.bool)
    for error in affine.element_errors() or ():
        rows &= (error == 0).all(1)
    return rows, torch.ones_like(rows) if affine.slack is None else affine.slack == 0


def _where(condition: Tensor, first: MatrixWithErrors, second: MatrixWithErrors) -> MatrixWithErrors:
    if first.error is None and second.error is None:
        return MatrixWithErrors(torch.where(condition, first.value, second.value))
    errors = [torch.zeros_like(part.value) if part.error is None else part.error for part in (first, second)]
    return MatrixWithErrors(
        torch.where(condition, first.value, second.value), torch.where(condition, errors[0], errors[1])
    )


def _rounded_value(op: str, value: Tensor) -> MatrixWithErrors:
    """A constant's activation; that of a ReLU is exact."""
    if op == "relu":
        return MatrixWithErrors(value)
    return MatrixWithErrors(
        value, 4 * torch.finfo(value.dtype).eps * torch.where(torch.isfinite(value), value.abs(), 0.0)
    )


def _constants(op: str, rows: Tensor, bias: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """Which neurons depend on nothing, and their finite values."""
    if not ELEMENTWISE[op].folds:
        return torch.zeros_like(bias, dtype=torch.bool), bias
    value = RELAXATIONS[op].function(bias)
    return ~rows.any(1) & torch.isfinite(value) & exact, value


def _signs(rows: Tensor) -> Tensor:
    """The sign of the first element of each row that is not zero, ``(size,)``."""
    first = (rows != 0).to(torch.int8).argmax(1, keepdim=True)
    return torch.where(rows.gather(1, first).squeeze(1) < 0, -1.0, 1.0).to(rows.dtype)


def _distinct(key: Tensor, wanted: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each group of equal rows among those wanted, and every row's group (0 for the others).

    A row that is not exact is a group of its own.
    """
    array = key.numpy()
    seen: dict[bytes | int, int] = {}
    kept: list[int] = []
    member = [0] * len(array)
    certain = exact.tolist()
    for index in wanted.nonzero().squeeze(1).tolist():
        member[index] = seen.setdefault(array[index].tobytes() if certain[index] else index, len(seen))
        if member[index] == len(kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(member, dtype=torch.int64)


def _readers(affine: Affine, layers: Sequence[Layer], groups: Sequence[MergedNeurons], inputs: int) -> DenseAffine:
    """A map of old activations as a map of the representatives', and of their own sources where signs differ."""
    dense = _dense(affine)
    if all(groups[source].whole for source in dense.sources if source != INPUT):
        return dense
    found: dict[int, MatrixWithErrors] = {}
    bias = MatrixWithErrors(dense.bias, dense.slack)
    for source, matrix in zip(dense.sources, counted_matrices(dense), strict=True):
        if source == INPUT:
            _add(found, INPUT, matrix)
            continue
        own, group = _dense(layers[source].affine), groups[source]
        bias = bias.plus(matrix.times(group.offset))
        if not len(group.kept):
            continue
        count = len(group.kept)
        _add(found, source, added_by_group(matrix, MatrixWithErrors(group.weight), group.member, count))
        if not _matters(group.slope):
            continue
        linear = added_by_group(matrix, group.slope, group.member, count)
        bias = bias.plus(linear.times(MatrixWithErrors(own.bias, own.slack)))
        for earlier, part in zip(own.sources, counted_matrices(own), strict=True):
            _add(found, earlier, linear.times(part))
    return _affine_of(found, bias, inputs)


def counted_matrices(affine: DenseAffine) -> tuple[MatrixWithErrors, ...]:
    """A map's matrices, each with the errors of its elements."""
    errors = affine.element_errors() or (None,) * len(affine.matrices)
    return tuple(MatrixWithErrors(matrix, error) for matrix, error in zip(affine.matrices, errors, strict=True))


def _add(found: dict[int, MatrixWithErrors], source: int, matrix: MatrixWithErrors) -> None:
    found[source] = found[source].plus(matrix) if source in found else matrix


def _affine_of(matrices: dict[int, MatrixWithErrors], bias: MatrixWithErrors, inputs: int) -> DenseAffine:
    """A map with sources in order, without those it does not depend on; a constant is a map of the inputs."""
    used = [source for source in sorted(matrices) if _matters(matrices[source])]
    if not used:
        return DenseAffine((INPUT,), (bias.value.new_zeros(len(bias.value), inputs),), bias.value, slack=bias.error)
    parts = [matrices[source] for source in used]
    errors = None
    if any(part.error is not None for part in parts):
        errors = tuple(torch.zeros_like(part.value) if part.error is None else part.error for part in parts)
    return DenseAffine(tuple(used), tuple(part.value for part in parts), bias.value, errors=errors, slack=bias.error)


def _matters(matrix: MatrixWithErrors) -> bool:
    """Whether something is not zero, or may not be."""
    return bool(matrix.value.any()) or (matrix.error is not None and bool(matrix.error.any()))


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
        affine = _living(_dense(layer.affine).part(rows), alive, numbers, program.num_inputs)
        layers.append(replace(layer, affine=affine, start=start))
    features = _living(_dense(program.features), alive, numbers, program.num_inputs)
    return replace(program, layers=tuple(layers), features=_reading_partial(features, layers))


def _reading_partial(features: DenseAffine, layers: Sequence[Layer]) -> DenseAffine:
    """The features, as functions of all layers that may be undefined somewhere."""
    found = dict(zip(features.sources, features.matrices, strict=True))
    for number, layer in enumerate(layers):
        if ELEMENTWISE[layer.op].partial and number not in found:
            found[number] = features.bias.new_zeros(features.size, layer.affine.size)
    sources = tuple(sorted(found))
    errors = None
    if features.errors is not None:
        own = dict(zip(features.sources, features.errors, strict=True))
        errors = tuple(own.get(source, torch.zeros_like(found[source])) for source in sources)
    return replace(features, sources=sources, matrices=tuple(found[source] for source in sources), errors=errors)


def _alive(program: Program) -> list[Tensor]:
    """Neurons of each layer that some living neuron, or a feature, reads, and those that may be undefined."""
    read = [torch.full((layer.affine.size,), ELEMENTWISE[layer.op].partial) for layer in program.layers]
    alive: list[Tensor] = [mask.nonzero().squeeze(1) for mask in read]
    _mark(read, _dense(program.features))
    for number in range(len(program.layers) - 1, INPUT, -1):
        alive[number] = read[number].nonzero().squeeze(1)
        _mark(read, _dense(program.layers[number].affine).part(alive[number]))
    return alive


def _mark(read: list[Tensor], affine: DenseAffine) -> None:
    for source, matrix in zip(affine.sources, counted_matrices(affine), strict=True):
        if source != INPUT:
            read[source] |= (matrix.value != 0).any(0)
            if matrix.error is not None:
                read[source] |= (matrix.error != 0).any(0)


def _living(affine: DenseAffine, alive: list[Tensor], numbers: dict[int, int], inputs: int) -> DenseAffine:
    """A map of living neurons only, by their layers' new numbers."""
    matrices = {
        numbers[source]: matrix if source == INPUT else _columns(matrix, alive[source])
        for source, matrix in zip(affine.sources, counted_matrices(affine), strict=True)
        if source in numbers
    }
    return _affine_of(matrices, MatrixWithErrors(affine.bias, affine.slack), inputs)


def _columns(matrix: MatrixWithErrors, index: Tensor) -> MatrixWithErrors:
    error = None if matrix.error is None else matrix.error[:, index].contiguous()
    return MatrixWithErrors(matrix.value[:, index].contiguous(), error)
