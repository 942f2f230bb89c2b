"""Leaves in which every ReLU is fixed: there the network is linear, and a linear program decides them exactly.

The program minimises the largest atom over the leaf's polytope. Its dual solution gives the multipliers of a bound of
our own, so that a leaf is closed by the same kind of proof as every other domain; its primal solution is a candidate
witness. The solver itself is trusted with neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from toolkit.bounds.ascent import evaluate, relax
from toolkit.bounds.backward import Functional, backward, functional, layer_lines
from toolkit.bounds.state import Domain, Multipliers, onto_simplex
from toolkit.problem.program import Program
from toolkit.search.attack import Accept
from toolkit.search.clock import Clock
from toolkit.search.domains import Domains, Space, expand, proved


@dataclass(frozen=True)
class Leaves:
    """What became of some leaves: a witness was accepted, or how many stay undecided."""

    witness: bool
    undecided: int


def close_leaves(space: Space, leaves: Domains, accept: Accept, clock: Clock) -> Leaves:
    """Decide leaves one by one; they are rare."""
    undecided = 0
    for leaf in leaves.parts(1):
        clock.check()
        closed, candidate = _decide(space, leaf)
        if closed:
            continue
        if candidate is not None and accept(candidate, int(space.problem.region[leaf.case[0]])):
            return Leaves(True, undecided)
        undecided += 1
    return Leaves(False, undecided)


def _decide(space: Space, leaf: Domains) -> tuple[bool, Tensor | None]:
    """Whether the leaf is proved, else the point of it where the atoms are smallest."""
    program = space.problem.program
    domain, start = expand(space, leaf)
    domain = replace(domain, phase=implied_phases(space, domain))
    split = domain.phase[0].nonzero().squeeze(1)
    solution = _minimise(program, domain, split)
    if solution is None:
        return False, None
    beta = torch.zeros_like(start.beta)
    beta[0, split] = torch.as_tensor(solution.beta, dtype=beta.dtype, device=beta.device).clamp(min=0)
    weight = torch.as_tensor(solution.weight, dtype=beta.dtype, device=beta.device).unsqueeze(0)
    multipliers = Multipliers(start.alpha, beta, onto_simplex(weight))
    bound = evaluate(program, relax(program, domain), multipliers).bound
    point = torch.as_tensor(solution.point, dtype=beta.dtype, device=beta.device)
    return bool(proved(bound.lower)), point


def implied_phases(space: Space, domain: Domain) -> Tensor:
    """The phases of split neurons and of those that narrower bounds made stable, ``(B, num_neurons)`` int8.

    Such bounds hold at violations, not at every point of the domain, so that what they say is a constraint too.
    """
    phase = space.of(domain.phase)
    active, inactive = space.of(domain.bounds.lower) >= 0, space.of(domain.bounds.upper) <= 0
    implied = active.to(phase.dtype) - (inactive & ~active).to(phase.dtype)
    return space.over(domain.phase, torch.where(phase != 0, phase, implied))


@dataclass(frozen=True)
class Solution:
    """Optimum of the leaf's linear program: point, multipliers of the phases and of the atoms."""

    point: np.ndarray
    beta: np.ndarray
    weight: np.ndarray


def _minimise(program: Program, domain: Domain, split: Tensor) -> Solution | None:
    """min t subject to atoms(x) <= t, phase z(x) >= 0, x in the box; None when the solver gives up.

    An infeasible leaf (no input has these phases) is made feasible by one slack on all phase constraints, whose price
    is high enough to give the multipliers of a proof.
    """
    from scipy.optimize import linprog  # half a second that most queries need not pay

    phases, phase_offset = _linear_rows(program, domain, split)
    atoms, atom_offset = _linear_atoms(program, domain)
    count, rows, conjuncts = program.num_inputs, len(split), len(atom_offset)
    price = 1e4
    # Variables: x, t, slack.  -phase z - slack <= 0  and  atom - t <= 0.
    upper_rows = np.block([[-phases, np.zeros((rows, 1)), -np.ones((rows, 1))],
                           [atoms, -np.ones((conjuncts, 1)), np.zeros((conjuncts, 1))]])  # fmt: skip
    limits = np.concatenate([phase_offset, -atom_offset])
    if not (np.isfinite(upper_rows).all() and np.isfinite(limits).all()):
        return None
    box = np.stack([_array(domain.box.lower[0]), _array(domain.box.upper[0])], 1)
    ranges = [*map(tuple, box), (None, None), (0, None)]
    result = linprog([*np.zeros(count), 1.0, price], A_ub=upper_rows, b_ub=limits, bounds=ranges, method="highs")
    if not result.success:
        return None
    duals = np.maximum(-result.ineqlin.marginals, 0)
    return Solution(result.x[:count], duals[:rows], duals[rows:])


def _linear_rows(program: Program, domain: Domain, split: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """phase * z of the split neurons as linear functions of the input: the lines of a leaf are exact."""
    lines = layer_lines(program, domain.bounds)
    rows, offsets = [np.zeros((0, program.num_inputs))], [np.zeros(0)]
    for layer in program.layers:
        mine = split[(split >= layer.start) & (split < layer.stop)] - layer.start
        if not len(mine):
            continue
        start = Functional(layer.affine.sources, layer.affine.select(mine), layer.affine.bias[mine].unsqueeze(0))
        linear = backward(program, start, lines)
        sign = domain.phase[0, mine + layer.start].to(program.dtype)
        rows.append(_array(linear.coefficients[0] * sign.unsqueeze(1)))
        offsets.append(_array(linear.offset[0] * sign))
    return np.concatenate(rows), np.concatenate(offsets)


def _linear_atoms(program: Program, domain: Domain) -> tuple[np.ndarray, np.ndarray]:
    """The case's atoms as linear functions of the input."""
    start = functional(program.features, domain.atoms, domain.constants)
    linear = backward(program, start, layer_lines(program, domain.bounds))
    return _array(linear.coefficients[0]), _array(linear.offset[0])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().cpu().numpy()
