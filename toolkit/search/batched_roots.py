"""Root bounds of many queries about one network: their boxes and cases are rows of one batch.

What a small network costs is mostly the calls themselves, which a batch shares; on a GPU that holds for large ones too.
Each query gets the bounds that it would get alone, up to rounding, and with the same allowances for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from toolkit.bounds.bounder import NeuronQuestion, Stage, cheapest
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program
from toolkit.problem.stack_problems import places, stacked
from toolkit.run.clock import Clock
from toolkit.search.batch_size import largest_batch
from toolkit.search.root import RootBounds, first_bounds, root_of
from toolkit.tuning import tuned


def boxes_at_once(program: Program) -> int:
    """How many boxes are bounded together."""
    limits = tuned().roots
    busy = max(1, limits.batch_cost // max(1, program.cost))
    wanted = limits.most_boxes if program.device.type == "cuda" else busy
    return min(wanted, largest_batch(program, limits.most_boxes))


def joint_roots(problems: Sequence[Problem], clock: Clock) -> list[RootBounds]:
    """Root bounds of problems of one program, each with one box and K atoms a case. Raises OutOfTime."""
    whole = stacked(problems)
    question = replace(NeuronQuestion.of_problem(whole, clock.check), alike=True)
    bounder = cheapest(Stage.FIRST, question)
    bounds = None if bounder is None else bounder.bound(question)
    assert bounder is not None and bounds is not None, "CROWN suits every program"
    lower, multipliers = first_bounds(whole, bounds, clock)
    roots = []
    for problem, (regions, cases) in zip(problems, places(problems), strict=True):
        own = bounds.select(regions)
        alone = question.known.select(regions), own, lower[cases], multipliers.select(cases)
        roots.append(root_of(problem, *alone, bounder.name))
    return roots
