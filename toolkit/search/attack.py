"""Looking for a witness by gradient descent on the query's disjunctive normal form.

The loss of a case is the largest of its atoms: at most zero exactly at a witness. Signed steps with decaying size from
many random starts (projected gradient descent, Madry et al. 2018), for many cases at once. Candidates are only that:
`sat` is answered after onnxruntime has replayed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from toolkit.bounds.relaxations import RELAXATIONS
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.search.clock import Clock

Accept = Callable[[Tensor, int], bool]
"""Replays a candidate input, ``(n,)``, of a region; true when it is a witness."""

MAX_POINTS = 4096
"""Most points moved at once."""


def forward(program: Program, points: Tensor) -> Tensor:
    """Features ``(B, F)`` of input points ``(B, n)``."""
    values: dict[int, Tensor] = {INPUT: points}
    for number, layer in enumerate(program.layers):
        z = layer.affine.apply([values[source] for source in layer.affine.sources])
        values[number] = RELAXATIONS[layer.op].function(z)
    return program.features.apply([values[source] for source in program.features.sources])


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
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            loss = case_loss(problem, points, case)
            (gradient,) = torch.autograd.grad(loss.sum(), points)
        yield points.detach(), loss.detach()
        points = torch.minimum(torch.maximum(points.detach() - size * gradient.sign(), lower), upper)
        size = size * 0.93


def attack(problem: Problem, cases: Tensor, restarts: int, steps: int, seed: int, clock: Clock, accept: Accept) -> bool:
    """Whether some point of the given cases was accepted as a witness.

    ``accept`` replays one candidate, shape ``(n,)``, of a region. The search ends with the first accepted one.
    """
    if restarts == 0 or not len(cases):
        return False
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for part in cases.repeat(restarts)[: MAX_POINTS * 4].split(MAX_POINTS):
        lower, upper = problem.lower[problem.region[part]], problem.upper[problem.region[part]]
        random = torch.rand(lower.shape, generator=generator, dtype=lower.dtype).to(lower.device)
        for points, loss in descend(problem, part, lower + random * (upper - lower), steps, clock):
            if accept_best(points, loss, problem.region[part], accept):
                return True
    return False


def accept_best(points: Tensor, loss: Tensor, region: Tensor, accept: Accept, tries: int = 2) -> bool:
    """Replay the few best candidates whose loss is at most zero."""
    promising = (loss <= 0).nonzero().squeeze(1)
    if not len(promising):
        return False
    best = promising[loss[promising].argsort()[:tries]]
    return any(accept(points[index], int(region[index])) for index in best)
