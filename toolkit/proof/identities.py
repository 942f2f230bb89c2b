"""Elements of a tensor that are multiples of others, whatever the input: verified without rounding, then left out.

Where ``e_i = s e_j``, ``relu(e_i)`` is ``s relu(e_j)`` for positive s and ``-s relu(e_j) + s e_j`` for negative s: so
`merged` writes the network, with the nonlinear operator on the elements that are left alone. What cancels behind it,
as ``relu(z) - relu(-z) = z`` does, is bounded without any relaxation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from toolkit.proof.bounds import ELEMENTS
from toolkit.proof.linear_maps import Array, BlockMatrix, LinearMap, Pick, quantum
from toolkit.proof.network import Activation, AffineStep, ProofNetwork, Step, needed, sources

MOST_COEFFICIENTS = 1 << 22
"""Coefficients on one value of elements that are computed in one step."""
CONSTANT = -1
"""In place of a value's number."""


@dataclass(frozen=True)
class Multiples:
    """Elements of a value that are so many times other elements of it, ``(n,)`` each."""

    elements: Array
    models: Array
    factors: Array

    def well_formed(self, size: int) -> bool:
        """Whether there are such elements, each one stated once, no model among them, factors powers of two."""
        inside = max(self.elements.max(initial=0), self.models.max(initial=0)) < size
        once = len(np.unique(self.elements)) == len(self.elements) and not np.isin(self.models, self.elements).any()
        return bool(inside and once and (np.abs(np.frexp(self.factors)[0]) == 0.5).all())


def exact_rows(a: Array, linear: LinearMap, product: Array) -> Array:
    """Which rows of ``product = a A`` are certainly not rounded, in whatever order they are added up.

    Either all partial sums are multiples of one unit and less than 2^53 times that; or they are of numbers of the file
    times powers of two, none less than 1: one in each sum, or two where all sums are zero.
    """
    rows, columns = np.nonzero(a != 0)
    values, unit = a[rows, columns], np.full(len(a), np.inf)
    powers = (np.abs(np.frexp(values)[0]) == 0.5) & (abs(values) >= 1)
    terms, others = (np.bincount(rows, weights, len(a)) for weights in (None, ~powers))
    sure = (others == 0) & ((terms <= 1) | ((terms == 2) & ~product.any(1)))
    np.minimum.at(unit, rows, quantum(values[:, None]))
    grain, largest = linear.extent
    sure |= np.bincount(rows, abs(values), len(a)) * largest < 2.0**52 * unit * grain
    if not (sure.all() or linear.slack):
        sure[~sure] = linear.magnitude.adjoint(abs(a[~sure])).max(1, initial=0) < 2.0**52 * unit[~sure] * grain
    return (terms == 0) | (sure & (not linear.slack))


def pushed_back(steps: Sequence[Step], value: int, rows: Array) -> tuple[dict[int, Array], Array, int]:
    """Functionals of a value, ``(R, n)``, by the affine steps behind it: coefficients on the input and on what
    nonlinear steps give, and constants; which of them were not rounded, ``(R,)``; the multiplications of a pass."""
    left, sure, cost = {value: rows}, np.ones(len(rows), bool), 0
    for step in reversed(steps):
        a = left.get(step.value)
        if a is None or not a.any() or not isinstance(step, AffineStep):
            continue
        del left[step.value]
        bias = () if step.bias is None else ((CONSTANT, BlockMatrix(1, len(step.bias), step.bias[None])),)
        for source, linear in (*step.terms, *bias):
            pushed, before = linear.adjoint(a), left.get(source, np.zeros(1))
            total = before + pushed
            sure &= exact_rows(a, linear, pushed)
            sure &= ((total - pushed == before) & (total - before == pushed)).all(1)
            left[source] = total
            cost += linear.outputs * max(1, linear.terms[0])
    return {source: a for source, a in left.items() if a.any()}, sure, cost


def are_multiples(network: ProofNetwork, value: int, stated: Multiples) -> Array:
    """Which of the stated multiples are ones, ``(n,)``."""
    larger, sure = np.maximum(1, 1 / np.abs(stated.factors)), np.zeros(len(stated.factors), bool)
    for start in range(0, len(sure), most := max(1, ELEMENTS // max(network.sizes))):
        part = np.arange(start, min(start + most, len(sure)))
        rows = np.zeros((len(part), network.sizes[value]))
        rows[part - start, stated.elements[part]] = larger[part]
        rows[part - start, stated.models[part]] = -stated.factors[part] * larger[part]
        with np.errstate(all="ignore"):
            coefficients, exact, _ = pushed_back(network.steps, value, rows)
        sure[part] = np.logical_and.reduce([exact, *(~a.any(1) for a in coefficients.values())])
    return sure


def reader_of(network: ProofNetwork, value: int, stated: Multiples) -> Activation | None:
    """The one nonlinear step that reads a value, if it makes multiples of multiples: a ReLU, or any by the factor 1."""
    found = [step for step in network.steps if not isinstance(step, AffineStep) and step.source == value]
    plain = [s for s in found if isinstance(s, Activation) and (s.parameters == (0.0,) or (stated.factors == 1).all())]
    return plain[0] if len(found) == len(plain) == 1 else None


def chosen(network: ProofNetwork, value: int, kept: Array) -> AffineStep:
    """Some elements of a value as a value of their own, which has the next number: in one step from the input and from
    what nonlinear steps give, where that is exact and takes no more multiplications."""
    size, number = network.sizes[value], len(network.sizes)
    if len(kept) * size <= MOST_COEFFICIENTS:
        units = np.zeros((len(kept), size))
        units[np.arange(len(kept)), kept] = 1
        with np.errstate(all="ignore"):
            rows, sure, cost = pushed_back(network.steps, value, units)
        bias = rows.pop(CONSTANT, np.zeros((len(kept), 1)))[:, 0]
        if sure.all() and rows and sum(map(np.count_nonzero, rows.values())) <= cost:
            terms = ((source, BlockMatrix(a.shape[1], len(kept), a.T.copy())) for source, a in rows.items())
            return AffineStep(number, tuple(terms), bias)
    return AffineStep(number, ((value, Pick(size, len(kept), kept)),))


def merged(network: ProofNetwork, value: int, stated: Multiples) -> ProofNetwork:
    """The network whose tensor is what is left of it, in order; the nonlinear step that reads it is of that alone."""
    size, few, reader = network.sizes[value], len(network.sizes), reader_of(network, value, stated)
    assert reader is not None
    model, factor = np.arange(size), np.ones(size)
    model[stated.elements], factor[stated.elements] = stated.models, stated.factors
    kept, place = np.unique(model, return_inverse=True)
    bent = few + 1
    parts = ((bent, np.abs(factor)), (few, np.minimum(factor, 0.0)))
    whole = AffineStep(reader.value, tuple((source, Pick(len(kept), size, place, each)) for source, each in parts))
    new: list[Step] = [chosen(network, value, kept), replace(reader, value=bent, source=few), whole]
    steps = [step for old in network.steps for step in (new if old is reader else [old])]
    names = {name: few if known == value else known for name, known in network.names.items()}
    loose = network.loose | {step.value for step in steps if reader.value in sources(step)}
    steps = needed(steps, {network.output, *names.values()})
    return replace(network, sizes=[*network.sizes, len(kept), len(kept)], steps=steps, names=names, loose=loose)
