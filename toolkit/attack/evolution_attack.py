"""Looking for a witness without gradients, where few inputs vary.

A network is often next to flat far from its violations, or points the wrong way there: then gradients lead nowhere, but
the best of many random points still lie nearer to a violation than most. So populations evolve (an evolution strategy
with selection, Rechenberg 1973): the points of least loss stay, and the next ones are scattered about them ever more
closely, some of their coordinates at a time. Points that leave the box end on its sides, where violations often are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.attack.gradient_attack import accept_best, case_loss
from toolkit.problem.compile import Problem
from toolkit.run.budget import Budget
from toolkit.tuning import tuned


def evolve(problem: Problem, cases: Tensor, size: int, budget: Budget) -> bool:
    """Whether some point of the given cases ``(C,)`` was accepted as a witness. Raises OutOfTime.

    The population of each has up to ``size`` points, less where there are many or the network is large.
    """
    count, inputs = len(cases), problem.program.num_inputs
    plan = tuned().evolution
    each = plan.generations * max(1, problem.program.cost)
    affordable = min(tuned().gradients.most_points, plan.most_multiplications // each)
    size = min(size, affordable // max(1, count))
    if size < plan.least_population:
        return False
    case = cases.repeat_interleave(size)
    region = problem.region[case]
    lower, upper = (side[region].unflatten(0, (count, size)) for side in (problem.lower, problem.upper))
    generator = torch.Generator(device="cpu").manual_seed(budget.seed)

    def drawn(draw: Callable[..., Tensor]) -> Tensor:
        return draw(count, size, inputs, generator=generator, dtype=lower.dtype).to(lower.device)

    points = lower + drawn(torch.rand) * (upper - lower)
    parents, least = points[:, :0], lower[:, :0, 0]
    for generation in range(plan.generations):
        budget.clock.check()
        flat = points.flatten(0, 1)
        loss = case_loss(problem, flat, case)
        if accept_best(flat, loss, region, budget.accept):
            return True
        parents, least = _fittest(torch.cat([parents, points], 1), torch.cat([least, loss.view(count, size)], 1))
        chosen = torch.randint(parents.shape[1], (count, size, 1), generator=generator).to(lower.device)
        deviation = plan.first_deviation * plan.deviation_decay**generation
        step = deviation * (drawn(torch.rand) < plan.mutated_share) * drawn(torch.randn)
        points = parents.gather(1, chosen.expand(-1, -1, inputs)) + step * (upper - lower)
        points = torch.minimum(torch.maximum(points, lower), upper)
    return False


def _fittest(points: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """The points of least loss of each population, ``(C, P, n)`` and ``(C, P)``; NaN is no loss."""
    loss = loss.nan_to_num(nan=torch.inf)
    least, index = loss.topk(min(tuned().evolution.parents, loss.shape[1]), 1, largest=False)
    return points.gather(1, index.unsqueeze(2).expand(-1, -1, points.shape[2])), least
