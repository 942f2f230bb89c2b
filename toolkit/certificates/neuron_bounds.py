"""Ranges of neurons that the checker does not compute by itself, stated with the slopes that give them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.bounds.bounder import TightenedRows
from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.leaf_rows import ProofNode, SearchedNeurons, array
from toolkit.certificates.neuron_elements import NeuronElements
from toolkit.certificates.writer import references
from toolkit.problem.program import Program
from toolkit.proof.stream import LinearRows

if TYPE_CHECKING:
    from toolkit.certificates.recorded_problem import RecordedProblem


@dataclass(frozen=True)
class StatedRows:
    """Bounds of elements of one tensor, ``(n,)``, by slopes that are in slots of the file."""

    tensor: int
    """Number of the tensor in the certificate, 0 for the input."""
    index: NDArray[np.int64]
    upper: NDArray[np.bool_]
    slots: NDArray[np.int64]

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """State them in a node, which stays the same."""
        none = references([{}] * len(self.index))
        contexts = np.full(len(self.index), node.context)
        rows = LinearRows(False, contexts, self.slots, none, none, none, self.tensor, self.index, self.upper)
        problem.file.add(problem.file.writer.bound(rows))
        return node


class Statement(Protocol):
    """Bounds of neurons that can be stated in the context of a case."""

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """State them in a node; what is left of it is returned."""


@dataclass
class NeuronBounds:
    """Bounds of neurons in the box of a problem: each case that begins is given them. Their slopes are written once."""

    file: CertificateFile
    starts: NDArray[np.int64]
    """Where each tensor's elements begin among all, and where the last one's end."""
    elements: NeuronElements
    """Of the program as it was compiled."""
    statements: list[Statement] = field(default_factory=list)
    """In the order in which they were found, which is that of the layers."""
    slots: int = 0
    """Slots that they take, from 1."""

    def stated(self, program: Program, rows: TightenedRows) -> Iterator[StatedRows]:
        """Bounds of neurons of a program, maybe a reduced one, as far as they are elements of the file's tensors, whose
        slopes are written."""
        neurons = SearchedNeurons.of(program, self.elements)
        layer = program.layers[rows.layer]
        better = np.flatnonzero(rows.better.cpu().numpy())
        number = layer.start + rows.index.cpu().numpy()[better % len(rows.index)]
        tensor, scale = neurons.elements.tensor[number], neurons.elements.scale[number]
        upper = (better >= len(rows.index)) ^ (scale < 0)
        alpha = np.ones((len(better), program.num_neurons))
        alpha[:, : layer.start] = array(rows.alpha)[better]
        slopes = neurons.before(layer.start).slopes(alpha, self.starts)
        for chosen in np.unique(tensor[tensor >= 0]):
            at = np.flatnonzero(tensor == chosen)
            slots = self.slots + 1 + np.arange(len(at))
            self.slots += len(at)
            tensors = neurons.by_tensor(slopes[at], self.starts, list(self.file.writer.tensors))
            self.file.add(self.file.writer.slopes(int(slots[0]), tensors, len(at)))
            yield StatedRows(int(chosen) + 1, neurons.elements.index[number[at]], upper[at], slots)

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """State all bounds in the node of a case: what is left of it."""
        for statement in self.statements:
            node = statement.state(problem, node)
        return node
