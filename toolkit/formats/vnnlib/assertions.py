"""Reads the statements of a specification, of either generation of VNN-LIB, at the speed of a dictionary.

The text is split at its opening parentheses. A *piece* is what stands between two of them, and in a real file nearly
every piece is one complete comparison, ``<= X_0 0.5))``, or a head, ``assert``. Pieces already understood are looked
up, so that a hundred megabytes cost one look-up per comparison; every other piece goes token by token through the
stack machine. The look-up only ever holds what a pattern has matched from end to end. The machine alone can read
everything (``shortcut=False``); the two must agree, and a property test holds them to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolkit.formats.vnnlib.atom_table import AtomTable, Terms
from toolkit.formats.vnnlib.dialect import RELATIONS, Dialect, MalformedError, double, may_lie_between_doubles, shown
from toolkit.formats.vnnlib.polynomial import TooLargeError
from toolkit.formats.vnnlib.query import AtomBlock, Formula
from toolkit.formats.vnnlib.stack_machine import BINDERS, TERM, FormulaMachine
from toolkit.formats.vnnlib.text import SourceText
from toolkit.tuning import tuned

_COMPARISON = rf"(<=|>=|==|!=|<|>|=)\s+({TERM})\s+({TERM})\s*\)"
_LITERAL = re.compile(rf"{_COMPARISON}([\s)]*)", re.ASCII)
_ASSERTION = re.compile(rf"\s*\(assert\s+\({_COMPARISON}\s*\)", re.ASCII)

_HEAD = re.compile(r"([^\s()\[\]]+)\s+", re.ASCII)

Entry = tuple[int, int] | str | None
"""A comparison: number of its atom, and how many parentheses are closed after it. A head alone. None: anything else."""


def read_assertions(
    source: SourceText, dialect: Dialect, start: int = 0, shortcut: bool = True
) -> tuple[AtomTable, Formula]:
    """Read all statements from a character offset on. Raises InputError naming the line."""
    machine = FormulaMachine(dialect)
    known: dict[str, Entry] = _Literals(machine) if shortcut else _NoLiterals()
    offset = 0
    try:
        start = _leading_comparisons(source.text, machine, start) if shortcut else start
        offset = _first_parenthesis(source.text, machine, start)
        for piece in _pieces(source.text, offset + 1):
            entry = known[piece]
            if entry is None:
                machine.read(piece, offset)
            elif isinstance(entry, str):
                machine.open(entry)
            else:
                machine.table.rows.append(entry[0])
                if entry[1]:
                    machine.close(entry[1])
            offset += len(piece) + 1
        return machine.table, machine.finish()
    except MalformedError as error:
        raise source.error(max(machine.offset, offset), str(error)) from None
    except TooLargeError:
        raise source.error(max(machine.offset, offset), "the expanded expression is too large") from None


def _leading_comparisons(text: str, machine: FormulaMachine, start: int) -> int:
    """Read the assertions of one comparison each, that is the input box, that come first; the offset after them."""
    rows = machine.table.rows
    while match := _ASSERTION.match(text, start):
        machine.offset = match.start(1)
        number = _atom(match, machine)
        if number is None:
            break
        rows.append(number)
        start = match.end()
    if rows:
        machine.add_assertion(AtomBlock(0, len(rows)))
    return start


def _first_parenthesis(text: str, machine: FormulaMachine, start: int) -> int:
    """Where the next form opens, with nothing but white space before."""
    found = text.find("(", start)
    found = len(text) if found < 0 else found
    if before := text[start:found].lstrip():
        machine.offset = found - len(before)
        raise MalformedError("unmatched )" if before[0] == ")" else f"{shown(before.rstrip())} outside of parentheses")
    return found


def _pieces(text: str, start: int) -> Iterator[str]:
    while start <= len(text):
        stop = text.find("(", start + tuned().files.split_characters)
        stop = len(text) if stop < 0 else stop
        yield from text[start:stop].split("(")
        start = stop + 1


class _Literals(dict[str, Entry]):
    """The pieces seen so far."""

    def __init__(self, machine: FormulaMachine) -> None:
        super().__init__()
        self._machine = machine

    def __missing__(self, piece: str) -> Entry:
        self[piece] = found = _literal(piece, self._machine) or _only_head(piece)
        return found


class _NoLiterals(dict[str, Entry]):
    """In place of `_Literals` where every piece is to go through the stack machine."""

    def __missing__(self, piece: str) -> Entry:
        return None


def _literal(piece: str, machine: FormulaMachine) -> Entry:
    match = _LITERAL.fullmatch(piece)
    number = _atom(match, machine) if match else None
    return None if match is None or number is None else (number, match[4].count(")"))


def _atom(match: re.Match[str], machine: FormulaMachine) -> int | None:
    """The number of a comparison between two variables, or a variable and a constant; None for any other."""
    if match[1] not in machine.dialect.comparisons:
        return None
    relation, sign = RELATIONS[match[1]]
    left, right = machine.dialect.variable(match[2]), machine.dialect.variable(match[3])
    if left is None:
        bound = _bound(machine.dialect, right, match[2], -sign)
    elif right is None:
        bound = _bound(machine.dialect, left, match[3], sign)
    else:
        bound = _difference(left, right, sign)
    return None if bound is None else machine.table.number(relation, *bound)


def _bound(dialect: Dialect, code: int | None, token: str, sign: int) -> tuple[float, Terms] | None:
    """``sign * (variable - token)``; None where the token is no constant, or is one that an output is compared with and
    that may lie between two doubles, which the stack machine reads exactly."""
    if code is None or not dialect.number.fullmatch(token):
        return None
    nearest = double(token)
    if may_lie_between_doubles(token, nearest) and dialect.is_output(code):
        return None
    return 0.0 - sign * nearest, ((code, float(sign)),)


def _difference(left: int, right: int, sign: int) -> tuple[float, Terms] | None:
    """``sign * (left - right)``, with its terms in order."""
    if left == right:
        return None
    terms = ((left, float(sign)), (right, float(-sign)))
    return 0.0, terms if left < right else terms[::-1]


def _only_head(piece: str) -> str | None:
    match = _HEAD.fullmatch(piece)
    return match[1] if match and match[1] not in BINDERS else None
