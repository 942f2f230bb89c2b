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
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.proof.bounds import ADAPTIVE, ContextBounds, Fact, LowerBound, Model, Rows, backward, fresh_bounds
from toolkit.proof.floats import FloatErrors, unsuited
from toolkit.proof.formula import CaseFormula, FormulaCase, load_formula
from toolkit.proof.identities import Multiples, are_multiples, merged, reader_of
from toolkit.proof.linear_maps import Array
from toolkit.proof.network import ProofNetwork, UnreadableError, load_network, readable
from toolkit.proof.stream import Damaged, LinearRows, Payload, RecordKind, records

CHECKED, REFUTED, INCOMPLETE = "checked", "refuted", "incomplete"
EXIT_CODES = {CHECKED: 0, REFUTED: 1, INCOMPLETE: 2}
LEAVES = 1024
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
    """What came out of a check, why, and the record where it was seen, for the order of several processes."""

    status: str
    message: str
    record: int = 0
    floats: bool = False
    """Whether it is about evaluations in the network's floating-point type."""


class Half(NamedTuple):
    """A half of a split: ``element <= point``, or ``>=`` where it is ``above``."""

    value: int
    place: int
    point: float
    above: bool


@dataclass(eq=False)
class ProofContext:
    """A part of a case that is not refuted so far: a node of the tree."""

    number: int
    case: int
    parent: ProofContext | None = None
    half: Half | None = None
    open_children: int = 0
    known: dict[int, tuple[Array, ...]] = field(default_factory=dict)
    """Indices, lower and upper ends of elements of values, beyond `base` or that of a context above."""
    halves: list[int] = field(default_factory=list)
    base: ContextBounds | None = None

    def path(self, least: int = 0) -> Iterator[ProofContext]:
        """This context and those above it whose numbers, which fall on the way, are not below ``least``."""
        context: ProofContext | None = self
        while context is not None and context.number >= least:
            yield context
            context = context.parent


Share = tuple[int, int]
"""Number of one of several processes, and how many there are."""


class CaseArrays(NamedTuple):
    """A case's box, and its atoms as ``input_part x + output_part y + constant <= 0``."""

    lower: Array
    upper: Array
    input_part: Array
    output_part: Array
    constant: Array
    strict: Array


def with_fact(known: dict[int, tuple[Array, ...]], value: int, fact: tuple[Array, ...]) -> dict[int, tuple[Array, ...]]:
    """What is known of values, and one thing more."""
    both = (known[value], fact) if value in known else (fact,)
    return {**known, value: tuple(map(np.concatenate, zip(*both, strict=True)))}


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
        with readable("no exact arithmetic"):
            self.model = Model.of(network, exact)
        self.formula, self.arithmetic, (self.job, self.jobs) = formula, self.model.arithmetic, share
        self.values: list[int] = []
        self.contexts: dict[int, ProofContext] = {}
        self.open_cases = {number for number in range(len(formula.cases)) if not formula.case(number).empty}
        self.begun: set[int] = set()
        self.slots: dict[int, dict[int, Array]] = {0: {}}
        self.half_spaces: dict[int, tuple[Array, Any]] = {}
        self.next_context = self.next_half = self.leaves = self.record = 0
        self.arrays: dict[int, CaseArrays] = {}
        self.roots: dict[tuple[Any, ...], ContextBounds] = {}
        self.float_errors = lru_cache(KEPT)(FloatErrors)
        self.evaluated_network: Model | None = None
        """Whose evaluations in its floating-point type are meant, if they are."""
        self.finished = False
        self.readers: dict[int, Any] = {kind: getattr(self, kind.name.lower()) for kind in RecordKind}

    def run(self, stream: Iterable[tuple[int, bytes]], progress: Callable[[str], None] | None = None) -> CheckOutcome:
        """Check the records of a certificate in order, and say what they prove."""
        seen = time.monotonic()
        try:
            for kind, data in stream:
                require(kind in self.readers, f"a record of kind {kind} is not known")
                require((kind == RecordKind.HEADER) == (self.record == 0), "the first record alone is a header")
                require(not self.finished, "there is a record after the last one")
                self.readers[kind](Payload(data))
                self.record += 1
                if progress is not None and time.monotonic() > seen + SECONDS:
                    seen = time.monotonic()
                    progress(f"{self.record} records, {self.leaves} leaves, {len(self.contexts)} contexts open")
        except (Damaged, zlib.error) as error:
            return CheckOutcome(REFUTED, f"record {self.record}: {error}", self.record)
        return self.outcome()

    def outcome(self) -> CheckOutcome:
        """What is to be said after the last record."""
        if not self.open_cases and self.record:
            counts = f"{len(self.formula.cases)} cases, {self.leaves} leaves, {self.record} records"
            floats = self.evaluated_network is not None
            return CheckOutcome(CHECKED, counts + floats * ", for every evaluation in floating point", floats=floats)
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

    def floats(self, payload: Payload) -> None:
        """Evaluations of the network in its floating-point type are meant, not its values in real numbers."""
        kind = payload.number()
        payload.end()
        require(self.record == 1, "this is not the second record")
        require({kind} == self.model.network.types, "the network is not of this type alone")
        self.mean_floats()

    def mean_floats(self) -> None:
        """Have all cases be about evaluations. Raises Damaged where nothing is known of what these may be off by."""
        require(not (reason := unsuited(self.model.network)), reason)
        self.evaluated_network = Model.of(self.model.network) if self.arithmetic.exact else self.model

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
        """Read the record with which the proof of a case begins, or what all cases have in common."""
        number, above, common = payload.number(), payload.number(), len(self.formula.cases)
        payload.end()
        # An open case has points, and so bounds of all inputs.
        require(number not in self.begun and (number in self.open_cases or number == common), f"no open case {number}")
        self.begun.add(number)
        begun = self.contexts[self.next_context] = ProofContext(self.next_context, number)
        self.next_context += 1
        if above:
            start = self.leaf(above - 1)
            alone = start.case == common and all(other.open_children < 2 for other in start.path())
            require(alone, f"context {start.number} is not all that is left of what the cases have in common")
            begun.base = self.base(start).narrowed(1, self.facts([start]))

    def context(self, number: int) -> ProofContext:
        """A context that is open."""
        require(number in self.contexts, f"context {number} is not open")
        return self.contexts[number]

    def leaf(self, number: int) -> ProofContext:
        """A context that is open and not split."""
        context = self.context(number)
        require(not context.open_children, f"context {number} is split already")
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
        end, none = self.arithmetic.numbers(np.array([half.point])), np.array([np.inf])
        fact = (np.array([half.place]), *((end, none) if half.above else (-none, end)))
        return ProofContext(number, context.case, context, half, known=with_fact(context.known, half.value, fact))

    def slopes(self, payload: Payload) -> None:
        """Read the slopes that later bounds name by the number of their slot."""
        slot, found = payload.number(), {}
        require(slot > 0, "slot 0 is the one with adaptive slopes")
        for _ in range(payload.number()):
            value, size = self.value(payload.number()), payload.number()
            require(value > 0 and size == self.model.network.sizes[value], "these are not the slopes of a tensor")
            found[value] = payload.array(size, "u1")
        payload.end()
        self.slots[slot] = found
        require(len(self.slots) * (64 + sum(self.model.network.sizes)) <= MOST_SLOPES, "there are too many slopes")

    def rows(self, record: LinearRows) -> LinearRows:
        """The rows of a record, with the contexts and the slopes that they name in place of numbers."""
        slots = record.slots.tolist()
        require(set(slots) <= self.slots.keys(), "a slot is empty")
        if record.indices is not None:
            self.element(record.tensor, int(record.indices.max()))
        numbers, row = np.unique(record.contexts, return_inverse=True)
        contexts = [self.context(number) for number in numbers.tolist()]
        least = 0 if len(record.halves.numbers) else min(record.splits.numbers, default=self.next_context)
        above = [list(context.path(least)) for context in contexts]
        for kind, part, known in (
            ("atom", record.atoms, [range(len(self.case_arrays(context.case).constant)) for context in contexts]),
            ("split above it", record.splits, [[o.number for o in path if o.half is not None] for path in above]),
            ("half-space", record.halves, [[half for o in path for half in o.halves] for path in above]),
        ):
            pairs = np.repeat(np.arange(len(known)), list(map(len, known))) << 32 | np.concatenate(known).astype(int)
            for wrong in np.flatnonzero(~np.isin(row[part.rows] << 32 | part.numbers, pairs))[:1].tolist():
                raise Damaged(f"context {record.contexts[part.rows[wrong]]} has no {kind} {part.numbers[wrong]}")
        return replace(record, contexts=np.array(contexts, object)[row], slots=np.array([self.slots[s] for s in slots]))

    def refute(self, payload: Payload) -> None:
        """Leaves; those of other processes are taken to be refuted."""
        rows, mine = self.rows(payload.linear(RecordKind.REFUTE)), dict[int, list[int]]()
        require(len(set(map(id, rows.contexts))) == len(rows), "a context is refuted twice")
        for row, context in enumerate(rows.contexts):
            self.leaf(context.number)
            if self.leaves // SHARE % self.jobs == self.job:
                mine.setdefault(id(self.base(context)), []).append(row)
            self.leaves += 1
        for chosen in mine.values():
            for batch in rows.select(np.array(chosen)).batches(self.batch):
                self.check_leaves(batch)
        for context in rows.contexts:
            self.close(context)

    def check_leaves(self, rows: LinearRows) -> None:
        """Check that rows refute their contexts. Raises Damaged for the first that does not."""
        bounds, owner, found = self.evaluate(rows)
        strict = np.zeros(len(rows), bool)
        for row, atom, factor in zip(rows.atoms.rows, rows.atoms.numbers, rows.atoms.values, strict=True):
            strict[row] |= factor > 0 and self.case_arrays(rows.contexts[row].case).strict[atom]
        refuted = (found.least > 0) | (strict & (found.least >= 0)) | bounds.crossed[owner]
        for row in np.flatnonzero(~refuted).tolist():
            where = f"context {rows.contexts[row].number} of case {rows.contexts[row].case}"
            raise Damaged(f"{where} is not refuted: the bound is {float(found.least[row])}")

    def bound(self, payload: Payload) -> None:
        """Bounds of elements, for the contexts and all below them."""
        for rows, owner, found in self.evaluated(payload.linear(RecordKind.BOUND)):
            assert rows.indices is not None and rows.upper is not None
            ends = np.where(rows.upper > 0, -np.inf, found.least), np.where(rows.upper > 0, -found.least, np.inf)
            for at in np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1]):
                context, stated = rows.contexts[at[0]], tuple(part[at] for part in (rows.indices, *ends))
                context.known = with_fact(context.known, self.value(rows.tensor), stated)

    def half_space(self, payload: Payload) -> None:
        """Linear functions of the input, for the contexts and all below them."""
        for rows, _, found in self.evaluated(payload.linear(RecordKind.HALF_SPACE)):
            for number, context in enumerate(rows.contexts):
                known = self.arithmetic.finite(np.append(found.coefficients[number], found.constant[number]))
                require(bool(known.all()), "a half-space has a coefficient that is no number")
                self.half_spaces[self.next_half] = found.coefficients[number], found.constant[number]
                context.halves.append(self.next_half)
                self.next_half += 1

    def evaluated(self, record: LinearRows) -> list[tuple[LinearRows, Array, LowerBound]]:
        """The rows of a record in batches, with their contexts, counted from 0, and bounds; none uses another."""
        rows = self.rows(record)
        require(len({id(self.base(context)) for context in set(rows.contexts.tolist())}) == 1, "rows of several bounds")
        return [(batch, *self.evaluate(batch)[1:]) for batch in rows.batches(self.batch)]

    def recompute(self, payload: Payload) -> None:
        """Bounds of a context for all below it: computed anew, or what is known of it already."""
        context, anew = self.context(payload.number()), payload.take(1) != b"\0"
        payload.end()
        known = self.base(context).narrowed(1, self.facts([context]))
        context.base, context.known = self.fresh([context]) if anew else known, {}

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

    def case_arrays(self, number: int) -> CaseArrays:
        """A case as arrays."""
        if number not in self.arrays:
            case, inputs = self.formula.case(number), self.formula.inputs
            table = self.arithmetic.zeros(len(case.atoms), inputs + self.formula.outputs + 1)
            for row, atom in enumerate(case.atoms):
                for place, weight in (*atom.coefficients, (-1, atom.constant)):
                    if weight and not 2.0**-900 < abs(weight) < 2.0**900:
                        raise UnreadableError(f"{self.formula.name}: case {number}: a number is too large or too small")
                    table[row, place] = weight if self.arithmetic.exact else float(weight)
            strict = np.array([atom.strict for atom in case.atoms], bool)
            box, least = self.arithmetic.box(case.lower, case.upper), table[:, -1] - self.room(case, table[:, :-1])
            self.arrays[number] = CaseArrays(*box, table[:, :inputs], table[:, inputs:-1], least, strict)
        return self.arrays[number]

    def base(self, context: ProofContext) -> ContextBounds:
        """The bounds of the next context above for which they have been computed; at least those of the case."""
        for other in context.path():
            if other.base is not None:
                return other.base
            root = other
        arrays = self.case_arrays(root.case)
        root.base = self.root_bounds(self.model, arrays.lower, arrays.upper, few=True)
        return root.base

    def root_bounds(self, model: Model, lower: Array, upper: Array, few: bool = False) -> ContextBounds:
        """Bounds of a network in a box, maybe with few inputs, which are kept for a while."""
        key = id(model), few, *lower[0].tolist(), *upper[0].tolist()
        if key not in self.roots:
            found = fresh_bounds(model.in_box(lower, upper) if few else model, lower, upper, [])
            self.roots = dict([*self.roots.items(), (key, found)][-KEPT:])
        return self.roots[key]

    def room(self, case: FormulaCase, atoms: Array) -> Any:
        """What evaluations of atoms, ``(K, n)``, may be off by, where these are meant."""
        if self.evaluated_network is None or not case.atoms:
            return 0
        box = self.evaluated_network.arithmetic.box(case.lower, case.upper)
        errors = self.float_errors(self.root_bounds(self.evaluated_network, *box))
        return self.arithmetic.numbers(errors.change(*np.split(atoms.astype(float), [self.formula.inputs], 1)))

    def facts(self, contexts: Sequence[ProofContext]) -> list[Fact]:
        """What is known in contexts beyond the bounds that they begin with, for each value."""
        found: dict[int, list[tuple[Array, ...]]] = {}
        for number, context in enumerate(contexts):
            for value, fact in context.known.items():
                found.setdefault(value, []).append((np.full(len(fact[0]), number), *fact))
        return [Fact(value, *map(np.concatenate, zip(*facts, strict=True))) for value, facts in found.items()]

    def fresh(self, contexts: Sequence[ProofContext]) -> ContextBounds:
        """Bounds of contexts that begin with the same ones, from these, their boxes and what is known in them."""
        arrays = [self.case_arrays(context.case) for context in contexts]
        lower, upper = (np.concatenate([getattr(part, end) for part in arrays]) for end in ("lower", "upper"))
        halves = [next((half for other in context.path() for half in other.halves[::-1]), -1) for context in contexts]
        halves = halves if max(halves) >= 0 else [-1]  # one row for all, which costs the passes nothing
        spaces = [self.half_spaces.get(half, (0 * lower[0], 0 * lower[0, 0])) for half in halves]
        space = np.array([normal for normal, _ in spaces]), np.array([level for _, level in spaces])
        facts, above = self.facts(contexts), self.base(contexts[0])
        return fresh_bounds(above.model, lower, upper, facts, above=above, space=space)

    def evaluate(self, rows: LinearRows) -> tuple[ContextBounds, Array, LowerBound]:
        """Bounds of contexts, the context of each row, and what the rows are at least."""
        numbers = [context.number for context in rows.contexts]
        _, first, owner = np.unique(numbers, return_index=True, return_inverse=True)
        different, base = rows.contexts[first].tolist(), self.base(rows.contexts[0])
        bounds = self.fresh(different) if rows.fresh else base.narrowed(len(different), self.facts(different))
        with np.errstate(all="ignore"):
            return bounds, owner, backward(bounds, self.sums(rows, bounds, owner))

    def sums(self, rows: LinearRows, bounds: ContextBounds, owner: Array) -> Rows:
        """The functionals of rows, with what adding them up may lose."""
        start: dict[int, Array] = {}
        constant, magnitude = self.arithmetic.zeros(2, len(owner))
        parts = list(self.terms(rows))
        for row, number, factor, constants, tables in parts:
            weights, reach = self.arithmetic.zeros(len(owner), len(constants)), abs(constants)[None]
            np.add.at(weights, (row, number), factor := self.arithmetic.numbers(factor))
            constant = constant + weights @ constants
            for value, table in tables.items():
                size = bounds.size[value]
                more, size = (weights, size) if table is None else (weights @ table, size @ abs(table).T)
                start[value] = start[value] + more if value in start else more
                reach = reach + size
            each = abs(factor) * reach[owner[row] % len(reach), number]
            np.add.at(magnitude, row, np.where(factor != 0, each, 0))
        most = int((1 + rows.atoms.counts + rows.splits.counts + rows.halves.counts).max())
        loss = 2 * self.arithmetic.gamma(2 * (most + len(parts)) + 8) * self.arithmetic.wider(magnitude, 1 << 30)
        return Rows(owner, start, constant, loss, partial(slopes_of, rows.slots))

    def terms(self, rows: LinearRows) -> Iterator[tuple[Array, Array, Array, Array, dict[int, Array | None]]]:
        """What rows are sums of, as multiples of K functions: row, function and factor of each; constants ``(K,)``;
        coefficients ``(K, n)`` on values, None where functions are the elements of a value."""
        sizes, zeros = self.model.network.sizes, self.arithmetic.zeros
        if rows.indices is not None and rows.upper is not None:
            value, signs = self.value(rows.tensor), np.where(rows.upper > 0, -1.0, 1.0)
            yield np.arange(len(rows)), rows.indices, signs, zeros(sizes[value]), {value: None}
        used, number = np.unique(rows.splits.numbers, return_inverse=True)
        sides = [half for half in (self.contexts[split].half for split in used.tolist()) if half is not None]
        signs, row = np.array([-1 if half.above else 1 for half in sides]), rows.splits.rows
        factor = rows.splits.values * signs[number]
        for value in {half.value for half in sides}:
            at = np.array([half.value == value for half in sides])[number]
            index = np.array([half.place for half in sides])[number[at]]
            yield row[at], index, factor[at], zeros(sizes[value]), {value: None}
        yield row, number, factor, self.arithmetic.numbers(np.array([-half.point for half in sides])), {}
        case_of = np.array([context.case for context in rows.contexts])[rows.atoms.rows]
        for chosen in np.unique(case_of).tolist():
            case, at = self.case_arrays(chosen), case_of == chosen
            yield (rows.atoms.rows[at], rows.atoms.numbers[at], rows.atoms.values[at], case.constant,
                   {0: case.input_part, self.model.network.output: case.output_part})  # fmt: skip
        used, number = np.unique(rows.halves.numbers, return_inverse=True)
        if len(used):
            coefficients, constants = zip(*(self.half_spaces[half] for half in used.tolist()), strict=True)
            yield rows.halves.rows, number, rows.halves.values, np.array(constants), {0: np.array(coefficients)}


def slopes_of(slopes: Array, source: int) -> Array | None:
    """The slopes of all rows for steps that read a value."""
    found = [row.get(source) for row in slopes]
    given = next((part for part in found if part is not None), None)
    if given is None or all(part is given for part in found):
        return None if given is None else given[None]
    return np.stack([np.full_like(given, ADAPTIVE) if part is None else part for part in found])


def check_match(network: ProofNetwork, formula: CaseFormula) -> None:
    """Check that the specification is about tensors like the network's. Raises UnreadableError."""
    inputs, outputs = sum(network.input_sizes), sum(network.output_sizes)
    if (inputs, outputs) != (formula.inputs, formula.outputs):
        raise UnreadableError(f"{formula.name}: the network has {inputs} inputs and {outputs} outputs, not as many")
    if formula.tensors and formula.tensors != network.input_sizes + network.output_sizes:
        raise UnreadableError("the tensors of the specification are not those of the network")
    for atom in formula.atoms:
        groups = {network.compared[v - inputs] if v >= inputs else -1 for v, _ in atom.coefficients}
        weights = [weight for _, weight in atom.coefficients]
        if groups - {-1} and not (len(groups) == 1 and len(weights) == 2 and sum(weights) == 0 and not atom.constant):
            raise UnreadableError(f"{formula.name}: outputs of a softmax may only be compared with each other")


def check_share(network: Path, specification: Path, data: bytes, exact: bool, jobs: int, job: int) -> CheckOutcome:
    """Check what a certificate's file has, with one share of the leaves."""
    checker = CertificateChecker(load_network(network), load_formula(specification), exact, (job, jobs))
    return checker.run(records(BytesIO(data)), partial(print, file=sys.stderr, flush=True) if job == 0 else None)


def check(network: Path, specification: Path, certificate: Path, exact: bool = False, jobs: int = 1) -> CheckOutcome:
    """Check a certificate, in several processes. Raises UnreadableError."""
    with readable(certificate):
        share = partial(check_share, network, specification, certificate.read_bytes(), exact, jobs)
        if jobs == 1:
            return share(0)
        try:
            with ProcessPoolExecutor(jobs) as pool:
                outcomes = list(pool.map(share, range(jobs)))
        except BrokenProcessPool:
            return CheckOutcome(INCOMPLETE, "a process was lost")
        return min(outcomes, key=lambda found: (found.status != REFUTED, found.status == CHECKED, found.record))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the first line on stdout is the status."""
    parser = argparse.ArgumentParser(description="Check a certificate: exit code 0 checked, 1 refuted, 2 neither.")
    for name in ("network", "specification", "certificate"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--jobs", type=int, default=1, choices=range(1, 257), metavar="N", help="processes")
    parser.add_argument("--exact", action="store_true", help="rational arithmetic, for tiny networks")
    given = parser.parse_args(arguments)
    try:
        outcome = check(given.network, given.specification, given.certificate, given.exact, given.jobs)
    except (UnreadableError, MemoryError) as error:
        print(f"error: {error or 'no memory'}", file=sys.stderr)
        return EXIT_CODES[INCOMPLETE]
    print(outcome.status, outcome.message, sep="\n")
    return EXIT_CODES[outcome.status]


if __name__ == "__main__":
    sys.exit(main())
