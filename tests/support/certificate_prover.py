"""A plain prover that writes certificates, with the checker's own bounds: it splits boxes, in half-spaces that it
states or without, or phases.

Only for tests of the checker: it tries the whole path from a tree of contexts to an answer, without a real search.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.certificates.writer import CertificateWriter, references
from toolkit.proof.bounds import nonlinear_in
from toolkit.proof.check import CertificateChecker, Half, ProofContext
from toolkit.proof.formula import load_formula
from toolkit.proof.network import load_network
from toolkit.proof.stream import LinearRows, References


class CertificateProver:
    """Proves the cases of a specification one after the other and collects the bytes of the certificate."""

    def __init__(
        self, network: Path, specification: Path, phases: bool = False, exact: bool = False, spaces: bool = False
    ) -> None:
        self.network, self.formula, self.phases = load_network(network), load_formula(specification), phases
        self.spaces = spaces
        self.checker = CertificateChecker(self.network, self.formula, exact=exact)
        names = list(self.network.names)
        self.tensors = {0: 0, **{self.network.names[name]: number for number, name in enumerate(names, 1)}}
        self.writer = CertificateWriter(self.network.digest, self.formula.digest, names)
        self.data = [self.writer.header()]

    def prove(self, most: int = 20_000) -> bool:
        """Whether all cases were proved with so many contexts; `data` has the certificate."""
        for number in range(len(self.formula.cases)):
            if self.formula.case(number).empty:
                continue
            context, record = self.writer.case(number)
            self.data.append(record)
            frontier = [ProofContext(context, number)]
            while frontier:
                batch, frontier = frontier[-256:], frontier[:-256]
                batch.sort(key=lambda context: context.number)
                if self.writer.contexts > most:
                    return False
                frontier += self.round(batch)
        self.data.append(self.writer.end())
        return True

    def write(self, path: Path) -> Path:
        """Write the certificate."""
        path.write_bytes(b"".join(self.data))
        return path

    def round(self, batch: Sequence[ProofContext]) -> list[ProofContext]:
        """Refute contexts, or split them."""
        atoms = len(self.checker.case_arrays(batch[0].case).constant)
        contexts = [context for context in batch for _ in range(atoms)]
        count = len(contexts)
        each = References(np.ones(count, int), np.tile(np.arange(atoms), len(batch)), np.ones(count))
        none, slopes = references([{}] * count), np.array([{}] * count, object)
        rows = LinearRows(not self.phases, np.array(contexts, object), slopes, each, none, none)
        bounds, owner, found = self.checker.evaluate(rows)
        least = np.where(bounds.crossed[owner], 1, found.least).reshape(len(batch), atoms)
        best = least.argmax(1)
        proved = least.max(1) > 0
        if proved.any():
            numbers = np.array([context.number for context in batch])[proved]
            none = references([{}] * len(numbers))
            chosen = references([{int(atom): 1.0} for atom in best[proved]])
            slots = np.zeros(len(numbers))
            rows_ = LinearRows(not self.phases, numbers, slots, chosen, none, none)
            self.data.append(self.writer.refute(rows_))
        if self.spaces and not proved.all():
            left = np.flatnonzero(~proved)
            none, chosen = references([{}] * len(left)), references([{int(atom): 1.0} for atom in best[left]])
            numbers = np.array([batch[row].number for row in left])
            halves, record = self.writer.half_space(LinearRows(True, numbers, np.zeros(len(left)), chosen, none, none))
            self.data.append(record)
            for row, half in zip(left.tolist(), halves.tolist(), strict=True):
                at = row * atoms + int(best[row])
                self.checker.half_spaces[half] = found.coefficients[at], found.constant[at]
                batch[row].halves.append(half)
        places = [(context, self.choice(bounds, number)) for number, context in enumerate(batch) if not proved[number]]
        return self.split(places) if places else []

    def choice(self, bounds, number: int) -> tuple[int, int, float]:
        """Value, element and point of a split: the neuron that is most open, or the widest input."""
        best = (0.0, 0, 0, 0.0)
        for value, steps in self.checker.model.read.items() if self.phases else ():
            l, u = (ends[value][number if len(ends[value]) > 1 else 0] for ends in (bounds.lower, bounds.upper))
            gap = np.where(nonlinear_in(steps[0], l, u), np.minimum(-l, u), 0)
            best = max(best, (gap.max(), value, int(gap.argmax()), 0.0))
        if best[0] > 0:
            return best[1:]
        l, u = (ends[0][number if len(ends[0]) > 1 else 0] for ends in (bounds.lower, bounds.upper))
        widest = int((u - l).argmax())
        return 0, widest, float((l[widest] + u[widest]) / 2)

    def split(self, places: Sequence[tuple[ProofContext, tuple[int, int, float]]]) -> list[ProofContext]:
        """Both halves of each context."""
        numbers = [context.number for context, _ in places]
        values, indices, points = zip(*(place for _, place in places), strict=True)
        children, record = self.writer.split(numbers, [self.tensors[v] for v in values], indices, points)
        self.data.append(record)
        return [
            self.checker.below(context, int(child), Half(*place, above))
            for (context, place), pair in zip(places, children, strict=True)
            for child, above in zip(pair, (False, True), strict=True)
        ]
