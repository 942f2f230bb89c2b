"""What refutes domains of a search, in the terms of the file: slopes, splits and atoms with their multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.neuron_elements import NeuronElements
from toolkit.certificates.writer import no_references
from toolkit.problem.program import Program
from toolkit.proof.bounds import ADAPTIVE
from toolkit.proof.stream import LinearRows, References

Array = NDArray[np.float64]
STEEPEST = ADAPTIVE - 1
"""The byte of the largest slope."""


@dataclass(frozen=True)
class ProofNode:
    """A context of the certificate, with the neuron whose phase it has beyond the one above it."""

    context: int
    case: int
    parent: ProofNode | None = None
    neuron: int = -1

    def splits(self) -> dict[int, int]:
        """For the neurons that are split on the path, the contexts that are their halves."""
        found: dict[int, int] = {}
        node: ProofNode | None = self
        while node is not None and node.parent is not None:
            found[node.neuron] = node.context
            node = node.parent
        return found


@dataclass(frozen=True)
class SearchedNeurons:
    """The neurons that a search has columns for, ``(U,)``, as elements of the file's tensors."""

    elements: NeuronElements
    sloped: NDArray[np.bool_]
    """Which of the neurons have a free slope that a certificate can state, ``(U,)`` bool."""

    @classmethod
    def of(cls, program: Program, compiled: NeuronElements, chosen: NDArray[np.int64] | None = None) -> SearchedNeurons:
        """Some neurons of a program, maybe a reduced one; ``compiled`` are the elements of the one before."""
        ops = [layer.op == "relu" for layer in program.layers]
        relu = np.repeat(np.array(ops, bool), [layer.affine.size for layer in program.layers])
        origin = np.arange(len(relu)) if program.origin is None else program.origin.neurons.cpu().numpy()
        relu, origin = (part if chosen is None else part[chosen] for part in (relu, origin))
        elements = NeuronElements(*(part[origin] for part in vars(compiled).values()))
        return cls(elements, relu & (elements.tensor >= 0) & (elements.offset == 0))

    def before(self, stop: int) -> SearchedNeurons:
        """The neurons with slopes of the first ones alone."""
        return SearchedNeurons(self.elements, self.sloped & (np.arange(len(self.sloped)) < stop))

    def by_tensor(
        self, slopes: NDArray[np.uint8], starts: NDArray[np.int64], names: Sequence[str]
    ) -> dict[str, NDArray[np.uint8]]:
        """Bytes for the elements of all tensors, ``(B, elements)``, by the name of each tensor with some neurons."""
        used = np.unique(self.elements.tensor[self.sloped]).tolist()
        return {names[tensor]: slopes[:, starts[tensor] : starts[tensor + 1]] for tensor in used}

    def slopes(self, alpha: Array, starts: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Lower slopes ``(B, U)`` of ReLUs as bytes for all elements of all tensors, which begin at ``starts``.

        Of an element that is the neuron's negative, ``relu(z) >= alpha z`` means ``relu(e) >= (1 - alpha) e``.
        """
        found = np.full((len(alpha), int(starts[-1])), ADAPTIVE, np.uint8)
        chosen, elements = self.sloped, self.elements
        places = starts[elements.tensor[chosen]] + elements.index[chosen]
        slopes = np.where(elements.scale[chosen] > 0, alpha[:, chosen], 1 - alpha[:, chosen])
        found[:, places] = np.rint(np.clip(slopes, 0, 1) * STEEPEST).astype(np.uint8)
        return found


@dataclass(frozen=True)
class RefutedDomains:
    """Domains with the multipliers of their bounds, which are positive."""

    nodes: Sequence[ProofNode]
    alpha: Array
    """Lower slopes, ``(B, U)``."""
    beta: Array | None
    """Split multipliers, ``(B, U)``; None where nothing is split."""
    weight: Array
    """Weights of the atoms, ``(B, K)``."""

    def select(self, rows: Sequence[int]) -> RefutedDomains:
        """Some of the domains."""
        beta = None if self.beta is None else self.beta[rows]
        return RefutedDomains([self.nodes[row] for row in rows], self.alpha[rows], beta, self.weight[rows])


def split_multipliers(nodes: Sequence[ProofNode], beta: Array | None, scale: Array) -> References:
    """What the halves of splits are multiplied with, ``beta`` being of ``z = scale (e - m)``, in units of e."""
    if beta is None:
        return no_references(len(nodes))
    rows, neurons = np.nonzero(beta > 0)
    splits = [node.splits() for node in nodes]
    found = [splits[row].get(neuron, -1) for row, neuron in zip(rows.tolist(), neurons.tolist(), strict=True)]
    contexts = np.array(found, np.int64)
    kept = contexts >= 0
    rows, neurons = rows[kept], neurons[kept]
    multipliers = beta[rows, neurons] * np.abs(scale[neurons])
    return References(np.bincount(rows, minlength=len(nodes)), contexts[kept], multipliers)


@dataclass(frozen=True)
class Functionals:
    """Functionals of domains, with where their slopes go."""

    found: RefutedDomains
    neurons: SearchedNeurons
    atoms: References
    """Multipliers of each one's atoms, as the formula numbers them."""
    first_slot: int

    def write_slopes(self, file: CertificateFile, starts: NDArray[np.int64]) -> None:
        """Write a slot for each; ``starts`` is where each tensor's elements begin among all."""
        names = list(file.writer.tensors)
        slopes = self.neurons.slopes(self.found.alpha, starts)
        tensors = self.neurons.by_tensor(slopes, starts, names)
        file.add(file.writer.slopes(self.first_slot, tensors, len(slopes)))

    def rows(self) -> LinearRows:
        """The rows of a record, for slopes that are written."""
        found, count, scale = self.found, len(self.found.nodes), self.neurons.elements.scale
        splits = split_multipliers(found.nodes, found.beta, scale)
        contexts, none = np.array([node.context for node in found.nodes]), no_references(count)
        slots = self.first_slot + np.arange(count)
        return LinearRows(False, contexts, slots, self.atoms, splits, none)
