"""Ends of neurons that trees of splits give, stated as splits of a case's context at these ends.

A context is split where a neuron is at the end that a tree proves. The half beyond the end has no point: it is split
further as the tree is, and each leaf refuted by its slopes and multipliers. The other half is the case from then on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.bounds.bounder import NeuronTrees
from toolkit.certificates.leaf_rows import Array, ProofNode, RefutedDomains, SearchedNeurons, array
from toolkit.certificates.neuron_elements import NeuronElements
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.problem.program import Program
from toolkit.tuning import tuned


@dataclass(frozen=True)
class StatedTree:
    """A tree for one end of a neuron, by the columns of neurons that its search had, and one for the neuron itself."""

    column: int
    """Of the neuron."""
    upper: bool
    """Whether it bounds the neuron from above."""
    end: float
    phase: NDArray[np.int8]
    """Phases of the leaves, ``(L, columns)``."""
    alpha: Array
    beta: Array
    """Multipliers of the splits, and 1 for the neuron."""

    def sides(self, rows: NDArray[np.int64]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """A neuron that parts some leaves, and those of them where it is active and inactive.

        The one that was split first is such a neuron, and so there is one for all leaves, and for those of each side.
        """
        phase = self.phase[rows]
        parting = (phase != 0).all(0) & (phase > 0).any(0) & (phase < 0).any(0)
        column = int(parting.argmax())
        assert parting[column], "leaves of a tree are parted by the neuron that was split first"
        return column, rows[phase[:, column] > 0], rows[phase[:, column] < 0]


@dataclass(frozen=True)
class StatedTrees:
    """Trees of neurons of one layer."""

    neurons: SearchedNeurons
    trees: list[StatedTree]

    @classmethod
    def of(cls, program: Program, compiled: NeuronElements, grown: NeuronTrees) -> StatedTrees:
        """The trees with better ends; ``compiled`` are the elements of the program that this one was reduced from."""
        split = grown.unstable.cpu().numpy()
        targets = program.layers[grown.layer].start + grown.index.cpu().numpy()
        neurons = SearchedNeurons.of(program, compiled, np.concatenate([split, targets])).before(len(split))
        return cls(neurons, list(_better(grown, len(split))))

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """Refute all halves beyond the ends, one tree after the other: what is left of the node."""
        every = tuned().certificates.trees_put_together
        for number, tree in enumerate(self.trees, 1):
            node = self.cut(problem, node, tree)
            if node.context >= 0 and (number % every == 0 or number == len(self.trees)):
                problem.file.add(problem.file.writer.recompute(node.context, anew=False))
        return node

    def cut(self, problem: RecordedProblem, node: ProofNode, tree: StatedTree) -> ProofNode:
        """The half of a node within the end that a tree proves; the other one is refuted."""
        halves = problem.split_neurons([node], self.neurons.elements, np.array([tree.column]), np.array([tree.end]))[0]
        kept, beyond = halves if tree.upper else halves[::-1]
        leaves: dict[int, ProofNode] = {}
        parts = [(ProofNode(int(beyond), node.case, node, tree.column), np.arange(len(tree.phase)))]
        while parts:
            leaves |= {int(rows[0]): leaf for leaf, rows in parts if len(rows) == 1}
            parts = self.children(problem, tree, [part for part in parts if len(part[1]) > 1])
        weight = np.zeros((len(leaves), problem.rows.shape[1]))
        found = RefutedDomains([leaves[row] for row in range(len(leaves))], tree.alpha, tree.beta, weight)
        problem.refute(self.neurons, found)
        return ProofNode(int(kept), node.case)

    def children(
        self, problem: RecordedProblem, tree: StatedTree, parts: list[tuple[ProofNode, NDArray[np.int64]]]
    ) -> list[tuple[ProofNode, NDArray[np.int64]]]:
        """Nodes with some leaves each, split at neurons that part these."""
        if not parts:
            return []
        sides = [tree.sides(rows) for _, rows in parts]
        columns, nodes = np.array([column for column, _, _ in sides]), [node for node, _ in parts]
        halves = problem.split_neurons(nodes, self.neurons.elements, columns, np.zeros(len(parts)))
        found = []
        for node, (column, active, inactive), contexts in zip(nodes, sides, halves, strict=True):
            for context, rows in zip(contexts.tolist(), (inactive, active), strict=True):
                found.append((ProofNode(context, node.case, node, column), rows))
        return found


def _better(grown: NeuronTrees, split: int) -> Iterator[StatedTree]:
    """The trees whose ends are better than those known, of neurons with columns from ``split`` on."""
    tree, phase = grown.tree.cpu().numpy(), grown.phase.cpu().numpy()
    alpha, beta, ends = array(grown.alpha), array(grown.beta), array(grown.ends)
    count = len(grown.index)
    for number in np.flatnonzero(grown.better.cpu().numpy()).tolist():
        column, rows = split + number % count, np.flatnonzero(tree == number)
        sign = 1 if number < count else -1
        zeros = np.zeros((len(rows), count))
        own = zeros.copy()
        own[:, column - split] = 1
        yield StatedTree(
            column,
            sign < 0,
            sign * float(ends[number]),
            np.concatenate([phase[rows], zeros.astype(np.int8)], 1),
            np.concatenate([alpha[rows], zeros], 1),
            np.concatenate([beta[rows], own], 1),
        )
