"""What a process proves of its share of a search, in a file of its own, which then becomes part of the certificate.

Such a file counts contexts and half-spaces on from where the search was when it was dealt. The process that all began
with does the same, and others do; so the share's own numbers are moved when its records are taken over.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.certificates.certificate_file import CertificateFile
from toolkit.certificates.leaf_rows import ProofNode
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.certificates.writer import linear_payload, split_payload
from toolkit.proof.stream import Payload, RecordKind, References
from toolkit.run.events import DomainsBounded, Event, LeafClosed


class SearchRecord(Protocol):
    """What is written of one search; domains are records of what it splits."""

    problem: RecordedProblem
    nodes: dict[Any, ProofNode]
    """The contexts of open domains, by what tells each domain from all others."""

    def keys(self, frontier: Any) -> Sequence[Any]:
        """What tells each open domain of a frontier from all others."""

    def begun(self, bounded: Sequence[Any]) -> None:
        """The search began with these domains, or goes on with them."""

    def bounded(self, parents: Any, children: Any, clipping: Any) -> None:
        """Domains were split, and the children bounded, maybe with the help of clipping."""

    def closed(self, event: LeafClosed) -> None:
        """A leaf was refuted."""


@dataclass(frozen=True)
class ToldShare:
    """What the process that has a share says of it when it hands it in; its records are in the share's file."""

    keys: list[Any]
    nodes: list[tuple[ProofNode, int]]
    """The nodes that have these keys, one for each, then all others above them, none with its parent; and the position
    of each one's parent, or -1."""
    gaps: Counter[str]
    contexts: int
    """How many contexts and half-spaces there are by the count of the share's file."""
    halves: int


class ShareRecorder:
    """Writes what is proved of a share of a search: an observer of the process that has the share."""

    def __init__(self, search: SearchRecord, share: Any) -> None:
        """``share`` is a frontier with some of the search's open domains. Raises OSError where there is no room."""
        self.search = search
        self.own = copy(search)
        writer = search.problem.file.writer.of_share()
        file = CertificateFile(tempfile.TemporaryFile(), writer)  # noqa: SIM115 - it goes with this object
        self.own.problem = replace(search.problem, file=file, gaps=Counter())
        self.own.nodes = {key: search.nodes[key] for key in search.keys(share) if key in search.nodes}

    def __call__(self, event: Event) -> None:
        """Write what an event proves."""
        match event:
            case DomainsBounded():
                self.own.bounded(event.parents, event.children, event.clipping)
            case LeafClosed():
                self.own.closed(event)

    def told(self) -> ToldShare:
        """What is left of the share, all records being in its file."""
        problem = self.own.problem
        problem.file.flush()
        writer = problem.file.writer
        return ToldShare(
            list(self.own.nodes), apart(self.own.nodes.values()), problem.gaps, writer.contexts, writer.halves
        )

    def gather(self, told: ToldShare) -> None:
        """Make the share's records part of the certificate, and go on with what is left of the share."""
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
        nodes = together(told.nodes, moved)
        self.search.nodes.update(zip(told.keys, nodes, strict=False))
        self.search.problem.gaps.update(told.gaps)


def apart(nodes: Iterable[ProofNode]) -> list[tuple[ProofNode, int]]:
    """Nodes and all that are above them, none with its parent, and the position of each one's parent, or -1: what is
    far from the root has too many above it to be pickled as it is."""
    found = list(nodes)
    places = {id(node): place for place, node in enumerate(found)}
    parents: list[int] = []
    for node in found:  # which grows
        if node.parent is not None and id(node.parent) not in places:
            places[id(node.parent)] = len(found)
            found.append(node.parent)
        parents.append(-1 if node.parent is None else places[id(node.parent)])
    return [(replace(node, parent=None), parent) for node, parent in zip(found, parents, strict=True)]


def together(told: Sequence[tuple[ProofNode, int]], moved: Renumbering) -> list[ProofNode]:
    """The nodes that `apart` took apart, in its order, as the whole file numbers them."""
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
    """What numbers of a share's file are in the whole one."""

    first_context: int
    """The first one that the share's process gave; those below are the whole file's."""
    contexts_by: int
    first_half: int
    halves_by: int

    def contexts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of contexts; -1 is of none."""
        return numbers + self.contexts_by * (numbers >= self.first_context)

    def halves(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of half-spaces."""
        return numbers + self.halves_by * (numbers >= self.first_half)


def renumbered_split(_: int, payload: bytes, moved: Renumbering) -> bytes:
    """A record that splits contexts."""
    data = Payload(payload)
    count = data.number()
    contexts, tensors, indices = (data.array(count) for _ in range(3))
    return split_payload(moved.contexts(contexts), tensors, indices, data.array(count, "<f8"))


def renumbered_rows(kind: int, payload: bytes, moved: Renumbering) -> bytes:
    """A record of linear rows."""
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
"""What the records of searches are in the whole file: payloads by kind."""
