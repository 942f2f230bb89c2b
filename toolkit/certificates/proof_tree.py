"""The tree of contexts of a certificate, read while the checker checks it: what other formats of proofs are made from.

No torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import InputError
from toolkit.proof.bounds import ContextBounds, LowerBound
from toolkit.proof.check import CHECKED, CertificateChecker, Half, ProofContext
from toolkit.proof.formula import CaseFormula, load_formula
from toolkit.proof.linear_maps import Array
from toolkit.proof.network import ProofNetwork, UnreadableError, load_network, readable
from toolkit.proof.stream import LinearRows, Payload, References, records


@dataclass(frozen=True)
class LeafProof:
    """What the row that refutes a context shows there."""

    atoms: dict[int, Fraction]
    """Positive multipliers of the case's atoms."""
    half_spaces: bool
    """Whether half-spaces are used, which hold at counterexamples alone."""
    least: Fraction | None
    """What the functional is at least; None where nothing finite is known."""
    empty: bool
    """Whether a lower bound of some element is above the upper one: the context has no point."""


@dataclass
class TreeNode:
    """A context: a half of the one above it, as elements of the network's own tensors."""

    case: int
    half: Half | None = None
    children: list[int] = field(default_factory=list)
    """The half ``<=`` before ``>=``."""
    leaf: LeafProof | None = None


@dataclass
class ProofTree:
    """All contexts of a certificate that the checker accepts."""

    network: ProofNetwork
    formula: CaseFormula
    nodes: dict[int, TreeNode] = field(default_factory=dict)
    roots: dict[int, int] = field(default_factory=dict)
    """The contexts with which cases begin."""
    boxes: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    """Boxes of cases as doubles, moved outward, in which everything is proved."""
    atoms: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Atoms of cases that anything stated in them uses."""
    conditional: set[int] = field(default_factory=set)
    """Cases in which bounds of elements hold at counterexamples alone, as atoms or half-spaces are used for them."""

    @property
    def common(self) -> int:
        """In place of a case's number, for what all cases have in common."""
        return len(self.formula.cases)

    def used_atoms(self, case: int) -> set[int]:
        """The atoms that the proof of a case uses."""
        return self.atoms[case] | self.atoms[self.common]

    def holds_everywhere(self, case: int) -> bool:
        """Whether all that leaves of a case rest on holds at every point of their contexts, counterexample or not."""
        return self.conditional.isdisjoint({case, self.common})

    def below(self, number: int) -> Iterator[int]:
        """A context and all below it, each before its halves."""
        waiting = [number]
        while waiting:
            number = waiting.pop()
            waiting += reversed(self.nodes[number].children)
            yield number

    def halved_at(self, number: int) -> Half | None:
        """The lower half of a context, as an element's; None for a leaf."""
        children = self.nodes[number].children
        return self.nodes[children[0]].half if children else None

    def splits_inputs(self, number: int) -> bool:
        """Whether the halves of a context are of an input."""
        half = self.halved_at(number)
        return half is not None and half.value == 0


class TreeReader(CertificateChecker):
    """A checker that keeps the tree of what it checks."""

    def __init__(self, network: ProofNetwork, formula: CaseFormula) -> None:
        super().__init__(network, formula)
        self.tree = ProofTree(network, formula)
        self.origin: dict[int, tuple[int, Array]] = {}
        """For values that are what is left of others, these, and the elements that are left."""
        self.latest: tuple[ContextBounds, Array, LowerBound] | None = None

    def equal(self, payload: Payload) -> None:
        """Keep which elements of a tensor are left."""
        peeked = Payload(payload.data)
        number, count = peeked.number(), peeked.number()
        gone, before = peeked.array(count), self.value(number)
        super().equal(payload)
        value, places = self.origin.get(before, (before, np.arange(self.tree.network.sizes[before])))
        self.origin[self.values[number]] = value, np.delete(places, gone)

    def case(self, payload: Payload) -> None:
        """Keep the context of a case."""
        super().case(payload)
        number = self.next_context - 1
        case = self.contexts[number].case
        self.tree.nodes[number] = TreeNode(case)
        if case in self.open_cases:
            arrays = self.case_arrays(case)
            self.tree.roots[case], self.tree.boxes[case] = number, (arrays.lower[0], arrays.upper[0])

    def below(self, context: ProofContext, number: int, half: Half) -> ProofContext:
        """Keep a half, as it is of the network before any elements were left out."""
        value, places = self.origin.get(half.value, (half.value, None))
        own = half if places is None else Half(value, int(places[half.place]), half.point, half.above)
        self.tree.nodes[number] = TreeNode(context.case, own)
        self.tree.nodes[context.number].children.append(number)
        return super().below(context, number, half)

    def evaluate(self, rows: LinearRows) -> tuple[ContextBounds, Array, LowerBound]:
        """Keep what the rows are at least."""
        self.latest = super().evaluate(rows)
        return self.latest

    def evaluated(self, record: LinearRows) -> list[tuple[LinearRows, Array, LowerBound]]:
        """Note of bounds of elements, and of half-spaces, what they rest on."""
        found = super().evaluated(record)
        for rows, *_ in found:
            used, spaces = self.note_atoms(rows), positive_rows(rows.halves)
            for row, context in enumerate(rows.contexts):
                if record.indices is not None and (used[row] or row in spaces or self.in_space(rows, context)):
                    self.tree.conditional.add(context.case)
        return found

    def check_leaves(self, rows: LinearRows) -> None:
        """Keep what refutes each leaf."""
        super().check_leaves(rows)
        assert self.latest is not None
        (bounds, owner, found), spaces = self.latest, positive_rows(rows.halves)
        finite = np.isfinite(found.least)
        for row, (context, atoms) in enumerate(zip(rows.contexts, self.note_atoms(rows), strict=True)):
            least = Fraction(float(found.least[row])) if finite[row] else None
            conditional = row in spaces or self.in_space(rows, context)
            leaf = LeafProof(atoms, conditional, least, bool(bounds.crossed[owner[row]]))
            self.tree.nodes[context.number].leaf = leaf
            if context.case == self.tree.common and (atoms or leaf.half_spaces):
                self.tree.conditional.add(context.case)

    def in_space(self, rows: LinearRows, context: ProofContext) -> bool:
        """Whether the ranges of a row hold in a half-space alone."""
        anew = rows.fresh or self.base(context).space is not None
        return anew and any(other.halves for other in context.path())

    def note_atoms(self, rows: LinearRows) -> list[dict[int, Fraction]]:
        """The multipliers of atoms of each row, which are noted for its case."""
        found: list[dict[int, Fraction]] = [{} for _ in rows.contexts]
        columns: Any = (rows.atoms.rows.tolist(), rows.atoms.numbers.tolist(), rows.atoms.values.tolist())
        for row, atom, factor in zip(*columns, strict=True):
            if factor > 0:
                found[row][atom] = found[row].get(atom, Fraction(0)) + Fraction(factor)
                self.tree.atoms[rows.contexts[row].case].add(atom)
        return found


def positive_rows(part: References) -> set[int]:
    """Rows with a positive multiplier among these references."""
    return set(part.rows[part.values > 0].tolist())


def read_proof_tree(network: Path, specification: Path, certificate: Path) -> ProofTree:
    """Check a certificate, and give its tree. Raises InputError where the checker does not accept it."""
    try:
        reader = TreeReader(load_network(network), load_formula(specification))
        with readable(certificate), certificate.open("rb") as file:
            outcome = reader.run(records(file))
    except UnreadableError as error:
        raise InputError(str(error)) from None
    if outcome.status != CHECKED:
        raise InputError(f"{certificate}: {outcome.status}: {outcome.message}; only what is checked can be exported")
    return reader.tree
