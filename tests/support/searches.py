"""Searches over phases and over boxes that take hundreds of domains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from distance import space_of
from torch import nn

from toolkit.bounds.dual_ascent import Schedule
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Binding, Problem, compile_problem
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.search.box_frontier import BoxFrontier, root_boxes
from toolkit.search.branching import RULES, BranchingRule
from toolkit.search.input_domains import BoxStack
from toolkit.search.loop import begin
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace
from toolkit.search.phase_frontier import PhaseBounding, PhaseFrontier
from toolkit.search.root import RootBounds, open_cases, root_bounds

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


def phases_of(
    problem: Problem, steps: int, batch: int = 16, max_domains: int = MANY, most: int = MANY
) -> PhaseFrontier:
    """All phases of a problem, of which the neuron with the best score is split."""
    space, domains = space_of(problem)
    return phases(space, domains, steps, batch, max_domains, most)


def phases(
    space: PhaseSpace, domains: PhaseDomains, steps: int, batch: int, max_domains: int = MANY, most: int = MANY
) -> PhaseFrontier:
    """Some domains, of which the neuron with the best score is split."""
    bounding = PhaseBounding(Schedule(steps), BranchingRule(RULES["chord"].score, candidates=1))
    return PhaseFrontier(open=domains, batch=batch, max_domains=max_domains, space=space, bounding=bounding, most=most)


@dataclass(frozen=True)
class BoxOptions:
    """How boxes are searched."""

    batch: int
    fill: int
    max_domains: int = MANY
    shared: bool = False


def boxes_of(problem: Problem, root: RootBounds, options: BoxOptions) -> BoxFrontier:
    """The boxes of a problem's open cases."""
    return BoxFrontier(
        open=BoxStack((root_boxes(problem, root, open_cases(root)),)),
        batch=options.batch,
        max_domains=options.max_domains,
        problem=problem,
        fill=options.fill,
        shared=options.shared,
    )


def phase_search(satisfiable: bool = False, max_domains: int = MANY) -> PhaseFrontier:
    """A search over phases."""
    return phases_of(random_problem(-1.0 if satisfiable else 6.0, inputs=4, hidden=24), 2, max_domains=max_domains)


def box_search(satisfiable: bool = False, max_domains: int = MANY) -> BoxFrontier:
    """A search over boxes."""
    problem = random_problem(-1.0 if satisfiable else 20.0, inputs=5, hidden=48)
    clock = Clock.started(60)
    with torch.no_grad():
        root = root_bounds(problem, clock, lambda event: None)
        search = boxes_of(problem, root, BoxOptions(16, 1, max_domains))
        begin(search, Budget(clock, lambda point, region: False))
        return search
