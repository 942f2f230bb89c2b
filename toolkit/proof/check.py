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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.proof.bounds import (
    ADAPTIVE,
    ContextBounds,
    Fact,
    LowerBound,
    Model,
    Rows,
    backward,
    fresh_bounds,
    nearest,
)
from toolkit.proof.formula import CaseFormula, load_formula
from toolkit.proof.linear_maps import Array
from toolkit.proof.network import ProofNetwork, UnreadableError, load_network
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
    facts: list[tuple[int, Array, Array, Array]] = field(default_factory=list)
    """Value, indices, lower and upper ends."""
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

    def __init__(
        self, network: ProofNetwork, formula: CaseFormula, *, exact: bool = False, job: int = 0, jobs: int = 1
    ) -> None:
        check_match(network, formula)
        try:
            self.model = Model.of(network, exact)
        except ValueError as error:
            raise UnreadableError(f"no exact arithmetic for {error}") from None
        self.formula, self.job, self.jobs = formula, job, jobs
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
        self.batch = max(1, min(LEAVES, NUMBERS // sum(network.sizes)))
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
            return CheckOutcome(REFUTED, f"record {error.place[0]}, row {error.place[1]}: {error}", error.place)
        except Damaged as error:
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
                half = Half(*place, point, above)
                self.contexts[self.next_context] = ProofContext(self.next_context, context.case, context, half)
                self.next_context += 1

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
        references = [record.atoms, record.splits, record.halves]
        ends = [np.cumsum(part.counts)[:-1] for part in references]
        cut = [
            zip(np.split(part.numbers, end), np.split(part.values, end), strict=True)
            for part, end in zip(references, ends, strict=True)
        ]
        listed = zip(record.contexts.tolist(), record.slots.tolist(), *cut, strict=True)
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
                where = f"context {row.context.number} of case {row.context.case}"
                raise RefutedStatement(f"{where} is not refuted: the bound is {float(least)}", row.place)
            self.close(row.context)

    def bound(self, payload: Payload) -> None:
        """Bounds of elements, for the contexts and all below them."""
        record = payload.linear(RecordKind.BOUND)
        for rows, least in self.evaluated(record):
            found: dict[int, list[tuple[int, Any, Any]]] = {}
            for row, low in zip(rows, least.least, strict=True):
                assert row.target is not None
                _, index, sign = row.target
                if self.arithmetic.finite(np.asarray(low)):
                    ends = (low, np.inf) if sign > 0 else (-np.inf, -low)
                    found.setdefault(row.context.number, []).append((index, *ends))
            kind = object if self.arithmetic.exact else float
            for number, ranges in found.items():
                indices, lower, upper = zip(*ranges, strict=True)
                fact = (self.value(record.tensor), np.array(indices), np.array(lower, kind), np.array(upper, kind))
                self.contexts[number].facts.append(fact)

    def half_space(self, payload: Payload) -> None:
        """Linear functions of the input, for the contexts and all below them."""
        for rows, found in self.evaluated(payload.linear(RecordKind.HALF_SPACE)):
            for number, row in enumerate(rows):
                known = self.arithmetic.finite(found.constant[number : number + 1]).all()
                known = known and self.arithmetic.finite(found.coefficients[number]).all()
                require(bool(known), "a half-space has a coefficient that is no number")
                half = (row.context.number, found.coefficients[number], found.constant[number])
                self.half_spaces[self.next_half] = half
                row.context.halves.append(self.next_half)
                self.next_half += 1

    def evaluated(self, record: LinearRows) -> Iterator[tuple[list[ProofRow], LowerBound]]:
        """The rows of a record in batches, with their bounds, none of which uses another."""
        parts: dict[int, list[ProofRow]] = {}
        order = self.rows(record)
        results = []
        while rows := list(islice(order, self.batch)):
            for row in rows:
                parts.setdefault(0 if record.fresh else id(self.base(row.context)), []).append(row)
            require(len(parts) == 1, "the rows of one record begin at different bounds")
            results.append((rows, self.evaluate(rows, record.fresh)[2]))
        yield from results

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
        exact, found = self.arithmetic.exact, []
        for number, context in enumerate(contexts):
            for other in context.path():
                inherited = other.base is not None and not fresh
                found += [Fact(number, *fact) for fact in other.facts[other.included if inherited else 0 :]]
                if inherited:
                    break
                if other.half is not None:
                    point = self.arithmetic.numbers(np.array([other.half.point]))
                    nothing = np.array([np.inf], object if exact else float)
                    ends = (point, nothing) if other.half.above else (-nothing, point)
                    found.append(Fact(number, other.half.value, np.array([other.half.index]), *ends))
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
            sums = RowSums(self, bounds, owner)
            for number, row in enumerate(rows):
                sums.add(number, row)
        ready = Rows(owner, sums.start, sums.constant, sums.loss, partial(slopes_of, rows))
        return bounds, owner, backward(bounds, ready)


class RefutedStatement(Exception):  # noqa: N818
    """A leaf that is not refuted."""

    def __init__(self, message: str, place: tuple[int, int]) -> None:
        super().__init__(message)
        self.place = place


class RowSums:
    """The functionals of rows: target, atoms, splits and half-spaces, with what adding them up may lose."""

    def __init__(self, checker: CertificateChecker, bounds: ContextBounds, owner: Array) -> None:
        self.checker, self.bounds, self.owner = checker, bounds, owner
        zeros = checker.arithmetic.zeros
        self.start: dict[int, Array] = {}
        self.constant, self.loss = zeros(len(owner)), zeros(len(owner))

    def coefficients(self, value: int) -> Array:
        """The coefficients on a value, zeros at first."""
        if value not in self.start:
            self.start[value] = self.checker.arithmetic.zeros(len(self.owner), self.checker.model.network.sizes[value])
        return self.start[value]

    def add(self, number: int, row: ProofRow) -> None:
        """Begin a row: put its target, splits and atoms on the values that they are about."""
        arithmetic, network = self.checker.arithmetic, self.checker.model.network
        sizes = {value: size[0 if len(size) == 1 else self.owner[number]] for value, size in self.bounds.size.items()}
        magnitude: Any = 0
        if row.target is not None:
            value, index, sign = row.target
            self.coefficients(value)[number, index] += sign
            magnitude += sizes[value][index]
        for half, factor in row.splits:
            beta, point = (arithmetic.numbers(np.array([x]))[0] for x in (factor, half.point))
            sign = -1 if half.above else 1
            self.coefficients(half.value)[number, half.index] += sign * beta
            self.constant[number] -= sign * beta * point
            magnitude += beta * (sizes[half.value][half.index] + abs(point))
        if len(row.atoms[0]):
            case = self.checker.case_arrays(row.context.case)
            factors = arithmetic.numbers(row.atoms[1])
            for value, table in ((0, case.input_part), (network.output, case.output_part)):
                part = table[row.atoms[0]]
                self.coefficients(value)[number] += factors @ part
                magnitude += (factors @ abs(part)) @ sizes[value]
            self.constant[number] += factors @ case.constant[row.atoms[0]]
            magnitude += factors @ abs(case.constant[row.atoms[0]])
        for half, factor in zip(row.halves[0].tolist(), arithmetic.numbers(row.halves[1]), strict=True):
            _, coefficients, constant = self.checker.half_spaces[half]
            self.coefficients(0)[number] += factor * coefficients
            self.constant[number] += factor * constant
            magnitude += factor * (abs(coefficients) @ sizes[0] + abs(constant))
        terms = len(row.splits) + len(row.atoms[0]) + len(row.halves[0]) + 8
        wide = arithmetic.wider(np.asarray(magnitude), 1 << 30) if not arithmetic.exact else 0
        self.loss[number] += 2 * arithmetic.gamma(terms) * wide


def slopes_of(rows: Sequence[ProofRow], source: int) -> Array | None:
    """The slopes of all rows for steps that read a value."""
    found = [row.slopes.get(source) for row in rows]
    given = next((part for part in found if part is not None), None)
    if given is None:
        return None
    if all(part is given for part in found):
        return given[None]
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
    checker = CertificateChecker(load_network(network), load_formula(specification), exact=exact, job=job, jobs=jobs)
    try:
        with certificate.open("rb") as opened:
            file = HashedFile(opened)
            outcome = checker.run(records(file), report if job == 0 else None)
    except OSError as error:
        raise UnreadableError(f"{certificate}: {error.strerror}") from None
    return CheckOutcome(outcome.status, outcome.message, outcome.place, file.hash.digest())


def report(line: str) -> None:
    """Show a line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


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
