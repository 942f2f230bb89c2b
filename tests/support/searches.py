"""Searches over phases and over boxes that take hundreds of domains."""

from __future__ import annotations

import torch
from distance import space_of
from torch import nn

from toolkit.bounds.dual_ascent import Schedule
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Binding, Problem, compile_problem
from toolkit.run.clock import Clock
from toolkit.search.input_split import BoxSearch, BoxSearchPlan
from toolkit.search.relu_split import PhaseSearch
from toolkit.search.relu_split_plan import PhaseSearchPlan
from toolkit.search.root import open_cases, root_bounds

MANY = 100_000


def random_problem(margin: float, inputs: int, hidden: int) -> Problem:
    """Whether a random network gets below its least sampled value less a margin."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
    ).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    box = [f"(declare-const X_{i} Real) (assert (>= X_{i} -1.0)) (assert (<= X_{i} 1.0))" for i in range(inputs)]
    samples = 2 * torch.rand(100_000, inputs, generator=generator, dtype=torch.float64) - 1
    below = float(network(samples).detach().min()) - margin
    query = parse_query(f"{' '.join(box)} (declare-const Y_0 Real) (assert (<= Y_0 {below}))")
    return compile_problem(query, {query.networks[0].name: Binding(network, ((1, inputs),), (torch.float64,))})


def phase_search(satisfiable: bool = False, max_domains: int = MANY) -> PhaseSearch:
    """A search over phases."""
    problem = random_problem(-1.0 if satisfiable else 6.0, inputs=4, hidden=24)
    return PhaseSearch(*space_of(problem), PhaseSearchPlan(Schedule(2), 16, max_domains, candidates=1), 16, MANY)


def box_search(satisfiable: bool = False, max_domains: int = MANY) -> BoxSearch:
    """A search over boxes."""
    problem = random_problem(-1.0 if satisfiable else 20.0, inputs=5, hidden=48)
    clock = Clock.started(60)
    with torch.no_grad():
        root = root_bounds(problem, clock, lambda event: None)
        return BoxSearch.begun(problem, root, open_cases(root), BoxSearchPlan(16, 1, max_domains), clock)
