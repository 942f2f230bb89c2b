"""Affine maps between flat activation vectors, batched, as a matrix or as the operators themselves.

Every map takes the flat values of its sources, ``(B, size of source)`` each, and can be applied, applied to radii
(with absolute coefficients) and transposed. Transposition is the vector-Jacobian product of the operators, so no
operator needs a backward rule of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from toolkit.ops import AffineForm
from toolkit.problem.exactness import lossless, units_of
from toolkit.problem.linear_part import constants_of, with_buffers
from toolkit.problem.operator_table import WITHOUT_SIGN, form_of
from toolkit.problem.sum_lengths import is_composed
from toolkit.problem.sum_rounding import gamma, rounded_up
from toolkit.problem.transpose import transpose_graph
from toolkit.tuning import tuned

aten = torch.ops.aten


class Affine(Protocol):
    """``y = sum_i M_i s_i + bias`` over the sources s_i."""

    @property
    def sources(self) -> tuple[int, ...]:
        """Layer numbers of the sources, ascending; -1 is the input box."""

    @property
    def size(self) -> int:
        """Number of values that the map computes."""

    @property
    def bias(self) -> Tensor:
        """Value at zero, ``(size,)``."""

    def apply(self, values: Sequence[Tensor]) -> Tensor:
        """Values ``(B, size)`` of the map for source values ``(B, size of source)``."""

    def change(self, values: Sequence[Tensor]) -> Tensor:
        """The values without the bias: ``sum_i M_i s_i``, ``(B, size)``."""

    def radius(self, radii: Sequence[Tensor]) -> Tensor:
        """Radii ``(B, size)`` of the interval image of boxes with these radii: ``sum_i |M_i| r_i``."""

    def transpose(self, rows: Tensor) -> list[Tensor]:
        """Coefficients on each source, ``(B, R, size of source)``, of the functionals ``rows``, ``(B, R, size)``."""

    def select(self, index: Tensor) -> list[Tensor]:
        """Coefficients on each source of the rows ``index``: ``(1, len(index), size of source)``."""

    @property
    def terms(self) -> int:
        """Most products that are added up in one value or, transposed, in one coefficient."""

    def uncertainty(self, reach: Sequence[Tensor]) -> Tensor:
        """How far the exact map may be from the stored one, ``(B, size)``, at sources of these magnitudes at most.

        The stored map is the result of sums in double precision wherever operators were composed or neurons merged.
        """

    @property
    def cost(self) -> int:
        """Multiplications of the map for one sample, or of its transpose for one row, estimated."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Affine:
        """Move the map to another device and another precision."""


@dataclass(frozen=True)
class DenseAffine:
    """Explicit matrices, ``(size, size of source)``: fastest for small and fully connected maps."""

    sources: tuple[int, ...]
    matrices: tuple[Tensor, ...]
    bias: Tensor
    errors: tuple[Tensor, ...] | None = field(default=None, kw_only=True)
    """How far each element of the matrices may be from the exact one; None where they are stored as given."""
    slack: Tensor | None = field(default=None, kw_only=True)
    """How far the values may be from the exact ones for other reasons, ``(size,)``: a composed bias, say."""
    steps: int = field(default=0, kw_only=True)
    """Roundings in each element of the matrices, where nothing cancelled on the way to it."""

    @property
    def size(self) -> int:
        return len(self.bias)

    @property
    def terms(self) -> int:
        return self.steps + max(self.size, sum(matrix.shape[1] for matrix in self.matrices))

    @property
    def cost(self) -> int:
        return sum(matrix.numel() for matrix in self.matrices)

    def uncertainty(self, reach: Sequence[Tensor]) -> Tensor:
        found = self.bias.new_zeros(len(reach[0]), self.size)
        if self.slack is not None:
            found = found + self.slack
        if self.errors is not None:
            found = found + sum_of([part @ error.T for part, error in zip(reach, self.errors, strict=True)])
        return found

    def element_errors(self) -> tuple[Tensor, ...] | None:
        """How far each element of the matrices may be from the exact one; None where all are exact."""
        if self.errors is None and not self.steps:
            return None
        unit = gamma(self.steps, torch.float64)
        errors = self.errors or tuple(torch.zeros_like(matrix) for matrix in self.matrices)
        return tuple(error + unit * matrix.abs() for error, matrix in zip(errors, self.matrices, strict=True))

    def part(self, index: Tensor) -> DenseAffine:
        """The map of some of the values, by position."""
        return replace(
            self,
            matrices=tuple(matrix[index] for matrix in self.matrices),
            bias=self.bias[index],
            errors=None if self.errors is None else tuple(error[index] for error in self.errors),
            slack=None if self.slack is None else self.slack[index],
        )

    def apply(self, values: Sequence[Tensor]) -> Tensor:
        result = self.bias.expand(values[0].shape[0], -1)
        for matrix, value in zip(self.matrices, values, strict=True):
            result = torch.addmm(result, value, matrix.T)
        return result

    def change(self, values: Sequence[Tensor]) -> Tensor:
        return sum_of([value @ matrix.T for matrix, value in zip(self.matrices, values, strict=True)])

    def radius(self, radii: Sequence[Tensor]) -> Tensor:
        return sum_of([radius @ matrix.abs().T for matrix, radius in zip(self.matrices, radii, strict=True)])

    def transpose(self, rows: Tensor) -> list[Tensor]:
        return [rows @ matrix for matrix in self.matrices]

    def select(self, index: Tensor) -> list[Tensor]:
        return [matrix[index].unsqueeze(0) for matrix in self.matrices]

    def to(self, device: torch.device, dtype: torch.dtype) -> DenseAffine:
        return DenseAffine(
            self.sources,
            tuple(m.to(device, dtype).contiguous() for m in self.matrices),
            self.bias.to(device, dtype),
            errors=None if self.errors is None else tuple(rounded_up(e, dtype).to(device) for e in self.errors),
            slack=None if self.slack is None else rounded_up(self.slack, dtype).to(device),
            steps=self.steps,
        )


@dataclass(frozen=True)
class GraphAffine:
    """The operators themselves (convolutions, mostly), for one sample, batched by ``torch.func.vmap``."""

    sources: tuple[int, ...]
    source_sizes: tuple[int, ...]
    size: int
    linear: fx.GraphModule
    """The operators without the constants that they add: the linear part of the map."""
    absolute: fx.GraphModule
    """The linear part with absolute values of all coefficients."""
    bias: Tensor
    slack: Tensor
    """How far the bias may be from the exact one, ``(size,)``."""
    taken_back: Tensor
    """Magnitudes of constants that the operators add and that are subtracted again, ``(size,)``; mostly zeros."""
    terms: int

    @property
    def cost(self) -> int:
        return sum(_convolution_cost(node) for node in self.linear.graph.nodes)

    def uncertainty(self, reach: Sequence[Tensor]) -> Tensor:
        lost = gamma(self.terms, self.bias.dtype) * self.taken_back if bool(self.taken_back.any()) else 0.0
        return (self.slack + lost).expand(len(reach[0]), -1)

    def apply(self, values: Sequence[Tensor]) -> Tensor:
        return self.change(values) + self.bias

    def change(self, values: Sequence[Tensor]) -> Tensor:
        return torch.func.vmap(self.linear)(*values)

    def radius(self, radii: Sequence[Tensor]) -> Tensor:
        return torch.func.vmap(self.absolute)(*radii)

    def transpose(self, rows: Tensor) -> list[Tensor]:
        parts = transpose_graph(self.linear, rows.flatten(0, 1))
        return [part.reshape(*rows.shape[:2], size) for part, size in zip(parts, self.source_sizes, strict=True)]

    def select(self, index: Tensor) -> list[Tensor]:
        rows = self.bias.new_zeros(1, len(index), self.size)
        rows[0, torch.arange(len(index), device=index.device), index] = 1.0
        return self.transpose(rows)

    def to(self, device: torch.device, dtype: torch.dtype) -> GraphAffine:
        linear, absolute = (_copy(graph).to(device=device, dtype=dtype) for graph in (self.linear, self.absolute))
        bias = self.bias.to(device, dtype)
        slack, taken = (rounded_up(part, dtype).to(device) for part in (self.slack, self.taken_back))
        return replace(self, linear=linear, absolute=absolute, bias=bias, slack=slack, taken_back=taken)


def _convolution_cost(node: fx.Node) -> int:
    """Multiplications of a convolution: all other operators cost little beside it."""
    if node.target is not aten.convolution.default:
        return 0
    image, weight, transposed = cast(fx.Node, node.args[0]), cast(fx.Node, node.args[1]), node.args[6]
    positions = image if transposed else node
    return prod(positions.meta["shape"]) * prod(weight.meta["shape"][1:])


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def in_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """The values of a tensor, whatever its device and precision, as doubles."""
    return tensor.detach().double().cpu().numpy()


def _copy(module: fx.GraphModule) -> fx.GraphModule:
    return with_buffers(module.graph, constants_of(module))


_SCALED_BY_NUMBERS = frozenset({
    AffineForm.ADD, AffineForm.SUBTRACT, AffineForm.NEGATE, AffineForm.FACTOR, AffineForm.DIVIDE,
    AffineForm.BIASED_PRODUCT,
})  # fmt: skip
"""Forms of operators whose plain numbers are coefficients, not positions."""


def absolute_module(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of affine operators with absolute values of all coefficients (and of all constants).

    Its linear part is ``|M|`` because every other affine operator moves, adds or scales by its constants.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.nodes:
        if node.op == "call_function" and form_of(node) in _SCALED_BY_NUMBERS:
            node.target = WITHOUT_SIGN.get(node.target, node.target)
            node.args = tuple(abs(a) if isinstance(a, (int, float)) else a for a in node.args)
            node.kwargs = {k: abs(v) if isinstance(v, (int, float)) else v for k, v in node.kwargs.items()}
        elif form_of(node) == AffineForm.PAD:  # its other numbers are positions, and may crop
            node.args = (*node.args[:2], *(abs(value) for value in node.args[2:]))
            node.kwargs = {name: abs(value) for name, value in node.kwargs.items()}
    return with_buffers(graph, {k: v.abs() if v.is_floating_point() else v for k, v in constants_of(module).items()})


def compact(affine: GraphAffine) -> Affine:
    """The matrix form where it is the faster one."""
    elements = affine.size * sum(affine.source_sizes)
    has_convolution = any(node.target is aten.convolution.default for node in affine.linear.graph.nodes)
    limits = tuned().problem
    if elements > (limits.most_dense_convolution_elements if has_convolution else limits.most_dense_elements):
        return affine
    matrices = tuple(matrix.contiguous() for matrix in _matrices(affine))
    dense = DenseAffine(affine.sources, matrices, affine.bias, slack=affine.slack)
    return _counted(affine, dense) if is_composed(affine.linear) else dense


def _counted(affine: GraphAffine, dense: DenseAffine) -> DenseAffine:
    """The matrices of composed operators, with what rounding has done to them.

    Where no paths cancel, errors are relative to the element; else to the sum of the magnitudes of all paths.
    """
    magnitudes = [part.contiguous() for part in _matrices(replace(affine, linear=affine.absolute))]
    if lossless(units_of(affine.linear).coefficients, magnitudes):
        return dense
    unit = gamma(affine.terms, affine.bias.dtype)
    pairs = zip(dense.matrices, magnitudes, strict=True)
    if all(bool((sums - matrix.abs() <= unit * matrix.abs()).all()) for matrix, sums in pairs):
        return replace(dense, steps=2 * affine.terms)
    return replace(dense, errors=tuple(unit * part for part in magnitudes))


def _matrices(affine: GraphAffine) -> list[Tensor]:
    return _by_rows(affine) if affine.size <= sum(affine.source_sizes) else _by_columns(affine)


def _by_rows(affine: GraphAffine) -> list[Tensor]:
    rows = torch.eye(affine.size, dtype=affine.bias.dtype, device=affine.bias.device)
    return [part[0] for part in affine.transpose(rows.unsqueeze(0))]


def _by_columns(affine: GraphAffine) -> list[Tensor]:
    matrices = []
    for position, size in enumerate(affine.source_sizes):
        values = [affine.bias.new_zeros(1, other).expand(size, -1) for other in affine.source_sizes]
        values[position] = torch.eye(size, dtype=affine.bias.dtype, device=affine.bias.device)
        matrices.append(affine.change(values).T)
    return matrices


def flat_size(shape: Sequence[int]) -> int:
    """Number of elements of a tensor of this shape."""
    return prod(shape)
