"""Ranges of neurons that the checker does not compute by itself, stated with the slopes that give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.bounds.bounder import TightenedRows
from toolkit.certificates.leaf_rows import ProofNode, SearchedNeurons
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.certificates.writer import no_references
from toolkit.problem.affine import in_numpy
from toolkit.problem.program import Program
from toolkit.proof.stream import LinearRows


@dataclass(frozen=True)
class StatedRows:
    """Bounds of elements of one tensor, ``(n,)``, by slopes that are in slots of the file."""

    tensor: int
    """Number of the tensor in the certificate, 0 for the input."""
    index: NDArray[np.int64]
    upper: NDArray[np.bool_]
    slots: NDArray[np.int64]

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """Write the bounds as a record about the node's context; returns the node, which is not split by them."""
        none = no_references(len(self.index))
        contexts = np.full(len(self.index), node.context)
        rows = LinearRows(False, contexts, self.slots, none, none, none, self.tensor, self.index, self.upper)
        problem.file.add(problem.file.writer.bound(rows))
        return node


def stated_rows(problem: RecordedProblem, program: Program, rows: TightenedRows) -> Iterator[StatedRows]:
    """Bounds of neurons of a program, maybe a reduced one, as far as they are elements of the file's tensors, whose
    slopes are written."""
    neurons = SearchedNeurons.of(program, problem.elements)
    layer = program.layers[rows.layer]
    better = np.flatnonzero(rows.better.cpu().numpy())
    number = layer.start + rows.index.cpu().numpy()[better % len(rows.index)]
    tensor, scale = neurons.elements.tensor[number], neurons.elements.scale[number]
    upper = (better >= len(rows.index)) ^ (scale < 0)
    alpha = np.ones((len(better), program.num_neurons))
    alpha[:, : layer.start] = in_numpy(rows.alpha)[better]
    slopes = neurons.before(layer.start).slopes(alpha, problem.starts)
    for chosen in np.unique(tensor[tensor >= 0]):
        at = np.flatnonzero(tensor == chosen)
        slots = problem.slots + 1 + np.arange(len(at))
        problem.slots += len(at)
        tensors = neurons.by_tensor(slopes[at], problem.starts, list(problem.file.writer.tensors))
        problem.file.add(problem.file.writer.slopes(int(slots[0]), tensors, len(at)))
        yield StatedRows(int(chosen) + 1, neurons.elements.index[number[at]], upper[at], slots)
