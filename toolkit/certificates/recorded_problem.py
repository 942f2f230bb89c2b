"""Some cases of a query while they are looked at, with what they are in the files, and what is written of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.formula_cases import StatedCase
from toolkit.certificates.leaf_rows import Functionals, ProofNode, RefutedDomains, SearchedNeurons
from toolkit.certificates.neuron_elements import NeuronElements
from toolkit.proof.stream import LinearRows, References
from toolkit.run.events import LeafClosed


class Statement(Protocol):
    """Bounds of neurons that can be stated in the context of a case."""

    def state(self, problem: RecordedProblem, node: ProofNode) -> ProofNode:
        """Write the bounds for a node's context; returns the node to go on with, smaller where it was split."""


class SearchRecord(Protocol):
    """The part of a certificate that one branch-and-bound search writes, over ReLU phases or over input boxes."""

    problem: RecordedProblem
    nodes: dict[Any, ProofNode]
    """The context of each open domain, by the domain's key."""

    def keys(self, frontier: Any) -> Sequence[Any]:
        """The keys of a frontier's open domains: the case with the phases of the neurons, or with the box."""

    def begun(self, bounded: Sequence[Any]) -> None:
        """Write what refutes some of the domains with which the search began, or goes on."""

    def bounded(self, parents: Any, children: Any, clipping: Any) -> None:
        """Write the splits of parent domains, the half-spaces and ends of neurons that clipping used, and what refutes
        some of the children."""

    def closed(self, event: LeafClosed) -> None:
        """Write what refutes a leaf, a domain with nothing left to split."""


@dataclass
class RecordedProblem:
    """A problem whose search is written to a file."""

    file: CertificateFile
    starts: NDArray[np.int64]
    """Where each tensor's elements begin among all, and where the last one's end."""
    rows: NDArray[np.int64]
    """Atoms of each case, as in `toolkit.problem.compile.FeatureQuestion`."""
    cases: list[list[StatedCase]]
    gaps: Counter[str]
    """Why something is left open, and how often."""
    elements: NeuronElements
    """What the neurons are, of the program as it was compiled."""
    slots: int = 0
    """Slots that slopes of stated bounds take, from 1."""
    statements: list[Statement] = field(default_factory=list)
    """Bounds of neurons that each case is given where it begins, in the order in which they were found."""
    common_case: int | None = None
    """The number of what all cases have in common, where it has the box of the problem and no context yet."""
    common: ProofNode | None = None
    """What is left of its context, in which bounds of neurons are stated for all cases."""
    begun: dict[int, ProofNode] = field(default_factory=dict)
    """The contexts of cases."""
    proved: set[int] = field(default_factory=set)
    """Cases that root bounds refute, about which nothing more is to be written: a search that goes on from root bounds
    before these looks at them again."""

    def state(self, statement: Statement) -> None:
        """State bounds of neurons for all cases that begin from now on: once, where these have a context in common."""
        if self.common is None and self.common_case is not None:
            context, record = self.file.writer.case(self.common_case)
            self.file.add(record)
            self.common = ProofNode(context, -1)
        if self.common is None:
            self.statements.append(statement)
        else:
            self.common = statement.state(self, self.common)

    def case_node(self, case: int) -> ProofNode:
        """The context of a case, which begins with it; -1 where the formula has no such case, or it is proved."""
        if case in self.proved:
            return ProofNode(-1, case)
        if case not in self.begun:
            node = ProofNode(-1, case)
            if self.cases[case]:
                above = None if self.common is None else self.common.context
                context, record = self.file.writer.case(self.cases[case][0].number, above)
                self.file.add(record)
                node = ProofNode(context, case)
                for statement in self.statements:
                    node = statement.state(self, node)
            self.begun[case] = node
        return self.begun[case]

    def of_each_case(self, nodes: Sequence[ProofNode]) -> Iterator[NDArray[np.int64]]:
        """Positions of nodes that have a context, case by case, as the rows of a record have to begin at one case's
        ranges."""
        cases = np.array([node.case if node.context >= 0 else -1 for node in nodes])
        for case in np.unique(cases[cases >= 0]):
            yield np.flatnonzero(cases == case)

    def with_context(self, nodes: Sequence[ProofNode]) -> list[int]:
        """Positions of the nodes that have a context; those that need one and have none are counted among the gaps."""
        kept = [number for number, node in enumerate(nodes) if node.context >= 0]
        if missing := sum(node.context < 0 and node.case not in self.proved for node in nodes):
            self.gaps["domains are split at what is no element of a tensor of the network"] += missing
        return kept

    def split(
        self,
        nodes: Sequence[ProofNode],
        tensors: NDArray[np.int64],
        indices: NDArray[np.int64],
        points: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Split nodes at elements, of tensors by their numbers in the file: contexts of the halves ``<=`` and ``>=``,
        ``(B, 2)``. What has no context, or a negative number for a tensor, has halves without one."""
        above = np.array([node.context for node in nodes])
        stated = (above >= 0) & (tensors >= 0)
        halves = np.full((len(nodes), 2), -1)
        if stated.any():
            found, record = self.file.writer.split(above[stated], tensors[stated], indices[stated], points[stated])
            self.file.add(record)
            halves[stated] = found
        return halves

    def split_neurons(
        self,
        nodes: Sequence[ProofNode],
        elements: NeuronElements,
        columns: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Split nodes at neurons, by their columns among some elements, where these have a value: contexts of the
        halves in which the neuron is at most that and at least that, ``(B, 2)``, as `split` numbers them."""
        scale, tensors = elements.scale[columns], elements.tensor[columns]
        points = (values - elements.offset[columns]) / scale
        halves = self.split(nodes, np.where(tensors >= 0, tensors + 1, -1), elements.index[columns], points)
        return np.where(scale[:, None] > 0, halves, halves[:, ::-1])

    def refute(self, neurons: SearchedNeurons, found: RefutedDomains) -> None:
        """Write rows for domains that have a context."""
        if kept := self.with_context(found.nodes):
            self.file.add(self.file.writer.refute(self.functionals(neurons, found.select(kept))))

    def half_spaces(self, neurons: SearchedNeurons, found: RefutedDomains) -> NDArray[np.int64]:
        """State half-spaces in domains, which all have a context: their numbers."""
        numbers, record = self.file.writer.half_space(self.functionals(neurons, found))
        self.file.add(record)
        return numbers

    def functionals(self, neurons: SearchedNeurons, found: RefutedDomains) -> LinearRows:
        """Rows for domains, whose slopes are written."""
        functionals = Functionals(found, neurons, self.atoms(found.nodes, found.weight), self.slots + 1)
        functionals.write_slopes(self.file, self.starts)
        return functionals.rows()

    def atoms(self, nodes: Sequence[ProofNode], weight: NDArray[np.float64]) -> References:
        """Multipliers of the atoms of nodes, which have these weights, ``(B, K)``, as the formula numbers them."""
        rows, columns = np.nonzero(weight > 0)
        cases = np.array([node.case for node in nodes])[rows]
        wanted = zip(cases.tolist(), self.rows[cases, columns].tolist(), strict=True)
        stated = [self.cases[case][0].atoms.get(row, (-1, 0.0)) for case, row in wanted]
        numbers, factors = np.array(stated).reshape(-1, 2).T
        kept = numbers >= 0
        values = (weight[rows, columns] * factors)[kept]
        return References(np.bincount(rows[kept], minlength=len(nodes)), numbers[kept].astype(int), values)
