"""A network whose least values are known, as a problem and as the first domains of a search over phases."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Multipliers
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Binding, Problem, compile_problem
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, root_domains

TEXT = """
(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (>= X_0 -1.0))(assert (<= X_0 1.0))(assert (>= X_1 -1.0))(assert (<= X_1 1.0))
(assert (or (<= Y_0 {0}) (and (<= Y_0 {1}) (>= X_0 0.5))))
"""


class Distance(nn.Module):
    """|x0| + |x1| + max(0, x0 + x1), with five ReLUs: at least 0 everywhere, and at least 1 where x0 >= 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        both = torch.relu(torch.cat([x, -x, x.sum(1, keepdim=True)], 1))
        return both.sum(1, keepdim=True)


def problem_below(first: float, second: float) -> Problem:
    """Whether the network is at most ``first`` somewhere, or at most ``second`` where x0 >= 0.5."""
    query = parse_query(TEXT.format(first, second))
    return compile_problem(query, {query.networks[0].name: Binding(Distance(), ((1, 2),), (torch.float32,))})


def unbounded_space(first: float, second: float) -> tuple[PhaseSpace, PhaseDomains]:
    """The first domains of the question whether the network gets so low."""
    return space_of(problem_below(first, second))


def space_of(problem: Problem) -> tuple[PhaseSpace, PhaseDomains]:
    """Root domains of all cases with CROWN bounds of the neurons and no optimised multipliers."""
    cases = problem.num_cases
    root = crown_bounds(problem.program, Bounds(problem.lower, problem.upper))
    space = PhaseSpace(problem, root, unstable_neurons(problem.program, root).any(0).nonzero().squeeze(1))
    zeros = torch.zeros(cases, problem.program.num_neurons, dtype=torch.float64)
    weight = torch.full((cases, problem.rows.shape[1]), 1 / problem.rows.shape[1], dtype=torch.float64)
    lower = torch.full((cases,), -torch.inf, dtype=torch.float64)
    return space, root_domains(space, torch.arange(cases), Multipliers(zeros, zeros, weight), lower)
