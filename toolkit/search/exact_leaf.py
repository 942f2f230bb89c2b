"""Leaves of small networks in rational arithmetic: what only touches is decided there, and nowhere else.

A strict atom may come down to zero without ever being violated. A bound with an allowance for rounding cannot tell; the
linear functions of a leaf, whose coefficients are doubles, can be computed and combined exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.bounds.optimised_bound import Domain
from toolkit.problem.compile import Problem
from toolkit.problem.rational import Dyadic, RationalProgram, dyadic, is_rational
from toolkit.search.farkas import LinearSystem, refute
from toolkit.tuning import tuned


@dataclass(frozen=True)
class ExactLeaves:
    """Decides leaves of one problem, which is in double precision as it was compiled."""

    problem: Problem

    @cached_property
    def program(self) -> RationalProgram:
        """The network in rational arithmetic."""
        return RationalProgram.of(self.problem.program)

    def decide(self, case: int, domain: Domain) -> tuple[bool, Tensor | None]:
        """Whether a case has no solution where the neurons of a domain have their phases, else a point to try.

        ``domain`` has one row. Nothing is decided where the phase of some neuron is not known.
        """
        phases = known_phases(domain)
        if not phases.all():
            return False, None
        before, features = self.program.linear(phases)
        atoms = self.problem.rows[case].unique()
        weights, offsets = dyadic(self.problem.weights[atoms]), dyadic(self.problem.offsets[atoms].unsqueeze(1))
        constant = np.zeros((len(atoms), features.integers.shape[1]), dtype=object)
        constant[:, -1] = offsets.integers[:, 0]
        rows = weights @ features + Dyadic(constant, offsets.bits)
        signed = Dyadic(before.integers * -phases[:, None].astype(object), before.bits)
        strict = [False] * len(phases) + self.problem.strict_atoms[atoms].tolist()
        lower, upper = self._box(case)
        system = LinearSystem.over_box(directions(signed) + directions(rows), strict, lower, upper)
        refuted, point = refute(system)
        return refuted, None if point is None else self._restored(point, case)

    def _box(self, case: int) -> tuple[list[Fraction], list[Fraction]]:
        region = int(self.problem.region[case])
        lower, upper = (list(map(Fraction, side[region].tolist())) for side in (self.problem.lower, self.problem.upper))
        return lower, upper

    def _restored(self, point: NDArray[np.float64], case: int) -> Tensor:
        """A point of [-1, 1]^n as a point of the case's box."""
        region = int(self.problem.region[case])
        lower, upper = self.problem.lower[region], self.problem.upper[region]
        return (lower + upper) / 2 + torch.as_tensor(point) * (upper - lower) / 2


def directions(rows: Dyadic) -> list[list[Fraction]]:
    """Multiples of the rows of a matrix: of an inequality, any positive one says the same."""
    return [[Fraction(int(entry)) for entry in row] for row in rows.integers]


def known_phases(domain: Domain) -> NDArray[np.int8]:
    """The phases of all neurons, ``(num_neurons,)``: of split ones as split, of others by their bounds; 0 if open."""
    lower, upper, split = domain.bounds.lower[0], domain.bounds.upper[0], domain.phase[0]
    stable = (lower >= 0).to(torch.int8) - ((upper <= 0) & (lower < 0)).to(torch.int8)
    phases: NDArray[np.int8] = torch.where(split != 0, split, stable).cpu().numpy()
    return phases


def worth_deciding(problem: Problem) -> bool:
    """Whether leaves of a problem can be decided exactly, and soon."""
    program = problem.program
    return is_rational(program) and program.cost * (program.num_inputs + 1) <= tuned().exact.most_products
