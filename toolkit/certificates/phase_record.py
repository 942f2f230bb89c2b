"""What a search over ReLU phases states: contexts are split at neurons, and refuted by slopes and multipliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.certificates.leaf_rows import ProofNode, RefutedDomains, SearchedNeurons
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.certificates.writer import no_references
from toolkit.problem.affine import in_numpy
from toolkit.proof.stream import LinearRows, References
from toolkit.run.events import LeafClosed
from toolkit.search.clip_domains import ClippedRows, Clipping
from toolkit.search.phase_domains import PhaseDomains, proved
from toolkit.search.phase_frontier import PhaseFrontier


def node_keys(domains: PhaseDomains) -> list[tuple[int, bytes]]:
    """What tells each domain of a search from all others: its case and its phases."""
    phases = domains.phase.cpu().numpy()
    return [(case, row.tobytes()) for case, row in zip(domains.case.tolist(), phases, strict=True)]


class PhaseRecord:
    """The tree of one search over phases, as far as it is open."""

    def __init__(self, problem: RecordedProblem, frontier: PhaseFrontier) -> None:
        space = frontier.space
        self.problem, self.space = problem, space
        self.neurons = SearchedNeurons.of(space.problem.program, problem.elements, space.unstable.cpu().numpy())
        self.columns = np.full(space.problem.program.num_neurons, -1)
        self.columns[space.unstable.cpu().numpy()] = np.arange(len(space.unstable))
        self.nodes: dict[tuple[int, bytes], ProofNode] = {}

    def keys(self, frontier: PhaseFrontier) -> list[tuple[int, bytes]]:
        """The case and the phases of each open domain of a frontier."""
        return node_keys(frontier.open)

    def begun(self, bounded: Sequence[PhaseDomains]) -> None:
        """Begin with cases, or go on with open domains."""
        for domains in bounded:
            for key in node_keys(domains):
                if key not in self.nodes:
                    self.nodes[key] = self.problem.case_node(key[0])
            self.refute(domains)

    def bounded(self, parents: PhaseDomains, children: PhaseDomains, clipping: Clipping | None) -> None:
        """Split domains, of which all first children are active and all second ones inactive, and refute what is."""
        count, elements = len(parents), self.neurons.elements
        differs = (children.phase[:count] != parents.phase).to(torch.int8)
        at = differs.argmax(1).cpu().numpy()
        nodes = [self.nodes.pop(key) for key in node_keys(parents)]
        inactive, active = self.problem.split_neurons(nodes, elements, at, np.zeros(count)).T
        contexts = np.concatenate([active, inactive]).tolist()
        for number, (key, context) in enumerate(zip(node_keys(children), contexts, strict=True)):
            parent = nodes[number % count]
            self.nodes[key] = ProofNode(context, parent.case, parent, int(at[number % count]))
        if clipping is not None:
            self.clip([self.nodes[key] for key in node_keys(children)], clipping)
        self.refute(children)

    def clip(self, nodes: Sequence[ProofNode], clipping: Clipping) -> None:
        """State the half-spaces of domains, and ends of neurons that follow in them, case by case."""
        positions = clipping.domains.tolist()
        for chosen in self.problem.of_each_case([nodes[p] for p in positions]):
            multipliers = clipping.multipliers.select(torch.as_tensor(chosen, device=clipping.domains.device))
            alpha, beta = (in_numpy(self.space.of(part)) for part in (multipliers.alpha, multipliers.beta))
            owners = [nodes[positions[number]] for number in chosen]
            found = RefutedDomains(owners, alpha, beta, in_numpy(multipliers.weight))
            halves = np.full(len(positions), -1)
            halves[chosen] = self.problem.half_spaces(self.neurons, found)
            contexts = np.array([nodes[p].context for p in positions])
            for rows in clipping.rows:
                self.bound(rows, contexts, halves)

    def bound(self, rows: ClippedRows, contexts: NDArray[np.int64], halves: NDArray[np.int64]) -> None:
        """State ends of neurons of one layer in the contexts that have a half-space."""
        owner, neuron = rows.owner.cpu().numpy(), self.columns[rows.neuron.cpu().numpy()]
        elements = self.neurons.elements
        stated = (neuron >= 0) & (halves[owner] >= 0)
        tensors = np.where(stated, elements.tensor[neuron], -1)
        for tensor in np.unique(tensors[tensors >= 0]):
            at = np.flatnonzero(tensors == tensor)
            scale = elements.scale[neuron[at]]
            multiplier = in_numpy(rows.multiplier)[at] / np.abs(scale)
            positive = multiplier > 0
            used = References(positive.astype(int), halves[owner[at]][positive], multiplier[positive])
            none, slots = no_references(len(at)), np.zeros(len(at))
            upper = (in_numpy(rows.sign)[at] < 0) ^ (scale < 0)
            index = elements.index[neuron[at]]
            row = LinearRows(False, contexts[owner[at]], slots, none, none, used, int(tensor) + 1, index, upper)
            self.problem.file.add(self.problem.file.writer.bound(row))

    def refute(self, domains: PhaseDomains) -> None:
        """Refute the domains whose bounds are proofs."""
        done = domains.select(proved(domains.lower))
        if len(done):
            nodes = [self.nodes.pop(key) for key in node_keys(done)]
            found = RefutedDomains(nodes, in_numpy(done.alpha), in_numpy(done.beta), in_numpy(done.weight))
            self.problem.refute(self.neurons, found)

    def closed(self, event: LeafClosed) -> None:
        """Refute a leaf by its multipliers; of leaves that were decided together when the time of a turn ended, some
        are told again."""
        [key] = node_keys(event.leaf)
        node = self.nodes.pop(key, None)
        if node is None or node.case in self.problem.proved:
            return
        if event.multipliers is None:
            self.problem.gaps[f"leaves are closed by {event.by}"] += 1
            return
        alpha, beta = (in_numpy(self.space.of(part)) for part in (event.multipliers.alpha, event.multipliers.beta))
        for neuron in sorted(set(np.flatnonzero(beta[0] > 0).tolist()) - node.splits().keys()):
            node = self.implied(node, neuron, bool(event.leaf.neuron_lower[0, neuron] >= 0))
        self.problem.refute(self.neurons, RefutedDomains([node], alpha, beta, in_numpy(event.multipliers.weight)))

    def implied(self, node: ProofNode, neuron: int, active: bool) -> ProofNode:
        """The half of a context where a neuron has the phase that its range implies: the other one has no points."""
        halves = self.problem.split_neurons([node], self.neurons.elements, np.array([neuron]), np.zeros(1))[0]
        kept, other = halves[::-1] if active else halves
        if other >= 0:
            none = no_references(1)
            row = LinearRows(False, np.array([other]), np.zeros(1), none, none, none)
            self.problem.file.add(self.problem.file.writer.refute(row))
        return ProofNode(int(kept), node.case, node, neuron)
