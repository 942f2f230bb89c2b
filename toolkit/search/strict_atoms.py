"""Atoms that come down to zero and not below: what refutes a strict one, where no allowance for rounding fits in.

Two things are exact without any search or in a small one. An atom is a sum of few terms over the last layer, whose
images have exact ends (a ReLU's is zero): their least value in rational arithmetic. And in a small network of ReLUs all
phases can be split; the linear functions of each leaf, whose coefficients are doubles, are then computed exactly, and
decided by exact multipliers (`toolkit.search.farkas`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from toolkit.bounds.dual_ascent import Polyak, Schedule
from toolkit.bounds.interval import Bounds, interval_bounds, source_interval, unstable_neurons
from toolkit.bounds.optimised_bound import Domain
from toolkit.problem.affine import DenseAffine
from toolkit.problem.compile import Problem
from toolkit.problem.program import split_layers
from toolkit.problem.rational import Dyadic, RationalProgram, dyadic, is_rational
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import CaseRefuted, silent
from toolkit.search.batch_size import largest_batch, most_waiting
from toolkit.search.farkas import LinearSystem, refute
from toolkit.search.loop import branch_and_bound
from toolkit.search.phase_domains import PhaseSpace, root_domains
from toolkit.search.phase_frontier import PhaseBounding, PhaseFrontier
from toolkit.search.root import RootBounds, open_cases, root_bounds
from toolkit.search.search_task import SearchResult, SearchTask
from toolkit.tuning import tuned


def closed_by_images(task: SearchTask, root: RootBounds) -> RootBounds:
    """The root with the cases closed of which a strict atom cannot be below zero, whatever the last layer gives."""
    problem = task.original.problem if task.original else None
    rational = problem.program.rational if problem else None
    if problem is None or rational is None or not isinstance(problem.program.features, DenseAffine):
        return root
    pairs = _strict_pairs(problem, open_cases(root).cpu())
    if not len(pairs) or len(pairs) > tuned().exact.most_atoms or not rational():
        return root
    box, lower = Bounds(problem.lower, problem.upper), root.lower.clone()
    neurons, _ = interval_bounds(problem.program, box)
    for case, atom in pairs.tolist():
        task.clock.check()
        region = problem.region[case : case + 1]
        if _least_value(problem, atom, box.select(region), neurons.select(region)) >= 0:
            lower[case] = lower[case].clamp(min=REFUTED_BOUND)
            task.observer(CaseRefuted(case, atom))
    return replace(root, lower=lower)


REFUTED_BOUND = 1.0
"""Bound that is stored for a case that was refuted without bounding it."""


def _strict_pairs(problem: Problem, cases: Tensor) -> Tensor:
    """Numbers of cases and of strict atoms that they have, ``(P, 2)``."""
    rows = problem.rows[cases]
    at, column = problem.strict_atoms[rows].nonzero(as_tuple=True)
    return torch.stack([cases[at], rows[at, column]], 1).unique(dim=0)


def _least_value(problem: Problem, atom: int, box: Bounds, neurons: Bounds) -> Fraction | float:
    """The least value of an atom over the images of the sources that it reads, in rational arithmetic."""
    sides = split_layers(problem.program, neurons.lower), split_layers(problem.program, neurons.upper)
    layers = [Bounds(lower, upper) for lower, upper in zip(*sides, strict=True)]
    features = problem.program.features
    assert isinstance(features, DenseAffine)
    weights = problem.weights[atom]
    used = weights.nonzero().squeeze(1)
    factors = list(map(Fraction, weights[used].tolist()))
    total = Fraction(float(problem.offsets[atom]))
    total += sum((w * Fraction(b) for w, b in zip(factors, features.bias[used].tolist(), strict=True)), Fraction(0))
    for source, matrix in zip(features.sources, features.matrices, strict=True):
        image = source_interval(problem.program, source, box, layers)
        for number in matrix[used].any(0).nonzero().squeeze(1).tolist():
            column = matrix[used, number].tolist()
            factor = sum((w * Fraction(m) for w, m in zip(factors, column, strict=True)), Fraction(0))
            end = float((image.lower if factor > 0 else image.upper)[0, number])
            if factor and not math.isfinite(end):
                return -math.inf
            total += factor * Fraction(end) if factor else 0
    return total


def by_exact_leaves(task: SearchTask, root: RootBounds) -> SearchResult | None:
    """Split all phases and decide the leaves in rational arithmetic; None where that is not tried, or not done in time.

    It is tried where the least value of an atom may be zero: of a strict one, or of any where all inputs are fixed, so
    that no split makes bounds better. A certificate cannot state such a proof.
    """
    original = task.original
    if original is None or task.settings.certifiable:
        return None
    problem = original.problem.with_cases(open_cases(root).cpu())
    may_touch = not problem.varying_inputs or bool(problem.strict_atoms[problem.rows].any())
    if not may_touch or not worth_deciding(problem):
        return None
    clock = task.clock.part(tuned().exact.time_share)
    try:
        search = _search(problem, task, clock)
        outcome = None if search is None else branch_and_bound(search, Budget(clock, original.accept, task.observer))
    except OutOfTime:
        task.clock.check()
        return None
    if search is None or outcome is None:
        return None
    task.spent(search.progress.bounded, search.progress.depth)
    return SearchResult(outcome.witness, outcome.proved, "exact-leaves", outcome.reason)


def _search(problem: Problem, task: SearchTask, clock: Clock) -> PhaseFrontier | None:
    """A search over phases, whose leaves are decided exactly, unless there are many neurons to split."""
    root = root_bounds(problem, clock, silent)  # those of the network as it was compiled have been told of already
    unstable = unstable_neurons(problem.program, root.bounds).any(0).nonzero().squeeze(1)
    if len(unstable) > tuned().exact.most_unstable:
        return None
    space = PhaseSpace(problem, root.bounds, unstable, exact=ExactLeaves(problem).decide)
    frontier = root_domains(space, open_cases(root), root.multipliers.select(open_cases(root)),
                            root.lower[open_cases(root)])  # fmt: skip
    return PhaseFrontier(
        open=frontier,
        batch=largest_batch(problem.program, task.settings.batch),
        max_domains=task.settings.max_domains,
        space=space,
        bounding=PhaseBounding(Schedule(task.settings.beta_iterations, Polyak())),
        most=most_waiting(len(frontier), frontier.bytes_each, frontier.lower.device),
    )


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
