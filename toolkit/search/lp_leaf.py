"""Leaves in which every ReLU is fixed: there the network is linear, and a linear program decides them exactly.

The program minimises the largest atom over the leaf's polytope. Its dual solution gives the multipliers of a bound of
our own, so that a leaf is closed by the same kind of proof as every other domain; its primal solution is a candidate
witness. The solver itself is trusted with neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.bounds.backward import backward, functional, layer_lines, of_rows
from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.optimised_bound import Domain, Multipliers
from toolkit.problem.affine import in_numpy
from toolkit.problem.program import Program
from toolkit.run.budget import Budget
from toolkit.run.events import LeafClosed
from toolkit.search.farkas import TOLERANCES
from toolkit.search.loop import LeafOutcome
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, expand, in_double, proved


@dataclass(frozen=True)
class LeafDecision:
    """A decided leaf: how it was refuted, with multipliers of a bound where that proves it; or open, with a point."""

    refuted_by: str = ""
    multipliers: Multipliers | None = None
    point: Tensor | None = None


def close_leaves(space: PhaseSpace, leaves: PhaseDomains, budget: Budget) -> LeafOutcome:
    """Decide leaves one by one; they are rare."""
    undecided = 0
    for leaf in leaves.parts(1):
        budget.clock.check()
        found = _decide(space, leaf)
        if found.refuted_by:
            budget.observer(LeafClosed(leaf, found.refuted_by, found.multipliers))
            continue
        if found.point is not None and budget.accept(found.point, int(space.problem.region[leaf.case[0]])):
            return LeafOutcome(True, undecided)
        undecided += 1
    return LeafOutcome(False, undecided)


def _decide(space: PhaseSpace, leaf: PhaseDomains) -> LeafDecision:
    domain, start = expand(space, leaf)
    domain = replace(domain, phase=implied_phases(space, domain))
    found = _by_linear_program(space, leaf.case, domain, start)
    if found.refuted_by or space.exact is None:
        return found
    closed, point = space.exact(int(leaf.case[0]), domain)
    if closed:
        return LeafDecision("rational arithmetic")
    return found if point is None else LeafDecision(point=point)


def _by_linear_program(space: PhaseSpace, case: Tensor, domain: Domain, start: Multipliers) -> LeafDecision:
    """Multipliers from a linear program if they prove a leaf, else the point where the atoms are smallest."""
    program = space.problem.program
    split = domain.phase[0].nonzero().squeeze(1)
    solution = _solve(program, domain, split)
    if solution is None:
        return LeafDecision()
    like = start.beta
    beta = torch.zeros_like(like)
    beta[0, split] = torch.as_tensor(solution.beta, dtype=like.dtype, device=like.device)
    weight = torch.as_tensor(solution.weight, dtype=like.dtype, device=like.device).unsqueeze(0)
    multipliers = Multipliers(start.alpha, beta, weight)
    bound = evaluate(program, relax(program, domain), multipliers).bound
    if bool(proved(in_double(space, case, domain, bound).lower)):
        return LeafDecision("linear program", multipliers)
    point = None if solution.point is None else torch.as_tensor(solution.point, dtype=like.dtype, device=like.device)
    return LeafDecision(point=point)


def implied_phases(space: PhaseSpace, domain: Domain) -> Tensor:
    """The phases of split neurons and of those that narrower bounds made stable, ``(B, num_neurons)`` int8.

    Such bounds hold at violations, not at every point of the domain, so that what they say is a constraint too.
    """
    phase = space.of(domain.phase)
    active, inactive = space.of(domain.bounds.lower) >= 0, space.of(domain.bounds.upper) <= 0
    implied = active.to(phase.dtype) - (inactive & ~active).to(phase.dtype)
    return space.over(domain.phase, torch.where(phase != 0, phase, implied))


@dataclass(frozen=True)
class LpSolution:
    """The solution of a leaf's linear program: multipliers of the phases and of the atoms, and the optimal point."""

    beta: np.ndarray
    weight: np.ndarray
    """Multipliers of the atoms, non-negative and of sum one, ``(K,)``."""
    point: np.ndarray | None
    """Input at the optimum, ``(n,)``; None where no input has the leaf's phases."""


def _solve(program: Program, domain: Domain, split: Tensor) -> LpSolution | None:
    """min t subject to atoms(x) <= t, phase z(x) >= 0, x in the box; None when the solver gives up.

    A leaf that no input has is refuted by its phases alone: by how much some of them must be violated, at least.
    """
    lower, upper = in_numpy(domain.box.lower[0]), in_numpy(domain.box.upper[0])
    phases = LeafRows.over_box(*_linear_rows(program, domain, split), lower, upper)
    atoms = LeafRows.over_box(*_linear_atoms(program, domain), lower, upper)
    if not (phases.finite and atoms.finite):
        return None
    result = _minimise_largest(atoms, phases)
    if result.success:
        beta, weight = _duals(result, phases, atoms)
        total = weight.sum()
        return LpSolution(beta / total, weight / total, (lower + upper) / 2 + result.x[:-1] * (upper - lower) / 2)
    result = _minimise_largest(phases.negated, None) if result.status == INFEASIBLE and len(split) else result
    if not result.success or not result.fun > 0:
        return None
    beta, _ = _duals(result, phases, None)
    weight = np.eye(1, len(atoms.scale))[0]
    # The phases' share of the bound has to outweigh the atom's, however low that may be.
    return LpSolution(beta * (1 + 2 * atoms.scale[0]) / result.fun, weight, None)


INFEASIBLE = 2
"""The solver's status of a program without any solution."""


@dataclass(frozen=True)
class LeafRows:
    """Linear functions over a box, in coordinates in which it is [-1, 1]^n, each divided by its ``scale``.

    So their values there are at most one, whatever the units of weights and inputs are.
    """

    coefficients: np.ndarray
    constant: np.ndarray
    scale: np.ndarray

    @classmethod
    def over_box(cls, coefficients: np.ndarray, constant: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> LeafRows:
        """Functions ``coefficients @ x + constant``, ``(R, n)`` and ``(R,)``."""
        moved, constant = coefficients * (upper - lower) / 2, constant + coefficients @ ((lower + upper) / 2)
        scale = np.abs(moved).sum(1) + np.abs(constant)
        scale = np.where(scale > 0, scale, 1.0)
        return cls(moved / scale[:, None], constant / scale, scale)

    @property
    def finite(self) -> bool:
        """Whether no number is infinite, or none."""
        return bool(np.isfinite(self.coefficients).all() and np.isfinite(self.constant).all())

    @property
    def negated(self) -> LeafRows:
        """The functions with the opposite sign."""
        return LeafRows(-self.coefficients, -self.constant, self.scale)


def _minimise_largest(relaxed: LeafRows, positive: LeafRows | None) -> Any:
    """The solver's result for ``min t: relaxed <= t, positive >= 0`` over [-1, 1]^n; the unknowns are u and t."""
    from scipy.optimize import linprog  # half a second that most queries need not pay

    table = np.column_stack([relaxed.coefficients, -np.ones(len(relaxed.scale))])
    limits = -relaxed.constant
    if positive is not None:
        hard = np.column_stack([-positive.coefficients, np.zeros(len(positive.scale))])
        table, limits = np.concatenate([hard, table]), np.concatenate([positive.constant, limits])
    count = table.shape[1] - 1
    cost, ranges = [*np.zeros(count), 1.0], [*[(-1.0, 1.0)] * count, (None, None)]
    return linprog(cost, A_ub=table, b_ub=limits, bounds=ranges, method="highs", options=TOLERANCES)


def _duals(result: Any, phases: LeafRows, atoms: LeafRows | None) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers of the phases, and of the atoms, in their own units."""
    duals = np.maximum(-result.ineqlin.marginals, 0)
    beta, weight = duals[: len(phases.scale)], duals[len(phases.scale) :]
    return beta / phases.scale, weight if atoms is None else weight / atoms.scale


def _linear_rows(program: Program, domain: Domain, split: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """phase * z of the split neurons as linear functions of the input: the lines of a leaf are exact."""
    lines = layer_lines(program, domain.bounds)
    rows, offsets = [np.zeros((0, program.num_inputs))], [np.zeros(0)]
    for layer in program.layers:
        mine = split[(split >= layer.start) & (split < layer.stop)] - layer.start
        if not len(mine):
            continue
        linear = backward(program, of_rows(layer.affine, mine, None), lines, None)
        sign = domain.phase[0, mine + layer.start].to(program.dtype)
        rows.append(in_numpy(linear.coefficients[0] * sign.unsqueeze(1)))
        offsets.append(in_numpy(linear.offset[0] * sign))
    return np.concatenate(rows), np.concatenate(offsets)


def _linear_atoms(program: Program, domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """The case's atoms as linear functions of the input."""
    start = functional(program.features, domain.atoms, domain.constants)
    linear = backward(program, start, layer_lines(program, domain.bounds), None)
    return in_numpy(linear.coefficients[0]), in_numpy(linear.offset[0])
