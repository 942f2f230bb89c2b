"""Random formulas with their own evaluator in rational arithmetic: the oracle for the readers and writers.

All constants and coordinates are multiples of a power of two, so ties are frequent and nothing is rounded.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce

import numpy as np
from hypothesis import strategies as st

VARIABLES = 5
"""Three inputs and two outputs."""
COMPARE = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}
ARITHMETIC = {
    "+": sum,
    "*": math.prod,
    "-": lambda values: -values[0] if len(values) == 1 else reduce(operator.sub, values),
}

constants = st.one_of(
    st.sampled_from(["0.0", "-0.0", "1.0", "0.5", "-1.5", "2.25"]),
    st.integers(-400, 400).map(lambda sixteenths: str(sixteenths / 16)),
)
variables = st.integers(0, VARIABLES - 1)
terms = st.recursive(
    st.one_of(variables, constants),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+*-"), st.lists(inner, min_size=1, max_size=3)).map(
            lambda pair: (pair[0], *pair[1])
        ),
    ),
    max_leaves=4,
)
simple_literals = st.tuples(
    st.sampled_from([*COMPARE]), st.one_of(variables, constants), st.one_of(variables, constants)
)
literals = st.one_of(simple_literals, st.tuples(st.sampled_from([*COMPARE]), terms, terms))
formulas = st.recursive(
    literals,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=4)).map(
        lambda pair: (pair[0], *pair[1])
    ),
    max_leaves=8,
)
assertions = st.lists(formulas, min_size=1, max_size=3)
"""The conjunction of a few formulas; each is a nested tuple ``(head, operand, ...)``."""

points = st.lists(
    st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.125, -1.5, 2.25, 3.5]), min_size=VARIABLES, max_size=VARIABLES
).map(np.array)


def truth(formula: tuple, point: np.ndarray) -> bool:
    """Whether the point makes the formula true, in exact arithmetic."""
    head, *operands = formula
    if head == "and":
        return all(truth(operand, point) for operand in operands)
    if head == "or":
        return any(truth(operand, point) for operand in operands)
    left, right = (_value(operand, point) for operand in operands)
    return COMPARE[head](left, right)


def _value(term: int | str | tuple, point: np.ndarray) -> Fraction:
    if isinstance(term, int):
        return Fraction(float(point[term]))
    if isinstance(term, str):
        return Fraction(term)
    return ARITHMETIC[term[0]]([_value(operand, point) for operand in term[1:]])


def text(formula: tuple | int | str, names: Sequence[str], blank: Callable[[], str] = lambda: " ") -> str:
    """The formula as the languages write it, with ``blank()`` between words."""
    if isinstance(formula, int):
        return names[formula]
    if isinstance(formula, str):
        return formula
    head, *operands = formula
    return f"({head}{''.join(blank() + text(operand, names, blank) for operand in operands)})"
