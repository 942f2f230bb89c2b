"""Certificates whose checker refuses some leaves: these are split further, and what refutes their parts is appended.

A search in single precision closes a leaf by bounds that the checker, with its own order of computation and its own
choice of lines, may not reach. `repaired` copies the records with such leaves left open; after them, these are split as
a search would split them, with the checker's own bounds of each part, computed anew in double precision. What is
appended has been through the checker. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.certificates.writer import linear_payload, no_references, packed, references, split_payload
from toolkit.proof.bounds import ContextBounds
from toolkit.proof.check import CertificateChecker, ProofContext
from toolkit.proof.formula import load_formula
from toolkit.proof.linear_maps import Array
from toolkit.proof.network import load_network, readable
from toolkit.proof.stream import Damaged, LinearRows, Payload, RecordKind, records
from toolkit.run.clock import Clock
from toolkit.tuning import tuned

Multipliers = dict[int, float]
"""Multipliers of a case's atoms, by the numbers of these."""


class LenientChecker(CertificateChecker):
    """A checker that goes on after leaves that it refuses, which stay open, and keeps all records that it takes."""

    def __init__(self, network: Path, specification: Path) -> None:
        super().__init__(load_network(network), load_formula(specification))
        self.refused: dict[int, tuple[ProofContext, Multipliers]] = {}
        """Contexts by number, with the multipliers that were to refute them."""
        self.taken: list[tuple[int, bytes]] = []

    def take(self, kind: int, payload: bytes) -> None:
        """Check a record, without the rows that are refused. Raises Damaged."""
        before = len(self.refused)
        self.readers[kind](Payload(payload))
        self.record += 1
        if len(self.refused) > before:
            rows = Payload(payload).linear(RecordKind.REFUTE)
            kept = np.flatnonzero([number not in self.refused for number in rows.contexts.tolist()])
            payload = linear_payload(rows.select(kept)) if len(kept) else b""
        if payload or kind == RecordKind.END:
            self.taken.append((kind, payload))

    def check_leaves(self, rows: LinearRows) -> None:
        """Check rows; those that are refused are found by halves."""
        try:
            super().check_leaves(rows)
        except Damaged:
            if len(rows) > 1:
                for part in rows.batches((len(rows) + 1) // 2):
                    self.check_leaves(part)
            else:
                atoms = dict(zip(rows.atoms.numbers.tolist(), rows.atoms.values.tolist(), strict=True))
                self.refused[rows.contexts[0].number] = rows.contexts[0], atoms

    def close(self, context: ProofContext) -> None:
        """Close a context, unless it was refused."""
        if context.number not in self.refused:
            super().close(context)


class OpenLeaf(NamedTuple):
    """A context that is to be refuted, and what may do it."""

    context: ProofContext
    candidates: list[Multipliers]


def repaired(network: Path, specification: Path, certificate: Path, clock: Clock) -> bytes | None:
    """The file of a certificate in which the leaves of another one that are refused are split until they are refuted.

    None where no leaf was refused, where something else is wrong, or where too many parts would be needed. Raises
    UnreadableError, and OutOfTime at the end of the clock.
    """
    checker = LenientChecker(network, specification)
    with readable(certificate), certificate.open("rb") as file:
        stream = list(records(file))
    if not stream or stream[-1][0] != RecordKind.END:
        return None
    try:
        for kind, payload in stream[:-1]:
            clock.check()
            checker.take(kind, payload)
        if not checker.refused:
            return None
        refute_parts(checker, clock)
        checker.take(*stream[-1])
    except Damaged:
        return None
    return None if checker.open_cases else packed(checker.taken)


def refute_parts(checker: LenientChecker, clock: Clock) -> None:
    """Refute the contexts that were refused. Raises Damaged where that takes too many parts of them."""
    refused, checker.refused, count = checker.refused, {}, 0
    leaves = [
        OpenLeaf(context, [atoms, *({atom: 1.0} for atom in range(len(checker.case_arrays(context.case).constant)))])
        for context, atoms in refused.values()
    ]
    while leaves:
        count += len(leaves)
        if count > tuned().certificates.most_repaired_leaves:
            raise Damaged("leaves that are refused have too many parts")
        halves: list[OpenLeaf] = []
        for batch in batches(checker, leaves):
            clock.check()
            halves += refuted_or_halved(checker, batch)
        leaves = halves


def batches(checker: LenientChecker, leaves: Sequence[OpenLeaf]) -> Iterator[list[OpenLeaf]]:
    """Leaves that can be bounded at once: few enough, and in contexts that begin with the same bounds."""
    groups: dict[int, list[OpenLeaf]] = {}
    for leaf in leaves:
        groups.setdefault(id(checker.base(leaf.context)), []).append(leaf)
    for group in groups.values():
        for start in range(0, len(group), checker.batch):
            yield group[start : start + checker.batch]


def refuted_or_halved(checker: LenientChecker, leaves: list[OpenLeaf]) -> list[OpenLeaf]:
    """Refute what can be refuted as it is, and split the others: their halves."""
    rows = [(leaf.context, atoms) for leaf in leaves for atoms in leaf.candidates]
    contexts, slopes = np.array([context for context, _ in rows], object), np.array([{} for _ in rows], object)
    bounds, owner, found = checker.evaluate(fresh_rows(contexts, slopes, [atoms for _, atoms in rows]))
    closed, places, start = list[tuple[int, Multipliers]](), list[tuple[OpenLeaf, Place]](), 0
    for leaf in leaves:
        best = start + int(np.argmax(found.least[start : start + len(leaf.candidates)]))
        if bounds.crossed[owner[best]] or found.least[best] > 0:
            closed.append((leaf.context.number, leaf.candidates[best - start]))
        else:
            place = place_to_split(checker, bounds, int(owner[best]), found.coefficients[best], leaf.context)
            places.append((leaf, place))
        start += len(leaf.candidates)
    if closed:
        numbers = np.array([number for number, _ in closed])
        row = fresh_rows(numbers, np.zeros_like(numbers), [atoms for _, atoms in closed])
        checker.take(RecordKind.REFUTE, linear_payload(row))
    if not places:
        return []
    split = [(leaf.context.number, *place) for leaf, place in places]
    first = checker.next_context
    checker.take(RecordKind.SPLIT, split_payload(*map(np.array, zip(*split, strict=True))))
    parents = [leaf for leaf, _ in places for _ in range(2)]
    return [leaf._replace(context=checker.contexts[first + number]) for number, leaf in enumerate(parents)]


def fresh_rows(contexts: Array, slots: Array, atoms: Sequence[Multipliers]) -> LinearRows:
    """Sums of atoms, for contexts whose bounds are computed anew."""
    none = no_references(len(atoms))
    return LinearRows(True, contexts, slots, references(atoms), none, none)


class Place(NamedTuple):
    """Where a context is split."""

    tensor: int
    element: int
    point: float


def place_to_split(
    checker: LenientChecker, bounds: ContextBounds, number: int, coefficients: Array, context: ProofContext
) -> Place:
    """Where to split a context, which has this number in a batch: at the input that moves its bound most, halfway.

    A context that no input was split for, and in which fewer neurons than inputs are not fixed, is split at the neuron
    with the loosest lines, at zero.
    """
    lower, upper = bounds.lower[0][number], bounds.upper[0][number]
    moved = np.abs(coefficients) * (upper - lower)
    widest = int(np.argmax(moved))
    at_input = Place(0, widest, float((lower[widest] + upper[widest]) / 2))
    if any(above.half is not None and above.half.value == 0 for above in context.path()):
        return at_input
    loosest, at_neuron, unstable = 0.0, at_input, 0
    for tensor, value in enumerate(checker.values[1:], 1):
        l, u = bounds.lower[value][number], bounds.upper[value][number]
        gap = np.where((l < 0) & (u > 0), -l * u / np.where(u > l, u - l, 1.0), 0.0)
        unstable += int(np.count_nonzero(gap))
        if gap.max(initial=0.0) > loosest:
            loosest, at_neuron = float(gap.max()), Place(tensor, int(np.argmax(gap)), 0.0)
    return at_neuron if 0 < unstable < np.count_nonzero(moved) else at_input
