"""What a specification says: declared tensors and a formula over their elements, whatever file it came from.

Every element of every declared tensor has one index in the query's *variable space*. An atom is a polynomial over
variables compared with zero, and all atoms of a query are rows of one sparse matrix (:class:`Atoms`), so that a
specification of a hundred megabytes is a few arrays. The formula is a tree of ``And`` and ``Or`` over ranges of atoms.

A query asserts the *unsafe* set: it is ``sat`` when some input makes the formula true (VNN-LIB standard, chapter 3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TensorKind(StrEnum):
    """What a declared tensor is to its network."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"


class Relation(IntEnum):
    """How the polynomial of an atom compares with zero. Strict and non-strict are kept apart."""

    LE = 0
    LT = 1
    EQ = 2
    NE = 3


@dataclass(frozen=True)
class Tensor:
    """A declared tensor: ``size`` consecutive variables starting at ``offset``, row-major."""

    name: str
    kind: TensorKind
    dtype: str
    """``real`` or an ONNX element type in lower case (``float32``); 1.0 files declare ``real``."""
    shape: tuple[int, ...] | None
    """None when the file does not say (VNN-LIB 1.0 knows flat vectors only)."""
    offset: int
    size: int
    onnx_name: str | None = None
    """The tensor's name in the ONNX graph, for hidden tensors."""


@dataclass(frozen=True)
class Network:
    """A declared network with its tensors, in the order of the ONNX model's inputs and outputs."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...] = ()
    equal_to: str | None = None
    isomorphic_to: str | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors in declaration order."""
        return (*self.inputs, *self.hidden, *self.outputs)


@dataclass(frozen=True)
class Atoms:
    """Atoms as rows of a sparse matrix: row i says ``sum_t coefficient[t] * monomial[t] + constant[i] RELATION 0``.

    The terms of row i are ``starts[i] : starts[i + 1]``. A monomial id below the number of variables is that variable;
    larger ids index ``Query.products``.
    """

    relation: NDArray[np.int8]
    constant: NDArray[np.float64]
    starts: NDArray[np.int64]
    coefficient: NDArray[np.float64]
    monomial: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.relation)

    def take(self, rows: NDArray[np.integer]) -> Atoms:
        """The atoms with these numbers, in this order and as often as they occur."""
        first, last = self.starts[:-1][rows], self.starts[1:][rows]
        terms = ranges(first, last)
        return Atoms(
            self.relation[rows],
            self.constant[rows],
            offsets(last - first),
            self.coefficient[terms],
            self.monomial[terms],
        )

    @property
    def row_of_term(self) -> NDArray[np.int64]:
        """The row that each term belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def values(self, monomials: NDArray[np.float64]) -> NDArray[np.float64]:
        """Left-hand sides of all atoms for the monomials' values, shape ``(..., len(self))``, in float64 arithmetic."""
        terms = self.coefficient * monomials[..., self.monomial]
        return self._row_sums(terms) + self.constant

    def compare(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which atoms are true for their left-hand sides, strict ones strictly; NaN makes an atom false."""
        truth = np.stack([values <= 0, values < 0, values == 0, (values < 0) | (values > 0)])
        return truth[self.relation, np.arange(len(self))]

    def doubtful(
        self, monomials: NDArray[np.float64], values: NDArray[np.float64], num_variables: int
    ) -> NDArray[np.int64]:
        """Rows whose float64 value may have the wrong sign; all rows with products are among them.

        A row that adds at most two numbers is exempt: the sign of one sum or difference of doubles is exact. For the
        others the rounding error is below ``operations * eps`` times the sum of magnitudes (Higham, 2002).
        """
        scaled = self._row_sums(np.abs(self.coefficient) != 1)
        summands = np.diff(self.starts) + (self.constant != 0)
        scale = self._row_sums(np.abs(self.coefficient * monomials[self.monomial])) + np.abs(self.constant)
        error = (summands + scaled) * np.finfo(np.float64).eps * scale + np.finfo(np.float64).tiny
        near = (np.abs(values) <= error) & ((scaled > 0) | (summands > 2))
        product = self._row_sums(self.monomial >= num_variables) > 0
        return np.flatnonzero(np.isfinite(values) & (near | product))

    def _row_sums(self, terms: NDArray) -> NDArray[np.float64]:
        return reduce_rows(np.add, terms.astype(np.float64), self.starts, 0.0)


def reduce_rows(operation: np.ufunc, terms: NDArray, starts: NDArray[np.int64], empty: float | bool) -> NDArray:
    """What an operation makes of the terms ``(..., T)`` of each row of a compressed sparse matrix, ``(..., rows)``.

    Of a row without terms it is ``empty``.
    """
    # reduceat returns the next element for an empty row, hence the padding and the mask.
    padded = np.concatenate([terms, np.full((*terms.shape[:-1], 1), empty, terms.dtype)], -1)
    found = operation.reduceat(padded, starts[:-1], -1) if len(starts) > 1 else padded[..., :0]
    return np.where(np.diff(starts) > 0, found, empty)


def ranges(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers ``starts[0] .. stops[0] - 1, starts[1] ..`` in one array."""
    lengths = stops - starts
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row pointers of a compressed sparse matrix whose rows have these lengths."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@dataclass(frozen=True)
class AtomBlock:
    """The conjunction of the atoms ``start : stop``."""

    start: int
    stop: int


@dataclass(frozen=True)
class And:
    """All parts are true; an empty conjunction is true."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True)
class Or:
    """Some part is true; an empty disjunction is false."""

    parts: tuple[Formula, ...]


Formula = AtomBlock | And | Or


RunNetwork = Callable[[Network, Sequence[NDArray[np.float64]]], Sequence[NDArray[Any]]]
"""Computes the hidden tensors of a network, then its outputs, from its inputs: ``(B, size)`` each."""


@dataclass(frozen=True)
class Query:
    """A parsed specification."""

    version: str
    """``1.0``, ``2.0`` or ``2.1``."""
    networks: tuple[Network, ...]
    atoms: Atoms
    formula: Formula
    products: tuple[tuple[int, ...], ...] = ()
    """Monomials of degree two and more, each a sorted tuple of variables."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All declared tensors, in declaration order."""
        return tuple(tensor for network in self.networks for tensor in network.tensors)

    @property
    def over_reals(self) -> bool:
        """Whether it speaks of real numbers: counterexamples are judged in real arithmetic.

        Files of version 1.0 know no other type; VNN-COMP, whose format it is, judges their counterexamples by running
        the networks.
        """
        return not self.version.startswith("1") and any(tensor.dtype == "real" for tensor in self.tensors)

    @property
    def over_floats(self) -> bool:
        """Whether it speaks of floating-point numbers: of what the networks compute, rounding included."""
        return not self.version.startswith("1") and not self.over_reals

    @property
    def num_variables(self) -> int:
        """Size of the variable space."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def inputs(self) -> NDArray[np.int64]:
        """The variables of all inputs of all networks, ascending."""
        tensors = [tensor for tensor in self.tensors if tensor.kind is TensorKind.INPUT]
        starts = np.array([tensor.offset for tensor in tensors], dtype=np.int64)
        return ranges(starts, starts + np.array([tensor.size for tensor in tensors], dtype=np.int64))

    def assignments(self, points: NDArray[np.float64], run: RunNetwork) -> NDArray[np.float64]:
        """Values of all variables, ``(B, num_variables)``, for those of the inputs, ``(B, n)``."""
        variables = np.empty((len(points), self.num_variables))
        variables[:, self.inputs] = points
        for network in self.networks:
            fed = [variables[:, tensor.offset : tensor.offset + tensor.size] for tensor in network.inputs]
            for tensor, value in zip((*network.hidden, *network.outputs), run(network, fed), strict=True):
                variables[:, tensor.offset : tensor.offset + tensor.size] = value
        return variables

    def monomials(self, variables: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of all monomials for assignments of shape ``(..., num_variables)``."""
        products = [np.prod(variables[..., list(product)], -1, keepdims=True) for product in self.products]
        return np.concatenate([variables, *products], -1)

    def holds(self, variables: NDArray[np.float64]) -> bool:
        """Whether an assignment of shape ``(num_variables,)`` makes the formula true, exactly as written.

        Atoms are evaluated in float64, and in rational arithmetic where rounding could decide.
        """
        variables = np.asarray(variables, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            monomials = self.monomials(variables)
            values = self.atoms.values(monomials)
            for row in self.atoms.doubtful(monomials, values, self.num_variables):
                values[row] = self._exact_sign(row, variables)
        return self.holds_with(self.atoms.compare(values))

    def holds_with(self, truth: NDArray[np.bool_]) -> bool:
        """Whether the formula is true where its atoms have these truths, ``(number of atoms,)``."""
        # The count of false atoms before each, so that a block is true when nothing in its range is false.
        false_before = np.concatenate([[0], np.cumsum(~truth)])
        return _holds(self.formula, false_before)

    def _exact_sign(self, row: int, variables: NDArray[np.float64]) -> int:
        total = Fraction(float(self.atoms.constant[row]))
        for term in range(self.atoms.starts[row], self.atoms.starts[row + 1]):
            monomial = int(self.atoms.monomial[term])
            beyond = monomial - self.num_variables
            factors = (monomial,) if beyond < 0 else self.products[beyond]
            value = math.prod(Fraction(float(variables[factor])) for factor in factors)
            total += Fraction(float(self.atoms.coefficient[term])) * value
        return (total > 0) - (total < 0)


def conjoin(parts: Iterable[Formula]) -> Formula:
    """The conjunction of formulas, without nested ``And`` and with adjacent blocks merged."""
    flat: list[Formula] = []
    for part in itertools.chain.from_iterable(p.parts if isinstance(p, And) else (p,) for p in parts):
        last = flat[-1] if flat else None
        if isinstance(part, AtomBlock) and isinstance(last, AtomBlock) and last.stop == part.start:
            flat[-1] = AtomBlock(last.start, part.stop)
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def disjoin(parts: Iterable[Formula]) -> Formula:
    """The disjunction of formulas, without nested ``Or``."""
    flat = tuple(itertools.chain.from_iterable(p.parts if isinstance(p, Or) else (p,) for p in parts))
    return flat[0] if len(flat) == 1 else Or(flat)


def map_blocks(formula: Formula, change: Callable[[AtomBlock], Formula]) -> Formula:
    """The formula with each block replaced."""
    match formula:
        case AtomBlock():
            return change(formula)
        case And(parts):
            return conjoin(map_blocks(part, change) for part in parts)
        case Or(parts):
            return disjoin(map_blocks(part, change) for part in parts)


def count_disjuncts(formula: Formula) -> int:
    """How many conjunctions the disjunctive normal form has, before any is built."""
    match formula:
        case AtomBlock():
            return 1
        case And(parts):
            return math.prod(count_disjuncts(part) for part in parts)
        case Or(parts):
            return sum(count_disjuncts(part) for part in parts)


def count_blocks(formula: Formula) -> int:
    """How many blocks the conjunctions of the disjunctive normal form have together, before any is built."""
    match formula:
        case AtomBlock():
            return 1
        case And(parts):
            cases = count_disjuncts(formula)
            return sum(count_blocks(part) * cases // max(count_disjuncts(part), 1) for part in parts)
        case Or(parts):
            return sum(count_blocks(part) for part in parts)


def disjuncts(formula: Formula) -> list[tuple[AtomBlock, ...]]:
    """Disjunctive normal form: each tuple of blocks is one conjunction, in the order of the text."""
    match formula:
        case AtomBlock():
            return [(formula,)]
        case And(parts):
            choices = itertools.product(*(disjuncts(part) for part in parts))
            return [tuple(itertools.chain.from_iterable(choice)) for choice in choices]
        case Or(parts):
            return [case for part in parts for case in disjuncts(part)]


def _holds(formula: Formula, false_before: NDArray[np.int64]) -> bool:
    match formula:
        case AtomBlock(start, stop):
            return bool(false_before[stop] == false_before[start])
        case And(parts):
            return all(_holds(part, false_before) for part in parts)
        case Or(parts):
            return any(_holds(part, false_before) for part in parts)


def walk_blocks(formula: Formula) -> Iterator[AtomBlock]:
    """All blocks of a formula, left to right."""
    match formula:
        case AtomBlock():
            yield formula
        case And(parts) | Or(parts):
            for part in parts:
                yield from walk_blocks(part)
