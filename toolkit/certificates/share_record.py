"""Certificates of searches whose open domains are dealt among processes: each one writes the proof of its share to a
temporary file, and the first process copies its records into the certificate.

All processes count contexts and half-spaces on from the same number, that at which the domains were dealt. Numbers that
a process gave after that are therefore changed when its records are copied (`Renumbering`).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.leaf_rows import ProofNode
from toolkit.certificates.recorded_problem import SearchRecord
from toolkit.certificates.writer import linear_payload, split_payload
from toolkit.proof.stream import Payload, RecordKind, References
from toolkit.run.events import DomainsBounded, Event, LeafClosed


@dataclass(frozen=True)
class ToldShare:
    """The domains of a share that are open when its process ends its turn, with their contexts. It is sent to the first
    process; the records are in the share's temporary file."""

    keys: list[Any]
    """Keys of the open domains."""
    nodes: list[tuple[ProofNode, int]]
    """The contexts of these domains in the order of ``keys``, then their ancestors, as `flattened` gives them."""
    gaps: Counter[str]
    """Why something of the share has no proof in the file, and how often."""
    contexts: int
    """Number of the next context that the share's file would begin."""
    halves: int
    """Number of the next half-space that the share's file would state."""


class ShareRecorder:
    """An observer in a forked process that writes the proof of the open domains dealt to this process, its share."""

    def __init__(self, search: SearchRecord, share: Any) -> None:
        """``share`` is a frontier with some of the search's open domains. Raises OSError where there is no room."""
        self.search = search
        self.own = copy(search)
        writer = search.problem.file.writer.of_share()
        file = CertificateFile(tempfile.TemporaryFile(), writer)  # noqa: SIM115 - it goes with this object
        self.own.problem = replace(search.problem, file=file, gaps=Counter())
        self.own.nodes = {key: search.nodes[key] for key in search.keys(share) if key in search.nodes}

    def __call__(self, event: Event) -> None:
        """Write the splits and refutations of a round, or the refutation of a leaf."""
        match event:
            case DomainsBounded():
                self.own.bounded(event.parents, event.children, event.clipping)
            case LeafClosed():
                self.own.closed(event)

    def told(self) -> ToldShare:
        """Flush the share's file; the open domains that are left, for the first process."""
        problem = self.own.problem
        problem.file.flush()
        writer = problem.file.writer
        return ToldShare(
            list(self.own.nodes), flattened(self.own.nodes.values()), problem.gaps, writer.contexts, writer.halves
        )

    def gather(self, told: ToldShare) -> None:
        """In the first process: copy the share's records into the certificate, and have the share's open domains, as
        they are now, in place of those that were dealt."""
        file, began = self.search.problem.file, self.own.problem.file.writer
        writer = file.writer
        moved = Renumbering(
            began.contexts, writer.contexts - began.contexts, began.halves, writer.halves - began.halves
        )
        for kind, payload in self.own.problem.file.records():
            file.add(writer.record(RecordKind(kind), RENUMBERED[kind](kind, payload, moved)))
        writer.contexts += told.contexts - began.contexts
        writer.halves += told.halves - began.halves
        for key in self.own.nodes:
            del self.search.nodes[key]
        nodes = rebuilt(told.nodes, moved)
        self.search.nodes.update(zip(told.keys, nodes, strict=False))
        self.search.problem.gaps.update(told.gaps)


def flattened(nodes: Iterable[ProofNode]) -> list[tuple[ProofNode, int]]:
    """Nodes of a tree and then their ancestors, each without its parent but with the parent's position in the list, -1
    for a root. Pickling a node with its parent recurses once for each ancestor, of which there can be thousands."""
    found = list(nodes)
    places = {id(node): place for place, node in enumerate(found)}
    parents: list[int] = []
    for node in found:  # which grows
        if node.parent is not None and id(node.parent) not in places:
            places[id(node.parent)] = len(found)
            found.append(node.parent)
        parents.append(-1 if node.parent is None else places[id(node.parent)])
    return [(replace(node, parent=None), parent) for node, parent in zip(found, parents, strict=True)]


def rebuilt(told: Sequence[tuple[ProofNode, int]], moved: Renumbering) -> list[ProofNode]:
    """The nodes of a list from `flattened` with their parents again, in the same order and with renumbered contexts."""
    found: dict[int, ProofNode] = {}
    for place in range(len(told)):
        path = [place]
        while path[-1] not in found and told[path[-1]][1] >= 0:
            path.append(told[path[-1]][1])
        for number in reversed(path):
            node, parent = told[number]
            if number not in found:
                [context] = moved.contexts(np.array([node.context])).tolist()
                found[number] = replace(node, context=context, parent=found.get(parent))
    return [found[place] for place in range(len(told))]


@dataclass(frozen=True)
class Renumbering:
    """How numbers in a share's file become numbers in the certificate: those given before the domains were dealt stay,
    later ones are moved up by a constant."""

    first_context: int
    """The first context that the share's process began."""
    contexts_by: int
    """By how much the numbers of such contexts are moved."""
    first_half: int
    """The first half-space that the share's process stated."""
    halves_by: int
    """By how much the numbers of such half-spaces are moved."""

    def contexts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The certificate's numbers of contexts of the share; -1, which stands for no context, stays."""
        return numbers + self.contexts_by * (numbers >= self.first_context)

    def halves(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The certificate's numbers of half-spaces of the share."""
        return numbers + self.halves_by * (numbers >= self.first_half)


def renumbered_split(_: int, payload: bytes, moved: Renumbering) -> bytes:
    """The payload of a SPLIT record with the certificate's numbers of the contexts that are split."""
    data = Payload(payload)
    count = data.number()
    contexts, tensors, indices = (data.array(count) for _ in range(3))
    return split_payload(moved.contexts(contexts), tensors, indices, data.array(count, "<f8"))


def renumbered_rows(kind: int, payload: bytes, moved: Renumbering) -> bytes:
    """The payload of a record of linear rows with the certificate's numbers of contexts and half-spaces."""
    rows = Payload(payload).linear(kind)
    splits = References(rows.splits.counts, moved.contexts(rows.splits.numbers), rows.splits.values)
    halves = References(rows.halves.counts, moved.halves(rows.halves.numbers), rows.halves.values)
    return linear_payload(replace(rows, contexts=moved.contexts(rows.contexts), splits=splits, halves=halves))


RENUMBERED: dict[int, Callable[[int, bytes, Renumbering], bytes]] = {
    RecordKind.SPLIT: renumbered_split,
    RecordKind.SLOPES: lambda kind, payload, moved: payload,
    RecordKind.REFUTE: renumbered_rows,
    RecordKind.BOUND: renumbered_rows,
    RecordKind.HALF_SPACE: renumbered_rows,
}
"""For each kind of record that a search writes, what makes the certificate's payload of that in a share's file."""
