"""Looking for a witness by gradient descent on the query's disjunctive normal form.

The loss of a case is the largest of its atoms: at most zero exactly at a witness. Signed steps with decaying size from
many starts (projected gradient descent, Madry et al. 2018), for many cases at once. Every second start is random, the
others are moved to where outputs differ first (output diversified sampling, Tashiro et al., NeurIPS 2020): random
points of a box may all lead to the same minimum. Candidates are only that: `sat` is answered after onnxruntime has
replayed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from toolkit.ops import ELEMENTWISE
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.run.events import AttackTried
from toolkit.tuning import tuned

Accept = Callable[[Tensor, int], bool]
"""Replays a candidate input, ``(n,)``, of a region; true when it is a witness."""


def forward(program: Program, points: Tensor) -> Tensor:
    """Features ``(B, F)`` of input points ``(B, n)``."""
    values: dict[int, Tensor] = {INPUT: points}
    for number, layer in enumerate(program.layers):
        z = layer.affine.apply([values[source] for source in layer.affine.sources])
        values[number] = activation(layer.op, z)
    return program.features.apply([values[source] for source in program.features.sources])


OVERFLOW_SUMMANDS = 1e6
"""Values of one operator that may be added up without overflow."""


def activation(op: str, z: Tensor) -> Tensor:
    """Values ``(B, N)`` of an operator, so that sums of them are finite, with gradients that lead somewhere."""
    largest = torch.finfo(z.dtype).max / OVERFLOW_SUMMANDS
    operator = ELEMENTWISE[op]
    value = operator.relaxation.function(z).clamp(-largest, largest)
    if operator.surrogate is None or not z.requires_grad:
        return value
    way = operator.surrogate(z, value.detach())
    return value.detach() + (way - way.detach())


def case_loss(problem: Problem, points: Tensor, case: Tensor) -> Tensor:
    """The largest atom of its case at each point, ``(B,)``: at most zero exactly where the case is satisfied."""
    atoms = torch.einsum("bkf,bf->bk", problem.weights[problem.rows[case]], forward(problem.program, points))
    return (atoms + problem.offsets[problem.rows[case]]).amax(1)


def descend(
    problem: Problem, case: Tensor, points: Tensor, steps: int, clock: Clock
) -> Iterator[tuple[Tensor, Tensor]]:
    """Move points downhill inside their boxes; yields ``(points, losses)`` before every step."""
    lower, upper = problem.lower[problem.region[case]], problem.upper[problem.region[case]]
    size = (upper - lower) / 4
    for _ in range(steps + 1):
        clock.check()
        loss, gradient = _gradient(points, lambda at: case_loss(problem, at, case))
        yield points, loss
        points = torch.minimum(torch.maximum(points - size * gradient.sign(), lower), upper)
        size = size * 0.93


def _gradient(points: Tensor, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Losses ``(B,)`` of points ``(B, n)``, and their gradients."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        loss = loss_of(points)
        (gradient,) = torch.autograd.grad(loss.sum(), points)
    return loss.detach(), gradient


def diversify(problem: Problem, case: Tensor, points: Tensor, directions: Tensor, clock: Clock) -> Tensor:
    """Points ``(B, n)`` moved a few steps inside their boxes to where the features grow along directions ``(B, F)``."""
    lower, upper = problem.lower[problem.region[case]], problem.upper[problem.region[case]]
    for _ in range(tuned().gradients.diversifying_steps):
        clock.check()
        _, gradient = _gradient(points, lambda at: (forward(problem.program, at) * directions).sum(1))
        points = torch.minimum(torch.maximum(points + (upper - lower) / 2 * gradient.sign(), lower), upper)
    return points


def attack(problem: Problem, cases: Tensor, restarts: int, steps: int, budget: Budget) -> bool:
    """Whether some point of the given cases was accepted as a witness: the first ends the search. Raises OutOfTime.

    Observers hear where points end that are none.
    """
    if restarts == 0 or not len(cases):
        return False
    generator = torch.Generator(device="cpu").manual_seed(budget.seed)
    case = cases.repeat(restarts)[: tuned().gradients.most_points * 4]
    second = torch.arange(len(case), device=case.device) // len(cases) % 2
    size = points_at_once(problem.program)
    for part, moved in zip(case.split(size), second.split(size), strict=True):
        start = _starts(problem, part, moved, generator, budget.clock)
        for points, loss in descend(problem, part, start, steps, budget.clock):
            if accept_best(points, loss, problem.region[part], budget.accept):
                return True
        budget.observer(AttackTried(part, loss))
    return False


def points_at_once(program: Program) -> int:
    """Points that are moved together: of a large network few, which then come to the end of their way in time."""
    limits = tuned().gradients
    return min(limits.most_points, max(limits.least_points, limits.most_multiplications // max(1, program.cost)))


def _starts(problem: Problem, case: Tensor, moved: Tensor, generator: torch.Generator, clock: Clock) -> Tensor:
    """Random points of the cases' boxes, ``(B, n)``; those where ``moved`` is 1 are diversified."""
    lower, upper = problem.lower[problem.region[case]], problem.upper[problem.region[case]]

    def random(width: int) -> Tensor:
        return torch.rand(len(case), width, generator=generator, dtype=lower.dtype).to(lower.device)

    points = lower + random(problem.program.num_inputs) * (upper - lower)
    if not moved.any():
        return points
    directions = (2 * random(problem.program.features.size) - 1) * moved.unsqueeze(1)
    return diversify(problem, case, points, directions, clock)


def accept_best(points: Tensor, loss: Tensor, region: Tensor, accept: Accept, tries: int = 2) -> bool:
    """Replay the few best candidates whose loss is at most zero."""
    promising = (loss <= 0).nonzero().squeeze(1)
    if not len(promising):
        return False
    best = promising[loss[promising].argsort()[:tries]]
    return any(accept(points[index], int(region[index])) for index in best)
