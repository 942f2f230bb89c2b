"""Random queries in disjunctive normal form, and their text in VNN-LIB 1.0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from random_networks import sizes

Generator = np.random.Generator


@dataclass(frozen=True)
class QueryCase:
    """A box and a conjunction of K atoms ``on_x @ x + on_y @ y + constant <= 0``."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    on_x: NDArray[np.float64]
    """Shape (K, inputs)."""
    on_y: NDArray[np.float64]
    """Shape (K, outputs)."""
    constant: NDArray[np.float64]
    """Shape (K,)."""

    def worst(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest atom, (B,), at points (B, inputs) with outputs (B, outputs): at most zero at a witness."""
        return (x @ self.on_x.T + y @ self.on_y.T + self.constant).max(axis=1)

    def shifted(self, amount: float) -> QueryCase:
        """The case whose atoms are larger by an amount."""
        return replace(self, constant=self.constant + amount)

    def points(self, generator: Generator, count: int) -> NDArray[np.float64]:
        """Random points of the box, (count, inputs), a third of them with coordinates at its ends."""
        share = generator.random((count, len(self.lower)))
        share[::3] = np.round(share[::3])
        return self.lower + share * (self.upper - self.lower)


def random_cases(generator: Generator, inputs: int, outputs: int) -> list[QueryCase]:
    """One to three cases of a random style."""
    styles = [robustness, conjunction, two_boxes, mixed]
    return styles[generator.integers(len(styles))](generator, inputs, outputs)


def random_box(generator: Generator, inputs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A box around a random centre; now and then one of its sides is a point."""
    centre = generator.normal(0, 0.5, inputs).round(2)
    radius = generator.uniform(0.05, 0.8, inputs).round(2)
    radius[generator.random(inputs) < 0.05] = 0
    return centre - radius, centre + radius


def robustness(generator: Generator, inputs: int, outputs: int) -> list[QueryCase]:
    """Some other output reaches the first one: one case for each."""
    lower, upper = random_box(generator, inputs)
    rows = np.eye(outputs)[:1] - np.eye(outputs)[1:]
    return [QueryCase(lower, upper, np.zeros((1, inputs)), row[None], np.zeros(1)) for row in rows]


def conjunction(generator: Generator, inputs: int, outputs: int) -> list[QueryCase]:
    """Several atoms at once."""
    lower, upper = random_box(generator, inputs)
    count = int(generator.integers(2, 4))
    on_y = generator.normal(size=(count, outputs)).round(2)
    return [QueryCase(lower, upper, np.zeros((count, inputs)), on_y, generator.normal(0, 0.3, count).round(2))]


def two_boxes(generator: Generator, inputs: int, outputs: int) -> list[QueryCase]:
    """Two conjunctions, each with a box of its own."""
    return [conjunction(generator, inputs, outputs)[0] for _ in range(2)]


def mixed(generator: Generator, inputs: int, outputs: int) -> list[QueryCase]:
    """Atoms over inputs and outputs, in two cases of one box."""
    first = conjunction(generator, inputs, outputs)[0]
    second = robustness(generator, inputs, outputs)[0]
    cases = [first, replace(second, lower=first.lower, upper=first.upper)]
    return [replace(case, on_x=generator.normal(size=case.on_x.shape).round(1)) for case in cases]


def number(value: float) -> str:
    """A decimal that reads back as the same double; the language has no exponents."""
    return np.format_float_positional(value, unique=True, trim="0")


def hard_query(path: Path, generator: Generator, margin: float = 0.05) -> str:
    """Random cases about a network that random points miss by about a margin."""
    model = onnx.load(path)
    session = onnxruntime.InferenceSession(path)
    shifted = []
    for case in random_cases(generator, *sizes(model)):
        x = case.points(generator, 500)
        rows = [np.float32(row).reshape(session.get_inputs()[0].shape) for row in x]
        y = np.stack([session.run(None, {"x": row})[0].ravel() for row in rows])
        shifted.append(case.shifted(margin - case.worst(x, y).min()))
    return query_text(shifted)


def query_text(cases: list[QueryCase]) -> str:
    """VNN-LIB 1.0; a box that all cases share is asserted once, others stand inside their disjuncts."""
    first = cases[0]
    lines = [f"(declare-const X_{i} Real)" for i in range(first.on_x.shape[1])]
    lines += [f"(declare-const Y_{i} Real)" for i in range(first.on_y.shape[1])]
    shared = all((c.lower == first.lower).all() and (c.upper == first.upper).all() for c in cases)
    if shared:
        lines += [f"(assert {bound})" for bound in _bounds(first)]
    bodies = [[*([] if shared else _bounds(case)), *_atoms(case)] for case in cases]
    if len(bodies) == 1:
        lines += [f"(assert {atom})" for atom in bodies[0]]
    else:
        lines.append(f"(assert (or {' '.join('(and ' + ' '.join(body) + ')' for body in bodies)}))")
    return "\n".join(lines) + "\n"


def _bounds(case: QueryCase) -> list[str]:
    lower = [f"(>= X_{i} {number(value)})" for i, value in enumerate(case.lower)]
    return lower + [f"(<= X_{i} {number(value)})" for i, value in enumerate(case.upper)]


def _atoms(case: QueryCase) -> list[str]:
    return [
        f"(<= {_sum([*_terms('X', x), *_terms('Y', y)])} {number(-constant)})"
        for x, y, constant in zip(case.on_x, case.on_y, case.constant, strict=True)
    ]


def _terms(name: str, row: NDArray[np.float64]) -> list[str]:
    return [f"(* {number(value)} {name}_{i})" for i, value in enumerate(row) if value]


def _sum(terms: list[str]) -> str:
    return terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
