"""Check a certificate: ``python -m toolkit.proof.check NETWORK SPECIFICATION CERTIFICATE``.

The checker reads the three files with nothing but this folder, numpy and onnx. It accepts (`checked`) when every case
of the specification has a proof that there is no point in it: a binary tree of splits, at each leaf a linear functional
that is not positive at any point that is sought, and positive everywhere in the leaf's context, as recomputed here.
docs/certificate.md says what statements there are and what `checked` means.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.proof.bounds import ADAPTIVE, ContextBounds, Fact, LowerBound, Model, Rows, backward, fresh_bounds, nearest
from toolkit.proof.formula import CaseFormula, load_formula
from toolkit.proof.identities import Multiples, are_multiples, merged, reader_of
from toolkit.proof.linear_maps import Array
from toolkit.proof.network import ProofNetwork, UnreadableError, load_network, readable
from toolkit.proof.stream import Damaged, HashedFile, LinearRows, Payload, RecordKind, records

CHECKED, REFUTED, INCOMPLETE = "checked", "refuted", "incomplete"
EXIT_CODES = {CHECKED: 0, REFUTED: 1, INCOMPLETE: 2}
LEAVES = 512
"""Most leaves that are bounded at once."""
NUMBERS = 1 << 21
"""Elements of all values of the contexts that are bounded at once."""
SHARE = 64
"""Leaves that follow each other and go to one process."""
MOST_SLOPES = 1 << 30
"""Bytes of slopes that are kept at once."""
MOST_CONTEXTS = 1 << 22
"""Contexts that are open at once."""
SECONDS = 5.0
"""Between two lines of progress."""
KEPT = 4
"""Boxes whose bounds are kept for other cases with the same box."""


@dataclass(frozen=True)
class CheckOutcome:
    """What came out of a check, why, and the place where it was seen, for the order of several processes."""

    status: str
    message: str
    place: tuple[int, int] = (0, 0)
    digest: bytes = b""
    """Of the certificate's bytes that were read."""


@dataclass(frozen=True)
class Half:
    """A half of a split: ``element <= point``, or ``>=`` where it is ``above``."""

    value: int
    index: int
    point: float
    above: bool


@dataclass
class ProofContext:
    """A part of a case that is not refuted so far: a node of the tree."""

    number: int
    case: int
    parent: ProofContext | None = None
    half: Half | None = None
    open_children: int = 0
    waiting: bool = False
    """A leaf that is about to be checked."""
    facts: list[tuple[int, Any, Any, Any]] = field(default_factory=list)
    """Value, indices, lower and upper ends: numbers of the half, arrays of other bounds."""
    halves: list[int] = field(default_factory=list)
    base: ContextBounds | None = None
    included: int = 0
    """The facts that `base` knows already."""

    def path(self) -> Iterator[ProofContext]:
        """This context and all above it."""
        context: ProofContext | None = self
        while context is not None:
            yield context
            context = context.parent


Share = tuple[int, int]
"""Number of one of several processes, and how many there are."""
Multipliers = tuple[Array, Array]
"""Numbers of what is multiplied, and factors."""


@dataclass(frozen=True)
class ProofRow:
    """One row of a record, with everything that it refers to."""

    place: tuple[int, int]
    context: ProofContext
    slopes: dict[int, Array]
    atoms: Multipliers
    splits: list[tuple[Half, float]]
    halves: Multipliers
    target: tuple[int, int, int] | None
    """Value, element, sign."""


@dataclass(frozen=True)
class CaseArrays:
    """A case's box, and its atoms as ``input_part x + output_part y + constant <= 0``."""

    lower: Array
    upper: Array
    input_part: Array
    output_part: Array
    constant: Array
    strict: Array


def require(true: bool, message: str) -> None:
    """Refuse a record that does not meet a condition."""
    if not true:
        raise Damaged(message)


class CertificateChecker:
    """Reads records and keeps the contexts that are open.

    Of several checkers, each bounds its share of the leaves and takes it that the others do theirs.
    """

    def __init__(self, network: ProofNetwork, formula: CaseFormula, exact: bool = False, share: Share = (0, 1)) -> None:
        check_match(network, formula)
        try:
            self.model = Model.of(network, exact)
        except ValueError as error:
            raise UnreadableError(f"no exact arithmetic for {error}") from None
        self.formula, (self.job, self.jobs) = formula, share
        self.arithmetic = self.model.arithmetic
        self.values: list[int] = []
        self.contexts: dict[int, ProofContext] = {}
        self.open_cases = {number for number in range(len(formula.cases)) if not formula.case(number).empty}
        self.begun: set[int] = set()
        self.slots: dict[int, dict[int, Array]] = {0: {}}
        self.half_spaces: dict[int, tuple[int, Array, Any]] = {}
        self.next_context = self.next_half = self.leaves = self.record = self.kept = 0
        self.arrays: dict[int, CaseArrays] = {}
        self.roots: dict[bytes, ContextBounds] = {}
        self.queue: dict[tuple[int, bool], list[ProofRow]] = {}
        self.finished = False
        self.readers: dict[int, Callable[[Payload], None]] = {
            kind: getattr(self, kind.name.lower()) for kind in RecordKind
        }

    def run(self, stream: Iterable[tuple[int, bytes]], progress: Callable[[str], None] | None = None) -> CheckOutcome:
        """Check the records of a certificate in order, and say what they prove."""
        seen = time.monotonic()
        try:
            for kind, data in stream:
                require(kind in self.readers, f"a record of kind {kind} is not known")
                first = (kind == RecordKind.HEADER) == (self.record == 0)
                require(first, "the header is not the first record, or not the only one")
                require(not self.finished, "there is a record after the last one")
                self.readers[kind](Payload(data))
                self.record += 1
                if progress is not None and time.monotonic() > seen + SECONDS:
                    seen = time.monotonic()
                    progress(f"{self.record} records, {self.leaves} leaves, {len(self.contexts)} contexts open")
            self.flush()
        except RefutedStatement as error:
            return CheckOutcome(REFUTED, *error.args)
        except (Damaged, zlib.error) as error:
            return CheckOutcome(REFUTED, f"record {self.record}: {error}", (self.record, 0))
        return self.outcome()

    def outcome(self) -> CheckOutcome:
        """What is to be said after the last record."""
        if not self.open_cases and self.record:
            counts = f"{len(self.formula.cases)} cases, {self.leaves} leaves, {self.record} records"
            return CheckOutcome(CHECKED, counts)
        without = ", ".join(map(str, sorted(self.open_cases)[:10]))
        contexts = [number for number, context in self.contexts.items() if not context.open_children][:10]
        where = f"; contexts that are open: {', '.join(map(str, contexts))}" if contexts else ""
        ended = "" if self.finished else "; the file ends too early"
        return CheckOutcome(INCOMPLETE, f"cases without a proof: {without or 'none'}{where}{ended}")

    @property
    def batch(self) -> int:
        """Leaves that are bounded at once."""
        return max(1, min(LEAVES, NUMBERS // sum(self.model.network.sizes)))

    # Records

    def header(self, payload: Payload) -> None:
        """Hashes, and the names of tensors."""
        require(payload.take(32) == self.model.network.digest, "the certificate is about another network")
        require(payload.take(32) == self.formula.digest, "the certificate is about another specification")
        self.values = [0]
        for _ in range(payload.number()):
            name = payload.take(payload.number()).decode(errors="replace")
            require(name in self.model.network.names, f"no nonlinear operator reads a tensor {name!r}")
            self.values.append(self.model.network.names[name])
        payload.end()

    def equal(self, payload: Payload) -> None:
        """Elements of a tensor that are multiples of others of it: the tensor is what is left of it from now on."""
        value, count = self.value(payload.number()), payload.number()
        stated = Multiples(payload.array(count), payload.array(count), payload.array(count, "<f8"))
        payload.end()
        network = self.model.network
        require(not self.begun, "a case has begun")
        require(stated.well_formed(network.sizes[value]), "these are no elements, or no powers of two, or stated twice")
        require(reader_of(network, value, stated) is not None, "the operator that reads the tensor does not allow it")
        wrong = stated.elements[~are_multiples(network, value, stated)][:1].tolist()
        require(not wrong, f"elements {wrong} are not such multiples of others")
        self.model = Model.of(merged(network, value, stated), self.arithmetic.exact)
        self.values = [len(network.sizes) if known == value else known for known in self.values]

    def case(self, payload: Payload) -> None:
        """Read the record with which the proof of a case begins."""
        number = payload.number()
        payload.end()
        require(number < len(self.formula.cases) and number not in self.begun, f"no case {number}, or a second time")
        self.begun.add(number)
        self.contexts[self.next_context] = ProofContext(self.next_context, number)
        self.next_context += 1

    def context(self, number: int) -> ProofContext:
        """A context that is open."""
        require(number in self.contexts, f"context {number} is not open")
        return self.contexts[number]

    def leaf(self, number: int) -> ProofContext:
        """A context that is open, and neither split nor about to be refuted."""
        context = self.context(number)
        require(not (context.open_children or context.waiting), f"context {number} is split, or refuted, already")
        return context

    def value(self, tensor: int) -> int:
        """The value of a tensor that the header names."""
        require(tensor < len(self.values), f"the header names no tensor {tensor}")
        return self.values[tensor]

    def element(self, tensor: int, index: int) -> tuple[int, int]:
        """An element of a tensor."""
        value = self.value(tensor)
        require(index < self.model.network.sizes[value], f"tensor {tensor} has no element {index}")
        return value, index

    def split(self, payload: Payload) -> None:
        """Split contexts in two halves each."""
        count = payload.number()
        contexts, tensors, indices = (payload.array(count).tolist() for _ in range(3))
        points = payload.array(count, "<f8").tolist()
        payload.end()
        require(len(self.contexts) + 2 * count <= MOST_CONTEXTS, "there are too many contexts")
        for number, tensor, index, point in zip(contexts, tensors, indices, points, strict=True):
            context, place = self.leaf(number), self.element(tensor, index)
            require(bool(np.isfinite(point)), "a context is split at no number")
            context.open_children = 2
            for above in (False, True):
                self.contexts[self.next_context] = self.below(context, self.next_context, Half(*place, point, above))
                self.next_context += 1

    def below(self, context: ProofContext, number: int, half: Half) -> ProofContext:
        """A half of a context, where its element is in a smaller range."""
        end = self.arithmetic.numbers(np.array([half.point]))[0]
        fact = (half.value, half.index, *((end, np.inf) if half.above else (-np.inf, end)))
        return ProofContext(number, context.case, context, half, facts=[fact])

    def slopes(self, payload: Payload) -> None:
        """Read the slopes that later bounds name by the number of their slot."""
        slot, found = payload.number(), {}
        require(slot > 0, "slot 0 is the one with adaptive slopes")
        for _ in range(payload.number()):
            value, size = self.value(payload.number()), payload.number()
            require(value > 0 and size == self.model.network.sizes[value], "these are not the slopes of a tensor")
            found[value] = payload.array(size, "u1")
        payload.end()
        for slopes, sign in ((self.slots.get(slot, {}), -1), (found, 1)):
            self.kept += sign * (64 + sum(map(len, slopes.values())))
        self.slots[slot] = found
        require(self.kept <= MOST_SLOPES, "there are too many slopes")

    def rows(self, record: LinearRows) -> Iterator[ProofRow]:
        """The rows of a record, with what they refer to."""
        references = (part.rows() for part in (record.atoms, record.splits, record.halves))
        listed = zip(record.contexts.tolist(), record.slots.tolist(), *references, strict=True)
        for row, (number, slot, atoms, splits, halves) in enumerate(listed):
            context, target = self.context(number), None
            require(slot in self.slots, f"slot {slot} is empty")
            if record.indices is not None and record.upper is not None:
                place = self.element(record.tensor, int(record.indices[row]))
                target = (*place, -1 if record.upper[row] else 1)
            known = len(self.case_arrays(context.case).constant)
            require(bool((atoms[0] < known).all()), f"case {context.case} has no such atom")
            above = {other.number: other for other in context.path()} if len(splits[0]) or len(halves[0]) else {}
            for half in halves[0].tolist():
                stated = half in self.half_spaces and self.half_spaces[half][0] in above
                require(stated, f"half-space {half} is not known in context {number}")
            used = []
            for split, factor in zip(splits[0].tolist(), splits[1].tolist(), strict=True):
                side = above[split].half if split in above else None
                if side is None:
                    raise Damaged(f"context {number} is not below a split {split}")
                used.append((side, factor))
            yield ProofRow((self.record, row), context, self.slots[slot], atoms, used, halves, target)

    def refute(self, payload: Payload) -> None:
        """Leaves, which wait until there are enough of them."""
        record = payload.linear(RecordKind.REFUTE)
        for row in self.rows(record):
            context = self.leaf(row.context.number)
            context.waiting = True
            self.leaves += 1
            if (self.leaves - 1) // SHARE % self.jobs != self.job:
                self.close(context)
                continue
            base = context.case if record.fresh else id(self.base(context))
            waiting = self.queue.setdefault((base, record.fresh), [])
            waiting.append(row)
            if len(waiting) >= self.batch:
                self.flush()

    def flush(self) -> None:
        """Bound the leaves that wait."""
        queue, self.queue = self.queue, {}
        for (_, fresh), rows in queue.items():
            for start in range(0, len(rows), self.batch):
                self.check_leaves(rows[start : start + self.batch], fresh)

    def check_leaves(self, rows: Sequence[ProofRow], fresh: bool) -> None:
        """Refute the contexts of these rows. Raises RefutedStatement for the first that is not."""
        bounds, owner, found = self.evaluate(rows, fresh)
        for number, row in enumerate(rows):
            atoms = self.case_arrays(row.context.case).strict[row.atoms[0]]
            strict = bool((atoms & (row.atoms[1] > 0)).any())
            least = found.least[number]
            positive = bool(self.arithmetic.finite(np.asarray(least)) and (least > 0 or (strict and least >= 0)))
            if not positive and not bool(bounds.crossed[owner[number]]):
                where = f"record {row.place[0]}, row {row.place[1]}: context {row.context.number}"
                why = f"{where} of case {row.context.case} is not refuted: the bound is {float(least)}"
                raise RefutedStatement(why, row.place)
            self.close(row.context)

    def bound(self, payload: Payload) -> None:
        """Bounds of elements, for the contexts and all below them."""
        record = payload.linear(RecordKind.BOUND)
        for rows, found in self.evaluated(record):
            owner, index, sign = np.array([(row.context.number, *row.target[1:]) for row in rows if row.target]).T
            lower = np.where(sign > 0, found.least, -np.inf)
            upper = np.where(sign > 0, np.inf, -found.least)
            known = self.arithmetic.finite(found.least)
            for number in np.unique(owner[known]).tolist():
                at = known & (owner == number)
                self.contexts[number].facts.append((self.value(record.tensor), index[at], lower[at], upper[at]))

    def half_space(self, payload: Payload) -> None:
        """Linear functions of the input, for the contexts and all below them."""
        for rows, found in self.evaluated(payload.linear(RecordKind.HALF_SPACE)):
            for number, row in enumerate(rows):
                known = self.arithmetic.finite(np.append(found.coefficients[number], found.constant[number]))
                require(bool(known.all()), "a half-space has a coefficient that is no number")
                half = (row.context.number, found.coefficients[number], found.constant[number])
                self.half_spaces[self.next_half] = half
                row.context.halves.append(self.next_half)
                self.next_half += 1

    def evaluated(self, record: LinearRows) -> list[tuple[list[ProofRow], LowerBound]]:
        """The rows of a record in batches, with their bounds, none of which uses another."""
        rows = list(self.rows(record))
        require(record.fresh or len({id(self.base(row.context)) for row in rows}) == 1,
                "the rows of one record begin at different bounds")  # fmt: skip
        batches = [rows[start : start + self.batch] for start in range(0, len(rows), self.batch)]
        return [(batch, self.evaluate(batch, record.fresh)[2]) for batch in batches]

    def recompute(self, payload: Payload) -> None:
        """Recompute the bounds of a context."""
        context = self.context(payload.number())
        payload.end()
        self.flush()
        if context.number in self.contexts:
            context.base, context.included = self.fresh([context]), len(context.facts)

    def end(self, payload: Payload) -> None:
        """Read the last record, which nothing follows."""
        payload.end()
        self.finished = True

    # Bounds

    def close(self, context: ProofContext) -> None:
        """A context is refuted: with its other half, the one above it is, too."""
        while True:
            del self.contexts[context.number]
            for half in context.halves:
                del self.half_spaces[half]
            if context.parent is None:
                self.open_cases.discard(context.case)
                self.arrays.pop(context.case, None)
                return
            context = context.parent
            context.open_children -= 1
            if context.open_children:
                return

    @cached_property
    def common_box(self) -> tuple[Array, Array]:
        """The box of the atoms that all cases have."""
        return self.arithmetic.box(self.formula.common_part.lower, self.formula.common_part.upper)

    def case_arrays(self, number: int) -> CaseArrays:
        """A case as arrays."""
        if number not in self.arrays:
            case, inputs = self.formula.case(number), self.formula.inputs
            box = self.common_box if case.common else self.arithmetic.box(case.lower, case.upper)
            table = self.arithmetic.zeros(len(case.atoms), inputs + self.formula.outputs + 1)
            for row, atom in enumerate(case.atoms):
                for place, weight in (*atom.coefficients, (-1, atom.constant)):
                    if weight and not 2.0**-900 < abs(weight) < 2.0**900:
                        raise UnreadableError(f"{self.formula.name}: case {number} has a number that is too large "
                                              "or too small")  # fmt: skip
                    table[row, place] = weight if self.arithmetic.exact else nearest(weight)
            strict = np.array([atom.strict for atom in case.atoms], bool)
            self.arrays[number] = CaseArrays(*box, table[:, :inputs], table[:, inputs:-1], table[:, -1], strict)
        return self.arrays[number]

    def base(self, context: ProofContext) -> ContextBounds:
        """The bounds of the next context above for which they have been computed; at least those of the case."""
        for other in context.path():
            if other.base is not None:
                return other.base
            root = other
        arrays = self.case_arrays(root.case)
        key = arrays.lower.tobytes() + arrays.upper.tobytes() if not self.arithmetic.exact else b""
        if key not in self.roots or not key:
            while len(self.roots) >= KEPT:
                del self.roots[next(iter(self.roots))]
            self.roots[key] = fresh_bounds(self.model, arrays.lower, arrays.upper, [])
        root.base = self.roots[key]
        return root.base

    def facts(self, contexts: Sequence[ProofContext], fresh: bool) -> list[Fact]:
        """What is known in contexts beyond the bounds that they begin with."""
        found = []
        for number, context in enumerate(contexts):
            for other in context.path():
                inherited = other.base is not None and not fresh
                found += [Fact(number, *fact) for fact in other.facts[other.included if inherited else 0 :]]
                if inherited:
                    break
        return found

    def fresh(self, contexts: Sequence[ProofContext]) -> ContextBounds:
        """Bounds of contexts from nothing but their boxes and what is known in them."""
        arrays = [self.case_arrays(context.case) for context in contexts]
        lower, upper = (np.concatenate([getattr(part, end) for part in arrays]) for end in ("lower", "upper"))
        return fresh_bounds(self.model, lower, upper, self.facts(contexts, fresh=True))

    def evaluate(self, rows: Sequence[ProofRow], fresh: bool) -> tuple[ContextBounds, Array, LowerBound]:
        """Bounds of contexts, the context of each row, and what the rows are at least."""
        contexts = {row.context.number: row.context for row in rows}
        places = {number: place for place, number in enumerate(contexts)}
        owner = np.array([places[row.context.number] for row in rows])
        different = list(contexts.values())
        if fresh:
            bounds = self.fresh(different)
        else:
            bounds = self.base(different[0]).narrowed(len(different), self.facts(different, fresh=False))
        with np.errstate(all="ignore"):
            return bounds, owner, backward(bounds, self.sums(rows, bounds, owner))

    def sums(self, rows: Sequence[ProofRow], bounds: ContextBounds, owner: Array) -> Rows:
        """The functionals of rows, with what adding them up may lose."""
        zeros, sizes = self.arithmetic.zeros, self.model.network.sizes
        start: dict[int, Array] = {}
        constant, loss = zeros(len(rows)), zeros(len(rows))
        for number, row in enumerate(rows):
            parts, magnitude = self.parts(row), zeros(1)
            for value, elements, coefficients, more in parts:
                size = bounds.size[value]
                if value not in start:
                    start[value] = zeros(len(rows), sizes[value])
                start[value][number, elements] += coefficients
                constant[number] += more
                magnitude += abs(coefficients) @ size[0 if len(size) == 1 else owner[number], elements] + abs(more)
            loss[number] = 2 * self.arithmetic.gamma(len(parts) + 8) * self.arithmetic.wider(magnitude, 1 << 30)[0]
        return Rows(owner, start, constant, loss, partial(slopes_of, rows))

    def parts(self, row: ProofRow) -> list[tuple[int, Any, Any, Any]]:
        """What a row is the sum of: value, elements, coefficients and constant of each part."""
        parts: list[tuple[int, Any, Any, Any]] = []
        if row.target is not None:
            value, index, sign = row.target
            parts.append((value, [index], np.array([sign]), 0))
        for half, factor in row.splits:
            beta, point = self.arithmetic.numbers(np.array([-factor if half.above else factor, half.point]))
            parts.append((half.value, [half.index], np.array([beta]), -beta * point))
        case, everything = self.case_arrays(row.context.case), slice(None)
        for atom, factor in zip(row.atoms[0].tolist(), self.arithmetic.numbers(row.atoms[1]), strict=True):
            parts.append((0, everything, factor * case.input_part[atom], factor * case.constant[atom]))
            parts.append((self.model.network.output, everything, factor * case.output_part[atom], 0))
        for number, factor in zip(row.halves[0].tolist(), self.arithmetic.numbers(row.halves[1]), strict=True):
            _, coefficients, constant = self.half_spaces[number]
            parts.append((0, everything, factor * coefficients, factor * constant))
        return parts


class RefutedStatement(Exception):  # noqa: N818
    """A leaf that is not refuted: why, and its place."""


def slopes_of(rows: Sequence[ProofRow], source: int) -> Array | None:
    """The slopes of all rows for steps that read a value."""
    found = [row.slopes.get(source) for row in rows]
    given = next((part for part in found if part is not None), None)
    if given is None or all(part is given for part in found):
        return None if given is None else given[None]
    return np.stack([np.full_like(given, ADAPTIVE) if part is None else part for part in found])


def check_match(network: ProofNetwork, formula: CaseFormula) -> None:
    """Check that the specification is about tensors like the network's. Raises UnreadableError."""
    inputs, outputs = sum(network.input_sizes), sum(network.output_sizes)
    if (inputs, outputs) != (formula.inputs, formula.outputs):
        raise UnreadableError(f"the network has {inputs} inputs and {outputs} outputs, the specification "
                              f"{formula.inputs} and {formula.outputs}")  # fmt: skip
    if formula.tensors and formula.tensors != network.input_sizes + network.output_sizes:
        raise UnreadableError("the tensors of the specification are not those of the network")
    for atom in formula.atoms:
        groups = {network.compared[v - inputs] if v >= inputs else -1 for v, _ in atom.coefficients}
        weights = [weight for _, weight in atom.coefficients]
        if groups - {-1} and not (len(groups) == 1 and len(weights) == 2 and sum(weights) == 0 and not atom.constant):
            raise UnreadableError(f"{formula.name}: outputs of a softmax may only be compared with each other")


def check_share(paths: tuple[Path, Path, Path], exact: bool, jobs: int, job: int) -> CheckOutcome:
    """Check a certificate, with one share of the leaves."""
    network, specification, certificate = paths
    checker = CertificateChecker(load_network(network), load_formula(specification), exact, (job, jobs))
    with readable(certificate), certificate.open("rb") as opened:
        file = HashedFile(opened)
        outcome = checker.run(records(file), partial(print, file=sys.stderr, flush=True) if job == 0 else None)
    return CheckOutcome(outcome.status, outcome.message, outcome.place, file.hash.digest())


def check(network: Path, specification: Path, certificate: Path, exact: bool = False, jobs: int = 1) -> CheckOutcome:
    """Check a certificate, in several processes. Raises UnreadableError."""
    share = partial(check_share, (network, specification, certificate), exact, jobs)
    if jobs == 1:
        return share(0)
    try:
        with ProcessPoolExecutor(jobs) as pool:
            outcomes = list(pool.map(share, range(jobs)))
    except BrokenProcessPool:
        return CheckOutcome(INCOMPLETE, "a process was lost")
    if failed := [outcome for outcome in outcomes if outcome.status == REFUTED]:
        return min(failed, key=lambda outcome: outcome.place)
    if len({outcome.digest for outcome in outcomes}) > 1:
        return CheckOutcome(INCOMPLETE, "the certificate changed while it was read")
    return next((outcome for outcome in outcomes if outcome.status != CHECKED), outcomes[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the first line on stdout is the status."""
    parser = argparse.ArgumentParser(description="Check a certificate: exit code 0 checked, 1 refuted, 2 neither.")
    parser.add_argument("network", type=Path)
    parser.add_argument("specification", type=Path)
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--jobs", type=int, default=1, choices=range(1, 257), metavar="N", help="processes")
    parser.add_argument("--exact", action="store_true", help="rational arithmetic, for tiny networks")
    given = parser.parse_args(arguments)
    try:
        outcome = check(given.network, given.specification, given.certificate, given.exact, given.jobs)
    except (UnreadableError, MemoryError) as error:
        print(f"error: {error or 'no memory'}", file=sys.stderr)
        return EXIT_CODES[INCOMPLETE]
    print(outcome.status)
    print(outcome.message)
    return EXIT_CODES[outcome.status]


if __name__ == "__main__":
    sys.exit(main())
