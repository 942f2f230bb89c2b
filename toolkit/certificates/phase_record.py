"""What a search over ReLU phases states: contexts are split at neurons, and refuted by slopes and multipliers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from toolkit.certificates.leaf_rows import ProofNode, RefutedDomains, SearchedNeurons, array
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.run.events import LeafClosed
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
        self.nodes: dict[tuple[int, bytes], ProofNode] = {}

    def begun(self, bounded: Sequence[PhaseDomains]) -> None:
        """Begin with cases, or go on with open domains."""
        for domains in bounded:
            for key in node_keys(domains):
                if key not in self.nodes:
                    self.nodes[key] = self.problem.case_node(key[0])
            self.refute(domains)

    def bounded(self, parents: PhaseDomains, children: PhaseDomains) -> None:
        """Split domains, of which all first children are active and all second ones inactive, and refute what is."""
        count, elements = len(parents), self.neurons.elements
        differs = (children.phase[:count] != parents.phase).to(torch.int8)
        at = differs.argmax(1).cpu().numpy()
        nodes = [self.nodes.pop(key) for key in node_keys(parents)]
        scale = elements.scale[at]
        tensors = np.where(elements.tensor[at] >= 0, elements.tensor[at] + 1, -1)
        halves = self.problem.split(nodes, tensors, elements.index[at], -elements.offset[at] / scale)
        inactive, active = np.where(scale[:, None] > 0, halves, halves[:, ::-1]).T
        contexts = np.concatenate([active, inactive]).tolist()
        for number, (key, context) in enumerate(zip(node_keys(children), contexts, strict=True)):
            parent = nodes[number % count]
            self.nodes[key] = ProofNode(context, parent.case, parent, int(at[number % count]))
        self.refute(children)

    def refute(self, domains: PhaseDomains) -> None:
        """Refute the domains whose bounds are proofs."""
        done = domains.select(proved(domains.lower))
        if len(done):
            nodes = [self.nodes.pop(key) for key in node_keys(done)]
            found = RefutedDomains(nodes, array(done.alpha), array(done.beta), array(done.weight))
            self.problem.refute(self.neurons, found)

    def closed(self, event: LeafClosed) -> None:
        """Refute a leaf by its multipliers."""
        if event.multipliers is None:
            self.problem.gaps[f"leaves are closed by {event.by}"] += 1
            return
        [key] = node_keys(event.leaf)
        node = self.nodes.pop(key)
        alpha, beta = (array(self.space.of(part)) for part in (event.multipliers.alpha, event.multipliers.beta))
        if set(np.flatnonzero(beta[0] > 0).tolist()) - set(node.splits()):
            self.problem.gaps["leaves need phases that follow from bounds"] += 1
            return
        self.problem.refute(self.neurons, RefutedDomains([node], alpha, beta, array(event.multipliers.weight)))
