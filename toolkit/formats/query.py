"""What a specification says: declared tensors and a formula over their elements, whatever file it came from.

Every element of every declared tensor has one index in the query's *variable space*. An atom is a polynomial over
variables compared with zero, and all atoms of a query are rows of one sparse matrix (:class:`Atoms`), so that a
specification of a hundred megabytes is a few arrays. The formula is a tree of ``And`` and ``Or`` over ranges of atoms.

A query asserts the *unsafe* set: it is ``sat`` when some input makes the formula true (VNN-LIB standard, chapter 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray


class Kind(StrEnum):
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
    kind: Kind
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

    def values(self, monomials: NDArray[np.float64]) -> NDArray[np.float64]:
        """Left-hand sides of all atoms for the monomials' values, shape ``(len(self),)``.

        A row of one or two terms is computed without rounding its sign away: a single subtraction of doubles.
        """
        terms = self.coefficient * monomials[self.monomial]
        sums = np.add.reduceat(np.append(terms, 0.0), self.starts[:-1]) if len(self) else np.zeros(0)
        sums = np.where(np.diff(self.starts) > 0, sums, 0.0)
        return sums + self.constant

    def hold(self, monomials: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which atoms are true, strict ones strictly; NaN makes an atom false. Shape ``(len(self),)``."""
        value = self.values(monomials)
        truth = np.stack([value <= 0, value < 0, value == 0, (value < 0) | (value > 0)])
        return truth[self.relation, np.arange(len(self))]


@dataclass(frozen=True)
class Block:
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


Formula = Block | And | Or


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
    def num_variables(self) -> int:
        """Size of the variable space."""
        return sum(tensor.size for tensor in self.tensors)

    def monomials(self, variables: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of all monomials for an assignment of shape ``(num_variables,)``."""
        products = [np.prod(variables[list(product)]) for product in self.products]
        return np.concatenate([variables, np.asarray(products, dtype=np.float64)])

    def holds(self, variables: NDArray[np.float64]) -> bool:
        """Whether an assignment of shape ``(num_variables,)`` makes the formula true, exactly as written."""
        truth = self.atoms.hold(self.monomials(np.asarray(variables, dtype=np.float64)))
        # prefix[i] counts the false atoms before i, so a block is true when nothing in its range is false.
        false_before = np.concatenate([[0], np.cumsum(~truth)])
        return _holds(self.formula, false_before)


def _holds(formula: Formula, false_before: NDArray[np.int64]) -> bool:
    match formula:
        case Block(start, stop):
            return bool(false_before[stop] == false_before[start])
        case And(parts):
            return all(_holds(part, false_before) for part in parts)
        case Or(parts):
            return any(_holds(part, false_before) for part in parts)


def walk_blocks(formula: Formula) -> Iterator[Block]:
    """All blocks of a formula, left to right."""
    match formula:
        case Block():
            yield formula
        case And(parts) | Or(parts):
            for part in parts:
                yield from walk_blocks(part)
