"""Coefficients on the way back through a program: what layers leave on their sources until it is their turn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from toolkit.problem.affine import Affine
from toolkit.problem.program import INPUT, Program
from toolkit.problem.sparse_affine import SparseAffine


class RowAccumulator:
    """Coefficients ``(B, R, size)`` on sources that a backward pass has yet to reach.

    Layers are taken from the last to the first. A program with stacks keeps the rows of the layers met, and multiplies
    them with all that reads a source when it is reached.
    """

    def __init__(self, program: Program, sources: Sequence[int], coefficients: Sequence[Tensor]) -> None:
        self._program = program
        self._left = dict(zip(sources, coefficients, strict=True))
        self._rows: Tensor | None = None

    def take(self, source: int) -> Tensor | None:
        """All that was left on a source, or None."""
        left = self._left.pop(source, None)
        stack = (self._program.stacks or {}).get(source)
        if stack is None or self._rows is None or self._rows.shape[-1] <= stack.first:
            return left
        rows = self._rows[..., stack.first :]
        pulled = rows @ stack.matrix[: rows.shape[-1]]
        return pulled if left is None else left + pulled

    def push(self, number: int, rows: Tensor) -> None:
        """Leave a layer's rows, ``(B, R, N)`` on its pre-activations, on the sources of its map."""
        layer = self._program.layers[number]
        if self._program.stacks is None:
            self._push(layer.affine, rows)
            return
        if self._rows is None:
            self._rows = rows.new_zeros(*rows.shape[:-1], layer.stop)
        self._rows[..., layer.neurons] = rows
        if isinstance(layer.affine, SparseAffine) and layer.start < self._program.stacks[INPUT].first:
            self._add(INPUT, layer.affine.transpose_input(rows))

    def _push(self, affine: Affine, rows: Tensor) -> None:
        for source, part in zip(affine.sources, affine.transpose(rows), strict=True):
            self._add(source, part)

    def _add(self, source: int, part: Tensor) -> None:
        before = self._left.get(source)
        self._left[source] = part if before is None else before + part
