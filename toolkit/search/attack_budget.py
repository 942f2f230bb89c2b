"""How hard, and for how long, witnesses are looked for: by gradients, and by populations where few inputs vary."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from toolkit.attack.evolution_attack import evolve
from toolkit.attack.gradient_attack import attack
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import PhaseBegun
from toolkit.search.search_task import SearchTask
from toolkit.tuning import tuned

SEED_STRIDE = 1_000_003
"""Distance of the seeds of one attack from those of another."""


def attack_first(task: SearchTask) -> bool | None:
    """The first part of the attack, on all cases of a network whose root bounds will take long; None of others."""
    if task.problem.program.cost * task.problem.program.num_neurons < tuned().attack.first_cost:
        return None
    cases = torch.arange(task.problem.num_cases, device=task.problem.region.device)
    return attack_part(task, cases, tuned().attack.first_restarts_share)


def attack_part(task: SearchTask, cases: Tensor, part: float) -> bool:
    """Part of the settings' restarts, for a share of the time that is left; parts of a query share it."""
    return _restart(task, cases, part, task.clock.part(tuned().attack.time_share * task.share), round(10 * part))


def attack_on(task: SearchTask, cases: Tensor, number: int) -> bool:
    """Ever more restarts, for a share of the time that was spent so far: of small networks these are many.

    Attacks with different numbers, and those before, have starts of their own.
    """
    clock = task.clock.soon(tuned().attack.time_share * task.clock.elapsed)
    again = 0
    while task.settings.attack_restarts and clock.left > 0:
        if _restart(
            task,
            cases,
            min(2 ** (again + 1), tuned().attack.most_restart_multiples),
            clock,
            SEED_STRIDE * (number + 1) + again,
        ):
            return True
        again += 1
    return False


def _restart(task: SearchTask, cases: Tensor, part: float, clock: Clock, seed: int) -> bool:
    """Part of the settings' restarts for each of up to so many cases, less where there are more, in all too."""
    settings, budget = task.settings, replace(task.budget, clock=clock, seed=task.settings.seed + seed)
    share = min(1.0, tuned().attack.most_full_cases / max(1, len(cases)))
    restarts = math.ceil(part * share**2 * settings.attack_restarts)
    steps = math.ceil(share * settings.attack_steps)
    task.observer(PhaseBegun("attack by gradients"))
    try:
        if attack(task.problem, cases, restarts, steps, budget):
            return True
        if not restarts or not 0 < task.problem.varying_inputs <= tuned().attack.most_evolving_inputs:
            return False
        return evolve(task.problem, cases, round(part * tuned().attack.population), budget)
    except OutOfTime:
        return False
