"""VNN-LIB 1.0: one network, a flat input vector ``X_0 ..`` and a flat output vector ``Y_0 ..``.

Reads a superset of what VNN-COMP files contain: strict signs, ``=``, constants on either side, nested ``and``/``or``,
sums, products, doubled parentheses. The official counterexample checker accepts less; see :mod:`write_vnnlib1`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError
from toolkit.formats.vnnlib.assertions import read_assertions
from toolkit.formats.vnnlib.dialect import MalformedError, shown
from toolkit.formats.vnnlib.query import Network, Query, Tensor, TensorKind
from toolkit.formats.vnnlib.text import SourceText, with_empty_strings

_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_DECLARATION = re.compile(r"\s*\(declare-const\s+([^\s()]+)\s+Real\s*\)", re.ASCII)
_OUTPUT = 1 << 40
"""Codes of outputs while reading, so that they sort after the inputs, whose number is not known yet."""
_IGNORED = frozenset(
    {"set-logic", "set-info", "set-option", "check-sat", "get-model", "get-value", "get-info", "echo", "exit"}
)
"""SMT-LIB commands that say nothing about the problem."""


class Vnnlib1:
    """The dialect of version 1.0, with the variables declared so far."""

    comparisons = frozenset({"<=", "<", ">=", ">", "=", "==", "!="})
    number = _NUMBER
    ignored = _IGNORED

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def variable(self, token: str) -> int | None:
        """The code of a declared variable."""
        code = self._codes.get(token)
        if code is None and token[0] in "XY" and _VARIABLE.fullmatch(token):
            raise MalformedError(f"{token} is not declared")
        return code

    def is_output(self, code: int) -> bool:
        """Whether a code is that of a ``Y``."""
        return code >= _OUTPUT

    def statement(self, head: str, words: Sequence[str]) -> None:
        """``declare-const``, ``declare-fun`` without arguments, or an SMT-LIB command without effect."""
        match (head, *words):
            case ("declare-const", name, "Real") | ("declare-fun", name, "()", "Real"):
                self._declare(name)
            case ("declare-const" | "declare-fun", *_):
                raise MalformedError("a declaration is (declare-const X_0 Real)")
            case _ if head not in self.ignored:
                raise MalformedError(f"unknown statement {shown(head)}")

    def _declare(self, name: str) -> None:
        match = _VARIABLE.fullmatch(name)
        if match is None:
            raise MalformedError(f"cannot declare {shown(name)}: variables of 1.0 are X_0, X_1, .. and Y_0, Y_1, ..")
        if name in self._codes:
            raise MalformedError(f"{name} is declared twice")
        self._codes[name] = int(match[2]) + (_OUTPUT if match[1] == "Y" else 0)

    def declarations(self, source: SourceText) -> int:
        """Read the declarations that a file usually begins with; the offset after them. Raises InputError."""
        offset = 0
        while match := _DECLARATION.match(source.text, offset):
            try:
                self._declare(match[1])
            except MalformedError as error:
                raise source.error(match.start(1), str(error)) from None
            offset = match.end()
        return offset

    def sizes(self) -> tuple[int, int]:
        """Number of inputs and of outputs. Raises MalformedError when an index is left out."""
        outputs = sum(code >= _OUTPUT for code in self._codes.values())
        inputs = len(self._codes) - outputs
        for letter, size in (("X", inputs), ("Y", outputs)):
            missing = next((i for i in range(size or 1) if f"{letter}_{i}" not in self._codes), None)
            if missing is not None:
                raise MalformedError(f"{letter}_{missing} is not declared")
        return inputs, outputs


def parse_vnnlib1(source: SourceText, shortcut: bool = True) -> Query:
    """Parse a text of version 1.0. Raises InputError.

    ``shortcut=False`` reads token by token only, for the comparison of the two ways in tests.
    """
    dialect = Vnnlib1()
    source = SourceText(source.name, with_empty_strings(source.text))  # their parentheses are none
    start = dialect.declarations(source) if shortcut else 0
    table, formula = read_assertions(source, dialect, start, shortcut)
    try:
        inputs, outputs = dialect.sizes()
    except MalformedError as error:
        raise InputError(f"{source.name}: {error}") from None

    def renumber(codes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(codes < _OUTPUT, codes, codes - _OUTPUT + inputs)

    atoms, products = table.finish(renumber, inputs + outputs)
    return Query("1.0", (flat_network(inputs, outputs),), atoms, formula, products)


def flat_network(inputs: int, outputs: int) -> Network:
    """The network of a 1.0 specification: flat vectors ``X`` and ``Y`` of real numbers."""
    x = Tensor("X", TensorKind.INPUT, "real", None, 0, inputs)
    y = Tensor("Y", TensorKind.OUTPUT, "real", None, inputs, outputs)
    return Network("N", (x,), (y,))
