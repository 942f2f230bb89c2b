"""Ends of neurons that trees of splits give, stated as splits of a case's context at these ends.

A context is split where a neuron is at the end that a tree proves. The half beyond the end has no point: it is split
further as the tree is, and each leaf refuted by its slopes and multipliers. The other half is the case from then on.
Trees are written some at a time: first the halves within and beyond their ends, then the splits of all of them level by
level, then all leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.bounds.bounder import NeuronTrees
from toolkit.certificates.leaf_rows import Array, ProofNode, RefutedDomains, SearchedNeurons
from toolkit.certificates.neuron_elements import NeuronElements
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.problem.affine import in_numpy
from toolkit.problem.program import Program
from toolkit.tuning import tuned


@dataclass(frozen=True)
class OpenParts:
    """Contexts that are not refuted yet, each with leaves of a tree."""

    nodes: Sequence[ProofNode]
    rows: NDArray[np.int64]
    """The leaves of all nodes, those of one after those of another."""
    counts: NDArray[np.int64]
    """Number of leaves of each node, at least 1."""

    def of(self, chosen: NDArray[np.bool_]) -> OpenParts:
        """Some of the nodes with their leaves."""
        nodes = [node for node, kept in zip(self.nodes, chosen.tolist(), strict=True) if kept]
        return OpenParts(nodes, self.rows[np.repeat(chosen, self.counts)], self.counts[chosen])


@dataclass(frozen=True)
class StatedTrees:
    """Trees for T ends of neurons of one layer, by the columns of the neurons that their search split, and one for each
    neuron that is bounded."""

    neurons: SearchedNeurons
    column: NDArray[np.int64]
    """The column of the neuron that each tree bounds, ``(T,)``: columns of neurons that were split come first."""
    upper: NDArray[np.bool_]
    """Whether it bounds the neuron from above, ``(T,)``."""
    end: Array
    """The bound of the neuron that each tree proves, ``(T,)``."""
    tree: NDArray[np.int64]
    """The tree of each leaf in ascending order, ``(L,)``."""
    phase: NDArray[np.int8]
    """Phases of the leaves, ``(L, columns)``."""
    alpha: Array
    beta: Array
    """Multipliers of the splits, and 1 for the neuron."""

    @classmethod
    def of(cls, program: Program, compiled: NeuronElements, grown: NeuronTrees) -> StatedTrees:
        """The trees with better ends; ``compiled`` are the elements of the program that this one was reduced from."""
        split, index = grown.unstable.cpu().numpy(), grown.index.cpu().numpy()
        targets = program.layers[grown.layer].start + index
        neurons = SearchedNeurons.of(program, compiled, np.concatenate([split, targets])).before(len(split))
        better = grown.better.cpu().numpy()
        chosen, number = np.flatnonzero(better), np.cumsum(better) - 1
        lower = chosen < len(index)
        column = len(split) + chosen % len(index)
        of_leaf = grown.tree.cpu().numpy()
        leaves = np.argsort(of_leaf, kind="stable")
        leaves = leaves[better[of_leaf[leaves]]]
        tree = number[of_leaf[leaves]]
        zeros = np.zeros((len(leaves), len(index)))
        own = zeros.copy()
        own[np.arange(len(leaves)), column[tree] - len(split)] = 1
        phase, alpha, beta = (
            grown.phase.cpu().numpy()[leaves],
            in_numpy(grown.alpha)[leaves],
            in_numpy(grown.beta)[leaves],
        )
        return cls(
            neurons,
            column,
            ~lower,
            np.where(lower, 1, -1) * in_numpy(grown.ends)[chosen],
            tree,
            np.concatenate([phase, zeros.astype(np.int8)], 1),
            np.concatenate([alpha, zeros], 1),
            np.concatenate([beta, own], 1),
        )

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """Refute all halves beyond the ends, some trees after others: what is left of the node."""
        every = tuned().certificates.trees_put_together
        for first in range(0, len(self.column), every):
            node = self.cut(problem, node, first, min(first + every, len(self.column)))
            if node.context >= 0:
                problem.file.add(problem.file.writer.recompute(node.context, anew=False))
        return node

    def cut(self, problem: RecordedProblem, node: ProofNode, first: int, stop: int) -> ProofNode:
        """The part of a node within the ends that the trees from the first one on prove; all else is refuted."""
        start, end = np.searchsorted(self.tree, (first, stop)).tolist()
        counts = np.bincount(self.tree[start:end] - first, minlength=stop - first)
        nodes = []
        for number in range(first, stop):
            node, beyond = self.parted(problem, node, number)
            nodes.append(beyond)
        leaves: list[ProofNode] = [node] * (end - start)
        for done in self.grown(problem, OpenParts(nodes, np.arange(start, end), counts)):
            for leaf, row in zip(done.nodes, done.rows.tolist(), strict=True):
                leaves[row - start] = leaf
        rows = slice(start, end)
        weight = np.zeros((len(leaves), problem.rows.shape[1]))
        problem.refute(self.neurons, RefutedDomains(leaves, self.alpha[rows], self.beta[rows], weight))
        return node

    def parted(self, problem: RecordedProblem, node: ProofNode, number: int) -> tuple[ProofNode, ProofNode]:
        """The halves of a node within and beyond the end that a tree proves."""
        column, end = self.column[number : number + 1], self.end[number : number + 1]
        halves = problem.split_neurons([node], self.neurons.elements, column, end)[0].tolist()
        kept, beyond = halves if self.upper[number] else halves[::-1]
        return ProofNode(kept, node.case), ProofNode(beyond, node.case, node, int(column[0]))

    def grown(self, problem: RecordedProblem, parts: OpenParts) -> Iterator[OpenParts]:
        """Split nodes until each has one leaf; those of each level that have."""
        while len(parts.nodes):
            yield parts.of(parts.counts == 1)
            parts = parts.of(parts.counts > 1)
            parts = self.children(problem, parts) if len(parts.nodes) else parts

    def children(self, problem: RecordedProblem, parts: OpenParts) -> OpenParts:
        """Nodes with several leaves each, split at neurons that part these.

        The neuron that was split first is such a neuron, and so there is one for all leaves of a tree, and for those of
        each side.
        """
        phase, starts = self.phase[parts.rows], np.cumsum(parts.counts) - parts.counts
        lowest, highest = np.minimum.reduceat(phase, starts), np.maximum.reduceat(phase, starts)
        parting = (lowest < 0) & (highest > 0) & (np.minimum.reduceat(np.abs(phase), starts) > 0)
        assert parting.any(1).all(), "leaves of a tree are parted by the neuron that was split first"
        columns, owner = parting.argmax(1), np.repeat(np.arange(len(starts)), parts.counts)
        halves = problem.split_neurons(parts.nodes, self.neurons.elements, columns, np.zeros(len(starts)))
        side = 2 * owner + (phase[np.arange(len(owner)), columns[owner]] > 0)
        nodes = [
            ProofNode(context, node.case, node, column)
            for node, column, contexts in zip(parts.nodes, columns.tolist(), halves.tolist(), strict=True)
            for context in contexts
        ]
        return OpenParts(nodes, parts.rows[np.argsort(side, kind="stable")], np.bincount(side))
